"""The analyzer's handlers: `feedback.evaluate` ends in exactly one of `report.ready` (nothing to do)
or `retrain.requested` (act). Beside a report there may be a `rollback.requested`: the verdict on an
earlier promotion. What it sees and what it decides are one REPEATABLE READ transaction; only what
comments mean is found out before.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from services.analyzer import causes, evaluation, standing
from services.analyzer.aftermath import rollback
from services.analyzer.comments import Listener
from services.analyzer.dislikes import dislikes, find_questions
from services.analyzer.register import enter
from services.analyzer.votes import Lineage
from shared import policy
from shared.delivery.work import UnitOfWork
from shared.events import (
    Event,
    FeedbackEvaluate,
    LoopPaused,
    LoopResumed,
    ReportReady,
    RetrainCompleted,
    RetrainRequested,
    derived,
)
from shared.mirror.mirror import Mirror
from shared.postgres.database import Connection, Database
from shared.postgres.folding import fold
from shared.postgres.owner_tables import read_owner_tables
from shared.postgres.retention import retain
from shared.reasons import say

__all__ = ["Deps", "evaluate", "finish_retrain", "pause", "resume"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Deps:
    """What the handlers need.

    Attributes:
        report_window: `REPORT_WINDOW`, where the event names none.
        listener: finds out what comments mean.
        retention: days that what users wrote is kept; 0: for ever.
        mirror: sends what votes have become of late.
    """

    database: Database
    rules: policy.Rules
    report_window: str
    listener: Listener
    retention: int = 0
    mirror: Mirror | None = None


async def evaluate(event: FeedbackEvaluate, work: UnitOfWork, deps: Deps) -> list[Event]:
    """Judge the votes of an app as they were at `as_of`."""
    assert event.as_of is not None, "a run fixes it before any handler sees the event"
    run = work.envelope.id
    async with deps.database.transaction() as connection:
        await read_owner_tables(connection)
        await retain(connection, deps.retention)
        await find_questions(connection, event.app)
        start = await evaluation.window_start(connection, event, deps.report_window)
    if deps.mirror is not None:
        deps.mirror.soon()
    await fold(deps.database, event.app)
    heard = await deps.listener.hear(event.app, evaluation.look_back(start, event.as_of), event.as_of, run)

    connection = await work.begin("repeatable_read")
    seen = await evaluation.look(connection, event, run, deps.rules, deps.report_window)
    decision = policy.decide(seen.situation, deps.rules)
    ratio = evaluation.decisive_ratio(seen.situation, deps.rules) if decision.act else 0.0
    retrain = await _open_retrain(connection, event, work, seen.line, ratio) if decision.act else None
    alert = await standing.take(connection, event.app, run, decision.reason, seen.situation)
    since = evaluation.look_back(seen.start, event.as_of)
    found = await dislikes(connection, event.app, since, event.as_of, heard.joined)
    disliked = [(one, causes.sort(one)) for one in found]
    groups = await enter(connection, event.app, disliked, heard, seen.start, late=alert.late)
    why = causes.count([each for each in disliked if each[0].voted > seen.start])
    if why.because:
        because = (*decision.because, why.because)
        decision = replace(decision, explanation=say(because, "en"), because=because)
    said = evaluation.report(event, run, deps.rules, seen, decision).model_copy(
        update={
            "causes": {**why.counts},
            "coverage_gaps": list(why.gaps),
            "complaint_groups": groups,
            "alert": alert.told,
        }
    )
    await _record(connection, said, retrain)
    if retrain is None:
        log.info("evaluated %s: %s (%s)", event.app, decision.verdict, decision.explanation)
        return [said, *rollback(event.app, seen.aftermath)]
    log.info("Retrain triggered (ratio=%.2f)", ratio if said.ratio is None else said.ratio)
    return [RetrainRequested(**dict(said), retrain=retrain, base_generation=seen.line.active)]


async def _open_retrain(
    connection: Connection,
    event: FeedbackEvaluate,
    work: UnitOfWork,
    line: Lineage,
    ratio: float,
) -> UUID:
    """Open the app's one active retrain; of two evaluations at once, the second starts over."""
    id = derived(work.envelope.id, work.consumer, "retrain")
    await connection.execute(
        "insert into feedback_loop.retrain (id, app, run, base_generation, ratio_before)"
        " values ($1, $2, $3, $4, $5)"
        # With the other's row unseen by this snapshot it is a conflict to the router, not a failure.
        " on conflict (app) where finished_at is null do nothing",
        id,
        event.app,
        work.envelope.id,
        line.active,
        ratio,
    )
    return id


async def _record(connection: Connection, said: ReportReady, retrain: UUID | None) -> None:
    await connection.execute(
        "insert into feedback_loop.decision (run, app, as_of, scheduled, verdict, reason, explanation,"
        " window_start, likes, dislikes, generation, retrain, causes, alert, because)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        said.run,
        said.app,
        said.as_of,
        said.scheduled,
        said.verdict,
        said.reason,
        said.explanation,
        said.window_start,
        said.likes,
        said.dislikes,
        said.generation,
        retrain,
        said.causes,
        said.alert.state if said.alert else None,
        [one.model_dump() for one in said.because],
    )


async def finish_retrain(event: RetrainCompleted, work: UnitOfWork, deps: Deps) -> list[Event]:
    """Close the retrain, and rest: after every retrain that feedback drove, and every rollback."""
    connection = await work.begin()
    if event.retrain is not None:
        await connection.execute(
            "update feedback_loop.retrain set finished_at = now(), outcome = $2, generation = $3,"
            " detail = $4, because = $5 where id = $1 and finished_at is null",
            event.retrain,
            event.outcome,
            event.generation_after,
            event.detail,
            [one.model_dump() for one in event.because],
        )
    if event.reason == "feedback" or (event.reason == "rollback" and event.outcome == "promoted"):
        await connection.execute(
            "insert into feedback_loop.rest (app, cooling_from) values ($1, now())"
            " on conflict (app) do update set cooling_from = now()",
            event.app,
        )
    return []


async def pause(event: LoopPaused, work: UnitOfWork, deps: Deps) -> list[Event]:
    """Stop retraining, until then or until a `loop.resumed`; of the two, what was said last stands."""
    connection = await work.begin()
    await connection.execute(
        "insert into feedback_loop.rest as r (app, paused_at, paused_why, paused_until)"
        " values ($1, $2, $3, $4) on conflict (app) do update set"
        " paused_at = excluded.paused_at, paused_why = $3, paused_until = $4"
        " where greatest(r.paused_at, r.resumed_at, excluded.paused_at) = excluded.paused_at",
        event.app,
        await _said_at(connection, work),
        event.why,
        event.until,
    )
    return []


async def resume(event: LoopResumed, work: UnitOfWork, deps: Deps) -> list[Event]:
    """Lift a pause and close the breaker: only retrains from here on count against it."""
    connection = await work.begin()
    await connection.execute(
        "insert into feedback_loop.rest as r (app, resumed_at) values ($1, $2)"
        " on conflict (app) do update set"
        " resumed_at = greatest(r.resumed_at, excluded.resumed_at),"
        " paused_why = case when r.paused_at > excluded.resumed_at then r.paused_why end,"
        " paused_until = case when r.paused_at > excluded.resumed_at then r.paused_until end",
        event.app,
        await _said_at(connection, work),
    )
    return []


async def _said_at(connection: Connection, work: UnitOfWork) -> datetime:
    """When the event was written, by database time; now, where another system wrote it."""
    said: datetime = await connection.fetchval(
        "select coalesce((select created_at from feedback_loop.outbox where event_id = $1), now())",
        work.envelope.id,
    )
    return said
