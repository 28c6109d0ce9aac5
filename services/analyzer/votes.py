"""What the analyzer reads: votes in windows of time, attributed to generations.

A vote belongs to the generation it is stamped with, else to the one that was active when its answer
was given (when it was cast, where the answer is unknown). A generation in which only documents
changed inherits its base's votes, and the first one those cast before there was any.

Votes are read as they were counted by quarter of an hour and generation; what has changed since, and
what a window has of a quarter, is read from the ledger itself. So the counts are those of the ledger, and
take as long after a year as after a day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from shared.postgres.database import Connection

__all__ = ["Count", "Lineage", "Window", "count", "earlier", "lineage", "report_start"]

BEGINNING = datetime(1, 1, 2, tzinfo=UTC)
"""As far back as a window goes. (The driver takes the very first instant for minus infinity.)"""


@dataclass(frozen=True, slots=True)
class Count:
    likes: int
    dislikes: int

    @property
    def total(self) -> int:
        return self.likes + self.dislikes


@dataclass(frozen=True, slots=True)
class Lineage:
    """The generations whose votes the active one answers for.

    Attributes:
        active: the active generation; None before the first.
        generations: it, and those it inherits from.
        prehistory: whether votes from before the first generation count too.
    """

    active: int | None
    generations: tuple[int, ...]
    prehistory: bool


def earlier(moment: datetime, span: timedelta) -> datetime:
    """`moment` less `span`, or `BEGINNING` where that would lie before it."""
    return moment - min(span, moment - BEGINNING)


async def lineage(connection: Connection, app: str, generation: int | None = None) -> Lineage:
    """The lineage of the active generation, or of `generation` as if it were."""
    rows = await connection.fetch(
        "with recursive line as ("
        " select g.id, g.base, g.starts_anew from feedback_loop.generation g where g.id ="
        "   coalesce($2, (select generation from feedback_loop.active_generation where app = $1))"
        " union select b.id, b.base, b.starts_anew from line"
        " join feedback_loop.generation b on b.id = line.base where not line.starts_anew)"
        " select id, starts_anew from line order by id desc",  # a base is older than what it bears
        app,
        generation,
    )
    generations = tuple(row["id"] for row in rows)
    prehistory = not any(row["starts_anew"] for row in rows)
    return Lineage(generations[0] if generations else None, generations, prehistory)


class Window(NamedTuple):
    """The votes cast in `(start, end]`; with `of`, only those that the lineage answers for."""

    start: datetime
    end: datetime
    of: Lineage | None = None

    def has(self, generation: int | None) -> bool:
        """Whether votes of that generation count."""
        if self.of is None:
            return True
        return self.of.prehistory if generation is None else generation in self.of.generations


async def count(connection: Connection, app: str, *windows: Window) -> list[Count]:
    """The votes in each of the windows, in one statement. What lies between them is counted too, so they
    should overlap or follow one another."""
    moments = sorted({moment for window in windows for moment in (window.start, window.end)})
    rows = await connection.fetch(
        "select slot, generation, likes, dislikes"
        " from feedback_loop.votes_between($1, $2::text[]::timestamptz[])",
        app,
        [moment.isoformat() for moment in moments],
    )

    def of(window: Window) -> Count:
        slots = range(moments.index(window.start) + 1, moments.index(window.end) + 1)
        there = [row for row in rows if row["slot"] in slots and window.has(row["generation"])]
        return Count(sum(row["likes"] for row in there), sum(row["dislikes"] for row in there))

    return [of(window) for window in windows]


async def report_start(connection: Connection, app: str, as_of: datetime) -> datetime | None:
    """When the previous scheduled report ended; None where there was none."""
    start: datetime | None = await connection.fetchval(
        "select max(d.as_of) from feedback_loop.decision d join feedback_loop.run r on r.id = d.run"
        " where d.app = $1 and d.as_of < $2 and r.scheduled",
        app,
        as_of,
    )
    return start
