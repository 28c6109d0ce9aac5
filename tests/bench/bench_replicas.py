"""What a second replica of the embedder is worth: `scripts/bench replicas` (`BENCH_DATA`).

KorQuAD's 964 paragraphs, over RabbitMQ, on the embedded PostgreSQL: by one embedder, and by two, each a
process on a core of its own, in turn. It counts from the request to `retrain.completed`, with the models
loaded before. On two cores PostgreSQL and the broker share them with both replicas, while one leaves them
the other core.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from services.embedder.build import build
from services.trigger.build import build as trigger
from shared.bus.port import Topology
from shared.bus.rabbit import RabbitBus
from shared.embedding.use_model import UseEmbedder
from shared.process import serve
from shared.runtime import Runtime, running
from shared.settings import Settings
from tests.bench.bench_embed import forget, generation
from tests.bench.bench_retrieval import korquad
from tests.bench.served import CORES, postgres
from tests.support.events import wait_until
from tests.support.forked import Forked, quiet
from tests.support.rabbit import sweep

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))


def _serve(settings: dict[str, Any], core: int) -> None:
    """Main function of a process: an embedder on one core."""
    quiet()
    os.sched_setaffinity(0, {core})

    async def run() -> None:
        embedder = UseEmbedder()
        await embedder.check()
        given = Settings(_env_file=None, **settings)
        await serve(Runtime(given, [partial(build, embedder=embedder)], Topology(given.amqp_exchange)))

    asyncio.run(run())


@asynccontextmanager
async def replicas(number: int, runtime: Runtime, settings: dict[str, Any]) -> AsyncIterator[None]:
    """So many embedders, once they consume."""
    processes = [Forked(_serve, settings, CORES[place % len(CORES)]) for place in range(number)]
    bus = runtime.kernel.bus
    assert isinstance(bus, RabbitBus)

    async def consuming() -> bool:
        return await bus.consumers("embedder") == number

    try:
        await wait_until(consuming, 60)
        yield
    finally:
        for process in processes:
            process.kill()


async def measure(dsn: str, amqp: str, folder: Path) -> dict[int, list[float]]:
    """Seconds, by the number of replicas."""
    for place, text in enumerate(korquad().texts):
        (folder / f"{place:04}.txt").write_text(text, encoding="utf-8")
    settings: dict[str, Any] = {
        "database_url": dsn,
        "amqp_url": amqp,
        "amqp_exchange": f"bench-{uuid.uuid4().hex[:8]}",
        "knowledge_dir": folder,
        "host": "127.0.0.1",
        "port": 0,
    }
    topology = Topology(settings["amqp_exchange"])
    took: dict[int, list[float]] = {1: [], 2: []}
    # The trigger asks, and keeps the schema.
    async with running(Runtime(Settings(_env_file=None, **settings), [trigger], topology)) as runtime:
        for _ in range(ROUNDS):
            for number, times in took.items():
                async with replicas(number, runtime, settings):
                    await forget(runtime)
                    began = perf_counter()
                    await generation(runtime)
                    times.append(perf_counter() - began)
    await sweep(amqp, topology, ["trigger", "embedder"])
    return took


def report(took: dict[int, list[float]]) -> None:
    title = f"964 paragraphs, {ROUNDS} rounds in turn, load average {os.getloadavg()[0]:.1f}"
    shown = Table("replicas", "least", "median", "seconds", title=title, title_justify="left")
    for number, times in took.items():
        each = ", ".join(f"{one:.1f}" for one in times)
        shown.add_row(str(number), f"{min(times):.2f}", f"{median(times):.2f}", each)
    Console(width=110).print(shown)


def test_replicas(amqp_url: str) -> None:
    """Two are ≥ 1.8 × as quick on two cores."""
    with postgres() as dsn, TemporaryDirectory() as folder:
        os.sched_setaffinity(0, CORES)
        took = asyncio.run(measure(dsn, amqp_url, Path(folder)))
    report(took)
    print(f"one ÷ two: {median(a / b for a, b in zip(took[1], took[2], strict=True)):.2f}")
