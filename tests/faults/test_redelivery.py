"""Fault 4: the same evaluation again, after the votes have changed: what is stored and what goes out is
the first decision, byte for byte; also where the first process died before it could publish.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from services.analyzer.build import build
from shared.bus.envelope import Envelope, encode
from shared.events import FeedbackEvaluate
from shared.postgres.database import Database
from tests.support.events import wait_until
from tests.support.faults import Begin, Start
from tests.support.rabbit import tapped
from tests.support.seen import Seen

BATCH = 25
_VOTES = """
insert into feedback_loop.vote (app, conversation_id, value)
select $1, 'c' || n, $2 from generate_series(1, 30) n
"""
_FLIP = "update feedback_loop.vote set value = 1 - value where app = any($1::text[])"
_DECIDED = """
select o.event_id, o.envelope::text as envelope, d::text as decision
from feedback_loop.outbox o join feedback_loop.decision d on d.run = o.correlation
where o.correlation = any($1::uuid[]) and o.producer = 'analyzer' order by o.event_id
"""
_TO_NOTE = """
select from feedback_loop.outbox
where correlation = any($1::uuid[]) and producer = 'analyzer' and published_at is null
"""
_NEVER_PUBLISHED = """
update feedback_loop.outbox set published_at = null
where correlation = any($1::uuid[]) and producer = 'analyzer' returning event_id
"""


async def test_an_evaluation_delivered_again_decides_as_before(
    campaign: Begin, start: Start, database: Database, loop_settings: dict[str, Any]
) -> None:
    seen = Seen()
    runtime = await start([seen.by("analyzer", build)], **loop_settings)
    bus, told = runtime.kernel.bus, ("report.ready", "retrain.requested")

    async def rows(query: str, *arguments: object) -> list[Any]:
        async with database.connection() as connection:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]

    async with tapped(loop_settings["amqp_url"], bus.topology, *told) as tap:
        with campaign(4, "redelivery after the votes changed", quick=50, full=1000) as fault:
            while fault.goes_on():
                apps = [f"app{number}" for number in fault.batch(BATCH)]
                sent = [Envelope.root(FeedbackEvaluate(app=app), "/elsewhere") for app in apps]
                ids = [each.id for each in sent]
                for app in apps:
                    await rows(_VOTES, app, fault.random.randrange(2))
                for each in sent:
                    await bus.publish(encode(each))
                await wait_until(lambda: all(tap.of_run(id) for id in ids))  # noqa: B023
                while await rows(_TO_NOTE, ids):  # that they are published is noted a moment later
                    await asyncio.sleep(0.02)
                before = await rows(_DECIDED, ids)
                await rows(_FLIP, apps)
                unpublished = {id for (id,) in await rows(_NEVER_PUBLISHED, ids[::2])}
                for each in sent * 2:
                    await bus.publish(encode(each))
                await wait_until(lambda: all(seen.times("analyzer", id) == 3 for id in ids))  # noqa: B023
                await wait_until(lambda: all(len(tap.bodies[id]) >= 2 for id in unpublished))  # noqa: B023
                after = await rows(_DECIDED, ids)
                outgoing = Counter(id for id, bodies in tap.bodies.items() if len(set(bodies)) > 1)
                problems = [
                    f"{one} became {other}" for one, other in zip(before, after, strict=True) if one != other
                ]
                fault.ran(len(apps), [*problems, *(f"{id} went out in two versions" for id in outgoing)])
