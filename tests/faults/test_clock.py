"""Fault 15: processes whose clocks are up to ten minutes wrong, jump back and forth, and stand in other time
zones, judge votes at the edges of windows, also across daylight saving: they decide what a process with
the right clock decides, and what the votes' times alone say. Hits on all of them are one run in each
trigger window.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import aiohttp

from shared.bus.port import Topology
from shared.postgres.database import Database
from shared.process import serve
from shared.runtime import Runtime
from shared.settings import Settings
from tests.support.clock import set_wrong
from tests.support.events import wait_until
from tests.support.faults import Begin
from tests.support.forked import Forked, quiet
from tests.support.loop import LADDER, SERVICES
from tests.support.processes import free_port
from tests.support.rabbit import sweep

WRONG = 600.0
ZONES = ("UTC", "Asia/Seoul", "America/New_York", "Europe/London")
MOMENTS = tuple(
    map(
        datetime.fromisoformat,
        (
            "2025-03-09T07:00:00+00:00",  # New York springs forward
            "2025-11-02T06:00:00+00:00",  # and back
            "2025-10-26T01:00:00+00:00",  # London back
            "2025-03-30T01:30:00+00:00",  # London forward, half an hour after
            "2025-10-17T15:00:00+00:00",  # midnight in Seoul
        ),
    )
)
WINDOWS = {"90m": timedelta(minutes=90), "24h": timedelta(hours=24), "1d": timedelta(days=1)}
MOMENT = timedelta(microseconds=1)
AT_ONCE = 5
"""Cases side by side: most of a case is waiting."""
NAMES = ("trigger", "collector", "analyzer")


def _serve(settings: dict[str, Any], offset: Any, zone: str) -> None:
    """Main function of a process: the decision's services, by a wrong clock."""
    quiet()
    set_wrong(lambda: float(offset.value), zone)
    given = Settings(_env_file=None, **settings)
    builders = [SERVICES[name] for name in NAMES]
    asyncio.run(serve(Runtime(given, builders, Topology(given.amqp_exchange, ladder=LADDER))))


@dataclass
class Clocked:
    """A process, and how far its clock is ahead."""

    process: Forked
    offset: Any
    url: str


@dataclass
class Case:
    """Votes at the edges of a window, and the decision upon them."""

    as_of: datetime
    window: str
    votes: list[tuple[datetime, int]]

    @classmethod
    def draw(cls, random: Random) -> Case:
        as_of, window = random.choice(MOMENTS), random.choice(list(WINDOWS))
        edges = (as_of - WINDOWS[window], as_of)
        moments = [edge + MOMENT * n for edge in edges for n in (-1, 0, 1)]
        moments += [as_of - random.random() * WINDOWS[window] for _ in range(30)]
        return cls(as_of, window, [(moment, random.randrange(2)) for moment in moments])

    @property
    def counts(self) -> tuple[int, int]:
        """Likes and dislikes: a window's end belongs to it, its start does not."""
        inside = [value for at, value in self.votes if self.as_of - WINDOWS[self.window] < at <= self.as_of]
        return sum(inside), len(inside) - sum(inside)


_VOTE = "insert into feedback_loop.vote (app, conversation_id, value, created_at) values ($1, $2, $3, $4)"
_DECIDED = """
select as_of, window_start, likes, dislikes, verdict, reason, explanation
from feedback_loop.decision where run = $1
"""


async def _hit(http: aiohttp.ClientSession, clocked: Clocked, body: dict[str, Any]) -> UUID:
    async with http.post(f"{clocked.url}/run-feedback-loop", json=body) as response:
        assert response.status == 200, await response.text()
        return UUID(response.headers["Feedback-Loop-Run"])


async def _decisions(
    http: aiohttp.ClientSession, database: Database, processes: list[Clocked], case: Case, name: str
) -> list[str]:
    """The same votes for each process. Returns where it differs from what it should decide."""

    async def decision_of(number: int, clocked: Clocked) -> tuple[Any, ...]:
        app = f"{name}-{number}"
        async with database.connection() as connection:
            rows = [(app, f"c{n}", value, at) for n, (at, value) in enumerate(case.votes)]
            await connection.executemany(_VOTE, rows)
        run = await _hit(http, clocked, {"app": app, "as_of": case.as_of.isoformat(), "window": case.window})

        async def decided() -> Any:
            async with database.connection() as connection:
                return await connection.fetchrow(_DECIDED, run)

        return tuple(await wait_until(decided, 60))

    found = await asyncio.gather(*(decision_of(*numbered) for numbered in enumerate(processes)))
    start = case.as_of - WINDOWS[case.window]
    expected = (case.as_of, start, *case.counts)
    problems = [f"{name}: {one[:4]}, not {expected}" for one in found if one[:4] != expected]
    return problems + [f"{name}: {one}, not {found[0]}" for one in found if one != found[0]]


async def _one_run_in_a_window(
    http: aiohttp.ClientSession, database: Database, processes: list[Clocked], name: str
) -> list[str]:
    """Hits on all, again near the end of the window, and after it."""
    body = {"app": name}

    async def age(seconds: float) -> None:
        async with database.connection() as connection:
            await connection.execute(
                "update feedback_loop.run set started_at = now() - make_interval(secs => $2) where app = $1",
                name,
                seconds,
            )

    window = Settings(_env_file=None).trigger_window * 60
    first = {await _hit(http, clocked, body) for clocked in processes}
    first |= set(await asyncio.gather(*(_hit(http, clocked, body) for clocked in processes)))
    await age(window - 30)  # a busy machine may take some of it
    late = set(await asyncio.gather(*(_hit(http, clocked, body) for clocked in processes)))
    await age(window)
    after = set(await asyncio.gather(*(_hit(http, clocked, body) for clocked in processes)))
    fits = len(first) == 1 and late == first and len(after) == 1 and after.isdisjoint(first)
    return [] if fits else [f"{name}: runs {len(first)}, then {len(late - first)} more, then {len(after)}"]


async def _votes_have_the_database_s_time(
    http: aiohttp.ClientSession, database: Database, processes: list[Clocked], name: str
) -> list[str]:
    async with database.connection() as connection:
        before = await connection.fetchval("select now()")
        for number, clocked in enumerate(processes):
            vote = {"app": name, "conversation_id": str(number), "feedback": "like"}
            async with http.post(f"{clocked.url}/feedback", json=vote) as response:
                assert response.status == 200, await response.text()
        wrong = await connection.fetchval(
            "select count(*) from feedback_loop.vote where app = $1 and not created_at between $2 and now()",
            name,
            before,
        )
    return [f"{name}: {wrong} votes with another time"] * bool(wrong)


async def test_wrong_clocks_change_no_decision_and_no_run(
    campaign: Begin, database: Database, loop_settings: dict[str, Any]
) -> None:
    context = multiprocessing.get_context("forkserver")
    exchanges = [f"{loop_settings['amqp_exchange']}-{number}" for number in range(3)]
    processes = []
    with campaign(15, "clocks wrong, jumping, in other zones", quick=5, full=300) as fault:
        for number, exchange in enumerate(exchanges):
            port, offset = free_port(), context.Value("d", 0.0)
            settings = {**loop_settings, "amqp_exchange": exchange, "port": port}
            zone = ZONES[number] if number == 0 else fault.random.choice(ZONES)
            settings["timezone"] = fault.random.choice(ZONES)
            process = Forked(_serve, settings, offset, zone)
            processes.append(Clocked(process, offset, f"http://127.0.0.1:{port}"))
        try:
            async with aiohttp.ClientSession() as http:
                for clocked in processes:
                    await wait_until(lambda: _ready(http, clocked), 60)  # noqa: B023
                jumping = asyncio.create_task(_jump(processes[1:], Random(fault.random.random())))
                while fault.goes_on():
                    cases = [(f"app{number}", Case.draw(fault.random)) for number in fault.batch(AT_ONCE)]
                    told = await asyncio.gather(*(_one(http, database, processes, *case) for case in cases))
                    fault.ran(len(cases), [problem for problems in told for problem in problems])
                jumping.cancel()
        finally:
            for clocked in processes:
                clocked.process.kill()
            for exchange in exchanges:
                await sweep(loop_settings["amqp_url"], Topology(exchange, ladder=LADDER), NAMES)


async def _one(
    http: aiohttp.ClientSession, database: Database, processes: list[Clocked], name: str, case: Case
) -> list[str]:
    return [
        *await _decisions(http, database, processes, case, name),
        *await _one_run_in_a_window(http, database, processes, f"{name}-window"),
        *await _votes_have_the_database_s_time(http, database, processes, f"{name}-votes"),
    ]


async def _ready(http: aiohttp.ClientSession, clocked: Clocked) -> bool:
    try:
        async with http.get(f"{clocked.url}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def _jump(processes: list[Clocked], random: Random) -> None:
    """Set clocks ahead and back, while they work."""
    while True:
        for clocked in processes:
            clocked.offset.value = random.choice((-WRONG, WRONG, random.uniform(-WRONG, WRONG)))
        await asyncio.sleep(random.random() * 0.1)
