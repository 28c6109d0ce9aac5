"""Backtest: what either policy would have decided on the votes of the past.

What is guaranteed: every calendar day from the first to the last count is judged once, at its end,
by the same `decide` that judges in earnest, in time linear in the days. What is not: the votes that
would have followed. History holds the answers of the bot as it was, so a replayed retrain changes no
later vote, finishes at once, is always promoted, and cannot open the breaker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import TypeAlias

from shared.events import Evidence, Verdict
from shared.policy import WINDOWS, Z95, Z_DECISION, Rules, Situation, decide, evidence

__all__ = ["Count", "Day", "Summary", "replay", "summarize"]

Count: TypeAlias = tuple[date, int, int]
"""A day, its likes, its dislikes."""

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Day:
    """One day's votes and what each policy made of them."""

    date: date
    likes: int
    dislikes: int
    ratio: float | None
    """Negative ratio of the day; None where nobody voted."""
    wilson: Verdict
    ratio_rule: Verdict


@dataclass(frozen=True)
class Summary:
    """Retrains under each policy, and the day of the first (None: never)."""

    days: int
    wilson_retrains: int
    ratio_retrains: int
    wilson_first: date | None
    ratio_first: date | None


def replay(counts: Iterable[Count], rules: Rules) -> list[Day]:
    """Judge each day under both policies, whichever `rules` name; the report window is the day.

    Counts may come in any order; those of one day add up, and days without any are judged as well.
    After an act of `wilson` its windows start anew and its cool-down runs; `ratio` knows neither.

    Raises:
        ValueError: a count is negative.
    """
    calendar = _calendar(counts)
    wilson_rules, ratio_rules = replace(rules, policy="wilson"), replace(rules, policy="ratio")
    acted: datetime | None = None
    days = []
    for index, (day, likes, dislikes) in enumerate(calendar):
        as_of = datetime.combine(day, time(), UTC) + _DAY
        situation = Situation(
            as_of=as_of,
            report=evidence("1d", as_of - _DAY, as_of, likes, dislikes, Z95),
            windows=tuple(_trailing(name, calendar, index, as_of, acted) for name in WINDOWS),
            retrain_running=False,
            cooling_until=acted + rules.cooldown if acted else None,
            recent=(),
            paused=None,
        )
        decision, literal = decide(situation, wilson_rules), decide(situation, ratio_rules)
        if decision.act:
            acted = as_of
        ratio = situation.report.ratio if likes + dislikes else None
        days.append(Day(day, likes, dislikes, ratio, decision.verdict, literal.verdict))
    return days


def summarize(days: Iterable[Day]) -> Summary:
    """Count the retrains of a replay."""
    days = list(days)
    wilson = [day.date for day in days if day.wilson == "act"]
    literal = [day.date for day in days if day.ratio_rule == "act"]
    return Summary(
        days=len(days),
        wilson_retrains=len(wilson),
        ratio_retrains=len(literal),
        wilson_first=min(wilson, default=None),
        ratio_first=min(literal, default=None),
    )


def _calendar(counts: Iterable[Count]) -> list[Count]:
    """One entry for each day from the first to the last, in order."""
    likes: dict[date, int] = {}
    dislikes: dict[date, int] = {}
    for day, up, down in counts:
        likes[day] = likes.get(day, 0) + up
        dislikes[day] = dislikes.get(day, 0) + down
    if not likes:
        return []
    first = min(likes)
    every = (first + n * _DAY for n in range((max(likes) - first).days + 1))
    return [(day, likes.get(day, 0), dislikes.get(day, 0)) for day in every]


def _trailing(
    name: str, calendar: Sequence[Count], index: int, as_of: datetime, acted: datetime | None
) -> Evidence:
    """The window `name` that ends with the day `index` and starts no earlier than the last act."""
    span = WINDOWS[name]
    if acted is not None:
        span = min(span, as_of - acted)
    votes = calendar[max(0, index + 1 - span.days) : index + 1]
    likes, dislikes = sum(day[1] for day in votes), sum(day[2] for day in votes)
    return evidence(name, as_of - span, as_of, likes, dislikes, Z_DECISION)
