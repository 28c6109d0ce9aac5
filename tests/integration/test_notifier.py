"""The notifier against a Slack that answers, refuses, drops, hangs: nothing lost, nothing twice unsaid."""

from __future__ import annotations

import asyncio
import io
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TextIO
from zoneinfo import ZoneInfo

import pytest

from services.notifier import messages
from services.notifier.build import build
from services.notifier.poster import Poster, Timing
from services.notifier.slack import Bot
from shared import events
from shared.database import Database
from shared.events import (
    Envelope,
    FeedbackEvaluate,
    LoopFailed,
    LoopPaused,
    LoopResumed,
    ReportReady,
    RetrainCompleted,
    RetrainRequested,
)
from shared.failures import Retry
from shared.memory import MemoryBus
from shared.runtime import Runtime
from tests.support.events import publish, publish_envelopes, wait_until
from tests.support.slack import CHANNEL, TOKEN, WEBHOOK_PATH, FakeSlack, Fault

SEOUL = ZoneInfo("Asia/Seoul")
NINE = datetime(2025, 10, 17, 0, 0, tzinfo=UTC)  # 09:00 in Seoul
URL = "https://loop.example.com"
OWNER_S_REPORT = """\
🧠 AI Feedback Loop Report
- 👍 좋아요: 87
- 👎 싫어요: 13
- 총 피드백: 100
- 부정 비율: 13.0%
- 상태: ✅ 정상 유지
- 생성 시각: 2025-10-17 09:00
<https://loop.example.com|📊 실시간 Dashboard 보기>"""

LADDER = (0.05, 0.1, 0.3, 0.6, 1.2)
TIMING = Timing(attempt=2, lease=2.2, settle=0.4)
MARK = "\n(재전송)"

Start = Callable[..., Any]


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack() as slack:
        yield slack


@pytest.fixture
async def notifier(start: Start) -> Callable[..., Any]:
    """Start a notifier: `runtime = await notifier(**slack.bot)`."""

    async def begin(stream: TextIO | None = None, timing: Timing = TIMING, **settings: Any) -> Runtime:
        builder = partial(build, stream=stream, request_timeout=0.5, timing=timing)
        runtime: Runtime = await start([builder], ladder=LADDER, dashboard_url=URL, **settings)
        return runtime

    return begin


def facts(likes: int = 87, dislikes: int = 13, **more: Any) -> dict[str, Any]:
    total = likes + dislikes
    return {
        "run": uuid.uuid4(),
        "as_of": NINE,
        "window_start": NINE - timedelta(days=1),
        "window_end": NINE,
        "likes": likes,
        "dislikes": dislikes,
        "total": total,
        "ratio": dislikes / total,
        "interval": None,
        "verdict": "ok",
        "reason": "within_threshold",
        "explanation": "",
        "policy": "wilson",
        "threshold": 0.3,
        **more,
    }


def report(**more: Any) -> ReportReady:
    return ReportReady(**facts(**more))


def a_run() -> Envelope:
    """The event that a run starts with; its id is the run's."""
    return Envelope.root(FeedbackEvaluate(as_of=NINE, requested_by="cron-job.org"), "/feedback-loop/trigger")


def retrain(run: Envelope) -> RetrainRequested:
    return RetrainRequested(**facts(59, 41, verdict="act", run=run.id, retrain=uuid.uuid4()))


def outcome(run: Envelope | None = None, **more: Any) -> RetrainCompleted:
    given = {"outcome": "promoted", "reason": "feedback", "run": run.id if run else None, **more}
    return RetrainCompleted(**given)


async def settled(runtime: Runtime, *envelopes: Envelope) -> None:
    """Wait until the notifier is done with the events: processed or dead."""

    async def done() -> bool:
        async with runtime.kernel.database.connection() as connection:
            found = await connection.fetchval(
                "select count(*) from feedback_loop.inbox where event_id = any($1::uuid[])",
                [envelope.id for envelope in envelopes],
            )
        return bool(found == len(envelopes))

    await wait_until(done)


async def row_of(runtime: Runtime, key: str) -> dict[str, Any]:
    async with runtime.kernel.database.connection() as connection:
        row = await connection.fetchrow("select * from feedback_loop.notification where key = $1", key)
    assert row is not None
    return dict(row)


async def state_of(runtime: Runtime, envelope: Envelope) -> tuple[str, str | None]:
    async with runtime.kernel.database.connection() as connection:
        row = await connection.fetchrow(
            "select state, reason from feedback_loop.inbox where event_id = $1", envelope.id
        )
    assert row is not None
    return row["state"], row["reason"]


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
        await runtime.kernel.bus.publish(events.encode(envelopes[0]))
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
    await runtime.kernel.bus.publish(events.encode(envelopes[0]))
    await settled(runtime, *envelopes)
    assert slack.texts == [OWNER_S_REPORT]


async def test_two_replicas_at_once_post_once(slack: FakeSlack, notifier: Callable[..., Any]) -> None:
    slack.next(Fault(stores=True, delay=0.3))
    one, other = await notifier(**slack.bot), await notifier(**slack.bot)
    envelopes = await publish(one.kernel, report())
    await other.kernel.bus.publish(events.encode(envelopes[0]))
    await settled(one, *envelopes)
    async with one.kernel.database.connection() as connection:
        turned_away = await connection.fetchval("select reason from feedback_loop.attempt")
    assert "another replica" in turned_away
    assert slack.texts == [OWNER_S_REPORT]


async def test_replica_that_dies_while_posting_leaves_a_doubt_that_history_settles(
    slack: FakeSlack, database: Database
) -> None:
    poster = Poster(database, Bot(TOKEN, "C0REPORTS", slack.api_url), "ko", Timing(1, 0.5, 0.1))
    envelope = Envelope.root(report(), "/test")

    async def post() -> object:
        return await poster.post_once("report/1", envelope, "report", "the report")

    slack.next(Fault(stores=True, then="hang"))
    dying = asyncio.create_task(post())
    await wait_until(lambda: slack.messages)
    dying.cancel()
    with pytest.raises(Retry):
        await post()  # its lease lives on
    await asyncio.sleep(0.6)
    await post()
    await poster.destination.close()
    assert slack.texts == ["the report"]


# --- faults: nothing lost, at most one copy or the second one says so -------------------------

IN_DOUBT = {
    "stored, connection dropped": Fault(stores=True, then="drop"),
    "stored, no answer": Fault(stores=True, then="hang"),
    "stored, answer unreadable": Fault(stores=True, then="garble"),
    "stored, 500": Fault(stores=True, status=500),
    "stored, internal_error": Fault(stores=True, error="internal_error"),
}
NOT_STORED = {
    "dropped": Fault(then="drop"),
    "no answer": Fault(then="hang"),
    "500": Fault(status=500),
}
KNOWN = {
    "429": Fault(status=429, error="ratelimited", retry_after=1),
    "503": Fault(status=503),
    "service_unavailable": Fault(error="service_unavailable"),
    "not_in_channel, then invited": Fault(error="not_in_channel"),
}


def named(faults: dict[str, Fault]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fault", list(faults.values()), ids=list(faults))


@named(IN_DOUBT)
async def test_bot_that_posted_unknowingly_finds_it_in_the_history(
    slack: FakeSlack, notifier: Callable[..., Any], fault: Fault
) -> None:
    runtime = await notifier(**{**slack.bot, "slack_channel": "C0REPORTS"})
    slack.next(fault)
    event = report()
    await settled(runtime, *await publish(runtime.kernel, event))
    assert slack.texts == [OWNER_S_REPORT]
    row = await row_of(runtime, f"report/{event.run}")
    assert (row["state"], row["ts"], row["uncertain_since"]) == ("posted", slack.messages[0].ts, None)


@named(IN_DOUBT)
async def test_webhook_that_posted_unknowingly_posts_again_and_says_so(
    slack: FakeSlack, notifier: Callable[..., Any], fault: Fault
) -> None:
    runtime = await notifier(**slack.webhook)
    slack.next(fault)
    await settled(runtime, *await publish(runtime.kernel, report()))
    assert slack.texts == [OWNER_S_REPORT, OWNER_S_REPORT + MARK]


@named(NOT_STORED)
@pytest.mark.parametrize("through", ["bot", "webhook"])
async def test_message_that_was_lost_without_a_word_is_posted_and_marked(
    slack: FakeSlack, notifier: Callable[..., Any], fault: Fault, through: str
) -> None:
    runtime = await notifier(**getattr(slack, through))
    slack.next(fault)
    await settled(runtime, *await publish(runtime.kernel, report()))
    assert slack.texts == [OWNER_S_REPORT + MARK]


@named(KNOWN)
@pytest.mark.parametrize("through", ["bot", "webhook"])
async def test_message_that_slack_did_not_take_is_posted_once_and_unmarked(
    slack: FakeSlack, notifier: Callable[..., Any], fault: Fault, through: str
) -> None:
    runtime = await notifier(**getattr(slack, through))
    slack.next(fault)
    await settled(runtime, *await publish(runtime.kernel, report()))
    assert slack.texts == [OWNER_S_REPORT]


async def test_doubt_about_an_answer_is_settled_in_its_thread(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.bot)
    run = a_run()
    await settled(runtime, *await publish(runtime.kernel, retrain(run), cause=run))
    slack.next(Fault(stores=True, then="drop"))
    await settled(runtime, *await publish(runtime.kernel, outcome(run), cause=run))
    assert slack.texts[2:] == [messages.outcome(outcome(run), "ko")]


async def test_doubt_is_settled_by_name_once_the_channel_s_id_is_known(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.bot)
    await settled(runtime, *await publish(runtime.kernel, LoopResumed()))
    slack.next(Fault(stores=True, then="drop"))
    await settled(runtime, *await publish(runtime.kernel, report()))
    assert slack.texts[1:] == [OWNER_S_REPORT]


async def test_history_is_searched_over_all_its_pages(slack: FakeSlack, notifier: Callable[..., Any]) -> None:
    slack.page = 1
    runtime = await notifier(**slack.bot)
    await settled(runtime, *await publish(runtime.kernel, LoopResumed()))
    slack.next(Fault(stores=True, then="drop"), Fault(stores=True), Fault(stores=True))
    others = [LoopPaused(why="one"), LoopPaused(why="other")]
    doubtful = await publish(runtime.kernel, report())
    await settled(runtime, *doubtful, *await publish(runtime.kernel, *others))
    assert slack.texts.count(OWNER_S_REPORT) == 1
    assert MARK not in "".join(slack.texts)


async def test_history_that_is_late_is_waited_for(slack: FakeSlack, notifier: Callable[..., Any]) -> None:
    slack.history_lag = 1.0
    runtime = await notifier(timing=Timing(2, 2.2, 1.5), **{**slack.bot, "slack_channel": "C0REPORTS"})
    slack.next(Fault(stores=True, then="drop"))
    await settled(runtime, *await publish(runtime.kernel, report()))
    assert slack.texts == [OWNER_S_REPORT]


async def test_history_that_is_not_permitted_leaves_the_doubt_and_shows_it(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    slack.history_error = "missing_scope"
    runtime = await notifier(**slack.bot)
    slack.next(Fault(stores=True, then="drop"))
    event = report()
    await settled(runtime, *await publish(runtime.kernel, event))
    assert slack.texts == [OWNER_S_REPORT, OWNER_S_REPORT + MARK]
    assert (await row_of(runtime, f"report/{event.run}"))["uncertain_since"] is not None


@pytest.mark.parametrize("through", ["bot", "webhook"])
async def test_slack_that_is_away_burns_no_attempt_and_gets_everything_later(
    slack: FakeSlack, notifier: Callable[..., Any], through: str
) -> None:
    runtime = await notifier(**getattr(slack, through))
    await slack.go_away()
    envelopes = await publish(runtime.kernel, report(), report())
    await wait_until(lambda: runtime.routers[0].trouble())
    await slack.come_back()
    await settled(runtime, *envelopes)
    assert slack.texts == [OWNER_S_REPORT, OWNER_S_REPORT]
    async with runtime.kernel.database.connection() as connection:
        assert await connection.fetchval("select coalesce(sum(failures), 0) from feedback_loop.attempt") == 0


async def test_wrong_configuration_ends_as_a_dead_letter_that_says_what_to_do(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.bot)
    slack.always(Fault(error="not_in_channel"))
    refused = await publish(runtime.kernel, report())
    await settled(runtime, *refused)
    state, reason = await state_of(runtime, refused[0])
    assert (state, "/invite" in (reason or "")) == ("dead", True)
    slack.always(None)
    await settled(runtime, *await publish(runtime.kernel, LoopResumed()))
    assert slack.texts == [messages.resumed(LoopResumed(), "ko")]  # and no word of its own failure


async def test_refused_message_holds_up_no_other(slack: FakeSlack, notifier: Callable[..., Any]) -> None:
    runtime = await notifier(**slack.bot)
    slack.next(*[Fault(error="is_archived")] * 2)
    both = await publish(runtime.kernel, report(), LoopResumed())
    await settled(runtime, *both)
    assert len(slack.texts) == 2


async def test_message_that_breaks_a_working_slack_does_not_go_round_for_ever(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(timing=Timing(2, 2.2, 0), **slack.bot)
    event = report()
    slack.always(Fault(status=500))
    envelopes = [Envelope.root(event, "/test")]
    async with runtime.kernel.database.connection() as connection:
        await connection.execute(
            "insert into feedback_loop.notification"
            " (key, event_id, correlation, kind, destination, state, attempts)"
            " values ($1, $2, $2, 'report', 'slack', 'claimed', 30)",
            f"report/{event.run}",
            envelopes[0].id,
        )
    await publish_envelopes(runtime.kernel, *envelopes)
    await settled(runtime, *envelopes)
    assert (await state_of(runtime, envelopes[0]))[0] == "dead"


@named({"dropped": Fault(then="drop"), "500": Fault(status=500), "refused": Fault(error="invalid_auth")})
@pytest.mark.parametrize("through", ["bot", "webhook"])
async def test_no_secret_is_logged_or_stored(
    slack: FakeSlack,
    notifier: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    through: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    runtime = await notifier(**getattr(slack, through))
    slack.next(fault)
    await settled(runtime, *await publish(runtime.kernel, report()))
    async with runtime.kernel.database.connection() as connection:
        stored = await connection.fetch("select t::text from feedback_loop.attempt t")
    shown = caplog.text + str(stored)
    assert "5ecret" in TOKEN
    assert "5ecret" in WEBHOOK_PATH
    assert "5ecret" not in shown


async def test_no_secret_is_logged_while_slack_is_away(
    slack: FakeSlack, notifier: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    runtime = await notifier(**slack.webhook)
    await slack.go_away()
    await publish(runtime.kernel, report())
    await wait_until(lambda: "still waiting for Slack" in caplog.text)
    assert "5ecret" not in caplog.text


async def test_dead_letter_of_a_revoked_token_names_the_setting(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**{**slack.bot, "slack_bot_token": "xoxb-revoked"})
    envelopes = await publish(runtime.kernel, report())
    await settled(runtime, *envelopes)
    bus = runtime.kernel.bus
    assert isinstance(bus, MemoryBus)
    await wait_until(lambda: bus.dead)
    assert "SLACK_BOT_TOKEN" in bus.dead[0][2]
