"""Fault 3: kill -9 at random, of any service, under a load of votes and triggers. Every accepted vote is
in the ledger, every accepted trigger has one decision and one message, every retrain its one generation;
nothing is dead-lettered.

Each service is a process of its own (forked from a warm parent, so that thousands can be killed), on one
RabbitMQ and one PostgreSQL. Clients repeat what was not answered, as a scheduler and a bot do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp

from shared.bus.port import Topology
from shared.postgres.database import Database
from shared.process import serve
from shared.runtime import Runtime
from shared.settings import Settings
from tests.support.events import wait_until
from tests.support.faults import Begin
from tests.support.forked import Forked, quiet
from tests.support.loop import (
    LADDER,
    SERVICES,
    backlog,
    check_apps,
    check_slack,
    check_votes,
    furnish,
    settle,
)
from tests.support.processes import free_port
from tests.support.rabbit import depth
from tests.support.slack import FakeSlack

VOTERS, TRIGGERS = 2, 1
PAUSE = 0.3
"""Seconds between two hits of a client, on average."""
KILLS = 0.25
"""Seconds between two kills, on average."""
BACKLOG = 9
"""Open events at which clients trigger nothing more."""
BURST = 10
"""Kills until clients are let through for once."""
PATHS = ("/feedback", "/run-feedback-loop")


def _serve(service: str, settings: dict[str, Any]) -> None:
    """Main function of a process: one service, as `feedback-loop run` has it."""
    quiet()
    given = Settings(_env_file=None, **settings)
    asyncio.run(serve(Runtime(given, [SERVICES[service]], Topology(given.amqp_exchange, ladder=LADDER))))


@dataclass
class Deployment:
    """The services' processes; one that is killed is started again, on its port."""

    settings: dict[str, Any]
    ports: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in SERVICES})
    processes: dict[str, Forked] = field(default_factory=dict)

    def start(self, service: str) -> None:
        self.processes[service] = Forked(_serve, service, {**self.settings, "port": self.ports[service]})

    def kill(self, service: str) -> None:
        self.processes[service].kill()
        self.start(service)

    def url(self, service: str, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}{path}"


@dataclass
class Load:
    """What clients ask for until it is accepted.

    Attributes:
        votes: (app, conversation) -> the value accepted last.
        plain: apps whose runs end in a report; `furnished`: in a retrain.
    """

    deployment: Deployment
    database: Database
    http: aiohttp.ClientSession
    votes: dict[tuple[str, str], int] = field(default_factory=dict)
    plain: list[str] = field(default_factory=list)
    furnished: list[str] = field(default_factory=list)
    over: bool = False
    accepted: Counter[str] = field(default_factory=Counter)

    async def moves_on(self) -> None:
        """Wait until every kind of request has been accepted once more: killed too often, a service never
        gets as far as that."""
        before = self.accepted.copy()
        await wait_until(lambda: all(self.accepted[path] > before[path] for path in PATHS), 90)

    async def vote(self, client: int, random: Random) -> None:
        while not self.over:
            conversation, value = f"c{client}-{random.randrange(100)}", random.randrange(2)
            body = {"app": "live", "conversation_id": conversation, "feedback": ["down", "up"][value]}
            await self._until_accepted("collector", "/feedback", body)
            self.votes["live", conversation] = value
            await asyncio.sleep(random.random() * PAUSE)

    async def trigger(self, client: int, random: Random) -> None:
        number = 0
        while not self.over:
            number += 1
            app = f"app{client}-{number}"
            while await backlog(self.database) > BACKLOG and not self.over:
                await asyncio.sleep(PAUSE)  # as much as the machine can take
            if number % 4 == 0:
                await furnish(self.database, [app])
            await self._until_accepted("trigger", "/run-feedback-loop", {"app": app})
            (self.furnished if number % 4 == 0 else self.plain).append(app)
            await asyncio.sleep(random.random() * PAUSE)

    async def _until_accepted(self, service: str, path: str, body: dict[str, Any]) -> None:
        async with asyncio.timeout(180):
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with self.http.post(self.deployment.url(service, path), json=body) as response:
                        if response.status == 200:
                            self.accepted[path] += 1
                            return
                        assert response.status == 503, await response.text()
                await asyncio.sleep(0.05)


@asynccontextmanager
async def _deployed(settings: dict[str, Any]) -> AsyncIterator[Deployment]:
    deployment = Deployment(settings)
    for name in SERVICES:
        deployment.start(name)
    try:
        yield deployment
    finally:
        for process in deployment.processes.values():
            process.kill()


@asynccontextmanager
async def _under_load(
    deployment: Deployment, database: Database, seed: Callable[[], float]
) -> AsyncIterator[Load]:
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        load = Load(deployment, database, http)
        clients = [asyncio.create_task(load.vote(number, Random(seed()))) for number in range(VOTERS)]
        clients += [asyncio.create_task(load.trigger(number, Random(seed()))) for number in range(TRIGGERS)]
        yield load
        load.over = True
        await asyncio.gather(*clients)


async def test_kill_9_at_random_under_load_loses_and_doubles_nothing(
    campaign: Begin, database: Database, slack: FakeSlack, loop_settings: dict[str, Any]
) -> None:
    with campaign(3, "kill -9 at random under load", quick=12, full=3000) as fault:
        async with _deployed(loop_settings) as deployment:
            async with _under_load(deployment, database, fault.random.random) as load:
                await wait_until(lambda: load.furnished, 60)
                while fault.goes_on():
                    await asyncio.sleep(fault.random.random() * 2 * KILLS)
                    deployment.kill(fault.random.choice(list(SERVICES)))
                    fault.ran()
                    if fault.runs % BURST == 0:
                        await load.moves_on()
            await settle(database, 90)
        topology = Topology(loop_settings["amqp_exchange"])
        dead = await depth(loop_settings["amqp_url"], topology.dead)
        fault.ran(0, [f"{dead} dead letters"] * bool(dead))
        fault.ran(0, await _wrong(load, database, slack))


_PLAIN = """
select a.app from unnest($1::text[]) a (app) where 1 <> (
  select count(*) from feedback_loop.run r join feedback_loop.decision d on d.run = r.id
  join feedback_loop.outbox o on o.cause = r.id and o.type = 'report.ready' where r.app = a.app)
"""


async def _wrong(load: Load, database: Database, slack: FakeSlack) -> list[str]:
    async with database.connection() as connection:
        plain = await connection.fetch(_PLAIN, load.plain)
    runs, retrains = len(load.plain) + len(load.furnished), len(load.furnished)
    return [
        *(f"{row['app']}: not one run, one decision and one report" for row in plain),
        *await check_apps(database, load.furnished),
        *await check_votes(database, load.votes),
        *await check_slack(database, slack, {"report": runs, "retrain": retrains, "outcome": retrains}),
    ]
