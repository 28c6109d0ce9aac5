"""What every embedder does to its vectors. Pure."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Vectors", "unit"]

Vectors: TypeAlias = NDArray[np.float32]
"""Shape (texts, dimensions); every row has L2 length 1."""


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
