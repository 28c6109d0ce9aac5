"""Runs: one evaluation of one app. A hit on the trigger and an anonymous `feedback.evaluate` from
another service follow the same rule: within the trigger window of a run's start they join it.

All times are the database's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from shared.bus.envelope import Envelope, from_json
from shared.delivery.outbox import Outbox
from shared.events import FeedbackEvaluate
from shared.postgres.database import Connection, Database
from shared.requester import requester
from shared.telemetry.tracing import here

__all__ = ["SOURCE", "Hit", "Run", "adopt", "hit"]

SOURCE = "/feedback-loop/trigger"


@dataclass(frozen=True, slots=True)
class Hit:
    """One request for a run.

    Attributes:
        as_of: which votes count, where the caller may say; None: those up to now.
        key: an idempotency key; a hit with one never joins another run, and makes at most one.
        times: how many requests this stands for.
        traceparent: the request's place in a trace; its event descends from there, if it starts a run.
    """

    app: str
    requested_by: str
    window: str | None = None
    scheduled: bool = False
    as_of: datetime | None = None
    key: str | None = None
    times: int = 1
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """The run a hit belongs to. `envelope` is its `feedback.evaluate`, as it was first written."""

    id: UUID
    as_of: datetime
    joined: bool
    published: bool
    envelope: Envelope


async def hit(connection: Connection, outbox: Outbox, request: Hit, trigger_window: timedelta) -> Run:
    """Join the app's current run, or start one and write its event to the outbox.

    Call it in a transaction: a lock per app makes concurrent hits queue up, so that they agree.
    """
    await connection.execute(
        "select pg_advisory_xact_lock(hashtextextended('feedback_loop.run/' || $1, 0))", request.app
    )
    found = await connection.fetchrow(
        # With a key: the run of that key. Without: the latest joinable one within the window.
        "update feedback_loop.run set hits = hits + $6, scheduled = scheduled or $2"
        " where id = (select id from feedback_loop.run where app = $1 and case when $3::text is null"
        "   then joinable and started_at > now() - $4::interval and as_of_given is not distinct from $5"
        "   else idempotency_key = $3 end"
        "   order by started_at desc limit 1)"
        " returning id, as_of, requested_by, scheduled",
        request.app,
        request.scheduled,
        request.key,
        trigger_window,
        request.as_of,
        request.times,
    )
    joined = found is not None
    if found is None:
        found = await connection.fetchrow(
            "insert into feedback_loop.run"
            " (id, app, as_of, as_of_given, requested_by, scheduled, joinable, idempotency_key, hits)"
            " values ($1, $2, coalesce($3, now()), $3, $4, $5, $6::text is null, $6, $7)"
            " returning id, as_of, requested_by, scheduled",
            uuid4(),
            request.app,
            request.as_of,
            request.requested_by,
            request.scheduled,
            request.key,
            request.times,
        )
        assert found is not None
    event = FeedbackEvaluate(
        app=request.app,
        as_of=found["as_of"],
        window=request.window,
        requested_by=found["requested_by"],
        scheduled=found["scheduled"],
    )
    envelope = replace(Envelope.root(event, SOURCE, id=found["id"]), traceparent=request.traceparent)
    await outbox.add(connection, [envelope])  # there already where the hit joined
    stored = await connection.fetchrow(
        "select envelope, published_at is not null as published"
        " from feedback_loop.outbox where event_id = $1",
        found["id"],
    )
    assert stored is not None
    return Run(found["id"], found["as_of"], joined, stored["published"], from_json(stored["envelope"]))


async def adopt(
    database: Database, outbox: Outbox, envelope: Envelope, trigger_window: timedelta
) -> Envelope:
    """Give a `feedback.evaluate` its run, fixing `as_of` on first receipt.

    The trigger's own events have theirs. A foreign event with an id becomes a run of its own; one
    without joins the app's current run, as a hit on the trigger does, and takes that run's id.
    """
    event = envelope.event
    if not isinstance(event, FeedbackEvaluate) or (envelope.source == SOURCE and event.as_of):
        return envelope
    by = requester(None, event.requested_by or envelope.source)
    async with database.transaction() as connection:
        if envelope.anonymous:
            request = Hit(
                event.app,
                by,
                event.window,
                as_of=event.as_of,
                traceparent=here().traceparent or envelope.traceparent,
            )
            run = await hit(connection, outbox, request, trigger_window)
            return envelope.with_event(run.envelope.event, run.id)
        await connection.execute(
            "insert into feedback_loop.run (id, app, as_of, as_of_given, requested_by, scheduled, joinable)"
            " values ($1, $2, coalesce($3, now()), $3, $4, $5, false) on conflict (id) do nothing",
            envelope.id,
            event.app,
            event.as_of,
            by,
            event.scheduled,
        )
        as_of = await connection.fetchval("select as_of from feedback_loop.run where id = $1", envelope.id)
        adopted = envelope.with_event(
            event.model_copy(update={"as_of": as_of, "requested_by": by}), envelope.id
        )
        # From here on Postgres remembers it, should the broker forget.
        await outbox.add(connection, [adopted], published=True)
        return adopted
