"""Fault 7: the binding of a consumer is removed while events are published, many at a time on one
channel: every event that no queue took is noticed by its publisher, and no other is taken for one; the
trigger answers 503. Once the binding is back, the next hit brings what was left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
from aio_pika.abc import AbstractQueue

from shared.bus.envelope import Message
from shared.bus.port import Bus, Unroutable
from shared.postgres.database import Database
from tests.support.events import wait_until
from tests.support.faults import Begin, Start
from tests.support.loop import LADDER, SERVICES, settle
from tests.support.rabbit import channel, depth

BATCH = 20
TYPE, NEIGHBOUR, BOUND = "feedback.evaluate", "loop.resumed", "loop.paused"
"""The analyzer takes all three; the bindings of the first two are removed."""


@dataclass
class Line:
    """What clients publish on one channel, and the bindings beneath them."""

    bus: Bus
    database: Database
    queue: AbstractQueue
    http: aiohttp.ClientSession

    async def unbind(self) -> None:
        for key in (TYPE, NEIGHBOUR):
            await self.queue.unbind(self.bus.topology.exchange, key)

    async def bind(self) -> None:
        for key in (TYPE, NEIGHBOUR):
            await self.queue.bind(self.bus.topology.exchange, key)

    async def hits(self, apps: list[str]) -> dict[str, int]:
        """A hit on the trigger for each app, all at once. Returns the statuses."""

        async def hit(app: str) -> int:
            async with self.http.post("/run-feedback-loop", json={"app": app}) as response:
                return response.status

        return dict(zip(apps, await asyncio.gather(*map(hit, apps)), strict=True))

    async def mixed(self) -> Iterator[str]:
        """Publish to both neighbours at once. Returns what was not noticed, or noticed in error."""
        keys = [BOUND, NEIGHBOUR] * (BATCH // 2)

        async def taken(key: str) -> bool:
            try:
                await self.bus.publish(Message(key, {"ce-id": key}, b"{}"))
            except Unroutable:
                return False
            return True

        were = await asyncio.gather(*map(taken, keys))
        return (f"{key}: {was}" for key, was in zip(keys, were, strict=True) if was != (key == BOUND))

    async def decided(self, apps: list[str]) -> bool:
        """Whether each app has one run, and it is decided."""
        async with self.database.connection() as connection:
            found: int = await connection.fetchval(
                "select count(*) from feedback_loop.decision where app = any($1::text[])", apps
            )
        return found == len(apps)

    async def without_bindings(self, apps: list[str], racing: bool) -> tuple[int, list[str]]:
        """Hits and others while the bindings are gone (`racing`: while they go).

        Returns:
            How many publishes found no queue, and what was wrong.
        """
        if racing:  # a hit may be in time; what it answers must hold
            _, early = await asyncio.gather(self.unbind(), self.hits(apps))
        else:
            await self.unbind()
            early = await self.hits(apps)
        allowed = (200, 503) if racing else (503,)
        problems = [f"{app}: {status}" for app, status in early.items() if status not in allowed]
        problems += await self.mixed()
        sure = [app for app, status in early.items() if status == 200]
        await wait_until(lambda: self.decided(sure))
        await self.bind()
        late = await self.hits(apps)
        problems += [f"{app}: then {status}" for app, status in late.items() if status != 200]
        await settle(self.database, 30)
        if not await self.decided(apps):
            problems.append(f"{apps[0]} or one of its batch is not decided once")
        return BATCH - len(sure) + BATCH // 2, problems


async def test_what_no_queue_takes_is_noticed_and_comes_later(
    campaign: Begin, start: Start, database: Database, loop_settings: dict[str, Any]
) -> None:
    url = loop_settings["amqp_url"]
    runtime = await start([SERVICES["trigger"], SERVICES["analyzer"]], LADDER, **loop_settings)
    bus = runtime.kernel.bus
    async with channel(url) as opened, aiohttp.ClientSession(f"http://127.0.0.1:{runtime.port}") as http:
        line = Line(bus, database, await opened.get_queue(bus.topology.queue("analyzer")), http)
        with campaign(7, "a binding removed, concurrent publishes", quick=60, full=1000) as fault:
            batches = 0
            while fault.goes_on():
                apps = [f"app{batches}-{number}" for number in range(BATCH)]
                unroutable, problems = await line.without_bindings(apps, racing=batches % 2 == 1)
                batches += 1
                fault.ran(unroutable, problems)
            fault.planned = max(fault.planned, fault.runs)
            fault.ran(0, ["dead letters"] * await depth(url, bus.topology.dead))
