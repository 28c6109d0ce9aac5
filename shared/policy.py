"""The decision: what the votes of an evaluation mean, and whether to act on them.

What is guaranteed: the same situation and rules give the same decision; every verdict comes with
one reason of `REASONS` and a sentence with its figures; under `wilson` nothing is acted on below
`min_votes`, nor unless the lower bound is over the threshold. What is not: that a retrain helps.
The breaker is what notices that it did not.

Pure: no clock, no I/O. Whoever calls has already picked the votes (one per user and answer, of the
active generation only) and started the windows anew after a promotion that feedback drove.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import sqrt
from typing import Literal

from shared.events import Because, Evidence, Verdict
from shared.reasons import percent, say

__all__ = [
    "REASONS",
    "WINDOWS",
    "Z95",
    "Z_DECISION",
    "Decision",
    "Retrain",
    "Rules",
    "Situation",
    "decide",
    "evidence",
    "percent",
    "wilson",
]

Z95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""

Z_DECISION = 2.24
"""The decision looks at two windows and acts if either is over, so each interval is a two-sided
97.5 % one (Bonferroni): together they err as rarely as a single one of 95 %."""

WINDOWS: Mapping[str, timedelta] = {"7d": timedelta(days=7), "28d": timedelta(days=28)}
"""Trailing windows: the short one sees a collapse soon, the long one gathers votes where few are cast."""

BREAKER = 2
"""Retrains in a row without effect after which a person is asked."""


REASONS: Mapping[str, Verdict] = {
    "no_votes": "insufficient_data",
    "too_few_votes": "insufficient_data",
    "no_new_votes": "insufficient_data",
    "within_threshold": "ok",
    "uncertain": "watch",
    "retrain_running": "watch",
    "cooling_down": "watch",
    "rolling_back": "watch",
    "lower_bound_over_threshold": "act",
    "ratio_over_threshold": "act",
    "breaker_open": "paused",
    "paused": "paused",
}
"""Every reason code, with its verdict; `shared/reasons.py` has the words."""


@dataclass(frozen=True)
class Rules:
    """The settings of a decision. `threshold` is a ratio (0 to 1), `min_votes` counts votes of a window."""

    policy: Literal["wilson", "ratio"]
    threshold: float
    min_votes: int
    cooldown: timedelta


@dataclass(frozen=True)
class Retrain:
    """A feedback-driven retrain that is over, with the negative ratio that led to it and the one since."""

    finished: datetime
    ratio_before: float | None
    ratio_after: float | None
    """None: nobody has voted since."""

    @property
    def in_vain(self) -> bool:
        """The ratio is known not to be lower. What cannot be compared yet is not held against it."""
        before, after = self.ratio_before, self.ratio_after
        return before is not None and after is not None and after >= before


@dataclass(frozen=True)
class Situation:
    """All that a decision depends on, besides its rules."""

    as_of: datetime
    report: Evidence
    """Votes of the report window: what `ratio` judges."""
    windows: tuple[Evidence, ...]
    """Votes of `WINDOWS`: what `wilson` judges."""
    retrain_running: bool
    cooling_until: datetime | None
    recent: tuple[Retrain, ...]
    """Feedback-driven retrains since the last resume, newest first."""
    paused: str | None
    """Why a person paused retraining (may be empty); None: nobody did."""
    now: datetime | None = None
    """The database's time, by which the cool-down ends; None: `as_of`. They differ when a trigger
    names an `as_of` of its own: that selects votes and must not shorten a cool-down."""
    rolling_back: bool = False
    """This evaluation rolls the active generation back: what follows rests on the one before it."""

    @property
    def cooling(self) -> bool:
        return self.cooling_until is not None and (self.now or self.as_of) < self.cooling_until

    @property
    def breaker_open(self) -> bool:
        latest = self.recent[:BREAKER]
        return len(latest) == BREAKER and all(retrain.in_vain for retrain in latest)


@dataclass(frozen=True)
class Decision:
    """What to do, and why: a code of `REASONS`, one English sentence with its figures, and the same as codes
    that other languages have words for."""

    verdict: Verdict
    reason: str
    explanation: str
    because: tuple[Because, ...] = field(default=(), compare=False)

    @property
    def act(self) -> bool:
        """A retrain is to start."""
        return self.verdict == "act"


def wilson(dislikes: int, total: int, z: float = Z95) -> tuple[float, float]:
    """The Wilson score interval of the negative ratio, as (low, high) within 0 to 1.

    Without votes nothing is known: (0, 1). Source: E. B. Wilson, "Probable Inference, the Law of
    Succession, and Statistical Inference", JASA 22 (1927) 209-212.

    Args:
        z: standard normal quantile of the confidence wanted (1.96 for 95 %).

    Raises:
        ValueError: `dislikes` is not within 0 to `total`.
    """
    if not 0 <= dislikes <= total:
        raise ValueError(f"{dislikes} dislikes of {total} votes")
    if total == 0:
        return 0.0, 1.0
    ratio, share = dislikes / total, z * z / total
    centre = ratio + share / 2
    margin = z * sqrt((ratio * (1 - ratio) + share / 4) / total)
    low, high = (centre - margin) / (1 + share), (centre + margin) / (1 + share)
    # At 0 and at all dislikes the bound equals the ratio; rounding must not push it past.
    return max(0.0, min(low, ratio)), min(1.0, max(high, ratio))


def evidence(name: str, start: datetime, end: datetime, likes: int, dislikes: int, z: float) -> Evidence:
    """The votes of the window `(start, end]` with their Wilson interval.

    Windows of a decision take `Z_DECISION`, the report `Z95`.

    Raises:
        ValueError: a count is negative, or a time has no zone.
    """
    low, high = wilson(dislikes, likes + dislikes, z)
    return Evidence(name=name, start=start, end=end, likes=likes, dislikes=dislikes, low=low, high=high)


def decide(situation: Situation, rules: Rules) -> Decision:
    """Judge a situation. A pause by a person shows whatever the votes say."""
    if rules.policy == "wilson":
        z, (reason, window) = Z_DECISION, _by_bound(situation, rules)
    else:
        z, (reason, window) = Z95, _by_ratio(situation, rules)
    if situation.paused is not None:
        reason = "paused"
    because = (_figures(window, z), Because(code=reason, figures=_words(reason, situation, rules)))
    return Decision(REASONS[reason], reason, say(because, "en"), because)


def _by_bound(situation: Situation, rules: Rules) -> tuple[str, Evidence]:
    """The default: act on what is certain. Gives the reason and the window it rests on."""
    report, windows = situation.report, situation.windows
    if not any(window.total for window in (report, *windows)):
        return "no_votes", report
    enough = [window for window in windows if window.total >= rules.min_votes]
    if not enough:
        return "too_few_votes", max(windows, key=lambda window: window.total, default=report)
    surest = max(enough, key=_lower)
    if _lower(surest) > rules.threshold:
        return _obstacle(situation) or "lower_bound_over_threshold", surest
    highest = max(enough, key=lambda window: window.ratio)
    if highest.ratio > rules.threshold:
        return "uncertain", highest
    # A report of 0 votes must not say that all is well.
    return ("within_threshold" if report.total else "no_new_votes"), highest


def _by_ratio(situation: Situation, rules: Rules) -> tuple[str, Evidence]:
    """The literal rule: the report's ratio over the threshold, however few the votes."""
    report = situation.report
    if not report.total:
        return "no_votes", report
    if report.ratio <= rules.threshold:
        return "within_threshold", report
    if situation.retrain_running:
        return "retrain_running", report
    return ("rolling_back" if situation.rolling_back else "ratio_over_threshold"), report


def _obstacle(situation: Situation) -> str | None:
    """What keeps `wilson` from acting on votes that call for it."""
    if situation.breaker_open:
        return "breaker_open"
    if situation.retrain_running:
        return "retrain_running"
    if situation.cooling:
        return "cooling_down"
    return "rolling_back" if situation.rolling_back else None


def _lower(window: Evidence) -> float:
    # From the counts, not from `window.low`: a caller who took another z must not change a decision.
    return wilson(window.dislikes, window.total, Z_DECISION)[0]


def _figures(window: Evidence, z: float) -> Because:
    if not window.total:
        return Because(code="votes_none", figures={"window": window.name})
    low, high = wilson(window.dislikes, window.total, z)
    return Because(
        code="votes",
        figures={
            "window": window.name,
            "total": window.total,
            "dislikes": window.dislikes,
            "ratio": window.ratio,
            "low": low,
            "high": high,
            "z": z,
        },
    )


def _words(reason: str, situation: Situation, rules: Rules) -> dict[str, str | int | float]:
    """What the wordings of a reason mention."""
    figures: dict[str, str | int | float] = {"threshold": rules.threshold}
    if reason == "too_few_votes":
        figures["min_votes"] = rules.min_votes
    elif reason == "no_new_votes":
        figures["report"] = situation.report.name
    elif reason == "cooling_down" and situation.cooling_until:
        figures["until"] = f"{situation.cooling_until:%Y-%m-%d %H:%M %Z}"
    elif reason == "breaker_open":
        figures["retrains"] = ", ".join(
            f"{percent(retrain.ratio_before or 0)} → {percent(retrain.ratio_after or 0)}"
            for retrain in situation.recent[:BREAKER]
        )
    elif reason == "paused":
        figures["why"] = situation.paused or ""
    return figures
