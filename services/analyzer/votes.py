"""What the analyzer reads: votes in windows of time, attributed to generations.

A vote belongs to the generation it is stamped with, else to the one that was active when its answer
was given (when it was cast, where the answer is unknown). A generation in which only documents
changed inherits its base's votes, and the first one those cast before there was any.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from shared.database import Connection

__all__ = ["Count", "Lineage", "count", "earlier", "lineage", "report_start"]


# A window is a statement of its own, with its ends as parameters: the planner then knows how little of
# the history it is, and reads that from the index `vote_time`.
_CAST = """
select count(*) filter (where value = 1) as likes, count(*) filter (where value = 0) as dislikes
from feedback_loop.vote
where app = $1 and name = 'user_feedback' and created_at > $2 and created_at <= $3
"""
# `active` is when the lineage's generations answered. `limit 1` (the key is unique) keeps each answer
# a look-up by key: joined, all conversations ever would be read.
_CAST_ON = """
with promotion as (
  select tstzrange(promoted_at, lead(promoted_at) over (order by promoted_at, id)) as span, generation
  from feedback_loop.promotion where app = $1
), active as materialized (
  select coalesce(range_agg(span) filter (where generation = any($4)), '{}')
    + case when $5 then tstzmultirange(tstzrange(null, min(lower(span)))) else '{}' end as spans
  from promotion
)
select count(*) filter (where v.value = 1) as likes, count(*) filter (where v.value = 0) as dislikes
from feedback_loop.vote v
left join lateral (
  select c.generation, c.answered_at from feedback_loop.conversation c
  where v.generation is null
    and (c.app, c.conversation_id, c.message_id) = (v.app, v.conversation_id, v.message_id)
  limit 1) c on true
where v.app = $1 and v.name = 'user_feedback' and v.created_at > $2 and v.created_at <= $3
  and case when coalesce(v.generation, c.generation) is null
      then (select spans from active) @> coalesce(c.answered_at, v.created_at)
      else coalesce(v.generation, c.generation) = any($4::bigint[]) end
"""


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


async def count(
    connection: Connection, app: str, start: datetime, end: datetime, of: Lineage | None = None
) -> Count:
    """Votes cast in `(start, end]`; with `of`, only those that the lineage answers for."""
    if of is None:
        row = await connection.fetchrow(_CAST, app, start, end)
    else:
        row = await connection.fetchrow(_CAST_ON, app, start, end, of.generations, of.prehistory)
    assert row is not None
    return Count(row["likes"], row["dislikes"])


async def report_start(connection: Connection, app: str, as_of: datetime) -> datetime | None:
    """When the previous scheduled report ended; None where there was none."""
    start: datetime | None = await connection.fetchval(
        "select max(d.as_of) from feedback_loop.decision d join feedback_loop.run r on r.id = d.run"
        " where d.app = $1 and d.as_of < $2 and r.scheduled",
        app,
        as_of,
    )
    return start
