"""Fault 9: one message of a hundred is poison: its handler raises, before or after it has written, or
refuses it, or it is no event at all. It is dead-lettered after exactly its attempts, and announced once;
its neighbours are handled once each, at the first attempt.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

from shared.bus.envelope import Envelope, Message, encode
from shared.bus.port import Topology
from shared.delivery.work import UnitOfWork
from shared.events import Event, LoopFailed, LoopPaused
from shared.failures import Reject
from shared.postgres.database import Database
from shared.runtime import Kernel
from tests.support.events import publish_envelopes, wait_until
from tests.support.faults import Begin, Start
from tests.support.probe import Probe, nothing
from tests.support.rabbit import dead_letters, depth, sweep

BATCH = 500
LADDER = (0.05, 0.1, 0.2)
ATTEMPTS = {"raises": len(LADDER) + 1, "writes and raises": len(LADDER) + 1, "refused": 1, "no event": 0}
_KINDS = tuple(ATTEMPTS)


async def _effect(event: Event, work: UnitOfWork) -> list[Event]:
    assert isinstance(event, LoopPaused)
    if event.why == "raises":
        raise RuntimeError("poison")
    connection = await work.begin()
    await connection.execute("insert into public.effect values ($1)", work.envelope.id)
    if event.why == "writes and raises":
        raise RuntimeError("poison")
    if event.why == "refused":
        raise Reject("poison")
    return []


async def _publish(kernel: Kernel, envelope: Envelope, kind: str) -> None:
    if kind == "no event":
        message = encode(envelope)
        await kernel.bus.publish(Message(message.routing_key, message.headers, b"{"))
    else:
        await publish_envelopes(kernel, envelope)


async def test_poison_is_dead_lettered_after_its_attempts_and_neighbours_are_untouched(
    campaign: Begin, start: Start, database: Database, loop_settings: dict[str, Any]
) -> None:
    url, topology = loop_settings["amqp_url"], Topology(loop_settings["amqp_exchange"], ladder=LADDER)
    async with database.connection() as connection:
        await connection.execute("create table public.effect (event_id uuid not null)")
    calls: Counter[UUID] = Counter()

    async def work(event: Event, work: UnitOfWork) -> list[Event]:
        calls[work.envelope.id] += 1
        return await _effect(event, work)

    announced = Probe("announced", nothing, LoopFailed, announces=False)
    runtime = await start([Probe(work=work), announced], LADDER, **loop_settings)
    with campaign(9, "1 % poison messages", quick=400, full=10_000) as fault:
        expected: dict[UUID, str] = {}
        while fault.goes_on():
            for number in fault.batch(BATCH):
                kind = _KINDS[number // 100 % len(_KINDS)] if number % 100 == 0 else ""
                envelope = Envelope.root(LoopPaused(why=kind), "/test")
                expected[envelope.id] = kind
                await _publish(runtime.kernel, envelope, kind)
            fault.ran(len(fault.batch(BATCH)))
        poison = {id: kind for id, kind in expected.items() if kind}
        await wait_until(lambda: len(announced.calls) >= len(poison), 60)
        await wait_until(lambda: _handled(database, len(expected) - len(poison)), 60)
        letters = await dead_letters(url, topology, len(poison))
        await asyncio.sleep(0.3)  # what came too often would still come
        problems = [f"{kind or 'neighbour'} {id}: {calls[id]} calls" for id, kind in expected.items()
                    if calls[id] != (ATTEMPTS[kind] if kind else 1)]  # fmt: skip
        buried = {UUID(str(letter.headers["ce-id"])) for letter in letters}
        if buried != set(poison) or await depth(url, topology.dead):
            problems.append("other dead letters than the poison")
        if len(announced.calls) != len(poison):
            problems.append(f"{len(announced.calls)} announcements of {len(poison)}")
        fault.ran(0, [*problems, *await _wrong(database, poison)])
    await sweep(url, topology, ["probe", "announced"])


async def _handled(database: Database, count: int) -> bool:
    async with database.connection() as connection:
        found = await connection.fetchval(
            "select count(*) from feedback_loop.inbox where consumer = 'probe' and state = 'processed'"
        )
    return bool(found >= count)


async def _wrong(database: Database, poison: dict[UUID, str]) -> list[str]:
    """What the database says: one effect of each neighbour, none of poison; only poison has failed."""
    async with database.connection() as connection:
        effects = await connection.fetch("select event_id, count(*) as count from public.effect group by 1")
        attempts = await connection.fetch(
            "select event_id, failures from feedback_loop.attempt where failures > 0"
        )
        dead = await connection.fetch("select event_id from feedback_loop.inbox where state = 'dead'")
    problems = [f"{row['event_id']}: {row['count']} effects" for row in effects
                if row["count"] != 1 or row["event_id"] in poison]  # fmt: skip
    problems += [f"{row['event_id']}: {row['failures']} failures" for row in attempts
                 if ATTEMPTS.get(poison.get(row["event_id"], ""), 0) != row["failures"]]  # fmt: skip
    written = {id for id, kind in poison.items() if kind != "no event"}
    return problems + ["others were given up"] * ({row["event_id"] for row in dead} != written)
