"""Fault 10: a re-embedding that takes longer than the broker lets a consumer hold a message.

The broker (a private node; the product's own meet 30 minutes) closes the channel of a consumer that
holds a message for longer than two seconds. A build takes several times as long, batch by batch:
nothing comes twice. A single batch that takes longer comes again, and ends all the same.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from services.embedder.build import build
from shared.events import GenerationRequested
from shared.postgres.database import Database
from tests.support import broker
from tests.support.embedder import Bigrams
from tests.support.events import publish, wait_until
from tests.support.faults import Begin, Start
from tests.support.loop import LADDER, furnish, settle
from tests.support.rabbit import depth
from tests.support.seen import Seen

TIMEOUT = 2.0
HASTY = f"-rabbit consumer_timeout {TIMEOUT * 1000:.0f} -rabbit channel_tick_interval 250"


@pytest.fixture
async def hasty() -> AsyncIterator[str]:
    """The URL of a broker that does not wait long."""
    server = broker.installed_server()
    if server is None:
        pytest.skip("no RabbitMQ is installed that a private node could be started of")
    with ExitStack() as stack:
        found = await asyncio.to_thread(stack.enter_context, broker.node(server, HASTY))
        yield found["TEST_AMQP_URL"]
        os.killpg(int(found["TEST_RABBITMQ_PID"]), signal.SIGKILL)  # it would take its time to stop


async def test_a_build_longer_than_the_consumer_timeout_is_no_redelivery_loop(
    campaign: Begin, start: Start, database: Database, hasty: str, loop_settings: dict[str, Any]
) -> None:
    seen, bigrams = Seen(), Bigrams()
    settings = {**loop_settings, "amqp_url": hasty}
    runtime = await start([seen.by("embedder", partial(build, embedder=bigrams))], LADDER, **settings)

    async def built(app: str, chunks: int, seconds: float) -> int:
        """Build a generation whose batches take so long. Returns how often one event was delivered."""

        async def slow(texts: Sequence[str]) -> None:
            await asyncio.sleep(seconds)

        bigrams.before = slow
        seen.calls.clear()
        await furnish(database, [app], chunks)
        await publish(runtime.kernel, GenerationRequested(app=app, reason="manual"))
        await wait_until(lambda: _shows(database, app), 60)
        await settle(database, 30)
        return max(seen.calls.values())

    with campaign(10, "a re-embedding longer than the consumer timeout", quick=2, full=6) as fault:
        while fault.goes_on():
            short = await built(f"short{fault.runs}", 12, TIMEOUT / 4)
            long = await built(f"long{fault.runs}", 1, 1.5 * TIMEOUT)
            await asyncio.sleep(1.5 * TIMEOUT)  # a loop would go on
            again = max(seen.calls.values())
            # Of the one batch: once too late, once more too late, and once to find that it is done.
            problems = [f"a batch in time came {short} times"] * (short > 1)
            problems += [f"a batch too late came {long}, then {again} times"] * (long < 2 or again > 3)
            fault.ran(2, problems)
        topology = runtime.kernel.bus.topology
        for name in (topology.dead, topology.queue("embedder")):
            fault.ran(0, [f"messages in {name}"] * await depth(hasty, name))


async def _shows(database: Database, app: str) -> bool:
    async with database.connection() as connection:
        return bool(
            await connection.fetchval(
                "select true from feedback_loop.active_chunk where app = $1 limit 1", app
            )
        )
