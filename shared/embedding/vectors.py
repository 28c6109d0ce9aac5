"""What every embedder does to its texts and vectors. Pure."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["SAMPLE", "Vectors", "encodable", "unit"]

Vectors: TypeAlias = NDArray[np.float32]
"""Shape (texts, dimensions); every row has L2 length 1."""

SAMPLE = "ready?"
"""A text to try an embedder with."""


def unit(matrix: NDArray[Any]) -> Vectors:
    """The rows of `matrix` (n, d) at length 1.

    Raises:
        ValueError: a row is zero, or not finite.
    """
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise ValueError("a vector is zero or not finite")
    return np.asarray(matrix / lengths, dtype=np.float32)


def encodable(text: str) -> str:
    """`text` without lone surrogates, which UTF-8 cannot carry."""
    return text.encode("utf-8", "replace").decode()
