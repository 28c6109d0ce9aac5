"""One trace from the HTTP hit to the post in Slack: over both buses, through retries and the relay, and in
processes of their own that send to a collector."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import aiohttp
import pytest

from services.analyzer.build import build as analyzer
from services.notifier.build import build as notifier
from services.trigger.build import build as trigger
from shared.delivery.work import UnitOfWork
from shared.events import Event, LoopPaused, LoopResumed
from shared.failures import Retry
from shared.postgres.database import Database
from shared.runtime import Builder, Runtime
from shared.telemetry.logs import configure_logs
from tests.support.embedder import Bigrams
from tests.support.events import publish, wait_until
from tests.support.otlp import Collector, Span, chain
from tests.support.probe import Probe
from tests.support.processes import Process
from tests.support.slack import FakeSlack

Start = Callable[..., Awaitable[Runtime]]
SERVICES: list[Builder] = [trigger, partial(analyzer, embedder=Bigrams()), notifier]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    async with Collector() as collector:
        yield collector


async def hit(url: str, **headers: str) -> None:
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.get(f"{url}/run-feedback-loop") as response,
    ):
        assert response.status == 200, await response.text()


async def to_slack(collector: Collector) -> list[Span]:
    """The ancestors of the call that posted the report, and that call."""

    def posts() -> list[list[Span]]:
        chains = [chain(collector.spans, span) for span in collector.spans if span.kind == "CLIENT"]
        return [found for found in chains if found[0].kind == "SERVER"]

    found: list[Span] = (await wait_until(posts, 60))[0]
    return found


def steps(exchange: str) -> list[tuple[str, str]]:
    return [
        ("SERVER", "GET /run-feedback-loop"),
        ("PRODUCER", f"publish {exchange}:feedback.evaluate"),
        ("CONSUMER", f"process {exchange}:feedback.evaluate:{exchange}.analyzer"),
        ("PRODUCER", f"publish {exchange}:report.ready"),
        ("CONSUMER", f"process {exchange}:report.ready:{exchange}.notifier"),
        ("CLIENT", "POST"),
    ]


# --- the whole way ------------------------------------------------------------------------------


async def test_a_run_is_one_trace_in_one_process(
    start: Start, slack: FakeSlack, collector: Collector
) -> None:
    runtime = await start(SERVICES, otel_exporter_otlp_endpoint=collector.endpoint, **slack.bot)
    await hit(f"http://127.0.0.1:{runtime.port}", traceparent=TRACEPARENT)
    way = await to_slack(collector)
    assert [(span.kind, span.name) for span in way] == steps("feedback-loop")
    assert {span.trace for span in way} == {TRACE} and way[0].parent == PARENT
    assert {span.service for span in way} == {"feedback-loop"}
    assert way[0].attributes["http.response.status_code"] == "200"
    assert way[2].attributes["messaging.system"] == "feedback_loop"
    assert way[2].attributes["feedback_loop.outcome"] == "processed"
    assert way[-1].attributes["server.address"] == "127.0.0.1"


async def test_a_run_is_one_trace_across_processes_and_rabbitmq(
    dsn: str, amqp_url: str, exchange: str, slack: FakeSlack, collector: Collector
) -> None:
    environment = {
        "DATABASE_URL": dsn,
        "AMQP_URL": amqp_url,
        "AMQP_EXCHANGE": exchange,
        "AMQP_QUEUE_TYPE": "classic",
        "WEEKLY_SUMMARY": "off",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        **{name.upper(): value for name, value in slack.bot.items()},
    }
    async with AsyncExitStack() as stack:
        # One first: it migrates, and the others find that done.
        services = [
            await stack.enter_async_context(Process("run", name, **environment))
            for name in ("notifier", "analyzer", "trigger")
        ]
        for service in services:
            await service.until_ready()
        await hit(services[-1].url)
        way = await to_slack(collector)
    assert [(span.kind, span.name) for span in way] == steps(exchange)
    assert len({span.trace for span in way}) == 1 and not way[0].parent
    assert [span.service.removeprefix("feedback-loop-") for span in way] == [
        *("trigger", "trigger", "analyzer", "analyzer", "notifier", "notifier")
    ]
    assert {span.attributes.get("messaging.system") for span in way} == {None, "rabbitmq"}


async def test_no_span_holds_a_webhooks_address(start: Start, slack: FakeSlack, collector: Collector) -> None:
    runtime = await start(SERVICES, otel_exporter_otlp_endpoint=collector.endpoint, **slack.webhook)
    await hit(f"http://127.0.0.1:{runtime.port}")
    await to_slack(collector)
    assert b"5ecretwebhook" not in collector.raw and b"/services/" not in collector.raw


# --- retries, relays ----------------------------------------------------------------------------


async def test_each_attempt_at_an_event_is_a_span_of_its_trace(start: Start, collector: Collector) -> None:
    tried: list[Event] = []

    async def again(event: Event, work: UnitOfWork) -> list[Event]:
        tried.append(event)
        if len(tried) == 1:
            raise Retry(0, "once")
        return []

    runtime = await start([Probe(work=again)], otel_exporter_otlp_endpoint=collector.endpoint)
    (sent,) = await publish(runtime.kernel, LoopPaused())

    def attempts() -> list[Span]:
        return [span for span in collector.spans if span.kind == "CONSUMER"]

    await wait_until(lambda: len(attempts()) == 2, 30)
    first, second = attempts()
    assert first.attributes["messaging.message.id"] == str(sent.id)
    assert (first.trace, first.parent) == (second.trace, second.parent)
    assert (first.failed, second.failed) == (True, False)


async def test_what_the_relay_sends_again_stays_in_its_trace(
    start: Start, collector: Collector, database: Database
) -> None:
    async def follow(event: Event, work: UnitOfWork) -> list[Event]:
        return [LoopResumed()]

    runtime = await start([Probe(work=follow)], otel_exporter_otlp_endpoint=collector.endpoint)
    await publish(runtime.kernel, LoopPaused())

    async def written() -> int:
        async with database.connection() as connection:
            return int(
                await connection.fetchval(
                    "select count(*) from feedback_loop.outbox where type = 'loop.resumed'"
                )
            )

    await wait_until(written)
    # Nobody takes it yet; then another process does, whose relay finds it.
    late = Probe("late", event=LoopResumed)
    await start([late], otel_exporter_otlp_endpoint=collector.endpoint)

    def received() -> list[Span]:
        return [span for span in collector.spans if span.name.endswith("loop.resumed:feedback-loop.late")]

    (last,) = await wait_until(received, 30)
    way = chain(collector.spans, last)
    assert [span.kind for span in way] == ["PRODUCER", "CONSUMER", "PRODUCER", "CONSUMER"]
    assert way[2].name == "publish feedback-loop.late"


# --- without ------------------------------------------------------------------------------------


async def test_a_traceparent_is_carried_on_without_tracing(start: Start, database: Database) -> None:
    runtime = await start(SERVICES)
    await hit(f"http://127.0.0.1:{runtime.port}", traceparent=TRACEPARENT)

    async def stored() -> list[str]:
        async with database.connection() as connection:
            rows = await connection.fetch("select envelope->>'traceparent' as it from feedback_loop.outbox")
        return [row["it"] for row in rows] if len(rows) == 2 else []

    assert await wait_until(stored, 30) == [TRACEPARENT, TRACEPARENT]


@pytest.mark.parametrize("given", ["nonsense", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"])
async def test_what_is_no_traceparent_is_not_carried_on(start: Start, database: Database, given: str) -> None:
    runtime = await start([trigger, Probe()])
    async with aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{runtime.port}/run-feedback-loop"
        await http.get(url, headers={"traceparent": given})
    async with database.connection() as connection:
        stored = await connection.fetchval("select envelope from feedback_loop.outbox")
    assert stored is not None and "traceparent" not in stored


async def test_a_collector_that_is_down_costs_nothing(start: Start, slack: FakeSlack) -> None:
    runtime = await start(SERVICES, otel_exporter_otlp_endpoint="http://127.0.0.1:9", **slack.bot)
    await hit(f"http://127.0.0.1:{runtime.port}")
    await wait_until(lambda: slack.texts, 60)


async def test_without_the_extra_a_start_says_what_is_missing_and_goes_on(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "shared.telemetry.otel", raising=False)
    for name in ("opentelemetry", "opentelemetry.trace", "opentelemetry.sdk.trace"):
        monkeypatch.setitem(sys.modules, name, None)
    await start([trigger], otel_exporter_otlp_endpoint="http://127.0.0.1:4318")
    assert "pip install 'ai-feedback-loop[otel]'" in caplog.text


# --- logs ---------------------------------------------------------------------------------------


async def test_a_json_line_says_what_it_was_written_for(
    start: Start, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level

    async def says(event: Event, work: UnitOfWork) -> list[Event]:
        logging.getLogger("test.says").info("heard")
        return []

    runtime = await start([Probe(work=says)])
    try:
        configure_logs("json")
        (sent,) = await publish(runtime.kernel, LoopPaused())
        printed = ""

        def heard() -> dict[str, Any] | None:
            nonlocal printed
            printed += capsys.readouterr().err
            lines = [json.loads(line) for line in printed.splitlines()]
            return next((line for line in lines if line["message"] == "heard"), None)

        line = await wait_until(heard)
    finally:
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    assert (line["run"], line["event"]) == (str(sent.correlation), str(sent.id))
    assert "trace_id" not in line
