"""The analyzer's handlers: `feedback.evaluate` ends in exactly one of `report.ready` (nothing to do)
or `retrain.requested` (act). Beside a report there may be a `rollback.requested`: the verdict on an
earlier promotion. What it sees and what it decides are one REPEATABLE READ transaction.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from services.analyzer import causes, verdicts
from services.analyzer.aftermath import rollback
from services.analyzer.dislikes import dislikes
from services.analyzer.rest import read_rest, recent_retrains, retrain_running
from services.analyzer.votes import Lineage, count, earlier, lineage, report_start
from shared import policy
from shared.database import Connection, Database
from shared.events import (
    Comparison,
    Event,
    Evidence,
    FeedbackEvaluate,
    LoopPaused,
    LoopResumed,
    ReportReady,
    RetrainCompleted,
    RetrainRequested,
    derived,
)
from shared.owner_tables import read_owner_tables
from shared.settings import duration
from shared.work import UnitOfWork

__all__ = ["Deps", "evaluate", "finish_retrain", "pause", "resume"]

log = logging.getLogger(__name__)

FIRST_WINDOW = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Deps:
    """What the handlers need.

    Attributes:
        report_window: `REPORT_WINDOW`, where the event names none.
    """

    database: Database
    rules: policy.Rules
    report_window: str


async def evaluate(event: FeedbackEvaluate, work: UnitOfWork, deps: Deps) -> list[Event]:
    """Judge the votes of an app as they were at `as_of`."""
    assert event.as_of is not None, "a run fixes it before any handler sees the event"
    async with deps.database.transaction() as connection:
        await read_owner_tables(connection)

    connection = await work.begin("repeatable_read")
    line = await lineage(connection, event.app)
    start = await _window_start(connection, event, deps.report_window)
    report, before, windows = await _count(connection, event, line, start)
    rest = await read_rest(connection, event.app, deps.rules.cooldown)
    aftermath = await verdicts.judge(connection, event.app, line, deps.rules, work.envelope.id)
    undoing = rollback(event.app, aftermath)
    situation = policy.Situation(
        as_of=event.as_of,
        report=report,
        windows=windows,
        retrain_running=await retrain_running(connection, event.app),
        cooling_until=rest.cooling_until,
        recent=await recent_retrains(connection, event.app, rest.resumed_at, event.as_of, deps.rules),
        paused=rest.paused,
        now=rest.now,
        rolling_back=bool(undoing),
    )
    decision = policy.decide(situation, deps.rules)
    why = causes.count(await dislikes(connection, event.app, start, event.as_of))
    if why.sentence:
        decision = replace(decision, explanation=f"{decision.explanation}; {why.sentence}")
    said = _report(event, work.envelope.id, deps.rules, situation, decision).model_copy(
        update={
            "previous": before,
            "generation": line.active,
            "aftermath": aftermath,
            "causes": {**why.counts},
            "coverage_gaps": list(why.gaps),
        }
    )
    if not decision.act:
        await _record(connection, said, None)
        log.info("evaluated %s: %s (%s)", event.app, decision.verdict, decision.explanation)
        return [said, *undoing]
    ratio = _decisive_ratio(situation, deps.rules)
    retrain = await _open_retrain(connection, event, work, line, ratio)
    await _record(connection, said, retrain)
    log.info("Retrain triggered (ratio=%.2f)", ratio if said.ratio is None else said.ratio)
    return [RetrainRequested(**dict(said), retrain=retrain, base_generation=line.active)]


async def _window_start(connection: Connection, event: FeedbackEvaluate, default: str) -> datetime:
    """Where the report's counts begin."""
    assert event.as_of is not None
    fixed = duration(event.window or default)
    if fixed is not None:
        return earlier(event.as_of, fixed)
    last = await report_start(connection, event.app, event.as_of)
    return last or earlier(event.as_of, FIRST_WINDOW)


async def _count(
    connection: Connection, event: FeedbackEvaluate, line: Lineage, start: datetime
) -> tuple[Evidence, Comparison, tuple[Evidence, ...]]:
    """The report's window, the window before it, and the decision's windows."""
    end = event.as_of
    assert end is not None
    now = await count(connection, event.app, start, end)
    before = await count(connection, event.app, earlier(start, end - start), start)
    report = policy.evidence("the report window", start, end, now.likes, now.dislikes, policy.Z95)
    windows = []
    for name, length in policy.WINDOWS.items():
        since = earlier(end, length)
        votes = await count(connection, event.app, since, end, line)
        windows.append(policy.evidence(name, since, end, votes.likes, votes.dislikes, policy.Z_DECISION))
    ratio = before.dislikes / before.total if before.total else None
    return report, Comparison(likes=before.likes, dislikes=before.dislikes, ratio=ratio), tuple(windows)


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


def _decisive_ratio(situation: policy.Situation, rules: policy.Rules) -> float:
    """The ratio that the decision to act rests on: of two windows, the one that is surer."""
    if rules.policy == "ratio":
        return situation.report.ratio
    enough = (window for window in situation.windows if window.total >= rules.min_votes)
    return max(enough, key=lambda window: window.low).ratio


async def _record(connection: Connection, said: ReportReady, retrain: UUID | None) -> None:
    await connection.execute(
        "insert into feedback_loop.decision (run, app, as_of, scheduled, verdict, reason, explanation,"
        " window_start, likes, dislikes, generation, retrain)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
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
    )


def _report(
    event: FeedbackEvaluate,
    run: UUID,
    rules: policy.Rules,
    situation: policy.Situation,
    decision: policy.Decision,
) -> ReportReady:
    """What was counted and decided."""
    report = situation.report
    return ReportReady(
        app=event.app,
        run=run,
        as_of=situation.as_of,
        window_start=report.start,
        window_end=report.end,
        likes=report.likes,
        dislikes=report.dislikes,
        total=report.total,
        ratio=report.ratio if report.total else None,
        interval=(report.low, report.high) if report.total else None,
        verdict=decision.verdict,
        reason=decision.reason,
        explanation=decision.explanation,
        policy=rules.policy,
        threshold=rules.threshold,
        evidence=list(situation.windows),
        requested_by=event.requested_by,
        scheduled=event.scheduled,
    )


async def finish_retrain(event: RetrainCompleted, work: UnitOfWork, deps: Deps) -> list[Event]:
    """Close the retrain, and rest: after every retrain that feedback drove, and every rollback."""
    connection = await work.begin()
    if event.retrain is not None:
        await connection.execute(
            "update feedback_loop.retrain set finished_at = now(), outcome = $2, generation = $3, detail = $4"
            " where id = $1 and finished_at is null",
            event.retrain,
            event.outcome,
            event.generation_after,
            event.detail,
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
        event.why or "a person asked for it",
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
