"""Fault 13: PostgreSQL ends the backends of services at work, and lines are cut in the middle of a COMMIT, or
of a statement that commits by itself: before it arrived, or after it was done and before its answer. Within
half a minute everything is dealt with, and nothing happened twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import aiohttp

from shared.bus.port import Topology
from shared.postgres.database import Database
from tests.support.events import wait_until
from tests.support.faults import Begin, Start
from tests.support.loop import (
    LADDER,
    SERVICES,
    check_apps,
    check_slack,
    check_votes,
    furnish,
    settle,
)
from tests.support.proxy import LOOP, CommitCutter, cutting_commits
from tests.support.rabbit import depth
from tests.support.slack import FakeSlack

APPS, CUTS, ENDED = 3, 6, 3
"""Of one round: apps that live through a whole retrain, commits that are cut, backends that are ended."""
WITHIN = 30.0
"""Seconds. A machine that is busy with other tests gets twice as long."""

_END = """
select count(pg_terminate_backend(pid)) from (
  select pid from pg_stat_activity
  where datname = current_database() and application_name = $1 order by state <> 'active', random() limit 1) p
"""


async def _ask(http: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> None:
    """A request that is repeated until it is accepted."""

    async def accepted() -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            async with http.post(path, json=body) as response:
                assert response.status in (200, 503), await response.text()
                return response.status == 200
        return False

    await wait_until(accepted, 60)


async def _end_backends(database: Database) -> int:
    """Returns how many there were to end."""
    ended = 0
    for _ in range(ENDED):
        await asyncio.sleep(0.2)
        async with database.connection() as connection:
            ended += await connection.fetchval(_END, LOOP)
    return ended


async def _round(
    http: aiohttp.ClientSession, database: Database, proxy: CommitCutter, apps: list[str], slack: float
) -> tuple[int, float]:
    """Apps live through votes, runs and retrains while the database fails.

    Returns:
        How often it failed, and the seconds from the last time until all was dealt with.
    """
    await furnish(database, apps)
    before, proxy.left = proxy.cuts + proxy.alone, CUTS
    asked = [
        _ask(http, "/feedback", {"app": app, "conversation_id": "asked", "feedback": "dislike"})
        for app in apps
    ]
    asked += [_ask(http, "/run-feedback-loop", {"app": app}) for app in apps]
    ending = asyncio.create_task(_end_backends(database))
    await asyncio.gather(*asked)
    ended = await ending
    with contextlib.suppress(AssertionError):  # fewer commits came than were to be cut
        await wait_until(lambda: not proxy.left, 5)
    proxy.left, now = 0, asyncio.get_running_loop().time
    began = now()
    await settle(database, WITHIN * slack)
    return proxy.cuts + proxy.alone - before + ended, now() - began


async def test_ended_backends_and_commits_in_doubt_lose_and_double_nothing(
    campaign: Begin,
    start: Start,
    database: Database,
    dsn: str,
    slack: FakeSlack,
    loop_settings: dict[str, Any],
) -> None:
    with campaign(13, "backends ended, lines cut in COMMIT", quick=12, full=500) as fault:
        async with cutting_commits(dsn, fault.random) as proxy:
            settings = {**loop_settings, "database_url": proxy.url}
            runtime = await start(list(SERVICES.values()), LADDER, **settings)
            apps: list[str] = []
            slowest = 0.0
            async with aiohttp.ClientSession(f"http://127.0.0.1:{runtime.port}") as http:
                while fault.goes_on():
                    new = [f"app{len(apps) + number}" for number in range(APPS)]
                    apps += new
                    faults, took = await _round(http, database, proxy, new, 1 if fault.full else 2)
                    slowest = max(slowest, took)
                    fault.ran(faults, await check_apps(database, new))
            fault.planned = max(fault.planned, fault.runs)
            fault.note = f"{proxy.cuts} in COMMIT, {proxy.alone} in a statement alone; recovered after"
            fault.note += f" {slowest:.1f} s at most"
            fault.ran(0, ["no line was cut in COMMIT"] * (not proxy.cuts))
            kinds = dict.fromkeys(("report", "retrain", "outcome"), len(apps))
            votes = dict.fromkeys(((app, "asked") for app in apps), 0)
            fault.ran(0, await check_slack(database, slack, kinds))
            fault.ran(0, await check_votes(database, votes))
            topology = Topology(loop_settings["amqp_exchange"])
            fault.ran(0, ["dead letters"] * await depth(loop_settings["amqp_url"], topology.dead))
            await runtime.stop()  # before its line is cut
