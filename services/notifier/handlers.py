"""What the team is told, and when. Each handler posts first; the unit of work opens only after, so
no transaction waits for Slack.

Keys are derived from the event, so a redelivery posts nothing twice. The report's is its run's. With
`REPORT=on_change` a report that has nothing new to say is not posted; a weekly summary is in any case.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from zoneinfo import ZoneInfo

from services.notifier import blocks, messages, series, weekly
from services.notifier.destinations import Posted
from services.notifier.phrases import Markup
from services.notifier.pictures import Pictures
from services.notifier.poster import Poster
from services.notifier.wording import Language
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

__all__ = ["REGISTRATIONS", "Notifier", "wait_for_report", "worth_telling"]

log = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds that an outcome waits for its report, so as to answer it in a thread."""


@dataclass(frozen=True, slots=True)
class Notifier:
    """What the handlers need.

    Attributes:
        start_notice, quotes, on_change, weekly: as the settings say.
        buttons: whether reports have buttons that change the loop.
    """

    poster: Poster
    pictures: Pictures
    database: Database
    zone: ZoneInfo
    language: Language
    dashboard_url: str
    start_notice: bool
    quotes: bool
    on_change: bool
    weekly: str
    buttons: bool

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
    """The report, and its picture."""
    posted = await _report(event, work, deps)
    await deps.pictures.offer(event.app, event.run, work.envelope, posted, event.as_of)
    return []


async def on_retrain(event: RetrainRequested, work: UnitOfWork, deps: Notifier) -> list[Event]:
    """The report, and under it that a retrain starts, and the picture."""
    report = await _report(event, work, deps)
    text = messages.retrain_started(event, deps.language, deps.markup, deps.quotes)
    await _post(deps, work, "retrain", text, report)
    await deps.pictures.offer(event.app, event.run, work.envelope, report, event.as_of)
    return []


async def on_outcome(event: RetrainCompleted, work: UnitOfWork, deps: Notifier) -> list[Event]:
    """How a build or a rollback ended; a build of changed documents only when it went wrong."""
    if event.reason == "documents" and event.outcome not in ("failed", "rejected"):
        return []
    thread = await _thread(event, work, deps)
    await _post(deps, work, "outcome", messages.outcome(event, deps.language, deps.markup), thread)
    run = event.run or work.envelope.correlation
    await deps.pictures.offer(event.app, run, work.envelope, thread)  # where the build was in its way
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


def worth_telling(event: Report) -> bool:
    """Whether a report says something new: another alert state, an end of one, a retrain, or what an
    earlier one led to. A report without a state says so little that it is told."""
    alert = event.alert
    new = alert is None or alert.changed or alert.recovered
    return new or event.verdict == "act" or event.aftermath is not None


async def _report(event: Report, work: UnitOfWork, deps: Notifier) -> Posted | None:
    """Post the report, under it what an earlier promotion led to, where that is known now, and, once a
    week, the summary. None: it has nothing new to say, and only that is wanted."""
    posted = None
    if worth_telling(event) or not deps.on_change:
        posted = await _told(event, work, deps)
    else:
        log.info("Feedback loop started → nothing new, no report", extra={"run": str(event.run)})
    await _weekly(event, work, deps)
    return posted


async def _told(event: Report, work: UnitOfWork, deps: Notifier) -> Posted:
    text = messages.report(event, deps.zone, deps.language, deps.dashboard_url, deps.markup)
    beside: list[blocks.Block] = []
    if deps.markup == "slack":
        beside = blocks.report(
            event, deps.zone, deps.language, deps.dashboard_url, quotes=deps.quotes, buttons=deps.buttons
        )
    posted = await deps.poster.post_once(f"report/{event.run}", work.envelope, "report", text, blocks=beside)
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


async def _weekly(event: Report, work: UnitOfWork, deps: Notifier) -> None:
    """The summary of the seven days before the event's, once per app and week, on the day for it."""
    if deps.weekly == "off":
        return
    async with deps.database.connection() as connection:
        written = await connection.fetchval(
            "select created_at from feedback_loop.outbox where event_id = $1", work.envelope.id
        )
        day = await series.today(connection, deps.zone, written)
        if not weekly.due(day, deps.weekly):
            return
        week = await series.week(connection, event.app, deps.zone, day - timedelta(1))
    if week.now.total or week.before.total or week.outcomes:
        text = weekly.summary(week, deps.language, deps.dashboard_url, deps.markup, deps.quotes)
        await deps.poster.post_once(weekly.week_key(event.app, day), work.envelope, "weekly", text)


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
