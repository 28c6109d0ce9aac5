"""How long a thousand schedulers that hit the trigger at once wait: `scripts/bench trigger`.

A thousand connections, one hit in each, all at once, `BENCH_ROUNDS` (5) times; each round is to be one run.
Beside it the parts that a hit alone cannot do without: one durable write, and one hit with nobody around.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ProcessPoolExecutor
from statistics import median

import asyncpg

from services.trigger.build import build
from shared.events import FeedbackEvaluate
from tests.bench import load
from tests.bench.flame import flame
from tests.bench.served import Served, loading, postgres, product, serving
from tests.support.probe import Probe

HITS = 1000
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))


async def trigger(dsn: str, port: int) -> None:
    """The trigger, and a consumer that does nothing."""
    await product(dsn, port, build, Probe("analyzer", event=FeedbackEvaluate))


def hit(number: int) -> bytes:
    return b"GET /run-feedback-loop HTTP/1.1\r\nHost: x\r\n\r\n"


async def durable_write(connection: asyncpg.Connection[asyncpg.Record]) -> float:
    """Seconds of one committed INSERT: the median of a hundred."""
    await connection.execute("create table if not exists plain (at timestamptz default now())")
    times = []
    for _ in range(100):
        began = time.perf_counter()
        await connection.execute("insert into plain default values")
        times.append(time.perf_counter() - began)
    return median(times)


async def measure(dsn: str, source: ProcessPoolExecutor, server: Served) -> float:
    """Returns the p99 of all hits, in seconds."""
    connection = await asyncpg.connect(dsn)
    times: list[float] = []
    for _ in range(ROUNDS):
        await connection.execute("update feedback_loop.run set joinable = false")
        before = await connection.fetchval("select count(*) from feedback_loop.run")
        write = await durable_write(connection)
        alone = source.submit(load.burst, server.port, hit, 1).result()
        done = source.submit(load.burst, server.port, hit, HITS).result()
        assert done.statuses == {200: HITS}, done.statuses
        runs = await connection.fetch("select hits from feedback_loop.run where joinable")
        assert [run["hits"] for run in runs] == [HITS + 1]
        assert await connection.fetchval("select count(*) from feedback_loop.run") == before + 1
        each = sorted(done.times)
        print(
            f"one durable write {1000 * write:.1f} ms, one hit alone {1000 * alone.times[0]:.1f} ms;"
            f" {HITS} at once: p50 {1000 * median(each):.0f} ms, p99 {1000 * each[int(HITS * 0.99)]:.0f} ms,"
            f" the last {1000 * each[-1]:.0f} ms"
        )
        times += each
    await connection.close()
    return sorted(times)[int(len(times) * 0.99)]


def test_trigger() -> None:
    """All answer 200, of one run, p99 ≤ 1 s."""
    print(f"\nload average {os.getloadavg()[0]:.1f}")
    with (
        postgres() as dsn,
        serving(trigger, dsn) as server,
        loading() as source,
        flame("trigger", server.pid),
    ):
        p99 = asyncio.run(measure(dsn, source, server))
    print(f"p99 of all: {1000 * p99:.0f} ms; load average {os.getloadavg()[0]:.1f}")
    assert p99 <= 1
