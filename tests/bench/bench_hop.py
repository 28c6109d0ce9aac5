"""What a hop of an event costs, over RabbitMQ: `scripts/bench hop`.

`BENCH_MESSAGES` (2,000) messages lie in a quorum queue; a program takes them two hops further. The time from
the first that leaves the queue to the last that arrives counts. In turn, `BENCH_ROUNDS` (5) times: aio-pika
alone; FastStream, where it is installed; the product, whose handlers only decide; and with a row written by
each. For the product a hop is: consume, decide, one transaction with inbox and outbox, publish with a
confirm, acknowledge. `BENCH_PREFETCH` ("4 32"): how many messages at a time; 4 is the product's own.

Rates are given by the clock and by the seconds of a core that the program took, which others on the machine
hardly change.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from statistics import median

import aio_pika
import asyncpg
from rich.console import Console
from rich.table import Table

from shared.bus.declarations import Declarations, robust_channel
from shared.bus.envelope import Envelope, Message, encode
from shared.bus.port import Topology
from shared.bus.rabbit import RabbitBus
from shared.events import LoopPaused
from shared.postgres.database import Database
from tests.bench import hops
from tests.bench.flame import flame
from tests.bench.served import CORES, Served, postgres

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
MESSAGES = int(os.environ.get("BENCH_MESSAGES", "2000"))
PREFETCHES = [int(each) for each in os.environ.get("BENCH_PREFETCH", "4 32").split()]
PATIENCE = 300.0

BARE, FASTSTREAM, PRODUCT, WRITES = "aio-pika alone", "FastStream", "product", "product, a row each"
Program = Callable[[hops.Way], Awaitable[None]]
PROGRAMS: dict[str, Program] = {
    BARE: hops.aio_pika_alone,
    FASTSTREAM: hops.faststream_does,
    PRODUCT: hops.product,
    WRITES: hops.product_writes,
}
Rates = dict[str, list[tuple[float, float]]]


@contextmanager
def spawned(program: Program, way: hops.Way) -> Iterator[Served]:
    """The program in a process of its own, on the first core."""
    process = multiprocessing.get_context("spawn").Process(
        target=_run, args=(program, way, CORES[:1]), daemon=True
    )
    process.start()
    try:
        assert process.pid is not None
        yield Served(0, process.pid)
    finally:
        process.terminate()
        process.join(30)


def _run(program: Program, way: hops.Way, cores: list[int]) -> None:
    os.sched_setaffinity(0, cores)

    async def forever() -> None:
        gc.freeze()  # what this module imports is the product's, and nothing that a peer should look through
        await program(way)
        await asyncio.Event().wait()

    asyncio.run(forever())


class Arrivals:
    """Queues of one round, and how full they are."""

    def __init__(self, channel: aio_pika.abc.AbstractChannel, topology: Topology) -> None:
        self._channel = channel
        self._topology = topology

    async def ready(self, queue: str) -> int:
        channel = (
            await self._channel.get_underlay_channel()
        )  # a robust one would tell what it was told before
        found = await channel.queue_declare(self._topology.queue(queue), passive=True)
        return found.message_count or 0

    async def until(self, queue: str, reached: Callable[[int], bool]) -> float:
        """When it was so."""
        deadline = time.perf_counter() + PATIENCE
        while not reached(await self.ready(queue)):
            assert time.perf_counter() < deadline, f"{queue}: {await self.ready(queue)} after {PATIENCE:g} s"
            await asyncio.sleep(0.01)
        return time.perf_counter()

    async def delete(self) -> None:
        for queue in (*hops.HOPS, "arrived"):
            await self._channel.queue_delete(self._topology.queue(queue))
        for delay in self._topology.ladder:
            await self._channel.queue_delete(self._topology.retry(delay))
            await self._channel.exchange_delete(self._topology.retry(delay))
        await self._channel.queue_delete(self._topology.dead)
        await self._channel.exchange_delete(self._topology.exchange)


async def once(name: str, amqp: str, dsn: str, prefetch: int) -> tuple[float, float]:
    """Messages a second taken two hops further: by the clock, and by the program's seconds of a core."""
    way = hops.Way(amqp, f"bench-{uuid.uuid4().hex[:8]}", dsn, prefetch)
    connection = await aio_pika.connect_robust(amqp)
    channel = await robust_channel(connection)
    declarations = Declarations(way.topology, True)
    await declarations.exchanges(channel)
    for consumer, type in zip((*hops.HOPS, "arrived"), hops.TYPES, strict=True):
        await declarations.queue(channel, consumer, [type])
    bus = RabbitBus(amqp, way.topology)
    await bus.connect()
    for place in range(0, MESSAGES, 100):
        await asyncio.gather(*(bus.publish(_message(place + each)) for each in range(100)))
    await bus.close()
    arrivals = Arrivals(channel, way.topology)
    await arrivals.until("first", lambda ready: ready == MESSAGES)
    with spawned(PROGRAMS[name], way) as process:
        began = await arrivals.until("first", lambda ready: ready < MESSAGES)
        before = process.cpu()
        with flame(f"hop-{prefetch}" if name == PRODUCT else None, process.pid):
            ended = await arrivals.until("arrived", lambda ready: ready >= MESSAGES)
        core = process.cpu() - before
    assert await arrivals.ready("arrived") == MESSAGES or name not in (BARE, FASTSTREAM)
    await arrivals.delete()
    await connection.close()
    return MESSAGES / (ended - began), MESSAGES / core


def _message(number: int) -> Message:
    event = LoopPaused(app="default", why="people disliked the answers", requested_by=f"user-{number}")
    return encode(Envelope.root(event, "/bench"))


async def prepare(dsn: str) -> None:
    database = Database(dsn)
    await database.connect()
    await database.migrate()
    await database.close()
    connection = await asyncpg.connect(dsn)
    await connection.execute("create table effect (event_id uuid primary key)")
    for name in ("fsync", "synchronous_commit"):
        assert await connection.fetchval(f"show {name}") == "on"
    await connection.close()


async def measure(dsn: str, prefetch: int) -> Rates:
    amqp = os.environ["TEST_AMQP_URL"]
    programs = [name for name in PROGRAMS if name != FASTSTREAM or find_spec("faststream")]
    rates: Rates = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name in programs:
            rates[name].append(await once(name, amqp, dsn, prefetch))
    return rates


def report(rates: Rates, prefetch: int) -> dict[str, float]:
    """Print a table. Returns each rate over aio-pika's: medians of the rounds' own ratios."""
    title = f"prefetch {prefetch}, {MESSAGES:,} messages, load average {os.getloadavg()[0]:.1f}"
    table = Table("two hops, messages a second", "median", "from", "to", "÷ aio-pika", "÷ FastStream",
                  "a second of its core", "÷ aio-pika", title=title, title_justify="left")  # fmt: skip
    ratios = {}
    for name, each in rates.items():
        clock, core = zip(*each, strict=True)
        row = [f"{n:,.0f}" for n in (median(clock), min(clock), max(clock))]
        for peer in (BARE, FASTSTREAM):
            ratios[f"{name} / {peer}"] = _ratio(each, rates.get(peer), 0)
            row.append(f"{ratios[f'{name} / {peer}']:.2f}")
        table.add_row(name, *row, f"{median(core):,.0f}", f"{_ratio(each, rates[BARE], 1):.2f}")
    Console(width=150).print(table)
    if FASTSTREAM not in rates:
        print("FastStream is not installed (pip install 'faststream[rabbit]'): its row is left out")
    return ratios


def _ratio(ours: list[tuple[float, float]], theirs: list[tuple[float, float]] | None, place: int) -> float:
    if theirs is None:
        return float("nan")
    return median(a[place] / b[place] for a, b in zip(ours, theirs, strict=True))


def test_hop() -> None:
    """Wanted: ≥ 0.7 of aio-pika alone, ≥ FastStream. The table says how far it is."""
    with postgres() as dsn:
        asyncio.run(prepare(dsn))
        for prefetch in PREFETCHES:
            report(asyncio.run(measure(dsn, prefetch)), prefetch)
