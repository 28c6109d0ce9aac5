"""What the team is told, and when. Each handler posts first; the unit of work opens only after, so
no transaction waits for Slack.

Keys are derived from the event, so a redelivery posts nothing twice. The report's is its run's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from services.notifier import messages
from services.notifier.destinations import Posted
from services.notifier.messages import Language, Markup
from services.notifier.poster import Poster
from shared.database import Database
from shared.events import (
    Event,
    FeedbackEvaluate,
    LoopFailed,
    LoopPaused,
    LoopResumed,
    Report,
    ReportReady,
    RetrainCompleted,
    RetrainRequested,
)
from shared.failures import Retry
from shared.router import Registration
from shared.work import UnitOfWork

__all__ = ["REGISTRATIONS", "Notifier", "wait_for_report"]

log = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds that an outcome waits for its report, so as to answer it in a thread."""


@dataclass(frozen=True, slots=True)
class Notifier:
    """What the handlers need."""

    poster: Poster
    database: Database
    zone: ZoneInfo
    language: Language
    dashboard_url: str
    start_notice: bool

    @property
    def markup(self) -> Markup:
        return self.poster.destination.markup


async def on_start(event: FeedbackEvaluate, work: UnitOfWork, deps: Notifier) -> list[Event]:
    """The start notice, where it is wanted."""
    if deps.start_notice:
        at = event.as_of or work.envelope.time
        text = messages.start_notice(event.requested_by, at, deps.zone, deps.language, deps.markup)
        await _post(deps, work, "start", text)
    return []


async def on_report(event: ReportReady, work: UnitOfWork, deps: Notifier) -> list[Event]:
    """The report."""
    await _report(event, work, deps)
    return []


async def on_retrain(event: RetrainRequested, work: UnitOfWork, deps: Notifier) -> list[Event]:
    """The report, and under it that a retrain starts."""
    report = await _report(event, work, deps)
    await _post(deps, work, "retrain", messages.retrain_started(event, deps.language, deps.markup), report)
    return []


async def on_outcome(event: RetrainCompleted, work: UnitOfWork, deps: Notifier) -> list[Event]:
    """How a build or a rollback ended; a build of changed documents only when it went wrong."""
    if event.reason == "documents" and event.outcome not in ("failed", "rejected"):
        return []
    thread = await _thread(event, work, deps)
    await _post(deps, work, "outcome", messages.outcome(event, deps.language, deps.markup), thread)
    return []


async def on_failure(event: LoopFailed, work: UnitOfWork, deps: Notifier) -> list[Event]:
    """That a consumer gave up."""
    await _post(deps, work, "failed", messages.failed(event, deps.language, deps.markup))
    return []


async def on_pause(event: LoopPaused, work: UnitOfWork, deps: Notifier) -> list[Event]:
    """That retraining is paused."""
    await _post(deps, work, "paused", messages.paused(event, deps.zone, deps.language, deps.markup))
    return []


async def on_resume(event: LoopResumed, work: UnitOfWork, deps: Notifier) -> list[Event]:
    """That retraining goes on."""
    await _post(deps, work, "resumed", messages.resumed(event, deps.language, deps.markup))
    return []


REGISTRATIONS = (
    Registration(FeedbackEvaluate, on_start),
    Registration(ReportReady, on_report),
    Registration(RetrainRequested, on_retrain),
    Registration(RetrainCompleted, on_outcome),
    Registration(LoopFailed, on_failure),
    Registration(LoopPaused, on_pause),
    Registration(LoopResumed, on_resume),
)


def wait_for_report(age: float) -> float | None:
    """Seconds until an outcome looks for its report again, `age` seconds after the outcome; None: it
    waits no longer. Three tries on the usual ladder: each costs one of the event's attempts."""
    return min(max(5.0, 4 * age), PATIENCE - age) if age < PATIENCE else None


async def _report(event: Report, work: UnitOfWork, deps: Notifier) -> Posted:
    """Post the report, and under it what an earlier promotion led to, where that is known now."""
    text = messages.report(event, deps.zone, deps.language, deps.dashboard_url, deps.markup)
    posted = await deps.poster.post_once(f"report/{event.run}", work.envelope, "report", text)
    if not posted.earlier:
        # Other programs look for this line, whatever the destination: it stays as it is.
        log.info(
            "Feedback loop started → Slack Report sent",
            extra={"run": str(event.run), "destination": deps.poster.destination.name},
        )
    if event.aftermath is not None:
        text = messages.aftermath(event.aftermath, event.app, deps.language, deps.markup)
        await _post(deps, work, "aftermath", text, posted)
    return posted


async def _post(deps: Notifier, work: UnitOfWork, kind: str, text: str, thread: Posted | None = None) -> None:
    await deps.poster.post_once(f"{kind}/{work.envelope.id}", work.envelope, kind, text, thread)


async def _thread(event: RetrainCompleted, work: UnitOfWork, deps: Notifier) -> Posted | None:
    """The report that an outcome answers; None where there is none.

    Raises:
        Retry: the report is still to come, as far as can be known.
    """
    if event.reason != "feedback" or not deps.poster.destination.threads:
        return None
    report = await deps.poster.report_of(event.run or work.envelope.correlation)
    if report is not None:
        return report
    async with deps.database.connection() as connection:
        age = await connection.fetchval(
            "select extract(epoch from now() - created_at)::double precision"
            " from feedback_loop.outbox where event_id = $1",
            work.envelope.id,
        )
    after = wait_for_report(age) if age is not None else None
    if after is None:
        return None
    raise Retry(after, "the report of its run is not posted yet")
