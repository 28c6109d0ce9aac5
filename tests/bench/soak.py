"""Mixed load for a long time, at half of what the machine can do: `scripts/soak`.

Votes, searches, runs and, after a third of the time, one re-embedding of every document, on one process
with all services (`services/up.py`), a RabbitMQ, the embedded PostgreSQL and a Slack that answers. First
clients ask as fast as they are answered, for a minute: half of the rate of its slowest tenth is the load.
The table has a line for each minute, with the machine's load average beside; passed: no request failed,
nothing was dead-lettered, hardly a request could not be sent because `WAITING` others had no answer yet (the
machine had less to give than was measured: then nothing is proven), and from the first third (without its
first minutes, while caches fill) to the last neither memory, tasks, file descriptors, connections nor queues
have grown.

`SOAK_MINUTES` (30) takes another time. Nothing is written into the repository.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from services.up import SERVICES, compose
from shared.bus.port import Topology
from shared.postgres.database import Database
from shared.postgres.embedded import start_postgres, stop_postgres
from shared.process import serve
from shared.settings import Settings
from tests.support.embedder import article
from tests.support.events import wait_until
from tests.support.processes import free_port
from tests.support.rabbit import depth, sweep
from tests.support.slack import FakeSlack

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
SAMPLE = 5.0
"""Seconds between two looks."""
MEASURE = min(60.0, MINUTES * 20)
"""Seconds that clients ask as fast as they can; so long again before that, while caches fill."""
PARTS = 10
"""Of these seconds; the slowest counts, for an idle moment of a shared machine promises too much."""
WAITING = 64
"""Requests without an answer at which no more are sent."""
SKIPPED = 0.01
"""Share of the requests that may be left out for that."""
CLIENTS = 8
DOCUMENTS, CHUNKS = 100, 3
SHARES = {"vote": 0.6, "search": 0.395, "run": 0.005}
"""Of the requests. A run of each request more would be a run of each vote."""
APPS = tuple(f"app{number}" for number in range(4))
CONVERSATIONS = 5000
GROWTH = {"memory MB": (0.1, 16), "tasks": (0.1, 5), "descriptors": (0.1, 5), "connections": (0.0, 1),
          "queued": (0.0, 10), "open events": (0.0, 10)}  # fmt: skip
"""What may be added from the first third to the last: a share of it, or so much, whatever is more."""


def _run(settings: dict[str, Any], looks: Connection) -> None:
    """Main function of the process that is loaded: all services; it tells what it holds."""
    asyncio.run(_watched(Settings(_env_file=None, **settings), looks))


async def _watched(settings: Settings, looks: Connection) -> None:
    async def watch() -> None:
        while True:
            tasks = asyncio.all_tasks()
            asked = sum("RequestHandler" in str(task.get_coro()) for task in tasks)
            descriptors = len(os.listdir("/proc/self/fd"))
            # Each connection of a client is a task and a descriptor for as long as the client keeps it.
            looks.send((_resident(), len(tasks) - asked, descriptors - asked, asked))
            await asyncio.sleep(SAMPLE / 2)

    watching = asyncio.create_task(watch())
    try:
        await serve(compose(settings))
    finally:
        watching.cancel()


def _resident() -> float:
    """Memory of this process, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True, slots=True)
class Look:
    """What there was at one moment; `minute` since the load began, `load`: the machine's load average.

    Attributes:
        tasks, descriptors: without those of `asked`.
        asked: connections that clients have opened and keep; as many as there ever were requests at once.
    """

    minute: float
    memory: float
    tasks: int
    descriptors: int
    connections: int
    queued: int
    open_events: int
    asked: int
    load: float

    def named(self) -> dict[str, float]:
        """What may not grow."""
        return dict(zip(GROWTH, list(asdict(self).values())[1:-2], strict=True))


@dataclass
class Load:
    """Requests and what became of them.

    Attributes:
        skipped: requests that were due and not sent, as too many others waited.
        times: of each minute, how long its requests took (ms).
        failures: what failed, and how often.
    """

    http: aiohttp.ClientSession
    token: str
    done: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    times: dict[int, list[float]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    async def ask(self, kind: str | None = None) -> None:
        kind = kind or random.choices(list(SHARES), list(SHARES.values()))[0]
        began = time.monotonic()
        try:
            status = await getattr(self, f"_{kind}")()
            if status >= 300:
                self.failures[f"{kind}: {status}"] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failures[f"{kind}: {type(error).__name__}"] += 1
        self.done[kind] += 1
        took = (time.monotonic() - began) * 1000
        self.times.setdefault(int((time.monotonic() - self.began) / 60), []).append(took)

    async def _vote(self) -> int:
        vote = {
            "app": random.choice(APPS),
            "conversation_id": f"c{random.randrange(CONVERSATIONS)}",
            "feedback": random.choices(("like", "dislike"), (85, 15))[0],
            "reason": "soak",
        }
        return await self._post("/feedback", vote)

    async def _search(self) -> int:
        question = f"What does Document {random.randrange(DOCUMENTS)} say in part {random.randrange(CHUNKS)}?"
        return await self._post("/search", {"q": question, "conversation_id": f"c{random.randrange(1000)}"})

    async def _run(self) -> int:
        key = {"Idempotency-Key": f"{random.random()}"}
        return await self._post("/run-feedback-loop", {"app": random.choice(APPS)}, **key)

    async def embed(self, edition: int) -> None:
        """Every document, all of it new: a re-embedding."""
        self.done["documents"] += 1
        bodies = [
            {"source": f"{number}.md", "content": article(f"Document {number}, edition {edition}", CHUNKS)}
            for number in range(DOCUMENTS)
        ]
        if (status := await self._post("/documents", bodies)) != 202:
            self.failures[f"documents: {status}"] += 1

    async def _post(self, path: str, body: object, **headers: str) -> int:
        headers["Authorization"] = f"Bearer {self.token}"
        async with self.http.post(path, json=body, headers=headers) as response:
            await response.read()
            return response.status

    async def at_full_speed(self, seconds: float) -> list[float]:
        """Returns requests a second, in each of `PARTS`."""
        end = time.monotonic() + seconds

        async def client() -> None:
            while time.monotonic() < end:
                await self.ask()

        clients = asyncio.gather(*(client() for _ in range(CLIENTS)))
        rates = []
        for _ in range(PARTS):
            began, before = time.monotonic(), self.done.total()
            await asyncio.sleep(seconds / PARTS)
            rates.append((self.done.total() - before) / (time.monotonic() - began))
        await clients
        return rates

    async def at(self, rate: float, minutes: float, edition: int) -> None:
        """`rate` requests a second, whether earlier ones are answered or not, unless too many are not; in
        between, a re-embedding."""
        self.began, self.times = time.monotonic(), {}
        tasks: set[asyncio.Task[None]] = set()
        asked, embedded = 0, False
        while (now := time.monotonic() - self.began) < minutes * 60:
            while asked < now * rate:
                asked += 1
                if len(tasks) >= WAITING:
                    self.skipped += 1
                    continue
                tasks.add(task := asyncio.create_task(self.ask()))
                task.add_done_callback(tasks.discard)
            if not embedded and now > minutes * 20:
                embedded = True
                tasks.add(task := asyncio.create_task(self.embed(edition)))
                task.add_done_callback(tasks.discard)
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)


async def _look(database: Database, url: str, topology: Topology, looks: Connection, began: float) -> Look:
    memory, tasks, descriptors, asked = looks.recv()
    while looks.poll():
        memory, tasks, descriptors, asked = looks.recv()
    async with database.connection() as connection:
        connections = await connection.fetchval(
            "select count(*) from pg_stat_activity where datname = current_database()"
            " and backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        open_events = await connection.fetchval(
            "select count(*) from feedback_loop.outbox o join feedback_loop.consumer c using (type)"
            " where done_at is null and not exists (select from feedback_loop.inbox i"
            "   where i.consumer = c.consumer and i.event_id = o.event_id)"
        )
    queued = sum([await depth(url, topology.queue(name)) for name in SERVICES])
    minute = (time.monotonic() - began) / 60
    load = os.getloadavg()[0]
    return Look(minute, memory, tasks, descriptors, connections, queued, open_events, asked, load)


def grown(looks: Sequence[Look]) -> list[str]:
    """What has grown from the first third (its second half: caches fill first) to the last, by medians."""
    end = looks[-1].minute
    first = [look.named() for look in looks if end / 6 <= look.minute < end / 3]
    last = [look.named() for look in looks if look.minute >= end * 2 / 3]
    if not first or not last:
        return ["too short to say what grows: SOAK_MINUTES=1 at least"]
    problems = []
    for name, (share, least) in GROWTH.items():
        before, after = (statistics.median(one[name] for one in part) for part in (first, last))
        if after - before > max(share * before, least):
            problems.append(f"{name} grew from {before:.0f} to {after:.0f}")
    return problems


def _table(load: Load, looks: Sequence[Look]) -> Table:
    table = Table("minute", "requests", "p50 ms", "p95 ms", *GROWTH, "clients", "load average", title="soak")
    for minute, times in sorted(load.times.items()):
        here = [look for look in looks if int(look.minute) == minute]
        if len(times) > 1 and here:
            cuts = statistics.quantiles(times, n=20)
            held = [f"{statistics.median(look.named()[name] for look in here):.0f}" for name in GROWTH]
            more = str(max(look.asked for look in here)), f"{max(look.load for look in here):.1f}"
            table.add_row(str(minute), str(len(times)), f"{cuts[9]:.1f}", f"{cuts[18]:.1f}", *held, *more)
    return table


async def soak(console: Console, dsn: str, url: str, slack: FakeSlack) -> list[str]:
    """Returns what was wrong."""
    port, topology, token = free_port(), Topology(f"soak-{os.getpid()}"), "soak-" + "x" * 40
    settings = {
        **slack.bot, "database_url": dsn, "amqp_url": url, "amqp_exchange": topology.exchange, "port": port,
        "host": "127.0.0.1", "api_token": token, "rate_limit": 0, "log_level": "ERROR",
    }  # fmt: skip
    looks, other = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(settings, other))
    process.start()
    database = Database(dsn)
    await database.connect()
    seen: list[Look] = []
    timeout = aiohttp.ClientTimeout(total=60)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=timeout) as http:
            load = Load(http, token)
            await wait_until(lambda: _ready(http), 120)
            await load.embed(0)
            await wait_until(lambda: _shown(database), 600)
            await load.at_full_speed(MEASURE)
            rates = await load.at_full_speed(MEASURE)
            capacity = min(rates)
            console.print(
                f"{capacity:.0f} to {max(rates):.0f} requests a second at full speed, load average"
                f" {os.getloadavg()[0]:.1f}: {capacity / 2:.0f} a second for {MINUTES:g} minutes"
            )
            load.done.clear()
            loading = asyncio.create_task(load.at(capacity / 2, MINUTES, 1))
            began = time.monotonic()
            while not loading.done():
                seen.append(await _look(database, url, topology, looks, began))
                await asyncio.wait({loading}, timeout=SAMPLE)
            await loading
            console.print(_table(load, seen), dict(load.done))
            dead = await depth(url, topology.dead)
            problems = [f"{what}, {count} times" for what, count in load.failures.items()]
            if load.skipped > SKIPPED * load.done.total():
                problems.append(f"overloaded: {load.skipped} requests were not sent; is the machine alone?")
            return problems + grown(seen) + [f"{dead} dead letters"] * bool(dead)
    finally:
        process.terminate()
        await asyncio.to_thread(process.join, 40)
        await database.close()
        await sweep(url, topology, SERVICES)


async def _ready(http: aiohttp.ClientSession) -> bool:
    try:
        async with http.get("/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def _shown(database: Database) -> bool:
    async with database.connection() as connection:
        return bool(await connection.fetchval("select true from feedback_loop.active_generation limit 1"))


async def main() -> int:
    console = Console(width=130)
    folder = Path(tempfile.mkdtemp(prefix="fl-soak-"))
    try:
        dsn = await start_postgres(folder)
        async with FakeSlack() as slack:
            problems = await soak(console, dsn, os.environ["TEST_AMQP_URL"], slack)
    finally:
        await stop_postgres(folder)
        shutil.rmtree(folder, ignore_errors=True)
    console.print("passed" if not problems else "\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
