"""The webhook: a consumer of its own, so that neither Slack nor the webhook waits for the other.

It is told what Slack is told (`telling.py`). A notice that is not taken is sent again with the router's
ladder; after the last rung it is given up, without a dead letter: a run has not failed because a receiver
was away.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from services.notifier import series, telling
from services.notifier.courier import CONSUMER, Courier
from services.notifier.endpoint import Endpoint, NotTaken
from services.notifier.notice import notice_of, test_telling
from services.notifier.telling import Telling, Voice
from services.notifier.weekly import Week
from shared.contracts.contract import Contract
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
    WebhookTest,
)
from shared.failures import Retry
from shared.postgres.database import Database
from shared.runtime import Kernel, Service

__all__ = ["retire", "webhook"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hook:
    """What the handlers need.

    Attributes:
        ladder: seconds before each further attempt.
        weekly: as the setting says.
    """

    courier: Courier
    database: Database
    voice: Voice
    weekly: str
    ladder: Sequence[float]


async def on_event(event: Event, work: UnitOfWork, deps: Hook) -> list[Event]:
    """Send what is told of an event.

    Raises:
        Retry: some of it is not taken yet.
    """
    of = work.envelope
    disabled, tries = await deps.courier.stand(of.id)
    tellings = await _tellings(event, work, deps)
    if disabled:
        for one, _ in tellings:
            log.info("the webhook is switched off: %s is not sent", one.key)
        return []
    failures = {}
    for one, about in tellings:
        notice = notice_of(one, about, of.time, of.correlation, deps.voice)
        failure = await deps.courier.deliver(notice, one.key, of.id)
        if failure is not None:
            failures[notice.id] = failure
        if failure is not None and failure.gone:
            break
    if not failures:
        return []
    if tries < len(deps.ladder) and not any(failure.gone for failure in failures.values()):
        raise _again(failures.values(), deps.ladder[tries])
    said = await deps.courier.give_up(await work.begin(), failures)
    return [said] if said is not None else []


async def on_test(event: WebhookTest, work: UnitOfWork, deps: Hook) -> list[Event]:
    """Send a test, once: whoever asked waits for what comes of it."""
    of = work.envelope
    one = test_telling(event, of.id, deps.voice)
    notice = notice_of(one, event, of.time, of.correlation, deps.voice)
    async with deps.database.connection() as connection:
        at = await connection.fetchval("select extract(epoch from now())::bigint")
    await deps.courier.test(notice, at)
    return []


async def _tellings(event: Event, work: UnitOfWork, deps: Hook) -> list[tuple[Telling, Event | Week]]:
    """What is told of the event, and of what it tells."""
    of = work.envelope
    if isinstance(event, LoopFailed) and event.consumer == CONSUMER:
        return []  # it would fail the same way
    found: list[tuple[Telling, Event | Week]] = [(one, event) for one in telling.of(event, of, deps.voice)]
    if isinstance(event, Report):
        due = await series.due_week(deps.database, event.app, deps.voice.zone, deps.weekly, of.id)
        if due is not None:
            found.append((telling.of_week(*due, deps.voice), due[0]))
    return found


def _again(failures: Collection[NotTaken], delay: float) -> Retry:
    """Later, and not before the receiver wants."""
    last = max(failures, key=lambda failure: failure.after)
    return Retry(max(delay, last.after), f"the webhook: {last}")


TOLD = (
    *(FeedbackEvaluate, ReportReady, RetrainRequested, RetrainCompleted),
    *(LoopFailed, LoopPaused, LoopResumed),
)


async def retire(database: Database) -> None:
    """Where no webhook is configured any more: events wait for it no longer."""
    async with database.connection() as connection:
        await connection.execute("delete from feedback_loop.consumer where consumer = $1", CONSUMER)


def webhook(kernel: Kernel, timeout: float) -> Sequence[Service]:
    """The service, where `WEBHOOK_URL` is set.

    Args:
        timeout: seconds for one request.
    """
    settings = kernel.settings
    if settings.webhook_url is None:
        return ()
    endpoint = Endpoint(settings.webhook_url.get_secret_value(), settings.webhook_keys, timeout)
    courier = Courier(kernel.database, endpoint)
    service = Service(
        name=CONSUMER,
        contract=Contract("Sends what Slack is told as signed JSON.", sends=(WebhookDisabled,)),
        registrations=[
            *(Registration(event, on_event) for event in TOLD),
            Registration(WebhookTest, on_test),
        ],
        deps=Hook(
            courier,
            kernel.database,
            Voice.of(settings, "plain"),
            settings.weekly_summary,
            kernel.bus.topology.ladder,
        ),
        prefetch=1,  # in order, as far as can be
        on_start=courier.begin,
        on_stop=endpoint.close,
    )
    return [service]
