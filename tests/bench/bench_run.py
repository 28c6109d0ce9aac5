"""How long from the hit on the trigger to the report in Slack: `scripts/bench run`.

An app with `BENCH_VOTES` (1,000,000) votes over a year; trigger, collector, analyzer and notifier in one
process, a fake Slack (its webhook: no picture is drawn) in it too. One run at a time, `BENCH_RUNS` (40) times
over RabbitMQ, and as often on the bus within the process. The clock starts as the request is sent and stops
as Slack has the message. After each run come the parts that no program can do without, one after the other:
two publishes with a confirm, two commits of one row, one post over a connection of its own.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
import uuid
from datetime import timedelta
from statistics import median
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import asyncpg
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from services.analyzer.build import build as analyzer
from services.collector.build import build as collector
from services.notifier.build import build as notifier
from services.trigger.build import build as trigger
from shared.bus.envelope import Envelope, encode
from shared.bus.memory import MemoryBus
from shared.bus.port import Bus, Delivery, Topology
from shared.bus.rabbit import RabbitBus
from shared.events import LoopPaused
from shared.runtime import Runtime, running
from shared.settings import Settings
from tests.bench.analysing import made, postgres
from tests.bench.flame import flame
from tests.support.slack import FakeSlack

RUNS = int(os.environ.get("BENCH_RUNS", "40"))
VOTES = int(os.environ.get("BENCH_VOTES", "1000000"))
WARM = 3
ADDRESSES = {"RabbitMQ": os.environ.get("TEST_AMQP_URL"), "one process": None}
Times = dict[str, list[float]]


class Parts:
    """What a run cannot do without, done bare."""

    def __init__(self, bus: Bus, connection: asyncpg.Connection[asyncpg.Record], webhook: str) -> None:
        self._bus = bus
        self._connection = connection
        self._webhook = webhook

    @staticmethod
    async def prepare(bus: Bus, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        async def take(delivery: Delivery) -> None:
            await delivery.ack()

        await bus.connect()
        await bus.subscribe("bare", [LoopPaused.type], take, 4)
        await connection.execute("create table if not exists bare (id uuid primary key)")

    async def publish(self) -> float:
        message = encode(Envelope.root(LoopPaused(), "/bench"))
        began = time.perf_counter()
        await self._bus.publish(message)
        return time.perf_counter() - began

    async def commit(self) -> float:
        began = time.perf_counter()
        await self._connection.execute("insert into bare values ($1)", uuid.uuid4())
        return time.perf_counter() - began

    async def post(self) -> float:
        async with aiohttp.ClientSession() as session:
            began = time.perf_counter()
            async with session.post(self._webhook, json={"text": "x" * 1000}) as answer:
                assert answer.status == 200
                return time.perf_counter() - began


async def one_run(session: aiohttp.ClientSession, url: str, slack: FakeSlack) -> tuple[float, float]:
    """Seconds until the trigger answers, and until Slack has the report."""
    before, began = len(slack.messages), time.time()
    headers = {"Idempotency-Key": uuid.uuid4().hex}  # else it would join the run before
    async with session.post(url, json={"app": "default"}, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
    answered = time.time() - began
    while len(slack.messages) == before:
        await asyncio.sleep(0.002)
    return answered, float(slack.messages[before].ts) - began


async def measure(dsn: str, amqp: str | None, slack: FakeSlack) -> Times:
    """Seconds, of each run: to the answer, to Slack, and of each part."""
    exchange = f"bench-{uuid.uuid4().hex[:8]}"
    settings = Settings(
        _env_file=None,
        database_url=SecretStr(dsn),
        amqp_url=SecretStr(amqp) if amqp else None,
        amqp_exchange=exchange,
        host="127.0.0.1",
        port=0,
        weekly_summary="off",
        slack_webhook_url=SecretStr(slack.webhook_url),
    )
    bare = Topology(f"{exchange}-bare")
    bus: Bus = RabbitBus(amqp, bare) if amqp else MemoryBus(bare)
    connection = await asyncpg.connect(dsn)
    await Parts.prepare(bus, connection)
    parts = Parts(bus, connection, slack.webhook_url)
    times: Times = {name: [] for name in ("answer", "slack", "parts", "publish", "commit", "post")}
    runtime = Runtime(settings, [trigger, collector, analyzer, notifier])
    async with running(runtime), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{runtime.port}/run-feedback-loop"
        gc.freeze()  # as `shared.process` does
        with flame("run-rabbitmq" if amqp else "run-one-process"):
            for turn in range(-WARM, RUNS):
                answered, told = await one_run(session, url, slack)
                await asyncio.sleep(0.1)  # what the run leaves to do is done
                publish = await parts.publish() + await parts.publish()
                commit = await parts.commit() + await parts.commit()
                post = await parts.post()
                if turn >= 0:
                    found = (answered, told, publish + commit + post, publish, commit, post)
                    for name, seconds in zip(times, found, strict=True):
                        times[name].append(seconds)
    await bus.close()
    await connection.close()
    return times


def report(found: dict[str, Times]) -> None:
    title = f"{RUNS} runs, {VOTES:,} votes, load average {os.getloadavg()[0]:.1f}"
    heads = [f"{bus}: {of}" for bus in found for of in ("p50", "p95")]
    table = Table("ms", *heads, title=title, title_justify="left")
    names = {
        "slack": "trigger to Slack",
        "answer": "the trigger's answer",
        "parts": "the parts",
        "publish": "  two publishes with a confirm",
        "commit": "  two commits",
        "post": "  one post",
    }
    for key, name in names.items():
        each = [1000 * of(times[key]) for times in found.values() for of in (median, p95)]
        table.add_row(name, *(f"{ms:.1f}" for ms in each))
    ratios = [of(times["slack"]) / of(times["parts"]) for times in found.values() for of in (median, p95)]
    table.add_row("trigger to Slack ÷ the parts", *(f"{ratio:.1f}" for ratio in ratios))
    Console(width=150).print(table)


def p95(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.95)]


async def everything(dsn: str) -> dict[str, Times]:
    ledger, _ = await made(dsn, VOTES, timedelta(0))
    await ledger.database.close()
    dsn = urlunsplit(urlsplit(dsn)._replace(path=f"/votes_{VOTES}"))
    async with FakeSlack() as slack:
        return {bus: await measure(dsn, amqp, slack) for bus, amqp in ADDRESSES.items()}


def test_run() -> None:
    """Wanted: p50 ≤ 100 ms over RabbitMQ, ≤ 40 ms in one process; ≤ 3 × the parts."""
    with postgres() as dsn:
        found = asyncio.run(everything(dsn))
    report(found)
