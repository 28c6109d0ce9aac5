"""Whether what was learned may be promoted. "No change" always competes, and wins when in doubt. Pure.

All of these must hold, on votes that nothing was fitted to:

- `held_out`: on at least `LEAST` questions, the lower bound of ΔnDCG@10 is above 0;
- `without_top_user`, `without_top_document`: also without the one user, and without the one document,
  that the gain owes most to: a brigade of one, or votes for one document everywhere, decide nothing;
- `disjoint`: fitted without some documents, on questions about these, the lower bound is at least
  −`MARGIN`; `golden`: on the golden set, where there is one, too. Of fewer than `LEAST` questions the
  margin widens by √(LEAST / n), and the figures say so;
- `overlap`: of the first ten results, on average at least `OVERLAP` stay;
- `shuffled`: newer 👍 lie where what was fitted agrees with what users were shown, and newer 👎 where it
  does not, more than random thumbs would (`thumbs`; p ≤ `CHANCE`).

Bounds are of 95 % intervals (`measures.bootstrap`). What is not guaranteed: that votes tell the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from services.embedder.learning.measures import Floats, Interval, bootstrap
from services.embedder.learning.thumbs import Thumbs

__all__ = ["CHANCE", "LEAST", "MARGIN", "OVERLAP", "Decision", "Evidence", "Paired", "judge", "no_loss"]

LEAST = 150
MARGIN = 0.005
OVERLAP = 0.7
HARMS = {"disjoint", "golden", "overlap"}
"""Conditions on what might get worse."""
CHANCE = 0.02
"""The share of random votes that may get past `shuffled`, the other conditions aside."""


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
        thumbs: newer thumbs, and how far they agree with what was fitted to the older ones.
    """

    held_out: Paired
    overlap: Floats
    thumbs: Thumbs
    disjoint: Paired | None = None
    golden: Paired | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to promote; which conditions failed, in words; every figure, ready for JSON.

    `harms_only`: all that failed is about what might get worse, which a weaker change might not.
    """

    promote: bool
    reasons: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    harms_only: bool = False


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
        "shuffled": _shuffled(evidence.thumbs),
    }
    reasons = [f"{name}: {figures['why']}" for name, figures in checks.items() if not figures["passed"]]
    harms = {name for name, figures in checks.items() if not figures["passed"]}
    return Decision(not reasons, reasons, checks, bool(harms) and harms <= HARMS)


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


def _shuffled(thumbs: Thumbs) -> dict[str, Any]:
    likes, dislikes = int(thumbs.liked.sum()), int((~thumbs.liked).sum())
    figures: dict[str, Any] = {"likes": likes, "dislikes": dislikes}
    if not likes or not dislikes:
        return figures | _fail(
            f"{likes} 👍 and {dislikes} 👎 to tell learned from random, and both are needed"
        )
    p = thumbs.p()
    liked, disliked = (round(thumbs.mean(each), 4) for each in (True, False))
    figures |= {"p": round(p, 4), "agreement_liked": liked, "agreement_disliked": disliked}
    sides = {"liked": thumbs.liked, "disliked": ~thumbs.liked}
    figures["agreement"] = {
        side: bootstrap(thumbs.agreement[those], thumbs.weights[those]).public()
        for side, those in sides.items()
    }
    why = f"random thumbs fit as well (agreement {liked:.2f} of 👍, {disliked:.2f} of 👎, p = {p:.3f})"
    return figures | (_pass() if p <= CHANCE else _fail(why))


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
