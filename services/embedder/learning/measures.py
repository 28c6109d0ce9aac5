"""How good rankings are, and how sure that is. Pure.

nDCG@k with gains as they are and the discount 1/log2(rank + 1): Järvelin and Kekäläinen, "Cumulated
gain-based evaluation of IR techniques" (ACM TOIS 20, 2002). Intervals: the percentile bootstrap over
questions, paired where two rankings answer the same ones (Efron and Tibshirani, 1993; for retrieval,
Sakai, "Evaluating evaluation metrics based on the bootstrap", SIGIR 2006).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MEASURES", "Floats", "Interval", "bootstrap", "by_rank", "measure", "mrr", "ndcg", "recall"]

Floats = NDArray[np.floating]

MEASURES = ("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr")

RESAMPLES = 2000
_CELLS = 1_000_000
"""Numbers drawn at once: 8 MB."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `n` questions and where it lies with 95 % confidence; all 0 where n is 0."""

    mean: float
    low: float
    high: float
    n: int

    def public(self) -> dict[str, float | int]:
        return {key: round(value, 5) for key, value in asdict(self).items()}


def by_rank(scores: Floats, gains: Floats, k: int = 10) -> tuple[Floats, Floats]:
    """The gains of the first `k` by score, and the best gains there are, both (questions, ≤ k).

    Args:
        scores: shape (questions, candidates); −inf where there is no candidate. Equal scores go by place.
        gains: same shape, not negative.
    """
    k = min(k, scores.shape[1])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(gains, order, 1), -np.sort(-gains, axis=1)[:, :k]


def ndcg(ranked: Floats, ideal: Floats) -> Floats:
    """nDCG of each question, 0 to 1, at as many ranks as there are; 0 where nothing could be gained.

    Args:
        ranked, ideal: gains by rank, shape (questions, k), as from `by_rank`.
    """
    discounts = 1 / np.log2(np.arange(2, ranked.shape[1] + 2))
    best = ideal @ discounts
    return np.asarray(np.divide(ranked @ discounts, best, out=np.zeros(len(best)), where=best > 0))


def recall(ranked: Floats, relevant: NDArray[np.integer], k: int) -> Floats:
    """Of each question's `relevant` chunks, the share among the first `k`; 0 where there is none."""
    return np.asarray((ranked[:, :k] > 0).sum(1) / np.maximum(relevant, 1))


def mrr(ranked: Floats) -> Floats:
    """1 / rank of the first relevant chunk of each question; 0 where none is among them."""
    hit = ranked > 0
    return np.where(hit.any(1), 1 / (hit.argmax(1) + 1.0), 0.0)


def measure(scores: Floats, gains: Floats) -> dict[str, Floats]:
    """Every one of `MEASURES` for every question."""
    ranked, ideal = by_rank(scores, gains)
    relevant = (gains > 0).sum(1)
    found = {f"recall@{k}": recall(ranked, relevant, k) for k in (1, 5, 10)}
    return {"ndcg@10": ndcg(ranked, ideal), **found, "mrr": mrr(ranked)}


def bootstrap(
    values: Floats, weights: Floats | None = None, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """The (weighted) mean of `values` with its 95 % percentile interval; for paired differences, give
    the differences. The same seed gives the same interval.

    Raises:
        ValueError: a weight is negative, or shapes differ.
    """
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    if weight.shape != values.shape or (weight < 0).any():
        raise ValueError("weights must be as many as values, and not negative")
    values, weight = values[weight > 0], weight[weight > 0]
    n = len(values)
    if n == 0:
        return Interval(0.0, 0.0, 0.0, 0)
    rng = np.random.default_rng(seed)
    weighted = values * weight
    means: list[Floats] = []
    step = max(1, _CELLS // n)
    for begin in range(0, resamples, step):
        drawn = rng.integers(0, n, (min(step, resamples - begin), n))
        means.append(weighted[drawn].sum(1) / weight[drawn].sum(1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(float(weighted.sum() / weight.sum()), float(low), float(high), n)
