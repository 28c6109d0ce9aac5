"""The weekly summary, and the short report that somebody asks for: this span against the one before.

What is guaranteed: a change is only called one where the 95 % intervals of the two weeks are disjoint.

Pure: figures in, a text out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from services.notifier.messages import learned
from services.notifier.phrases import NAME, Markup, bounds, link, listed, percent, person, title
from services.notifier.wording import WORDS, Language
from shared.events import RetrainCompleted
from shared.policy import wilson

__all__ = ["DAYS", "Group", "Past", "Votes", "Week", "asked", "due", "summary", "week_key"]

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NAMED = 8
"""Builds that are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Votes:
    likes: int
    dislikes: int

    @property
    def total(self) -> int:
        return self.likes + self.dislikes

    @property
    def ratio(self) -> float | None:
        """Negative ratio; None without votes."""
        return self.dislikes / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %."""
        return wilson(self.dislikes, self.total)

    @property
    def basis(self) -> str:
        """The interval and the number of votes."""
        return bounds(*self.interval, self.total) if self.total else "n=0"


@dataclass(frozen=True, slots=True)
class Past:
    """The verdict on a promotion: votes of the generation before it, and of its own."""

    generation: int
    verdict: str
    days: int
    before: Votes
    after: Votes


@dataclass(frozen=True, slots=True)
class Group:
    label: str
    votes: int


@dataclass(frozen=True, slots=True)
class Week:
    """Seven days (`first` to `last`), the votes of the seven before, and what happened."""

    app: str
    first: date
    last: date
    now: Votes
    before: Votes
    outcomes: Sequence[RetrainCompleted] = ()
    pasts: Sequence[Past] = ()
    groups: Sequence[Group] = ()


def due(day: date, wanted: str) -> bool:
    """Whether the summary is sent on this day; `wanted`: `mon` … `sun`, `off`."""
    return DAYS[day.weekday()] == wanted


def week_key(app: str, day: date) -> str:
    """The same for every run of an app in an ISO week."""
    year, number, _ = day.isocalendar()
    return f"weekly/{app}/{year}-W{number:02}"


def summary(
    week: Week, language: Language, dashboard_url: str, markup: Markup = "slack", quotes: bool = True
) -> str:
    """This week against last, what was rebuilt and what it did, what people complained about.

    Args:
        quotes: whether what users wrote may be told; a group's label is made of their words.
    """
    words, now, before = WORDS[language], week.now, week.before
    builds = [event for event in week.outcomes if event.reason != "documents" or event.outcome != "unchanged"]
    facts = [
        words["weekly.span"].format(week.first, week.last),
        words["weekly.likes"].format(now.likes, before.likes),
        words["weekly.dislikes"].format(now.dislikes, before.dislikes),
        words["weekly.ratio"].format(percent(now.ratio), now.basis),
        words["weekly.before"].format(percent(before.ratio), before.basis),
        words["weekly.change"].format(words[f"weekly.{_change(before, now)}"]),
        words["weekly.retrains"].format(len(builds) or words["weekly.none"]),
        *(_build(event, language) for event in builds[:NAMED]),
        words["more"].format(len(builds) - NAMED) if len(builds) > NAMED else "",
        *(_past(past, language) for past in week.pasts),
    ]
    if week.groups and quotes:
        groups = (
            words["weekly.group"].format(person(group.label, NAME, markup), group.votes)
            for group in week.groups
        )
        facts.append(words["weekly.groups"].format(" · ".join(groups)))
    heading = title(f"📅 {words['weekly']}", week.app)
    return f"{listed(heading, facts)}\n{link(dashboard_url, words['dashboard'], markup)}"


def asked(
    app: str,
    first: date,
    last: date,
    now: Votes,
    before: Votes,
    state: str | None,
    generation: int | None,
    language: Language,
) -> str:
    """The answer to `/ai-report`: the votes of these days, and of as many before, in Slack's markup."""
    words, days = WORDS[language], (last - first).days + 1
    heading = title("🧠 AI Feedback Loop Report", app)
    return listed(
        f"{heading} · {words['asked'].format(days, first, last)}",
        [
            words["likes"].format(now.likes),
            words["dislikes"].format(now.dislikes),
            words["total"].format(now.total),
            f"{words['ratio'].format(percent(now.ratio))} ({now.basis})",
            words["asked.before"].format(days, percent(before.ratio), before.basis),
            words["alert"].format(words[f"alert.{state or 'UNKNOWN'}"]),
            words["active"].format(generation) if generation is not None else "",
        ],
    )


def _change(before: Votes, now: Votes) -> str:
    if not before.total or not now.total:
        return "unknown"
    if now.interval[1] < before.interval[0]:
        return "better"
    return "worse" if now.interval[0] > before.interval[1] else "same"


def _build(event: RetrainCompleted, language: Language) -> str:
    """How one build ended: its generations, its cause, what the gate saw."""
    words = WORDS[language]
    result: str = event.outcome
    if event.reason == "rollback":
        result = "rollback" if event.outcome == "promoted" else "failed"
    moved = ""
    if event.generation_after is not None and event.generation_after != event.generation_before:
        moved = f" {event.generation_before or '-'} → {event.generation_after}"
    gate = learned(event, language)
    cause = words[f"cause.{event.reason}"]
    return f"{cause}: {words[f'weekly.{result}']}{moved}" + (f" · {gate}" if gate else "")


def _past(past: Past, language: Language) -> str:
    words = WORDS[language]
    said = words[f"aftermath.{past.verdict}"]
    return said.format(past.days, percent(past.before.ratio), percent(past.after.ratio))
