"""Fault 11: an embedder is stopped (SIGSTOP) with a batch in hand, before or in the middle of its
transaction; its broker gives the batch to another one, which ends the build. When the first goes on
(SIGCONT), nothing that it still writes is there.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from random import Random
from typing import Any

from services.embedder.build import build
from shared.bus.port import Bus, Delivery, Topology
from shared.bus.rabbit import RabbitBus
from shared.events import GenerationRequested
from shared.postgres import database as kernel_database
from shared.postgres.database import Database
from shared.process import serve
from shared.runtime import Runtime
from shared.settings import Settings
from tests.support.embedder import Bigrams, Outcomes
from tests.support.events import publish, wait_until
from tests.support.faults import Begin, Start
from tests.support.forked import Forked, quiet
from tests.support.loop import BATCHES, LADDER, SERVICES, furnish, settle
from tests.support.proxy import Proxy, in_front_of

HOLD = 0.1
"""Seconds that a batch takes."""
OVER = ""
"""Said when a delivery is dealt with."""


def _serve(settings: dict[str, Any], said: Connection) -> None:
    """Main function of a process: an embedder that says what it has in hand."""
    quiet()
    # A transaction that goes on no more is rolled back by the server; sooner here.
    kernel_database.IDLE, kernel_database.LONGEST = 1, 10
    bigrams = Bigrams()

    async def say(texts: Sequence[str]) -> None:
        said.send(texts[0])
        await asyncio.sleep(HOLD)

    bigrams.before = say
    given = Settings(_env_file=None, **settings)
    builder = partial(build, embedder=bigrams)
    runtime = Runtime(given, [builder], Topology(given.amqp_exchange, ladder=LADDER))
    [router] = runtime.routers
    deliver = router.on_delivery

    async def delivered(delivery: Delivery) -> None:
        try:
            await deliver(delivery)
        finally:
            said.send(OVER)

    setattr(router, "on_delivery", delivered)  # noqa: B010 - a method, to the type checker
    asyncio.run(serve(runtime))


_OVER = """
select exists (select from feedback_loop.generation where app = $1 and state not in ('building', 'built'))
"""
_IN_HAND = r"""
select count(*) from feedback_loop.batch b
join feedback_loop.generation g on g.id = b.generation and g.app = $1
join feedback_loop.chunk c on c.hash = any(b.hashes)
where b.state <> 'done' and c.heading || E'\n' || c.text = $2
"""
_ALL = """
select 'generation ' || g from feedback_loop.generation g
union all select 'active ' || a from feedback_loop.active_generation a
union all select 'promotion ' || p from feedback_loop.promotion p
union all select 'member ' || m from feedback_loop.generation_chunk m
union all select 'vector ' || v from {vectors} v
union all select 'inbox ' || i.consumer || i.event_id || i.state || i.processed_at from feedback_loop.inbox i
union all select 'event ' || o.event_id from feedback_loop.outbox o
order by 1
"""
_ENDED = """
select g.state, g.remaining, g.embedded, g.chunks,
  (select count(*) from feedback_loop.promotion p where p.generation = g.id) as promotions,
  (select count(*) from feedback_loop.inbox i where i.correlation = $2 and i.state = 'dead') as dead,
  (select count(*) from feedback_loop.outbox o where o.correlation = $2) as events
from feedback_loop.generation g where g.app = $1
"""
_WHOLE = ("promoted", 0, 2 * BATCHES, 2 * BATCHES, 1, 0, BATCHES + 3)


async def _stop_with_a_batch_in_hand(
    process: Forked, said: Connection, database: Database, app: str, random: Random
) -> bool:
    """Whether it was stopped before the batch was done. The other may have been quick and taken them all."""

    async def begun() -> bool:
        async with database.connection() as connection:
            return said.poll() or bool(await connection.fetchval(_OVER, app))

    await wait_until(begun, 60)
    await asyncio.sleep(random.random() * 1.3 * HOLD)
    assert process.process.pid is not None
    os.kill(process.process.pid, signal.SIGSTOP)
    text = OVER
    while said.poll():
        text = said.recv()
    async with database.connection() as connection:
        return text != OVER and bool(await connection.fetchval(_IN_HAND, app, text))


async def _everything(database: Database) -> list[str]:
    async with database.connection() as connection:
        table = await connection.fetchval("select table_name from feedback_loop.model")
        rows = await connection.fetch(_ALL.format(vectors=f"feedback_loop.{table}"))
    return [row[0] for row in rows]


async def _taken_over_and_back(
    process: Forked, said: Connection, database: Database, bus: Bus, line: Proxy, held: bool
) -> list[str]:
    """The other one goes on, then the stopped one. Returns what the latter changed."""
    await line.drop()  # as the broker does when heartbeats stay away
    await settle(database, 60)
    before = await _everything(database)
    assert process.process.pid is not None
    os.kill(process.process.pid, signal.SIGCONT)
    if held:
        await wait_until(said.poll, 60)
    await wait_until(lambda: _consumers(bus, 2), 60)
    while said.poll():
        said.recv()
    after = await _everything(database)
    return [f"a stale write: {row}" for row in sorted(set(before) ^ set(after))]


async def _consumers(bus: Bus, count: int) -> bool:
    assert isinstance(bus, RabbitBus)
    return await bus.consumers("embedder") == count


async def test_an_embedder_that_was_stopped_and_goes_on_writes_nothing_stale(
    campaign: Begin, start: Start, database: Database, amqp_url: str, loop_settings: dict[str, Any]
) -> None:
    said, other = multiprocessing.Pipe(duplex=False)
    async with in_front_of(amqp_url, 5672) as line:
        process = Forked(_serve, {**loop_settings, "amqp_url": line.url}, other)
        runtime = await start([SERVICES["embedder"], Outcomes().build], LADDER, **loop_settings)
        await wait_until(lambda: _consumers(runtime.kernel.bus, 2), 60)
        try:
            with campaign(11, "an embedder stopped, another takes over", quick=8, full=200) as fault:
                builds = 0
                while fault.goes_on():
                    app = f"app{builds}"
                    builds += 1
                    await furnish(database, [app])
                    [asked] = await publish(runtime.kernel, GenerationRequested(app=app, reason="manual"))
                    held = await _stop_with_a_batch_in_hand(process, said, database, app, fault.random)
                    problems = await _taken_over_and_back(
                        process, said, database, runtime.kernel.bus, line, held
                    )
                    async with database.connection() as connection:
                        rows = await connection.fetch(_ENDED, app, asked.id)
                    if [tuple(row) for row in rows] != [_WHOLE]:
                        problems.append(f"{app}: {rows}")
                    fault.ran(held, problems)
                fault.note = f"{builds} stops"
        finally:
            process.kill()
