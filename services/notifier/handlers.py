"""What the team is told in Slack, and when. Each handler posts first; the unit of work opens only after, so
no transaction waits for Slack.

What is told is decided in `telling.py`. With `REPORT=on_change` a report that has nothing new to say is not
posted; a weekly summary is in any case.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from services.notifier import blocks, series, telling
from services.notifier.destinations import Posted
from services.notifier.pictures import Pictures
from services.notifier.poster import Poster
from services.notifier.telling import Telling, Voice
from shared.delivery.router import Registration
from shared.delivery.work import UnitOfWork
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
    WebhookDisabled,
)
from shared.failures import Retry
from shared.postgres.database import Database

__all__ = ["REGISTRATIONS", "Notifier", "wait_for_report"]

log = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds that an outcome waits for its report, so as to answer it in a thread."""


@dataclass(frozen=True, slots=True)
class Notifier:
    """What the handlers need.

    Attributes:
        weekly: as the setting says.
        buttons: whether reports have buttons that change the loop.
    """

    poster: Poster
    pictures: Pictures
    database: Database
    voice: Voice
    weekly: str
    buttons: bool


async def on_event(event: Event, work: UnitOfWork, deps: Notifier) -> list[Event]:
    """What is told by itself."""
    for one in telling.of(event, work.envelope, deps.voice):
        await _post(deps, work, one)
    return []


async def on_report(event: Report, work: UnitOfWork, deps: Notifier) -> list[Event]:
    """The report, under it what else there is to say and its picture; once a week the summary."""
    posted = None
    for one in telling.of(event, work.envelope, deps.voice):
        if one.kind == "report":
            posted = await _told(event, work, deps, one)
        else:
            await _post(deps, work, one, posted)
    if posted is None:
        log.info("Feedback loop started → nothing new, no report", extra={"run": str(event.run)})
    await _weekly(event, work, deps)
    await deps.pictures.offer(event.app, event.run, work.envelope, posted, event.as_of)
    return []


async def on_outcome(event: RetrainCompleted, work: UnitOfWork, deps: Notifier) -> list[Event]:
    """How a build or a rollback ended; a build of changed documents only when it went wrong."""
    for one in telling.of(event, work.envelope, deps.voice):
        thread = await _thread(event, work, deps)
        await _post(deps, work, one, thread)
        run = event.run or work.envelope.correlation
        await deps.pictures.offer(event.app, run, work.envelope, thread)  # where the build was in its way
    return []


REGISTRATIONS = (
    Registration(FeedbackEvaluate, on_event),
    Registration(ReportReady, on_report),
    Registration(RetrainRequested, on_report),
    Registration(RetrainCompleted, on_outcome),
    Registration(LoopFailed, on_event),
    Registration(LoopPaused, on_event),
    Registration(LoopResumed, on_event),
    Registration(WebhookDisabled, on_event),
)


def wait_for_report(age: float) -> float | None:
    """Seconds until an outcome looks for its report again, `age` seconds after the outcome; None: it
    waits no longer. Three tries on the usual ladder: each costs one of the event's attempts."""
    return min(max(5.0, 4 * age), PATIENCE - age) if age < PATIENCE else None


async def _told(event: Report, work: UnitOfWork, deps: Notifier, one: Telling) -> Posted:
    voice = deps.voice
    beside: list[blocks.Block] = []
    if voice.markup == "slack":
        beside = blocks.report(
            event,
            voice.zone,
            voice.language,
            voice.dashboard_url,
            quotes=voice.quotes,
            buttons=deps.buttons,
        )
    posted = await deps.poster.post_once(one.key, work.envelope, one.kind, one.text, blocks=beside)
    if not posted.earlier:
        # Other programs look for this line, whatever the destination: it stays as it is.
        log.info(
            "Feedback loop started → Slack Report sent",
            extra={"run": str(event.run), "destination": deps.poster.destination.name},
        )
    return posted


async def _weekly(event: Report, work: UnitOfWork, deps: Notifier) -> None:
    due = await series.due_week(deps.database, event.app, deps.voice.zone, deps.weekly, work.envelope.id)
    if due is not None:
        await _post(deps, work, telling.of_week(*due, deps.voice))


async def _post(deps: Notifier, work: UnitOfWork, one: Telling, thread: Posted | None = None) -> None:
    await deps.poster.post_once(one.key, work.envelope, one.kind, one.text, thread)


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
