"""Processes of our own that do one task: what they may know."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["ROOT", "environment"]

ROOT = Path(__file__).parents[1]
"""The folder that `python -m shared.…` and `python -m services.…` run in."""


def environment() -> dict[str, str]:
    """What such a process may know: no token, no address of a database."""
    kept = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TMPDIR", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in kept if name in os.environ}
