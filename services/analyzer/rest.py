"""What holds a retrain back: one under way, the cool-down, a pause, and the record of earlier ones.

Database time decides, never `as_of`: a trigger may choose which votes count, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.analyzer import policy
from services.analyzer.votes import count
from shared.database import Connection

__all__ = ["Rest", "read_rest", "recent_retrains", "retrain_running"]


@dataclass(frozen=True, slots=True)
class Rest:
    """Whether the app rests, at the database's `now`."""

    now: datetime
    cooling_until: datetime | None
    resumed_at: datetime | None
    paused: str | None


async def read_rest(connection: Connection, app: str, cooldown: timedelta) -> Rest:
    row = await connection.fetchrow(
        "select now() as now, r.cooling_from + $2::interval as cooling_until, r.resumed_at,"
        " case when r.paused_until is null or r.paused_until > now() then r.paused_why end as paused"
        " from (select 1) one left join feedback_loop.rest r on r.app = $1",
        app,
        cooldown,
    )
    assert row is not None
    return Rest(row["now"], row["cooling_until"], row["resumed_at"], row["paused"])


async def retrain_running(connection: Connection, app: str) -> bool:
    return bool(
        await connection.fetchval(
            "select exists (select from feedback_loop.retrain where app = $1 and finished_at is null)", app
        )
    )


async def recent_retrains(
    connection: Connection, app: str, since: datetime | None, as_of: datetime, rules: policy.Rules
) -> tuple[policy.Retrain, ...]:
    """The last retrains that feedback drove, newest first, each with the ratio before and after.

    The ratio after covers the votes from its end to the next retrain's start; None below
    `min_votes`.
    """
    rows = await connection.fetch(
        "select finished_at, ratio_before,"
        " coalesce(lag(requested_at) over (order by finished_at desc), greatest($3, finished_at)) as until"
        " from feedback_loop.retrain"
        " where app = $1 and finished_at is not null and ($2::timestamptz is null or requested_at > $2)"
        " order by finished_at desc limit $4",
        app,
        since,
        as_of,
        policy.BREAKER,
    )
    spans = [(row["finished_at"], max(row["until"], row["finished_at"])) for row in rows]
    after = await count(connection, app, spans) if spans else []
    return tuple(
        policy.Retrain(
            finished=row["finished_at"],
            ratio_before=row["ratio_before"],
            ratio_after=votes.dislikes / votes.total if votes.total >= rules.min_votes else None,
        )
        for row, votes in zip(rows, after, strict=True)
    )
