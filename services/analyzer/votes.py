"""What the analyzer reads: votes in windows of time, attributed to generations.

A vote belongs to the generation it is stamped with, else to the one that was active when its answer
was given (when it was cast, where the answer is unknown). A generation in which only documents
changed inherits its base's votes, and the first one those cast before there was any.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from shared.database import Connection

__all__ = ["Count", "Lineage", "count", "lineage", "report_start"]


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


async def lineage(connection: Connection, app: str) -> Lineage:
    rows = await connection.fetch(
        "with recursive line as ("
        " select g.id, g.base, g.starts_anew from feedback_loop.active_generation a"
        " join feedback_loop.generation g on g.id = a.generation where a.app = $1"
        " union select b.id, b.base, b.starts_anew from line"
        " join feedback_loop.generation b on b.id = line.base where not line.starts_anew)"
        " select id, base, starts_anew from line order by id desc",
        app,
    )
    active = await connection.fetchval(
        "select generation from feedback_loop.active_generation where app = $1", app
    )
    # Whatever was there before the first generation is told from a deleted base by the history.
    prehistory = all(not row["starts_anew"] for row in rows)
    return Lineage(active, tuple(row["id"] for row in rows), prehistory)


async def count(
    connection: Connection,
    app: str,
    spans: list[tuple[datetime, datetime]],
    of: Lineage | None = None,
) -> list[Count]:
    """Votes cast in each `(start, end]`; with `of`, only those that the lineage answers for."""
    rows = await connection.fetch(
        "select s.number, count(*) filter (where v.value = 1) as likes,"
        "       count(*) filter (where v.value = 0) as dislikes"
        " from unnest($2::timestamptz[], $3::timestamptz[]) with ordinality s (start_at, end_at, number)"
        " join feedback_loop.vote v on v.app = $1 and v.name = 'user_feedback'"
        "   and v.created_at > s.start_at and v.created_at <= s.end_at"
        " left join feedback_loop.conversation c on $4 and v.generation is null and c.app = v.app"
        "   and c.conversation_id = v.conversation_id and c.message_id = v.message_id"
        " left join lateral (select p.generation from feedback_loop.promotion p"
        "   where $4 and v.generation is null and c.generation is null and p.app = v.app"
        "     and p.promoted_at <= coalesce(c.answered_at, v.created_at)"
        "   order by p.promoted_at desc limit 1) p on true"
        " where not $4 or case"
        "   when coalesce(v.generation, c.generation, p.generation) is null then $6"
        "   else coalesce(v.generation, c.generation, p.generation) = any($5::bigint[]) end"
        " group by s.number",
        app,
        [start for start, _ in spans],
        [end for _, end in spans],
        of is not None,
        list(of.generations) if of else [],
        bool(of and of.prehistory),
    )
    found = {row["number"]: Count(row["likes"], row["dislikes"]) for row in rows}
    return [found.get(number, Count(0, 0)) for number in range(1, len(spans) + 1)]


async def report_start(connection: Connection, app: str, as_of: datetime) -> datetime | None:
    """When the previous scheduled report ended; None where there was none."""
    start: datetime | None = await connection.fetchval(
        "select max(d.as_of) from feedback_loop.decision d join feedback_loop.run r on r.id = d.run"
        " where d.app = $1 and d.as_of < $2 and r.scheduled",
        app,
        as_of,
    )
    return start
