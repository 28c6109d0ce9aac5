"""What the dashboard reads: runs, their steps and the builds, through the kernel's views.

What is guaranteed: reads within one repeatable-read transaction agree with each other, and the
cursor of a `Horizon` loses nothing. It is the oldest transaction id that was still open when it was
read, so a fact that becomes visible later has an id not below it, however late its transaction
commits. What is not: that facts read since a cursor are all new (one that committed while an older
transaction was open comes again; readers tell them by `id`), nor that a cursor survives a database
that was restored and has since passed it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from asyncpg import Record

from shared.events import Because
from shared.postgres.database import Connection
from shared.reasons import in_all_languages
from shared.requester import printable

__all__ = [
    "MOST_STEPS",
    "Horizon",
    "Row",
    "builds",
    "explained",
    "horizon",
    "public",
    "runs",
    "settled",
    "snapshot",
    "steps_since",
    "votes_changed",
]

Row = dict[str, Any]
"""A row as JSON has it: times in ISO 8601, ids as text, text bounded and on one line."""

MOST_STEPS = 500
"""Steps told one by one to a reader that has fallen behind; beyond, a snapshot is less."""

STEPS_OF_A_RUN = 100
LONGEST = 500
"""Characters of a text that people or other programs wrote."""

_STEP = "run, step as id, type, service, what, detail, at, xid::text::bigint as xid"
_RUNNING = ("building", "built")


@dataclass(frozen=True, slots=True)
class Horizon:
    """How far the current snapshot sees.

    Attributes:
        cursor: what is yet to become visible has a transaction id not below it.
        end: the first transaction id not yet given out; a cursor beyond it is another database's.
        snapshot: the same in full, as PostgreSQL writes it.
    """

    cursor: int
    end: int
    now: datetime
    snapshot: str


async def horizon(connection: Connection) -> Horizon:
    row = await connection.fetchrow(
        "select pg_snapshot_xmin(seen)::text::bigint as cursor, pg_snapshot_xmax(seen)::text::bigint as end,"
        " now() as now, seen::text as snapshot from pg_current_snapshot() as seen"
    )
    assert row is not None
    return Horizon(**row)


async def votes_changed(connection: Connection, before: Horizon) -> bool:
    """Whether votes or conversations were written, changed or deleted that `before` did not see."""
    changed: bool = await connection.fetchval(
        "select exists (select from feedback_loop.dashboard_change"
        " where xid >= pg_snapshot_xmin($1::text::pg_snapshot)"
        " and not pg_visible_in_snapshot(xid, $1::text::pg_snapshot))",
        before.snapshot,
    )
    return changed


async def steps_since(
    connection: Connection, cursor: int, seen: Horizon, most: int = MOST_STEPS
) -> list[Row] | None:
    """The steps that a reader who stopped at `cursor` may not have, oldest first.

    None where that cannot be told step by step: the cursor is not this database's, or there are more
    than `most`.
    """
    if cursor > seen.end:
        return None
    rows = await connection.fetch(
        f"select {_STEP} from feedback_loop.run_step where xid >= $1::text::xid8 order by at, step limit $2",
        str(cursor),
        most + 1,
    )
    return None if len(rows) > most else [public(row) for row in rows]


async def runs(connection: Connection, ids: Iterable[str]) -> list[Row]:
    """Where each of these runs stands; an id that is no run's is left out."""
    rows = await connection.fetch(
        "select * from feedback_loop.run_status where id = any($1::uuid[]) order by started_at",
        [UUID(id) for id in ids],
    )
    return [_run(row) for row in rows]


async def builds(
    connection: Connection, generations: Iterable[int] = (), of: Iterable[str] = ()
) -> list[Row]:
    """The builds under way, besides those of the `generations` named and those `of` the runs named."""
    rows = await connection.fetch(
        "select * from feedback_loop.build_progress"
        " where state = any($1::text[]) or generation = any($2::bigint[]) or run = any($3::uuid[])"
        " order by generation",
        list(_RUNNING),
        list(generations),
        [UUID(id) for id in of],
    )
    return [{**public(row), "running": row["state"] in _RUNNING} for row in rows]


async def snapshot(connection: Connection, seen: Horizon, limit: int) -> dict[str, Any]:
    """The last `limit` runs, newest first, each with its steps; their builds and those under way;
    the latest run that has a verdict (it may be older than the others)."""
    listed = await connection.fetch(
        "select * from feedback_loop.run_status order by started_at desc, id limit $1", limit
    )
    found = [_run(row) for row in listed]
    by_run: dict[str, list[Row]] = {run["id"]: [] for run in found}
    steps = await connection.fetch(
        f"select {_STEP} from unnest($1::uuid[]) as wanted, lateral"
        " (select * from feedback_loop.run_step where run = wanted order by at, step limit $2) as its"
        " order by at, step",
        [row["id"] for row in listed],
        STEPS_OF_A_RUN,
    )
    for step in map(public, steps):
        by_run[step["run"]].append(step)
    return {
        "cursor": str(seen.cursor),
        "now": seen.now.isoformat(),
        "latest": await _latest(connection, found),
        "runs": [{**run, "steps": by_run[run["id"]]} for run in found],
        "builds": await builds(connection, of=by_run),
    }


def settled(run: Row) -> bool:
    """Whether the run changes only together with a new step of its own."""
    return run["state"] in ("done", "failed")


async def _latest(connection: Connection, listed: list[Row]) -> Row | None:
    decided = [run for run in listed if run["decided_at"]]
    if decided:
        return max(decided, key=lambda run: str(run["started_at"]))
    row = await connection.fetchrow(
        "select * from feedback_loop.run_status where decided_at is not null order by started_at desc limit 1"
    )
    return _run(row) if row else None


def _run(row: Record) -> Row:
    """A run, with why it ended so in every language that there are words in."""
    run = public(row)
    return {
        **run,
        "explained": explained(row["because"], run["explanation"]),
        "retrain_explained": explained(row["retrain_because"], run["retrain_detail"]),
    }


def explained(because: Iterable[Any] | None, otherwise: str | None) -> dict[str, str]:
    """Language → the reasons as they are stored, in words; they may hold what people wrote."""
    said = in_all_languages(map(Because.model_validate, because or ()), otherwise)
    return {language: printable(sentence, LONGEST) for language, sentence in said.items()}


def public(row: Record) -> Row:
    """The row as JSON has it."""
    return {name: _json(value) for name, value in row.items()}


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    # Names and reasons come from outside: no direction overrides, no megabytes.
    return printable(value, LONGEST) if isinstance(value, str) else value
