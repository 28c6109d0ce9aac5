"""How the two halves of a search become one score. Pure.

    s = α · dense + (1 − α) · lexical
    dense = (cosine − baseline) / (1 − baseline)
    lexical = BM25 / max(best BM25 of any chunk, bound / 4)

This is the convex combination with one end of each scale fixed by theory: Bruch, Gai and Ingber, "An
Analysis of Fusion Functions for Hybrid Retrieval" (ACM TOIS 42, 2023), where BM25 is divided by the
best score, too, and a weight means the same in different collections; reciprocal rank fusion was
worse there, and here (KorQuAD's development questions: nDCG@10 .87, not .95). Two things are ours.

- *The quarter.* `bound` is what a chunk would score that is full of every term of the question, also
  of those that nobody wrote. A best chunk with less than a quarter of it shares mere crumbs with the
  question (another language, other words, a typing error), which must not count like a find: what
  lexical search cannot tell is left to the vectors.
- *The baseline*: the cosine of texts that have nothing to do with each other. It is near 0 in some
  models (USE: leave it at 0) and .7 in others, whose vectors crowd in a cone; without it, an even α
  would all but silence those.

What is guaranteed: a chunk's score depends on the question, the chunk and the generation, not on how
many results were asked for or which others are candidates. What is not: that scores of different
questions compare.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.embedding.vectors import Vectors

__all__ = ["CANDIDATES", "PRIOR", "Floats", "Fused", "fuse", "mean_cosine"]

PRIOR = 0.5
"""The weight α of the vectors before anything is learned."""

CANDIDATES = 100
"""Of each half, the best so many are candidates (50 or 200 have the same nDCG@10)."""

_CRUMBS = 0.25
"""Chosen on development questions only, plain ones and such with half, four fifths or nearly all of
their words made unknown: .2 or .3 does about as well; 0 costs .04 to .1 nDCG@10 with four fifths."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """What each candidate scores, and why; each of shape (candidates,).

    Attributes:
        score: α · dense + (1 − α) · lexical.
        dense: 1 for the same direction as the question, about 0 for an unrelated one, maybe less.
        lexical: 0 to 1.
    """

    score: Floats
    dense: Floats
    lexical: Floats


def fuse(
    cosine: NDArray[np.floating],
    bm25: NDArray[np.floating],
    *,
    best: float,
    bound: float,
    alpha: float = PRIOR,
    baseline: float = 0.0,
) -> Fused:
    """Score candidates, of which both halves must be known.

    Args:
        cosine: of question and chunk, shape (candidates,).
        bm25: of question and chunk, same shape and order.
        best: the best BM25 of any chunk for the question, as `Match.best`.
        bound: what no chunk can reach, as `Match.bound`.
        alpha: the weight of the vectors, 0 to 1.
        baseline: the cosine of unrelated texts under this model, as `mean_cosine` measures it; below 1.

    Raises:
        ValueError: shapes differ, or a number is out of its range.
    """
    if cosine.shape != bm25.shape:
        raise ValueError(f"{cosine.shape} cosines and {bm25.shape} lexical scores")
    if not (0 <= alpha <= 1 and baseline < 1):
        raise ValueError(f"alpha {alpha} is not within 0 and 1, or baseline {baseline} not below 1")
    scale = max(best, _CRUMBS * bound)
    dense = np.asarray((cosine - baseline) / (1 - baseline), np.float32)
    lexical = np.asarray(bm25 / scale if scale else np.zeros_like(bm25), np.float32)
    return Fused(np.asarray(alpha * dense + (1 - alpha) * lexical, np.float32), dense, lexical)


def mean_cosine(vectors: Vectors) -> float:
    """Of different rows of `vectors`, which must be two at least.

    Of a handful of unrelated sentences it is what `fuse` takes for a baseline. Of one collection's
    chunks it would be too high, for they have a subject in common.
    """
    count = len(vectors)
    return float((np.square(vectors.sum(axis=0)).sum() - count) / (count * (count - 1)))
