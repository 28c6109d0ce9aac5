"""What summaries and pictures are made of, read from views: votes by day, promotions, outcomes, groups.

Days are those of the time zone, from midnight to midnight; "today" is the database's.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from services.notifier.weekly import Group, Past, Votes, Week, due, week_key
from shared.bus.envelope import from_json
from shared.charts.vega_lite import Marker, Point
from shared.events import RetrainCompleted
from shared.policy import wilson
from shared.postgres.database import Connection, Database

__all__ = ["apps", "due_week", "markers", "points", "state_of", "today", "votes", "week"]

_DAYS = """
select d.day::date as day, v.likes, v.dislikes
from generate_series($2::date::timestamp, $3::date::timestamp, interval '1 day') as d(day)
cross join lateral (
    select count(*) filter (where value = 1) as likes, count(*) filter (where value = 0) as dislikes
    from feedback_loop.report_vote
    where app = $1 and at >= d.day at time zone $4 and at < (d.day + interval '1 day') at time zone $4) v
order by 1
"""
_MARKERS = """
select generation, kind, at from feedback_loop.report_promotion
where app = $1 and at >= $2::date::timestamp at time zone $4
  and at < ($3::date + interval '1 day') at time zone $4
order by at, id
"""
_VOTES = """
select count(*) filter (where value = 1) as likes, count(*) filter (where value = 0) as dislikes
from feedback_loop.report_vote
where app = $1 and at >= $2::date::timestamp at time zone $4
  and at < ($3::date + interval '1 day') at time zone $4
"""
_OUTCOMES = """
select at, envelope from feedback_loop.report_outcome
where app = $1 and at >= $2::date::timestamp at time zone $4
  and at < ($3::date + interval '1 day') at time zone $4
order by at limit 50
"""
_AFTERMATHS = """
select generation, verdict, extract(day from span)::integer as days,
       before_likes, before_dislikes, after_likes, after_dislikes
from feedback_loop.report_aftermath
where app = $1 and at >= $2::date::timestamp at time zone $4
  and at < ($3::date + interval '1 day') at time zone $4
order by at
"""
_GROUPS = """
select label, count(*) as votes from feedback_loop.report_complaint
where app = $1 and at >= $2::date::timestamp at time zone $4
  and at < ($3::date + interval '1 day') at time zone $4
group by group_id, label order by votes desc, group_id limit 3
"""
_APPS = """
select app from feedback_loop.alert_state
union select app from feedback_loop.run_status order by app limit $1
"""
_STATE = """
select (select state from feedback_loop.alert_state where app = $1) as state,
       (select generation from feedback_loop.report_promotion where app = $1
        order by at desc, id desc limit 1) as generation
"""


async def today(connection: Connection, zone: ZoneInfo, moment: datetime | None = None) -> date:
    """The day of `moment` (None: now, by the database) in the zone."""
    day: date = await connection.fetchval(
        "select (coalesce($2, now()) at time zone $1)::date", zone.key, moment
    )
    return day


async def points(connection: Connection, app: str, zone: ZoneInfo, last: date, days: int) -> list[Point]:
    """The votes of each of the `days` that end with `last`."""
    rows = await connection.fetch(_DAYS, app, last - timedelta(days - 1), last, zone.key)
    found = []
    for row in rows:
        total = row["likes"] + row["dislikes"]
        ratio = row["dislikes"] / total if total else None
        found.append(Point(row["day"], row["likes"], row["dislikes"], ratio, *wilson(row["dislikes"], total)))
    return found


async def markers(connection: Connection, app: str, zone: ZoneInfo, last: date, days: int) -> list[Marker]:
    """What became active on these days."""
    rows = await connection.fetch(_MARKERS, app, last - timedelta(days - 1), last, zone.key)
    return [Marker(row["at"].astimezone(zone), row["generation"], row["kind"]) for row in rows]


async def votes(connection: Connection, app: str, zone: ZoneInfo, last: date, days: int) -> Votes:
    """The votes of these days together."""
    row = await connection.fetchrow(_VOTES, app, last - timedelta(days - 1), last, zone.key)
    assert row is not None
    return Votes(row["likes"], row["dislikes"])


async def week(connection: Connection, app: str, zone: ZoneInfo, last: date) -> Week:
    """The seven days that end with `last`, and what is to be said of them."""
    first = last - timedelta(6)
    span = (app, first, last, zone.key)
    outcomes = [from_json(row["envelope"]).event for row in await connection.fetch(_OUTCOMES, *span)]
    return Week(
        app=app,
        first=first,
        last=last,
        now=await votes(connection, app, zone, last, 7),
        before=await votes(connection, app, zone, first - timedelta(1), 7),
        outcomes=tuple(event for event in outcomes if isinstance(event, RetrainCompleted)),
        pasts=tuple(
            Past(
                row["generation"],
                row["verdict"],
                row["days"],
                Votes(row["before_likes"], row["before_dislikes"]),
                Votes(row["after_likes"], row["after_dislikes"]),
            )
            for row in await connection.fetch(_AFTERMATHS, *span)
        ),
        groups=tuple(Group(row["label"], row["votes"]) for row in await connection.fetch(_GROUPS, *span)),
    )


async def due_week(
    database: Database, app: str, zone: ZoneInfo, wanted: str, event: UUID
) -> tuple[Week, str] | None:
    """The seven days before the event's and the key of their summary, once per app and week, on the day for
    it; None on other days, and where nothing happened.

    Args:
        wanted: `mon` … `sun`, `off`.
    """
    if wanted == "off":
        return None
    async with database.connection() as connection:
        written = await connection.fetchval(
            "select created_at from feedback_loop.outbox where event_id = $1", event
        )
        day = await today(connection, zone, written)
        if not due(day, wanted):
            return None
        found = await week(connection, app, zone, day - timedelta(1))
    worth = found.now.total or found.before.total or found.outcomes
    return (found, week_key(app, day)) if worth else None


async def apps(connection: Connection, limit: int) -> list[str]:
    """The apps that have been evaluated."""
    return [row["app"] for row in await connection.fetch(_APPS, limit)]


async def state_of(connection: Connection, app: str) -> tuple[str | None, int | None]:
    """The alert state and the active generation, where there are any."""
    row = await connection.fetchrow(_STATE, app)
    assert row is not None
    return row["state"], row["generation"]
