"""The webhook: told what Slack is told, signed, at least once, whatever its receiver does."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import uuid
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner
from standardwebhooks import Webhook

from services.cli import main
from services.dashboard.build import build as dashboard
from services.notifier import messages
from services.notifier.build import build
from services.notifier.weekly import DAYS
from shared.bus.envelope import Envelope
from shared.delivery.outbox import INSERT, columns
from shared.events import LoopFailed, LoopPaused, LoopResumed, ReportReady, WebhookTest
from shared.postgres.database import Database
from shared.runtime import Builder, Runtime
from tests.support.events import publish, publish_envelopes, wait_until
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
from tests.support.processes import Process
from tests.support.receiver import SECRET, Fault, Receiver
from tests.support.slack import FakeSlack

QUICK = (0.02, 0.03, 0.04, 0.05, 0.06)
DOWN = Fault(status=500)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


async def told(runtime: Runtime, *events: Any, by: str = "webhook") -> list[Envelope]:
    """Publish events one after the other, and wait until they are dealt with."""
    found = []
    for event in events:
        found += await publish(runtime.kernel, event)
        await settled(runtime, found[-1], by=by)
    return found


async def state(database: Database) -> dict[str, Any]:
    async with database.connection() as connection:
        row = await connection.fetchrow("select * from feedback_loop.webhook_state")
    assert row is not None
    return dict(row)


def quick(timeout: float = 20) -> Builder:
    """The notifier's builder, silent; `timeout`: of the webhook, in seconds."""
    return partial(build, stream=io.StringIO(), webhook_timeout=timeout)


# --- what it is told ------------------------------------------------------------------------


async def test_report_is_a_notice_with_its_figures(receiver: Receiver, notifier: Callable[..., Any]) -> None:
    runtime = await notifier(io.StringIO(), **receiver.settings)
    event = report(interval=(0.08, 0.21))
    (envelope,) = await told(runtime, event)
    text = messages.report(event, SEOUL, "ko", URL, "plain")
    (notice,) = receiver.notices
    assert notice.pop("id") == receiver.ids[0]
    assert notice.pop("timestamp") == envelope.time.isoformat().replace("+00:00", "Z")
    assert notice == {
        "type": "report.ready",
        "apiVersion": "v1",
        "payload": {
            "ruleId": "negative_ratio.default",
            "app": "default",
            "run": str(event.run),
            "severity": "info",
            "message": {"title": "🧠 AI Feedback Loop Report", "body": text},
            "permalink": f"{URL}/?from=2025-10-16&to=2025-10-17&app=default",
            "fromTimestamp": "2025-10-16T00:00:00Z",
            "toTimestamp": "2025-10-17T00:00:00Z",
            "window": "1d",
            "value": 0.13,
            "threshold": 0.3,
            "n": 100,
            "ci_low": 0.08,
            "ci_high": 0.21,
        },
    }


async def test_webhook_is_told_whatever_the_team_is_told(
    receiver: Receiver, notifier: Callable[..., Any], database: Database
) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "insert into feedback_loop.vote (conversation_id, value, created_at)"
            " values ('c', 1, now() - interval '2 days')"
        )
        day = await connection.fetchval("select (now() at time zone 'Asia/Seoul')::date")
    stream, run = io.StringIO(), a_run()
    runtime = await notifier(
        stream, slack_start_notice=True, weekly_summary=DAYS[day.weekday()], **receiver.settings
    )
    failed = LoopFailed(
        failed_event=uuid.uuid4(),
        failed_type="report.ready",
        consumer="analyzer",
        reason="x",
        attempts=6,
        dead_letter="d",
    )
    events = [retrain(run), outcome(run), failed, LoopPaused(why="a holiday"), LoopResumed()]
    await publish_envelopes(runtime.kernel, run)
    envelopes = [run]
    for event in events:
        envelopes += await publish(runtime.kernel, event, cause=run)
        await settled(runtime, *envelopes, by="webhook")
    await settled(runtime, *envelopes)
    bodies = [notice["payload"]["message"]["body"] for notice in receiver.notices]
    assert sorted(bodies) == sorted(stream.getvalue().split("\n\n")[:-1])
    assert set(receiver.types) == {
        *("run.started", "report.ready", "retrain.started", "report.weekly"),
        *("retrain.completed", "loop.failed", "loop.paused", "loop.resumed"),
    }


async def test_users_words_stay_at_home_where_they_must(
    receiver: Receiver, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(io.StringIO(), slack_quotes=False, **receiver.settings)
    event = retrain(a_run()).model_copy(update={"coverage_gaps": ["비밀"]})
    await told(runtime, event)
    assert receiver.types == ["report.ready", "retrain.started"]
    assert "비밀" not in json.dumps(receiver.notices, ensure_ascii=False)


async def test_unchanged_report_is_not_worth_a_notice_where_only_changes_are(
    receiver: Receiver, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(io.StringIO(), report="on_change", **receiver.settings)
    await told(runtime, report(alert={"state": "OK", "since": NINE, "before": "OK"}), LoopResumed())
    assert receiver.types == ["loop.resumed"]


async def test_each_key_signs_so_that_they_can_be_changed(
    receiver: Receiver, notifier: Callable[..., Any]
) -> None:
    new = "whsec_" + b64encode(b"another key of more than 24 bytes").decode()
    settings = {**receiver.settings, "webhook_secret": f"{new}, {SECRET}"}
    await told(await notifier(io.StringIO(), **settings), report())
    (sent, body), *_ = receiver.raw
    assert receiver.types == ["report.ready"]
    assert Webhook(new).verify(body, sent)["type"] == "report.ready"


# --- receivers that behave badly ------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        DOWN,
        Fault(status=429, headers={"Retry-After": "1"}),
        Fault(status=404),
        Fault(then="drop"),
        Fault(then="hang"),
        Fault(takes=True, then="drop"),
        Fault(takes=True, status=502),
        Fault(status=302, headers={"Location": "/elsewhere"}),
        Fault(status=307, headers={"Location": "/elsewhere"}),
    ],
    ids=lambda fault: f"{fault.then}-{fault.status}-{fault.takes}",
)
async def test_notice_that_is_not_taken_is_sent_again_under_its_id(
    fault: Fault, receiver: Receiver, start: Callable[..., Any]
) -> None:
    patience = 1 if fault.then == "hang" else 20
    runtime = await start([quick(patience)], ladder=QUICK, **receiver.settings)
    receiver.next(fault, fault)
    await told(runtime, report())
    assert receiver.types == ["report.ready"]
    assert len(receiver.ids) > 2 and len(set(receiver.ids)) == 1
    assert receiver.elsewhere == 0


async def test_only_what_is_missing_of_an_event_is_sent_again(
    receiver: Receiver, start: Callable[..., Any]
) -> None:
    runtime = await start([quick()], ladder=QUICK, **receiver.settings)
    receiver.next(Fault(takes=True), DOWN)
    await told(runtime, retrain(a_run()))
    assert receiver.types == ["report.ready", "retrain.started"]
    assert [receiver.ids.count(id) for id in receiver.taken] == [1, 2]


async def test_event_that_is_delivered_again_is_not_told_again(
    receiver: Receiver, start: Callable[..., Any]
) -> None:
    runtime = await start([quick()], ladder=QUICK, **receiver.settings)
    event = report()
    await told(runtime, event, event)
    assert len(receiver.ids) == 1


@pytest.mark.parametrize("fault", [DOWN, Fault(then="hang")], ids=["500", "hang"])
async def test_slack_does_not_wait_for_the_webhook(
    fault: Fault, receiver: Receiver, start: Callable[..., Any], slack: FakeSlack
) -> None:
    receiver.always(fault)
    runtime = await start([quick(1)], dashboard_url=URL, **slack.bot, **receiver.settings)
    await told(runtime, report(), report(), by="notifier")
    assert slack.texts == [OWNER_S_REPORT] * 2 and receiver.taken == {}


async def test_the_webhook_does_not_wait_for_slack(
    receiver: Receiver, notifier: Callable[..., Any], slack: FakeSlack
) -> None:
    await slack.go_away()
    runtime = await notifier(**slack.bot, **receiver.settings)
    await told(runtime, report(), report())
    assert receiver.types == ["report.ready"] * 2
    await slack.come_back()


async def test_process_that_is_killed_while_it_sends_loses_nothing(dsn: str, receiver: Receiver) -> None:
    environment = {"DATABASE_URL": dsn, "WEEKLY_SUMMARY": "off"}
    environment |= {name.upper(): value for name, value in receiver.settings.items()}
    receiver.next(Fault(takes=True, then="hang"))
    database = Database(dsn)
    await database.connect()
    try:
        async with Process("run", "notifier", **environment) as first:
            await first.until_ready()
            # Nothing in that process hears of it before it starts again.
            envelope = Envelope.root(report(), "/test")
            async with database.transaction() as connection:
                await _write(connection, envelope)
        async with Process("run", "notifier", **environment) as dying:
            await wait_until(lambda: receiver.ids, 60)
            dying.kill()
        async with Process("run", "notifier", **environment):
            await wait_until(lambda: len(receiver.ids) > 1, 60)
            await wait_until(lambda: _dealt_with(database, envelope), 60)
    finally:
        await database.close()
    assert len(set(receiver.ids)) == 1 and receiver.types == ["report.ready"]


async def _write(connection: Any, envelope: Envelope) -> None:
    await connection.execute(INSERT.format(only=""), *columns([envelope]), False)


async def _dealt_with(database: Database, envelope: Envelope) -> bool:
    async with database.connection() as connection:
        return bool(
            await connection.fetchval(
                "select exists (select from feedback_loop.inbox"
                " where consumer = 'webhook' and event_id = $1)",
                envelope.id,
            )
        )


# --- switching off and on -------------------------------------------------------------------


async def test_five_notices_in_a_row_switch_it_off_and_a_test_on_again(
    receiver: Receiver, start: Callable[..., Any], slack: FakeSlack, database: Database
) -> None:
    runtime = await start([quick()], ladder=QUICK, **slack.bot, **receiver.settings)
    receiver.always(DOWN)
    await told(runtime, *(report() for _ in range(5)))
    found = await state(database)
    assert (found["failures"], found["disabled_at"] is not None) == (5, True)
    assert len(receiver.ids) == 5 * (len(QUICK) + 1)
    await wait_until(lambda: any("웹훅을 껐습니다" in text for text in slack.texts))
    assert any("answered HTTP 500" in text and "127.0.0.1" in text for text in slack.texts)
    receiver.always(None)
    await told(runtime, report())
    assert receiver.taken == {}  # it is off
    await told(runtime, WebhookTest(), report())
    assert receiver.types == ["webhook.test", "report.ready"]
    found = await state(database)
    assert (found["failures"], found["disabled_at"], found["test_failure"]) == (0, None, None)


async def test_run_has_not_failed_because_a_receiver_has(
    receiver: Receiver, start: Callable[..., Any], database: Database
) -> None:
    runtime = await start([quick()], ladder=QUICK, **receiver.settings)
    receiver.always(DOWN)
    (envelope,) = await told(runtime, report())
    async with database.connection() as connection:
        states = await connection.fetch(
            "select state from feedback_loop.inbox where event_id = $1", envelope.id
        )
        failure = await connection.fetchval("select failure from feedback_loop.webhook_message")
    assert {row["state"] for row in states} == {"processed"}
    assert failure == "answered HTTP 500"


async def test_notice_that_is_taken_ends_the_row(
    receiver: Receiver, start: Callable[..., Any], database: Database
) -> None:
    runtime = await start([quick()], ladder=QUICK, **receiver.settings)
    for _ in range(3):
        receiver.next(*[DOWN] * (2 * (len(QUICK) + 1)))
        await told(runtime, report(), report(), report())
    found = await state(database)
    assert (found["failures"], found["disabled_at"]) == (0, None)
    assert receiver.types == ["report.ready"] * 3


async def test_receiver_that_is_gone_is_sent_nothing_more(
    receiver: Receiver, start: Callable[..., Any], slack: FakeSlack, database: Database
) -> None:
    runtime = await start([quick()], ladder=QUICK, **slack.bot, **receiver.settings)
    receiver.next(Fault(status=410))
    await told(runtime, retrain(a_run()), report())
    assert len(receiver.ids) == 1
    assert (await state(database))["disabled_reason"] == "answered HTTP 410"
    await wait_until(lambda: any("HTTP 410" in text for text in slack.texts))


async def test_test_that_fails_leaves_it_off(
    receiver: Receiver, start: Callable[..., Any], database: Database
) -> None:
    runtime = await start([quick()], ladder=QUICK, **receiver.settings)
    receiver.next(Fault(status=410), Fault(status=503))
    await told(runtime, report(), WebhookTest())
    found = await state(database)
    assert (found["disabled_at"] is not None, found["test_failure"]) == (True, "answered HTTP 503")
    assert len(receiver.ids) == 2  # a test is tried once


async def test_another_address_is_another_webhook(
    receiver: Receiver, start: Callable[..., Any], database: Database
) -> None:
    receiver.next(Fault(status=410))
    await told(await start([quick()], ladder=QUICK, **receiver.settings), report())
    moved = {**receiver.settings, "webhook_url": f"{receiver.url}?moved"}
    await told(await start([quick()], ladder=QUICK, **moved), report())
    assert (await state(database))["disabled_at"] is None
    assert receiver.types == ["report.ready"]


async def test_events_do_not_wait_for_a_webhook_that_is_configured_no_more(
    receiver: Receiver, start: Callable[..., Any], database: Database
) -> None:
    await start([quick()], ladder=QUICK, **receiver.settings)
    runtime = await start([quick()], ladder=QUICK)
    async with database.connection() as connection:
        consumers = await connection.fetch("select distinct consumer from feedback_loop.consumer")
    assert [row["consumer"] for row in consumers] == ["notifier"]
    await told(runtime, report(), by="notifier")
    assert await runtime.kernel.outbox.relay() == 0


# --- the button and the command -------------------------------------------------------------


async def order(runtime: Runtime, http: aiohttp.ClientSession) -> tuple[int, dict[str, Any]]:
    body = {"command": "webhook", "app": "default"}
    address = f"http://127.0.0.1:{runtime.port}/dashboard/commands"
    async with http.post(address, json=body) as answer:
        return answer.status, await answer.json()


async def test_button_of_the_dashboard_tests_the_webhook(
    receiver: Receiver, start: Callable[..., Any]
) -> None:
    runtime = await start([quick(), dashboard], ladder=QUICK, **receiver.settings)
    receiver.next(Fault(status=503))
    address = f"http://127.0.0.1:{runtime.port}/dashboard/webhook"
    async with aiohttp.ClientSession() as http:
        for failure in ("answered HTTP 503", None):
            status, answer = await order(runtime, http)
            assert status == 202
            await settled_by_id(runtime, answer["event"])
            async with http.get(address) as found:
                state = (await found.json())["webhook"]
            assert (state["host"], state["test_failure"]) == ("127.0.0.1", failure)
            assert "5ecret" not in str(state)
    assert receiver.types == ["webhook.test"]


async def settled_by_id(runtime: Runtime, id: str) -> None:
    async def done() -> bool:
        async with runtime.kernel.database.connection() as connection:
            return bool(
                await connection.fetchval(
                    "select count(*) from feedback_loop.inbox where event_id = $1", uuid.UUID(id)
                )
            )

    await wait_until(done)


async def test_button_without_a_webhook_says_what_to_set(start: Callable[..., Any]) -> None:
    runtime = await start([quick(), dashboard], ladder=QUICK)
    async with aiohttp.ClientSession() as http:
        status, answer = await order(runtime, http)
        assert (status, answer["field"]) == (422, "command") and "WEBHOOK_URL" in answer["reason"]
        async with http.get(f"http://127.0.0.1:{runtime.port}/dashboard/webhook") as found:
            assert await found.json() == {"webhook": None}


async def test_commands_show_test_and_switch_on(
    receiver: Receiver, start: Callable[..., Any], dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    for name, value in {"database_url": dsn, "port": "0", **receiver.settings}.items():
        monkeypatch.setenv(name.upper(), value)

    async def run(*arguments: str) -> str:
        done = await asyncio.to_thread(CliRunner().invoke, main, ["webhook", *arguments])
        return f"{done.exit_code} {done.output}"

    assert "there is no webhook" in await run("enable")
    runtime = await start([quick()], ladder=QUICK, **receiver.settings)
    receiver.next(Fault(status=410))
    await told(runtime, report())
    assert "switched off" in await run() and "HTTP 410" in await run()
    assert (await run("enable")).startswith("0 the webhook is on")
    assert "switched off" not in await run()
    receiver.next(Fault(status=404))
    assert (await run("test")).startswith(
        "1 Error: the webhook has not taken the test message: answered HTTP 404"
    )
    assert (await run("test")).startswith("0 127.0.0.1 has taken the test message")


async def test_neither_address_nor_key_nor_words_are_logged_or_stored(
    receiver: Receiver,
    start: Callable[..., Any],
    database: Database,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    runtime = await start([quick(1)], ladder=QUICK, **receiver.settings)
    location = {"Location": f"{receiver.url}/again"}
    receiver.next(DOWN, Fault(then="drop"), Fault(then="hang"), Fault(status=308, headers=location))
    await told(runtime, LoopPaused(why="a word of mine"), ReportReady(**report().model_dump()))
    async with database.connection() as connection:
        rows = [
            str(await connection.fetch(f"select * from feedback_loop.{table}"))
            for table in ("webhook", "webhook_message", "attempt")
        ]
    said = caplog.text + "".join(rows)
    assert "5ecret" in receiver.url
    assert not [word for word in ("5ecret", SECRET[6:], "a word of mine") if word in said]
