"""Whether what was learned may be promoted. "No change" always competes, and wins when in doubt. Pure.

All of these must hold, on votes that nothing was fitted to:

- `held_out`: on at least `LEAST` questions, the lower bound of ΔnDCG@10 is above 0;
- `without_top_user`, `without_top_document`: also without the one user, and without the one document,
  that the gain owes most to: a brigade of one, or votes for one document everywhere, decide nothing;
- `disjoint`: fitted without some documents, on questions about these, the lower bound is at least
  −`MARGIN`; `golden`: on the golden set, where there is one, too. Of fewer than `LEAST` questions the
  margin widens by √(LEAST / n), and the figures say so;
- `overlap`: of the first ten results, on average at least `OVERLAP` stay;
- `shuffled`: the gain exceeds what the same votes give with their thumbs dealt out at random, question
  by question (lower bound above 0), and in at least 19 of 20 deals.

Bounds are of 95 % intervals (`measures.bootstrap`). What is not guaranteed: that votes tell the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from services.embedder.learning.measures import Floats, Interval, bootstrap

__all__ = ["DEALS", "LEAST", "MARGIN", "OVERLAP", "Decision", "Evidence", "Paired", "judge", "no_loss"]

LEAST = 150
MARGIN = 0.005
OVERLAP = 0.7
DEALS = 19
"""Random deals with which the real votes compete: the fewest that allow p = .05."""


@dataclass(frozen=True, slots=True, eq=False)
class Paired:
    """nDCG@10 of the same questions before and after, each of shape (questions,).

    Attributes:
        weights: how much each question counts; None: all alike.
        users, documents: of each question, who voted and what for; empty: not known.
    """

    before: Floats
    after: Floats
    weights: Floats | None = None
    users: Sequence[str] = ()
    documents: Sequence[str] = ()

    def delta(self) -> Interval:
        return bootstrap(self.after - self.before, self.weights)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the gate sees.

    Attributes:
        overlap: shape (questions,): the share of the first ten results that stays.
        shuffled: shape (deals, questions): nDCG@10 of `held_out` when fitted to shuffled votes.
    """

    held_out: Paired
    overlap: Floats
    shuffled: Floats
    disjoint: Paired | None = None
    golden: Paired | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to promote; which conditions failed, in words; every figure, ready for JSON."""

    promote: bool
    reasons: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def judge(evidence: Evidence) -> Decision:
    """Weigh all conditions, also after one has failed: the report shows every figure."""
    held = evidence.held_out
    checks = {
        "held_out": _gain(held),
        "without_top_user": _without(held, held.users),
        "without_top_document": _without(held, held.documents),
        "disjoint": no_loss(evidence.disjoint),
        "golden": no_loss(evidence.golden),
        "overlap": _overlap(evidence.overlap),
        "shuffled": _shuffled(held, evidence.shuffled),
    }
    reasons = [f"{name}: {figures['why']}" for name, figures in checks.items() if not figures["passed"]]
    return Decision(not reasons, reasons, checks)


def _gain(paired: Paired) -> dict[str, Any]:
    delta = paired.delta()
    figures = _figures(paired, delta)
    if delta.n < LEAST:
        return figures | _fail(f"{delta.n} questions, and {LEAST} are needed")
    return figures | (_pass() if delta.low > 0 else _fail(f"ΔnDCG@10 {_words(delta)}, not surely above 0"))


def _without(paired: Paired, labels: Sequence[str]) -> dict[str, Any]:
    """The gain without the label that it owes most to."""
    if not labels:
        return {"measured": False} | _pass()
    names, at = np.unique(np.asarray(labels), return_inverse=True)
    weights = np.ones(len(at)) if paired.weights is None else paired.weights
    owed = np.bincount(at, weights * (paired.after - paired.before), minlength=len(names))
    rest = np.where(at == owed.argmax(), 0.0, weights)
    delta = bootstrap(paired.after - paired.before, rest)
    figures = {"measured": True, "delta": delta.public()}
    return figures | (_pass() if delta.low > 0 else _fail(f"without it ΔnDCG@10 {_words(delta)}"))


def no_loss(paired: Paired | None) -> dict[str, Any]:
    """Whether these questions are not surely worse off: `passed`, `why`, and the figures."""
    delta = paired.delta() if paired else None
    if paired is None or delta is None or delta.n == 0:
        return {"measured": False} | _pass()
    margin = MARGIN * max(1.0, (LEAST / delta.n) ** 0.5)
    figures = _figures(paired, delta) | {"measured": True, "margin": round(margin, 5)}
    figures["widened"] = delta.n < LEAST
    ok = delta.low >= -margin
    return figures | (_pass() if ok else _fail(f"ΔnDCG@10 {_words(delta)}, and −{margin:.3f} is allowed"))


def _overlap(overlap: Floats) -> dict[str, Any]:
    kept = bootstrap(overlap)
    ok = kept.n > 0 and kept.mean >= OVERLAP
    return {"kept": kept.public()} | (_pass() if ok else _fail(f"{kept.mean:.2f} of the first ten stay"))


def _shuffled(paired: Paired, shuffled: Floats) -> dict[str, Any]:
    deals = len(shuffled)
    if not deals or not len(paired.after):
        return {"deals": deals} | _fail("not measured")
    weights = np.ones(len(paired.after)) if paired.weights is None else paired.weights
    if not weights.sum():
        return {"deals": deals} | _fail("no vote has any weight")
    over = bootstrap(paired.after - shuffled.mean(0), weights)
    real = np.average(paired.after, weights=weights)
    better = int((np.average(shuffled, axis=1, weights=weights) >= real).sum())
    p = (1 + better) / (1 + deals)
    figures = {"deals": deals, "p": round(p, 4), "over_shuffled": over.public()}
    ok = over.low > 0 and p <= 0.05
    return figures | (_pass() if ok else _fail(f"shuffled votes do as well ({_words(over)}, p = {p:.2f})"))


def _figures(paired: Paired, delta: Interval) -> dict[str, Any]:
    return {
        "before": bootstrap(paired.before, paired.weights).public(),
        "after": bootstrap(paired.after, paired.weights).public(),
        "delta": delta.public(),
    }


def _words(interval: Interval) -> str:
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _pass() -> dict[str, Any]:
    return {"passed": True, "why": ""}


def _fail(why: str) -> dict[str, Any]:
    return {"passed": False, "why": why}
