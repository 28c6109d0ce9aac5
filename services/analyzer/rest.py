"""What holds a retrain back: one under way, the cool-down, a pause, and the record of earlier ones.

Database time decides, never `as_of`: a trigger may choose which votes count, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.analyzer.votes import Window, count
from shared import policy
from shared.postgres.database import Connection

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
    """The last retrains that feedback drove and that were asked for after `since`, newest first.

    The ratio after covers the votes of the four weeks from its end, up to the next retrain and no
    later than `as_of`; None below `min_votes`.
    """
    rows = await connection.fetch(
        "select finished_at, ratio_before, least("
        "   finished_at + $4::interval, lag(requested_at, 1, $3) over (order by finished_at desc)) as until"
        " from feedback_loop.retrain"
        " where app = $1 and finished_at is not null and ($2::timestamptz is null or requested_at > $2)"
        " order by finished_at desc limit $5",
        app,
        since,
        as_of,
        max(policy.WINDOWS.values()),
        policy.BREAKER,
    )
    retrains = []
    for row in rows:  # each alone: what lies between two of them may be long
        [after] = await count(connection, app, Window(row["finished_at"], row["until"]))
        ratio = after.dislikes / after.total if after.total >= rules.min_votes else None
        retrains.append(policy.Retrain(row["finished_at"], row["ratio_before"], ratio))
    return tuple(retrains)
