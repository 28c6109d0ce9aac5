"""Fault 6: the broker persists an event and its confirm never arrives: dropped on the way, or cut off
with the line. The trigger answers 503, the scheduler comes again, the event is there twice: one effect.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from shared.bus.port import Topology
from shared.events import FeedbackEvaluate
from shared.postgres.database import Database
from tests.support.amqp import losing_confirms
from tests.support.events import wait_until
from tests.support.faults import Begin, Start
from tests.support.loop import LADDER, SERVICES, settle
from tests.support.rabbit import depth, tapped

BATCH = 25
_EFFECTS = """
select r.app, (select count(*) from feedback_loop.decision d where d.run = r.id) as decisions,
  (select count(*) from feedback_loop.outbox o where o.cause = r.id and o.producer = 'analyzer') as told, r.id
from feedback_loop.run r where r.app = any($1::text[])
"""


async def _hits(url: str, apps: list[str]) -> dict[str, int]:
    """One hit for each app, all at once. Returns the statuses."""
    async with aiohttp.ClientSession(url) as http:

        async def hit(app: str) -> int:
            async with http.post("/run-feedback-loop", json={"app": app}) as response:
                return response.status

        return dict(zip(apps, await asyncio.gather(*map(hit, apps)), strict=True))


async def test_an_event_whose_confirm_is_lost_has_one_effect(
    campaign: Begin, start: Start, database: Database, loop_settings: dict[str, Any]
) -> None:
    url, topology = loop_settings["amqp_url"], Topology(loop_settings["amqp_exchange"])
    await start([SERVICES["analyzer"]], LADDER, **loop_settings)
    async with losing_confirms(url) as proxy, tapped(url, topology, FeedbackEvaluate.type) as tap:
        trigger = await start([SERVICES["trigger"]], LADDER, **{**loop_settings, "amqp_url": proxy.url})
        address = f"http://127.0.0.1:{trigger.port}"
        with campaign(6, "the confirm lost after the broker persisted", quick=25, full=500) as fault:
            batches = 0
            while fault.goes_on():
                apps = [f"app{batches}-{number}" for number in range(BATCH)]
                batches += 1
                proxy.confirms = fault.random.choice(("cut", "drop"))
                unsure = [app for app, status in (await _hits(address, apps)).items() if status != 200]
                await asyncio.sleep(fault.random.choice((0, 0.5)))  # it is handled meanwhile, or before
                proxy.confirms = "pass"
                await wait_until(lambda: _all_taken(address, apps), 60)  # noqa: B023
                await settle(database, 60)
                rows = await _effects(database, apps)
                # A line that is cut takes some events with it; what came twice was persisted the first time.
                twice = [app for app in unsure if len(tap.bodies[rows[app]["id"]]) > 1]
                problems = [
                    f"{app}: {effects}" for app, effects in rows.items() if effects["found"] != [1, 1]
                ]
                fault.ran(len(twice), problems)
            fault.planned = max(fault.planned, fault.runs)
            fault.ran(0, ["dead letters"] * await depth(url, topology.dead))


async def _all_taken(url: str, apps: list[str]) -> bool:
    """The scheduler comes again. Whether every hit is answered with 200."""
    return set((await _hits(url, apps)).values()) == {200}


async def _effects(database: Database, apps: list[str]) -> dict[str, dict[str, Any]]:
    """Of each app its one run, and how many decisions and events follow from it."""
    async with database.connection() as connection:
        rows = await connection.fetch(_EFFECTS, apps)
    found = {row["app"]: {"id": row["id"], "found": [row["decisions"], row["told"]]} for row in rows}
    assert len(rows) == len(found) == len(apps), "not one run for each app"
    return found
