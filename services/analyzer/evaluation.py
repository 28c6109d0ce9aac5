"""What an evaluation looks at, and the report of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services.analyzer import verdicts
from services.analyzer.aftermath import rollback
from services.analyzer.rest import read_rest, recent_retrains, retrain_running
from services.analyzer.votes import Lineage, Window, count, earlier, lineage, report_start
from shared import policy
from shared.events import Aftermath, Comparison, Evidence, FeedbackEvaluate, ReportReady
from shared.postgres.database import Connection
from shared.settings import duration

__all__ = ["LOOK_BACK", "Seen", "decisive_ratio", "look", "look_back", "report", "window_start"]

FIRST_WINDOW = timedelta(hours=24)

LOOK_BACK = timedelta(days=28)
"""How far back dislikes are sorted, at least: what is rare makes no group within a day."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What an evaluation has seen.

    Attributes:
        line: of the active generation.
        start: of the report window.
        previous: the report's counts in the window before.
        aftermath: the verdict on an earlier promotion, where one was reached.
    """

    line: Lineage
    start: datetime
    situation: policy.Situation
    previous: Comparison
    aftermath: Aftermath | None


async def look(
    connection: Connection, event: FeedbackEvaluate, run: UUID, rules: policy.Rules, report_window: str
) -> Seen:
    """Read all that the decision depends on, and record the verdict that is due."""
    assert event.as_of is not None
    line = await lineage(connection, event.app)
    start = await window_start(connection, event, report_window)
    now, previous, windows = await _count(connection, event, line, start)
    rest = await read_rest(connection, event.app, rules.cooldown)
    aftermath = await verdicts.judge(connection, event.app, line, rules, run)
    situation = policy.Situation(
        as_of=event.as_of,
        report=now,
        windows=windows,
        retrain_running=await retrain_running(connection, event.app),
        cooling_until=rest.cooling_until,
        recent=await recent_retrains(connection, event.app, rest.resumed_at, event.as_of, rules),
        paused=rest.paused,
        now=rest.now,
        rolling_back=bool(rollback(event.app, aftermath)),
    )
    return Seen(line, start, situation, previous, aftermath)


def look_back(start: datetime, end: datetime) -> datetime:
    """From when on dislikes are sorted, where the report window is `(start, end]`."""
    return min(start, earlier(end, LOOK_BACK))


async def window_start(connection: Connection, event: FeedbackEvaluate, default: str) -> datetime:
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
    trailing = {name: earlier(end, length) for name, length in policy.WINDOWS.items()}
    now, before, *votes = await count(
        connection,
        event.app,
        Window(start, end),
        Window(earlier(start, end - start), start),
        *(Window(since, end, line) for since in trailing.values()),
    )
    report = policy.evidence("the report window", start, end, now.likes, now.dislikes, policy.Z95)
    windows = tuple(
        policy.evidence(name, since, end, of.likes, of.dislikes, policy.Z_DECISION)
        for (name, since), of in zip(trailing.items(), votes, strict=True)
    )
    ratio = before.dislikes / before.total if before.total else None
    return report, Comparison(likes=before.likes, dislikes=before.dislikes, ratio=ratio), windows


def decisive_ratio(situation: policy.Situation, rules: policy.Rules) -> float:
    """The ratio that the decision to act rests on: of two windows, the one that is surer."""
    if rules.policy == "ratio":
        return situation.report.ratio
    enough = (window for window in situation.windows if window.total >= rules.min_votes)
    return max(enough, key=lambda window: window.low).ratio


def report(
    event: FeedbackEvaluate,
    run: UUID,
    rules: policy.Rules,
    seen: Seen,
    decision: policy.Decision,
) -> ReportReady:
    """What was counted and decided."""
    situation, report = seen.situation, seen.situation.report
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
        because=list(decision.because),
        policy=rules.policy,
        threshold=rules.threshold,
        evidence=list(situation.windows),
        previous=seen.previous,
        generation=seen.line.active,
        aftermath=seen.aftermath,
        requested_by=event.requested_by,
        scheduled=event.scheduled,
    )
