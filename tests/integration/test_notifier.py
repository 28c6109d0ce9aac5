"""What the notifier tells, where, and that it tells it once."""

from __future__ import annotations

import asyncio
import io
import logging
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from services.notifier import messages
from shared.bus.envelope import encode
from shared.events import LoopFailed, LoopPaused, LoopResumed
from tests.support.events import publish, publish_envelopes
from tests.support.notifying import (
    NINE,
    OWNER_S_REPORT,
    SEOUL,
    URL,
    a_run,
    outcome,
    report,
    retrain,
    settled,
)
from tests.support.slack import CHANNEL, FakeSlack, Fault

# --- what is told ---------------------------------------------------------------------------


async def test_report_reaches_the_channel_character_by_character(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.bot)
    await settled(runtime, *await publish(runtime.kernel, report()))
    assert slack.texts == [OWNER_S_REPORT]


async def test_report_reaches_the_webhook_character_by_character(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.webhook)
    await settled(runtime, *await publish(runtime.kernel, report()))
    assert slack.texts == [OWNER_S_REPORT]


async def test_without_slack_the_report_is_on_the_terminal(notifier: Callable[..., Any]) -> None:
    stream, event = io.StringIO(), report()
    runtime = await notifier(stream=stream)
    await settled(runtime, *await publish(runtime.kernel, event))
    assert stream.getvalue() == messages.report(event, SEOUL, "ko", URL, "plain") + "\n\n"


async def test_terminal_that_knows_no_korean_loses_nothing(notifier: Callable[..., Any]) -> None:
    raw = io.BytesIO()
    runtime = await notifier(stream=io.TextIOWrapper(raw, encoding="ascii"))
    await settled(runtime, *await publish(runtime.kernel, report()))
    assert raw.getvalue().decode("ascii").encode().decode("unicode_escape").startswith("🧠 AI Feedback Loop")


async def test_report_is_logged_in_the_owner_s_words(
    slack: FakeSlack, notifier: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    runtime = await notifier(**slack.bot)
    await settled(runtime, *await publish(runtime.kernel, report()))
    assert "Feedback loop started → Slack Report sent" in [record.getMessage() for record in caplog.records]


async def test_report_is_logged_once_though_what_follows_it_is_tried_again(
    slack: FakeSlack, notifier: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    runtime = await notifier(**slack.bot)
    slack.next(Fault(stores=True), Fault(error="request_timeout"))
    run = a_run()
    await settled(runtime, *await publish(runtime.kernel, retrain(run), cause=run))
    assert len(slack.messages) == 2
    assert caplog.text.count("Slack Report sent") == 1


async def test_posted_report_completes_its_run_s_status(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.bot)
    run = a_run()
    await settled(runtime, *await publish(runtime.kernel, report(run=run.id), cause=run))
    async with runtime.kernel.database.connection() as connection:
        steps = await connection.fetch(
            "select type, detail from feedback_loop.run_step where run = $1 and what = 'posted'", run.id
        )
    assert [tuple(step) for step in steps] == [("report", f"slack {CHANNEL}")]


async def test_retrain_is_reported_then_announced_in_the_report_s_thread(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.bot)
    run = a_run()
    event = retrain(run)
    await settled(runtime, *await publish(runtime.kernel, event, cause=run))
    assert slack.texts == [messages.report(event, SEOUL, "ko", URL), messages.retrain_started(event, "ko")]
    assert slack.messages[1].thread_ts == slack.messages[0].ts


async def test_outcome_answers_its_run_s_report(slack: FakeSlack, notifier: Callable[..., Any]) -> None:
    runtime = await notifier(**slack.bot)
    run = a_run()
    await settled(runtime, *await publish(runtime.kernel, retrain(run), cause=run))
    event = outcome(run)
    await settled(runtime, *await publish(runtime.kernel, event, cause=run))
    assert slack.texts[2] == messages.outcome(event, "ko")
    assert slack.messages[2].thread_ts == slack.messages[0].ts


async def test_outcome_that_comes_first_waits_for_its_report(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.bot)
    run = a_run()
    early = await publish(runtime.kernel, outcome(run), cause=run)
    await asyncio.sleep(0.1)
    late = await publish(runtime.kernel, retrain(run), cause=run)
    await settled(runtime, *early, *late)
    threads = {message.thread_ts for message in slack.messages[1:]}
    assert (len(slack.messages), threads) == (3, {slack.messages[0].ts})


async def test_outcome_whose_report_never_comes_is_posted_by_itself_after_two_minutes(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.bot)
    run = a_run()
    envelope = run.follow(outcome(run), "embedder")
    async with runtime.kernel.database.transaction() as connection:
        await runtime.kernel.outbox.add(connection, [envelope])
        await connection.execute(
            "update feedback_loop.outbox set created_at = now() - interval '121 seconds' where event_id = $1",
            envelope.id,
        )
    await runtime.kernel.outbox.publish([envelope])
    await settled(runtime, envelope)
    assert [message.thread_ts for message in slack.messages] == [None]


async def test_outcome_is_posted_by_itself_where_the_report_takes_no_answers(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.bot)
    run = a_run()
    await settled(runtime, *await publish(runtime.kernel, retrain(run), cause=run))
    slack.messages.clear()  # somebody deleted it
    await settled(runtime, *await publish(runtime.kernel, outcome(run), cause=run))
    assert [message.thread_ts for message in slack.messages] == [None]


async def test_outcome_through_a_webhook_waits_for_no_thread(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.webhook)
    run = a_run()
    await settled(runtime, *await publish(runtime.kernel, outcome(run), cause=run))
    assert slack.texts == [messages.outcome(outcome(run), "ko")]


@pytest.mark.parametrize("ended", ["promoted", "unchanged", "superseded"])
async def test_build_of_changed_documents_that_went_well_is_not_announced(
    slack: FakeSlack, notifier: Callable[..., Any], ended: str
) -> None:
    runtime = await notifier(**slack.bot)
    await settled(runtime, *await publish(runtime.kernel, outcome(reason="documents", outcome=ended)))
    assert slack.texts == []


@pytest.mark.parametrize(
    ("reason", "ended"),
    [
        ("documents", "failed"),
        ("documents", "rejected"),
        ("manual", "promoted"),
        ("rollback", "promoted"),
    ],
)
async def test_outcome_that_no_report_led_to_is_announced_by_itself(
    slack: FakeSlack, notifier: Callable[..., Any], reason: str, ended: str
) -> None:
    runtime = await notifier(**slack.bot)
    event = outcome(reason=reason, outcome=ended)
    await settled(runtime, *await publish(runtime.kernel, event))
    assert [(m.text, m.thread_ts) for m in slack.messages] == [(messages.outcome(event, "ko"), None)]


async def test_failure_pause_and_resumption_are_told(slack: FakeSlack, notifier: Callable[..., Any]) -> None:
    runtime = await notifier(**slack.bot, report_language="en")
    failure = LoopFailed(
        failed_event=uuid.uuid4(),
        failed_type="report.ready",
        consumer="analyzer",
        reason="ValueError: <!channel> & co",
        attempts=6,
        dead_letter="feedback-loop.dead",
    )
    pause = LoopPaused(why="two retrains did not help", until=NINE)
    resumption = LoopResumed(requested_by="minji")
    for event in (failure, pause, resumption):
        await settled(runtime, *await publish(runtime.kernel, event))
    assert slack.texts == [
        messages.failed(failure, "en"),
        messages.paused(pause, SEOUL, "en"),
        messages.resumed(resumption, "en"),
    ]


async def test_start_is_told_where_it_is_wanted(slack: FakeSlack, notifier: Callable[..., Any]) -> None:
    runtime = await notifier(**slack.bot, slack_start_notice=True)
    run = a_run()
    await publish_envelopes(runtime.kernel, run)
    await settled(runtime, run)
    assert slack.texts == ["🕒 Feedback Loop started by cron-job.org (2025-10-17 09:00)"]


async def test_start_is_not_told_otherwise(slack: FakeSlack, notifier: Callable[..., Any]) -> None:
    runtime = await notifier(**slack.bot)
    run = a_run()
    await publish_envelopes(runtime.kernel, run)
    await settled(runtime, run)
    assert slack.texts == []


async def test_message_carries_its_key_and_unfolds_no_links(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.bot)
    event = report()
    [envelope] = await publish(runtime.kernel, event)
    await settled(runtime, envelope)
    body = slack.messages[0].body
    assert body["metadata"]["event_payload"] == {"key": f"report/{event.run}", "event_id": str(envelope.id)}
    assert (body["unfurl_links"], body["unfurl_media"]) == (False, False)


# --- once ---------------------------------------------------------------------------------


async def test_redelivery_posts_nothing_twice(slack: FakeSlack, notifier: Callable[..., Any]) -> None:
    runtime = await notifier(**slack.bot)
    envelopes = await publish(runtime.kernel, report())
    for _ in range(3):
        await runtime.kernel.bus.publish(encode(envelopes[0]))
    await settled(runtime, *envelopes, *await publish(runtime.kernel, LoopResumed()))
    assert slack.texts.count(OWNER_S_REPORT) == 1


async def test_crash_after_posting_and_before_the_inbox_posts_nothing_twice(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.bot)
    envelopes = await publish(runtime.kernel, report())
    await settled(runtime, *envelopes)
    async with runtime.kernel.database.connection() as connection:
        await connection.execute("delete from feedback_loop.inbox")
    await runtime.kernel.bus.publish(encode(envelopes[0]))
    await settled(runtime, *envelopes)
    assert slack.texts == [OWNER_S_REPORT]


async def test_two_replicas_at_once_post_once(slack: FakeSlack, notifier: Callable[..., Any]) -> None:
    slack.next(Fault(stores=True, delay=0.3))
    one, other = await notifier(**slack.bot), await notifier(**slack.bot)
    envelopes = await publish(one.kernel, report())
    await other.kernel.bus.publish(encode(envelopes[0]))
    await settled(one, *envelopes)
    async with one.kernel.database.connection() as connection:
        turned_away = await connection.fetchval("select reason from feedback_loop.attempt")
    assert "another replica" in turned_away
    assert slack.texts == [OWNER_S_REPORT]
