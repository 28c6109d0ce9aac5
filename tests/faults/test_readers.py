"""Fault 12: searches of two embedders, while generations are promoted and rolled back and the embedders
killed. Every answer shows one generation, whole; none fails but with the process that was to give it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp

from services.embedder import store
from services.embedder.knowledge import RawDocument
from services.embedder.parsing import parse
from shared.bus.port import Topology
from shared.events import GenerationRequested, RollbackRequested
from shared.postgres.database import Database
from shared.process import serve
from shared.runtime import Kernel, Runtime
from shared.settings import Settings
from tests.support.embedder import article
from tests.support.events import publish, wait_until
from tests.support.faults import Begin, Start
from tests.support.forked import Forked, quiet
from tests.support.loop import LADDER, SERVICES
from tests.support.processes import free_port

CHUNKS = 8
READERS = 4
KILLS = 1.5
"""Seconds between two kills, on average, once all are ready again."""


def _serve(settings: dict[str, Any]) -> None:
    """Main function of a process: an embedder."""
    quiet()
    given = Settings(_env_file=None, **settings)
    asyncio.run(serve(Runtime(given, [SERVICES["embedder"]], Topology(given.amqp_exchange, ladder=LADDER))))


@dataclass
class Replica:
    """An embedder; `life` counts its processes."""

    settings: dict[str, Any]
    http: aiohttp.ClientSession
    port: int = field(default_factory=free_port)
    life: int = 0
    ready: bool = False
    process: Forked | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.life, self.ready = self.life + 1, False
        if self.process is not None:
            self.process.kill()

    async def begin(self) -> None:
        """Start a process, and wait until it is ready, as a load balancer does."""
        self.process = Forked(_serve, {**self.settings, "port": self.port})

        async def ready() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                async with self.http.get(f"{self.url}/readyz") as response:
                    return response.status == 200
            return False

        await wait_until(ready, 60)
        self.ready = True


@dataclass
class Reading:
    """What searches saw.

    Attributes:
        shown: by generation, what each answer showed.
        cut: answers that died with their process.
    """

    replicas: list[Replica]
    http: aiohttp.ClientSession
    over: bool = False
    shown: dict[int, set[frozenset[str]]] = field(default_factory=lambda: defaultdict(set))
    answers: int = 0
    cut: int = 0
    problems: list[str] = field(default_factory=list)

    async def read(self, random: Random) -> None:
        while not self.over:
            ready = [replica for replica in self.replicas if replica.ready]
            if not ready:
                await asyncio.sleep(0.02)
                continue
            replica = random.choice(ready)
            life = replica.life
            try:
                query = {"q": f"Edition {random.randrange(9)}", "k": str(2 * CHUNKS)}
                async with self.http.get(f"{replica.url}/search", params=query) as response:
                    self._note(response.status, await response.json())
            except (aiohttp.ClientError, TimeoutError) as error:
                self.cut += 1
                if replica.life == life:
                    self.problems.append(f"a search failed: {error!r}")
            await asyncio.sleep(0.02)  # the generations need the machine too

    def _note(self, status: int, body: dict[str, Any]) -> None:
        if status != 200:
            self.problems.append(f"a search answered {status}: {body}")
            return
        self.answers += 1
        self.shown[body["generation"]].add(frozenset(hit["chunk"] for hit in body["results"]))

    async def kill(self, random: Random) -> None:
        """Kill one after the other."""
        while not self.over:
            await asyncio.sleep(random.random() * 2 * KILLS)
            replica = random.choice(self.replicas)
            replica.kill()
            await replica.begin()


@asynccontextmanager
async def _being_read(settings: dict[str, Any], random: Random) -> AsyncIterator[Reading]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
        replicas = [Replica(settings, http) for _ in range(2)]
        reading = Reading(replicas, http)
        try:
            await asyncio.gather(*(replica.begin() for replica in replicas))
            tasks = [asyncio.create_task(reading.read(Random(random.random()))) for _ in range(READERS)]
            tasks.append(asyncio.create_task(reading.kill(Random(random.random()))))
            yield reading
            reading.over = True
            await asyncio.gather(*tasks)
        finally:
            for replica in replicas:
                replica.kill()


async def _publish_edition(database: Database, kernel: Kernel, number: int) -> None:
    """A document of which every chunk is new, and its generation."""
    sections = {f"Part {n}": f"Edition {number}, {n}." for n in range(CHUNKS)}
    data = article("News", sections).encode()
    raw = RawDocument("news.md", "text/markdown", f"edition-{number}", parse("news.md", data))
    async with database.transaction() as connection:
        await store.lock(connection)
        await store.put(connection, "default", "api", store.cut([raw]))
    await publish(kernel, GenerationRequested(reason="manual"))


async def _moves(database: Database) -> int:
    async with database.connection() as connection:
        return int(await connection.fetchval("select count(*) from feedback_loop.promotion"))


async def test_searches_during_promotions_rollbacks_and_kills_see_one_whole_generation(
    campaign: Begin, start: Start, database: Database, loop_settings: dict[str, Any]
) -> None:
    members: dict[int, set[str]] = defaultdict(set)
    runtime = await start([SERVICES["trigger"]], LADDER, **loop_settings)

    async def move(number: int) -> None:
        """A promotion, or a rollback to the generation before."""
        before = await _moves(database)
        if number % 2 and number > 2:
            await publish(runtime.kernel, RollbackRequested())
        else:
            await _publish_edition(database, runtime.kernel, number)

        async def moved() -> bool:
            return await _moves(database) > before

        await wait_until(moved, 60)
        async with database.connection() as connection:
            for row in await connection.fetch(
                "select generation, chunk_hash from feedback_loop.generation_chunk"
            ):
                members[row["generation"]].add(row["chunk_hash"])

    with campaign(12, "readers during promotions, rollbacks and kills", quick=12, full=1000) as fault:
        async with _being_read(loop_settings, fault.random) as reading:
            while fault.goes_on():
                await move(fault.runs)
                fault.ran()
        mixed = [
            f"generation {generation} showed {len(shown)} chunks that are not its {len(members[generation])}"
            for generation, answers in reading.shown.items()
            for shown in answers
            if generation is not None and shown != members[generation]
        ]
        fault.ran(0, [*mixed, *reading.problems])
        lives = sum(replica.life for replica in reading.replicas) - 2
        fault.note = f"{reading.answers} searches, {reading.cut} cut off by {lives} kills"
