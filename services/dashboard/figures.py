"""Counts of votes and answers: everything that the tiles, the chart and the choices of a filter show.

All SQL over many votes is here. What is guaranteed: days are those of the time zone given, 23 to 25 hours
long; nobody voted is None, never 0 %. What is not: the documents are those of each app's latest
`SAMPLE` votes, and the response rate is that of the range's latest `ANSWERS` answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from services.dashboard.filters import Span
from services.dashboard.selection import Chosen, where
from shared.policy import wilson
from shared.postgres.database import Connection
from shared.requester import printable

__all__ = ["Day", "answers", "causes", "daily", "documents", "public", "rate", "reasons"]

SAMPLE = 2_000
ANSWERS = 20_000
MOST_DOCUMENTS = 50
MOST_REASONS = 50

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Day:
    """The votes of a calendar day."""

    at: date
    likes: int
    dislikes: int


async def daily(connection: Connection, chosen: Chosen) -> list[Day]:
    """Likes and dislikes of each day, oldest first, days without votes included."""
    votes = await (_counted(connection, chosen) if chosen.counted else _looked_up(connection, chosen))
    return [
        Day(day, votes.get((n, 1), 0), votes.get((n, 0), 0))
        for n, day in enumerate(chosen.span.days, start=1)
    ]


# Both by bounds, not by a zone's name: the database may know other rules of the zone than this process.


async def _counted(connection: Connection, chosen: Chosen) -> dict[tuple[int, int], int]:
    """Votes by number of the day and value, as the quarters of an hour have them."""
    rows = await connection.fetch(
        "select width_bucket(at, $4::timestamptz[]) as day, sum(likes)::bigint as likes,"
        " sum(dislikes)::bigint as dislikes from feedback_loop.votes_counted($1, $2, $3)"
        " where $5::bigint is null or generation = $5 group by 1",
        list(chosen.apps),
        chosen.span.start,
        chosen.span.end,
        list(chosen.span.bounds),
        chosen.filter.generation,
    )
    rated = chosen.filter.rated
    likes = {(row["day"], 1): row["likes"] for row in rows if rated != "down"}
    return likes | {(row["day"], 0): row["dislikes"] for row in rows if rated != "up"}


async def _looked_up(connection: Connection, chosen: Chosen) -> dict[tuple[int, int], int]:
    """The same of any filter, vote by vote."""
    conditions, given = where(chosen)
    rows = await connection.fetch(
        f"select width_bucket(v.created_at, ${len(given) + 1}::timestamptz[]) as day, v.value,"
        f" count(*) as votes from feedback_loop.dashboard_vote v where {conditions} group by 1, 2",
        *given,
        list(chosen.span.bounds),
    )
    return {(row["day"], row["value"]): row["votes"] for row in rows}


def rate(likes: int, dislikes: int) -> Row:
    """The negative ratio and its 95 % interval; all None where nobody voted."""
    if not likes + dislikes:
        return {"ratio": None, "low": None, "high": None}
    low, high = wilson(dislikes, likes + dislikes)
    return {"ratio": dislikes / (likes + dislikes), "low": low, "high": high}


def public(days: Sequence[Day]) -> list[Row]:
    """The days as the page has them."""
    return [
        {
            "at": day.at.isoformat(),
            "likes": day.likes,
            "dislikes": day.dislikes,
            **rate(day.likes, day.dislikes),
        }
        for day in days
    ]


async def answers(connection: Connection, apps: Sequence[str], span: Span) -> Row:
    """How many answers were given, and the share of them that is rated, whenever and however.

    Of the filter only app and days say something about an answer that nobody rated.
    """
    row = await connection.fetchrow(
        "select (select count(*) from feedback_loop.dashboard_answer a where a.app = any($1)"
        "   and a.answered_at >= $2 and a.answered_at < $3) as answers, count(*) as looked_at,"
        " count(*) filter (where exists (select from feedback_loop.dashboard_vote v"
        "   where v.app = s.app and v.conversation_id = s.conversation_id and v.message_id = s.message_id))"
        "   as rated"
        " from (select a.* from unnest($1::text[]) app cross join lateral ("
        "     select * from feedback_loop.dashboard_answer a where a.app = app.app"
        "     and a.answered_at >= $2 and a.answered_at < $3 order by a.answered_at desc limit $4) a"
        "   order by a.answered_at desc limit $4) s",
        list(apps),
        span.start,
        span.end,
        ANSWERS,
    )
    assert row is not None
    share = row["rated"] / row["looked_at"] if row["looked_at"] else None
    return {"answers": row["answers"], "response_rate": share}


async def reasons(connection: Connection, chosen: Chosen) -> list[Row]:
    """Votes by reason, the most first; whichever reasons are filtered."""
    conditions, given = where(chosen.without("reasons"))
    rows = await connection.fetch(
        "select v.reason_code as code, count(*) as votes from feedback_loop.dashboard_vote v"
        f" where {conditions} and v.reason_code is not null"
        f" group by 1 order by 2 desc, 1 limit {MOST_REASONS}",
        *given,
    )
    return [dict(row) for row in rows]


async def causes(connection: Connection, chosen: Chosen) -> list[Row]:
    """Dislikes by cause, the most first; whichever cause is filtered."""
    conditions, given = where(chosen.without("cause"))
    rows = await connection.fetch(
        "select k.cause, count(*) as votes from feedback_loop.dashboard_vote v"
        f" join feedback_loop.complaint_of_vote k on k.vote = v.id where {conditions}"
        " group by 1 order by 2 desc, 1",
        *given,
    )
    return [dict(row) for row in rows]


async def documents(connection: Connection, chosen: Chosen) -> list[Row]:
    """Documents that the latest votes are about, the most first; whichever document is filtered."""
    conditions, given = where(chosen.without("document"), app="app.app")
    rows = await connection.fetch(
        "with latest as materialized ("
        "   select v.* from unnest($1::text[]) app cross join lateral ("
        "     select v.id, v.app, v.cited || v.shown as rests_on from feedback_loop.dashboard_vote v"
        f"    where {conditions} order by v.created_at desc, v.id desc limit {SAMPLE}) v"
        " ), named as materialized ("
        "   select l.id, l.app, e ->> 'source' as source, e ->> 'chunk' as hash"
        "   from latest l cross join lateral jsonb_array_elements(l.rests_on) e"
        " ), known as materialized ("
        "   select distinct c.app, c.hash, c.source from feedback_loop.dashboard_chunk c"
        "   where c.hash = any(array(select distinct n.hash from named n))"
        " )"
        " select source, count(distinct id) as votes from ("
        "   select id, source from named where source is not null"
        "   union all select n.id, k.source from named n join known k on k.app = n.app and k.hash = n.hash) s"
        f" group by 1 order by 2 desc, 1 limit {MOST_DOCUMENTS}",
        *given,
    )
    return [{"source": printable(row["source"], 500), "votes": row["votes"]} for row in rows]
