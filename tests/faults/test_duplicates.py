"""Fault 5: every event of a run twice and at once, to two replicas of each consumer: one decision, one
generation, each following event once.
"""

from __future__ import annotations

import asyncio
from typing import Any

from shared.bus.envelope import Envelope, Message
from shared.bus.port import Bus
from shared.events import FeedbackEvaluate
from shared.postgres.database import Database
from tests.support.events import publish_envelopes
from tests.support.faults import Begin, Start
from tests.support.loop import LADDER, SERVICES, check_apps, furnish, settle
from tests.support.rabbit import depth
from tests.support.seen import Seen

BATCH = 10
REPLICAS = ("one", "other")
CONSUMERS = ("analyzer", "embedder")


def _say_twice(bus: Bus) -> None:
    publish = bus.publish

    async def twice(message: Message) -> None:
        await asyncio.gather(publish(message), publish(message))

    setattr(bus, "publish", twice)  # noqa: B010 - a method, to the type checker


async def test_duplicates_at_two_replicas_at_once_make_one_decision_and_one_generation(
    campaign: Begin, start: Start, database: Database, loop_settings: dict[str, Any]
) -> None:
    seen = Seen()
    replicas = []
    for name in REPLICAS:
        builders = [seen.by(name, SERVICES[consumer]) for consumer in CONSUMERS]
        replicas.append(await start(builders, LADDER, **loop_settings))
        _say_twice(replicas[-1].kernel.bus)
    with campaign(5, "duplicates at two replicas at once", quick=20, full=1000) as fault:
        while fault.goes_on():
            apps = [f"app{number}" for number in fault.batch(BATCH)]
            await furnish(database, apps)
            runs = [Envelope.root(FeedbackEvaluate(app=app), "/elsewhere") for app in apps]
            await publish_envelopes(fault.random.choice(replicas).kernel, *runs)
            await settle(database, 60)
            fault.ran(len(apps), await check_apps(database, apps))
        dead = await depth(loop_settings["amqp_url"], replicas[0].kernel.bus.topology.dead)
        # Seven events a run: most were in the hands of both.
        if dead or seen.by_several() < 2 * fault.runs:
            fault.ran(0, [f"{dead} dead letters, {seen.by_several()} events seen by both replicas"])
