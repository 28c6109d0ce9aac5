"""The notifier against a Slack that drops, hangs, refuses or is away: nothing lost, at most one copy, or
the second one says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from services.notifier import messages
from services.notifier.poster import Poster, Timing
from services.notifier.slack import Bot
from shared.bus.envelope import Envelope
from shared.bus.memory import MemoryBus
from shared.events import LoopPaused, LoopResumed
from shared.failures import Retry
from shared.postgres.database import Database
from tests.support.events import publish, publish_envelopes, wait_until
from tests.support.notifying import (
    MARK,
    OWNER_S_REPORT,
    a_run,
    outcome,
    report,
    retrain,
    row_of,
    settled,
    state_of,
)
from tests.support.slack import TOKEN, WEBHOOK_PATH, FakeSlack, Fault

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
    slack.history_lag = 1.4
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
