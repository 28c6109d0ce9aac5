"""What every embedder does to its texts. Pure."""

from __future__ import annotations

__all__ = ["SAMPLE", "encodable"]

SAMPLE = "ready?"
"""A text to try an embedder with."""


def encodable(text: str) -> str:
    """`text` without lone surrogates, which UTF-8 cannot carry."""
    return text.encode("utf-8", "replace").decode()
