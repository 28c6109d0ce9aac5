"""What the commands `status`, `runs` and `votes` read: where the loop stands, at one moment.

What is guaranteed: a status is read in one repeatable-read transaction, so its parts agree; times are
the database's. What is not: that texts are fit for a terminal. They are as people wrote them;
`services/commands/tables.py` cleans what it shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from services.analyzer.rest import read_rest, retrain_running
from services.analyzer.votes import Window, count
from shared import policy
from shared.postgres.database import Connection

__all__ = ["WEEK", "Row", "VoteFilter", "runs", "status", "votes"]

Row = dict[str, Any]
"""Columns and values; times as `datetime`, ids as `UUID`."""

WEEK = timedelta(days=7)
"""The votes that a status counts."""


@dataclass(frozen=True, slots=True)
class VoteFilter:
    """Which votes to list; None and the empty tuple: any.

    Attributes:
        days: of the last so many days.
        reasons: reason codes, of which a vote has one.
        comment: only votes with a comment.
    """

    app: str | None = None
    rated: Literal["up", "down"] | None = None
    reasons: tuple[str, ...] = ()
    comment: bool = False
    days: int = 28


async def status(connection: Connection, cooldown: timedelta, app: str | None = None) -> Row:
    """Where every app (or the one named) stands. Call it in a repeatable-read transaction.

    An app that nothing is known of is not among them. `votes` has the counts of the last seven days,
    their negative ratio (None without votes) and its 95 % Wilson interval.
    """
    apps = await connection.fetch(_APPS, app)
    found = [await _app_status(connection, row["app"], cooldown) for row in apps]
    events = await connection.fetchrow(_EVENTS)
    assert events is not None
    now = await connection.fetchval("select now()")
    return {"now": now, "apps": found, "events": dict(events)}


async def runs(
    connection: Connection,
    app: str | None = None,
    days: int | None = None,
    limit: int = 20,
    *,
    decided: bool = False,
) -> list[Row]:
    """The last `limit` runs (`decided`: of those with a verdict), newest first, as the view `run_status`
    has them."""
    rows = await connection.fetch(
        "select * from feedback_loop.run_status where ($1::text is null or app = $1)"
        " and ($2::integer is null or started_at > now() - make_interval(days => $2))"
        " and (not $4 or decided_at is not null) order by started_at desc, id limit $3",
        app,
        days,
        limit,
        decided,
    )
    return [dict(row) for row in rows]


async def votes(connection: Connection, chosen: VoteFilter, limit: int = 20) -> list[Row]:
    """The last `limit` votes that fit, newest first, with what was asked and answered, and
    for a dislike that an evaluation has looked at the cause and the label of its complaint group."""
    value = None if chosen.rated is None else int(chosen.rated == "up")
    rows = await connection.fetch(
        _VOTES, chosen.app, chosen.days, value, list(chosen.reasons) or None, chosen.comment, limit
    )
    return [dict(row) for row in rows]


async def _app_status(connection: Connection, app: str, cooldown: timedelta) -> Row:
    rest = await read_rest(connection, app, cooldown)
    [counted] = await count(connection, app, Window(rest.now - WEEK, rest.now))
    low, high = policy.wilson(counted.dislikes, counted.total)
    latest = await runs(connection, app, limit=1)
    judged = await runs(connection, app, limit=1, decided=True)
    generation = await connection.fetchrow(
        "select generation as id, promoted_at from feedback_loop.active_generation where app = $1", app
    )
    builds = await connection.fetch(
        "select generation, reason, state, done, batches, created_at from feedback_loop.build_progress"
        " where app = $1 and state in ('building', 'built') order by generation",
        app,
    )
    alert = await connection.fetchrow(
        "select state, since from feedback_loop.alert_state where app = $1", app
    )
    cooling = rest.cooling_until is not None and rest.cooling_until > rest.now
    return {
        "app": app,
        "alert": dict(alert) if alert else None,
        "last_run": latest[0] if latest else None,
        "last_verdict": judged[0] if judged else None,
        "votes": {
            "days": WEEK.days,
            "likes": counted.likes,
            "dislikes": counted.dislikes,
            "ratio": counted.dislikes / counted.total if counted.total else None,
            "low": low,
            "high": high,
        },
        "generation": dict(generation) if generation else None,
        "builds": [dict(build) for build in builds],
        "retraining": await retrain_running(connection, app),
        "cooling_until": rest.cooling_until if cooling else None,
        "paused": rest.paused,
    }


# By skipping from app to app in the index: a ledger may be long, and has few apps.
_APPS = """
with recursive voted (app) as (
    select min(app) from feedback_loop.vote
    union all
    select (select min(app) from feedback_loop.vote where app > voted.app) from voted where app is not null
), ran (app) as (
    select min(app) from feedback_loop.run
    union all
    select (select min(app) from feedback_loop.run where app > ran.app) from ran where app is not null
)
select app from (
    select app from voted union select app from ran union select app from feedback_loop.generation
    union select app from feedback_loop.rest) known
where app is not null and ($1::text is null or app = $1) order by app
"""

_EVENTS = """
select (select count(*) from feedback_loop.outbox where done_at is null) as open,
       (select min(created_at) from feedback_loop.outbox where done_at is null) as oldest,
       (select count(*) from feedback_loop.inbox where state = 'dead') as dead
"""

_VOTES = """
select v.id, v.app, v.created_at as at, case v.value when 1 then 'up' else 'down' end as rated,
       coalesce(nullif(v.user_id, ''), nullif(c.user_id, '')) as user,
       v.conversation_id as conversation, nullif(v.message_id, '') as message,
       nullif(c.question, '') as question, nullif(c.answer, '') as answer,
       v.reason_code as reason, nullif(v.comment, '') as comment,
       coalesce(v.generation, c.generation) as generation, d.cause, g.label as group
from feedback_loop.vote v
left join feedback_loop.conversation c
       on (c.app, c.conversation_id, c.message_id) = (v.app, v.conversation_id, v.message_id)
left join feedback_loop.complaint_of_vote d on d.vote = v.id
left join feedback_loop.complaint_group_label g on g.id = d.group_id
where v.name = 'user_feedback' and ($1::text is null or v.app = $1)
  and v.created_at > now() - make_interval(days => $2)
  and ($3::smallint is null or v.value = $3)
  and ($4::text[] is null or v.reason_code = any($4))
  and (not $5 or v.comment <> '')
order by v.created_at desc, v.id desc limit $6
"""
