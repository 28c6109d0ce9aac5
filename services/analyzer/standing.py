"""Where the row of an app's state is read and written, in the evaluation's transaction.

Two evaluations of one app at once meet here: the second starts over, and sees what the first has left.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services.analyzer.alerts import Standing, follow, state_of
from shared.events import Alert
from shared.policy import Situation
from shared.postgres.database import Connection

__all__ = ["Taken", "take"]


@dataclass(frozen=True, slots=True)
class Taken:
    """What there is to tell of the state; `late`: later votes have been judged before."""

    told: Alert
    late: bool


async def take(connection: Connection, app: str, run: UUID, reason: str, situation: Situation) -> Taken:
    """Move the app to the state that a decision stands for."""
    assert situation.now is not None
    # What a trigger from the future has seen are the votes up to now.
    as_of = min(situation.as_of, situation.now)
    before = await _read(connection, app)
    votes = any(window.total for window in (situation.report, *situation.windows))
    standing, alert = follow(before, state_of(reason, votes=votes), as_of, situation.now)
    if standing is before:
        return Taken(alert, late=True)
    await connection.execute(
        "insert into feedback_loop.alert (app, state, since, known, troubled, run, as_of, changed_at)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8)"
        " on conflict (app) do update set state = excluded.state, since = excluded.since,"
        " known = excluded.known, troubled = excluded.troubled, run = excluded.run,"
        " as_of = excluded.as_of, changed_at = excluded.changed_at",
        app,
        standing.state,
        standing.since,
        standing.known,
        standing.troubled,
        run,
        standing.as_of,
        standing.changed_at,
    )
    return Taken(alert, late=False)


async def _read(connection: Connection, app: str) -> Standing | None:
    row = await connection.fetchrow(
        "select state, since, known, troubled, as_of, changed_at from feedback_loop.alert where app = $1", app
    )
    return Standing(**row) if row else None
