"""What it costs to commit deliveries whose handlers wrote nothing: `scripts/bench commits`.

Inbox row and one event of each delivery, so many at a time: each in a commit of its own, and gathered as the
router does. In turn, `BENCH_ROUNDS` (5) times; by the clock, by
the seconds of a core that this process took, and by those of PostgreSQL's connections. No broker.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from shared.bus.envelope import Envelope
from shared.delivery.arrivals import Arrivals
from shared.delivery.work import UnitOfWork
from shared.events import LoopPaused, LoopResumed
from shared.postgres.database import Database
from tests.bench.analysing import postgres

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
MESSAGES, AT_ONCE = 640, (1, 4, 32)
Way = tuple[str, int]


def core(pid: int) -> float:
    """Seconds of a core that a process has taken."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


async def deliver(database: Database, arrivals: Callable[[], Arrivals], number: int) -> None:
    for _ in range(number):
        caused = Envelope.root(LoopPaused(), "/bench")
        async with UnitOfWork(database, caused, "taker", arrivals()) as work:
            work.emit([caused.follow(LoopResumed(), "taker")])


async def backends(database: Database) -> list[int]:
    async with database.connection() as connection:
        query = (
            "select pid from pg_stat_activity"
            " where datname = current_database() and backend_type = 'client backend'"
        )
        return [row["pid"] for row in await connection.fetch(query)]


async def once(database: Database, way: str, at_once: int) -> tuple[float, float, float]:
    """Deliveries a second; ms of this process's core for each; the same of PostgreSQL's."""
    shared = Arrivals(database)
    arrivals = (lambda: shared) if way == "gathered" else (lambda: Arrivals(database))
    each = MESSAGES // at_once
    await asyncio.gather(*(deliver(database, arrivals, 2) for _ in range(at_once)))  # connections are there
    pids = await backends(database)
    began, own, theirs = time.perf_counter(), time.process_time(), sum(map(core, pids))
    await asyncio.gather(*(deliver(database, arrivals, each) for _ in range(at_once)))
    number = each * at_once
    took = time.perf_counter() - began
    return (
        number / took,
        1e3 * (time.process_time() - own) / number,
        1e3 * (sum(map(core, pids)) - theirs) / number,
    )


async def measure(dsn: str) -> dict[Way, list[tuple[float, float, float]]]:
    database = Database(dsn)
    await database.connect()
    await database.migrate()
    ways = [(way, at_once) for at_once in AT_ONCE for way in ("one by one", "gathered")]
    found: dict[Way, list[tuple[float, float, float]]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            found[way].append(await once(database, *way))
    await database.close()
    return found


def test_commits() -> None:
    with postgres() as dsn:
        found = asyncio.run(measure(dsn))
    heads = ("at a time", "commits", "deliveries/s", "from", "to", "ms of its core", "ms of PostgreSQL's")
    table = Table(*heads, title=f"load average {os.getloadavg()[0]:.1f}", title_justify="left")
    for (way, at_once), each in found.items():
        rates, own, theirs = zip(*each, strict=True)
        row = [f"{n:,.0f}" for n in (median(rates), min(rates), max(rates))]
        table.add_row(str(at_once), way, *row, f"{median(own):.2f}", f"{median(theirs):.2f}")
    Console(width=150).print(table)
