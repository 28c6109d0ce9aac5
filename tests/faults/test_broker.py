"""Fault 8: the broker is killed, freezes, raises its alarm, or loses its disk, with events on it that it
has confirmed. Meanwhile the trigger says 503 in time; afterwards everything is consumed again within a
minute, what the broker forgot comes back out of the outbox, and every run has one decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from shared.bus.port import Topology
from shared.delivery.work import UnitOfWork
from shared.events import Event
from shared.postgres.database import Database
from shared.runtime import Builder, Kernel, Service
from tests.support import broker
from tests.support.events import wait_until
from tests.support.faults import Begin, Start
from tests.support.loop import LADDER, SERVICES, settle
from tests.support.node import Node, private_node
from tests.support.rabbit import depth

KINDS = ("killed", "frozen", "in alarm", "without its data")
BEFORE, DURING = 8, 2
"""Hits in each cycle; of those before, more than the analyzer takes at a time."""
WITHIN_503, WITHIN_AGAIN = 5.0, 60.0
"""Seconds. A machine that is busy with other tests gets twice as long."""
SAVED = 2.0
"""Seconds from the declaration of a queue until RabbitMQ 3.10 has saved its name (a `dets` table of Ra,
saved now and then): killed before, it has the queue for ever without a leader."""
GRACE = 1.0
"""The relay's, instead of 30 s."""


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    server = broker.installed_server()
    if server is None:
        pytest.skip("no RabbitMQ is installed that a private node could be started of")
    frame = private_node(server)
    node = await asyncio.to_thread(frame.__enter__)
    try:
        yield node
    finally:
        await asyncio.to_thread(frame.__exit__, None, None, None)


def _held(build: Builder, gate: asyncio.Event) -> Builder:
    """The service; what it is given waits at the gate."""

    def built(kernel: Kernel) -> Service:
        service = build(kernel)
        registrations = []
        for registration in service.registrations:

            async def handle(
                event: Any, work: UnitOfWork, deps: Any, inner: Any = registration
            ) -> list[Event]:
                await gate.wait()
                return list(await inner.handle(event, work, deps))

            registrations.append(replace(registration, handle=handle))
        return replace(service, registrations=registrations)

    return built


@dataclass
class Line:
    """Trigger and analyzer on one broker.

    Attributes:
        slowest: seconds, of a 503 and of a recovery.
    """

    node: Node
    database: Database
    http: aiohttp.ClientSession
    gate: asyncio.Event
    slack: float
    slowest: dict[str, float] = field(default_factory=lambda: {"503": 0.0, "again": 0.0})

    async def hit(self, app: str) -> tuple[int, float]:
        """The status, and after how many seconds it came."""
        began = asyncio.get_running_loop().time()
        async with self.http.post("/run-feedback-loop", json={"app": app}) as response:
            await response.read()
        return response.status, asyncio.get_running_loop().time() - began

    async def cycle(self, kind: str, seconds: float) -> list[str]:
        """One fault. Returns what was wrong."""
        self.gate.clear()
        apps = [f"app-{uuid4().hex[:8]}" for _ in range(BEFORE + DURING + 1)]
        problems = [
            f"{app}: {status} before" for app, status in await self._taken(apps[:BEFORE]) if status != 200
        ]
        if kind in ("killed", "without its data"):
            await asyncio.sleep(SAVED)
        await self._break(kind)
        during = apps[BEFORE:-1]
        for app, (status, took) in zip(during, await asyncio.gather(*map(self.hit, during)), strict=True):
            self.slowest["503"] = max(self.slowest["503"], took)
            if status != 503 or took > WITHIN_503 * self.slack:
                problems.append(f"{app}: {status} after {took:.1f} s while the broker is {kind}")
        await asyncio.sleep(seconds)
        self.gate.set()
        await self._mend(kind)
        began = asyncio.get_running_loop().time()
        await wait_until(lambda: self._runs(apps[-1]), WITHIN_AGAIN * self.slack)
        self.slowest["again"] = max(self.slowest["again"], asyncio.get_running_loop().time() - began)
        await settle(self.database, 60)
        return [*problems, *await self._undecided(apps)]

    async def _taken(self, apps: list[str]) -> list[tuple[str, int]]:
        answers = await asyncio.gather(*map(self.hit, apps))
        return [(app, status) for app, (status, _) in zip(apps, answers, strict=True)]

    async def _break(self, kind: str) -> None:
        if kind == "in alarm":
            await self.node.alarm(True)
        elif kind == "frozen":
            self.node.freeze()
        else:
            await asyncio.to_thread(self.node.kill)

    async def _mend(self, kind: str) -> None:
        if kind == "in alarm":
            await self.node.alarm(False)
        elif kind == "frozen":
            self.node.thaw()
        else:
            if kind == "without its data":
                self.node.forget()
            await asyncio.to_thread(self.node.start)

    async def _runs(self, app: str) -> bool:
        """Whether a hit is taken, and decided upon."""
        status, _ = await self.hit(app)
        return status == 200 and not await self._undecided([app])

    async def _undecided(self, apps: list[str]) -> list[str]:
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                "select a.app, count(d.run) from unnest($1::text[]) a (app)"
                " left join feedback_loop.decision d using (app) group by 1 having count(d.run) <> 1",
                apps,
            )
        return [f"{row['app']}: {row['count']} decisions" for row in rows]


async def test_whatever_befalls_the_broker_nothing_is_lost_and_consuming_goes_on(
    campaign: Begin, start: Start, database: Database, node: Node, exchange: str
) -> None:
    gate = asyncio.Event()
    builders = [SERVICES["trigger"], _held(SERVICES["analyzer"], gate)]
    runtime = await start(builders, LADDER, amqp_url=node.url, amqp_exchange=exchange)
    runtime.kernel.outbox._grace = runtime.kernel.outbox._pause = GRACE
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runtime.port}") as http:
        with campaign(8, "the broker killed, frozen, in alarm, without data", quick=2, full=100) as fault:
            line = Line(node, database, http, gate, slack=1 if fault.full else 2)
            kinds = fault.random.sample(KINDS, len(KINDS))
            while fault.goes_on():
                kind = kinds[fault.runs % len(KINDS)]
                seconds = fault.random.choice((0, 1, 5, 25)) if fault.full else 0
                fault.ran(1, await line.cycle(kind, seconds))
            fault.note = ", ".join(
                f"{what} after {most:.1f} s at most" for what, most in line.slowest.items()
            )
            fault.ran(0, ["dead letters"] * await depth(node.url, Topology(exchange).dead))
