"""The outbox and its relay: what is committed arrives, whoever died in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import UUID

import pytest

from shared.bus.envelope import Envelope, Message, encode
from shared.bus.memory import MemoryBus
from shared.bus.port import RELAYED, BusError, Delivery, Topology
from shared.delivery.inbox import Inbox
from shared.delivery.outbox import Outbox
from shared.events import LoopPaused, RetrainCompleted
from shared.postgres.database import Database
from tests.support.events import wait_until

SETTLED = 0.05
"""Seconds in which something unwanted would have shown up."""


class Consumer:
    """A registered consumer with a queue, which keeps what it is given."""

    def __init__(self, database: Database, bus: MemoryBus, name: str) -> None:
        self.name = name
        self.taken: list[Message] = []
        self._inbox = Inbox(database, name)
        self._database = database
        self._bus = bus

    async def start(self, queue: bool = True) -> Consumer:
        await self._inbox.register([LoopPaused.type])
        if queue:
            await self._bus.subscribe(self.name, [LoopPaused.type], self._take, 4)
        return self

    async def _take(self, delivery: Delivery) -> None:
        self.taken.append(delivery.message)
        await delivery.ack()

    async def handles(self, envelope: Envelope, state: str = "processed") -> None:
        """Write the inbox row, as the router does."""
        async with self._database.connection() as connection:
            await connection.execute(
                "insert into feedback_loop.inbox (consumer, event_id, type, correlation, state)"
                " values ($1, $2, $3, $4, $5)",
                self.name,
                envelope.id,
                envelope.type,
                envelope.correlation,
                state,
            )

    async def retries(self, envelope: Envelope, seconds: float) -> None:
        """Note a failure, and a rung of so many seconds."""
        await self._inbox.count_failure(envelope, "a bug")
        await self._inbox.postpone(envelope, seconds)

    async def got(self, count: int) -> None:
        await wait_until(lambda: len(self.taken) >= count)
        await asyncio.sleep(SETTLED)
        assert len(self.taken) == count


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    bus = MemoryBus(Topology(ladder=(0.05,)))
    await bus.connect()
    yield bus
    await bus.close()


@pytest.fixture
async def outbox(database: Database, bus: MemoryBus) -> AsyncIterator[Outbox]:
    outbox = Outbox(database, bus)
    yield outbox
    await outbox.close()


@pytest.fixture
async def a(database: Database, bus: MemoryBus) -> Consumer:
    return await Consumer(database, bus, "a").start()


@pytest.fixture
async def b(database: Database, bus: MemoryBus) -> Consumer:
    return await Consumer(database, bus, "b").start()


async def written(database: Database, outbox: Outbox, published: bool = False) -> Envelope:
    envelope = Envelope.root(LoopPaused(why="x"), "/test")
    async with database.transaction() as connection:
        await outbox.add(connection, [envelope], published)
    return envelope


async def age(database: Database, seconds: float) -> None:
    """Let every row have been written, and published, so long ago."""
    async with database.connection() as connection:
        await connection.execute(
            "update feedback_loop.outbox set created_at = created_at - make_interval(secs => $1),"
            " published_at = published_at - make_interval(secs => $1)",
            seconds,
        )


async def is_done(database: Database, id: UUID) -> bool:
    async with database.connection() as connection:
        return bool(
            await connection.fetchval(
                "select done_at is not null from feedback_loop.outbox where event_id = $1", id
            )
        )


# --- writing and publishing -----------------------------------------------------------------


async def test_what_rolls_back_was_never_written(database: Database, outbox: Outbox) -> None:
    with suppress(RuntimeError):
        async with database.transaction() as connection:
            await outbox.add(connection, [Envelope.root(LoopPaused(), "/test")])
            raise RuntimeError
    assert await outbox.relay(everything=True) == 0


async def test_an_event_that_is_there_stays_as_it_is(database: Database, outbox: Outbox) -> None:
    first = await written(database, outbox)
    changed = first.with_event(LoopPaused(why="changed"), first.id)
    async with database.transaction() as connection:
        await outbox.add(connection, [changed])
        stored = await connection.fetchval("select envelope from feedback_loop.outbox")
    assert stored["data"]["why"] == "x"


async def test_text_with_u0000_is_stored_without_it(database: Database, outbox: Outbox) -> None:
    envelope = Envelope.root(LoopPaused(why="a\0b \\u0000 \\\0"), "/test")
    async with database.transaction() as connection:
        await outbox.add(connection, [envelope])
        stored = await connection.fetchval("select envelope from feedback_loop.outbox")
    assert stored["data"]["why"] == "ab \\u0000 \\"


async def test_a_refused_publish_leaves_the_event_unpublished(
    database: Database, outbox: Outbox, bus: MemoryBus
) -> None:
    envelope = await written(database, outbox)
    with pytest.raises(BusError):  # nobody takes it
        await outbox.publish([envelope])
    async with database.connection() as connection:
        assert await connection.fetchval("select published_at from feedback_loop.outbox") is None


async def test_what_is_published_soon_is_noted_at_the_latest_at_the_end(
    database: Database, outbox: Outbox, a: Consumer
) -> None:
    envelopes = [await written(database, outbox) for _ in range(3)]
    for envelope in envelopes:
        await outbox.publish_soon([envelope])
    await outbox.close()
    async with database.connection() as connection:
        noted = await connection.fetchval(
            "select count(*) from feedback_loop.outbox where published_at is not null and publishes = 1"
        )
    assert noted == len(envelopes)


async def test_what_is_published_and_not_noted_yet_is_not_published_again(
    database: Database, outbox: Outbox, a: Consumer
) -> None:
    cause = Envelope.root(LoopPaused(), "/test")
    following = cause.follow(LoopPaused(), "test")
    async with database.transaction() as connection:
        await outbox.add(connection, [following])
    assert [each.id for each in await outbox.unpublished(cause.id, "test")] == [following.id]
    await outbox.publish_soon([following])
    assert await outbox.unpublished(cause.id, "test") == []


# --- the relay ------------------------------------------------------------------------------


async def test_the_relay_sends_to_the_consumers_that_miss_the_event(
    database: Database, outbox: Outbox, a: Consumer, b: Consumer
) -> None:
    envelope = await written(database, outbox)
    await a.handles(envelope)
    await outbox.relay(everything=True)
    await b.got(1)
    assert b.taken[0].headers["ce-id"] == str(envelope.id)
    assert RELAYED in b.taken[0].headers
    assert a.taken == []


@pytest.mark.parametrize("state", ["processed", "dead"])
async def test_an_event_is_done_when_every_registered_consumer_has_dealt_with_it(
    database: Database, outbox: Outbox, a: Consumer, b: Consumer, state: str
) -> None:
    envelope = await written(database, outbox, published=True)
    await a.handles(envelope)
    assert await outbox.relay() == 1
    assert not await is_done(database, envelope.id)
    await b.handles(envelope, state)
    assert await outbox.relay() == 0
    assert await is_done(database, envelope.id)


async def test_an_event_that_nobody_takes_waits_for_whoever_will(
    database: Database, outbox: Outbox, bus: MemoryBus
) -> None:
    await written(database, outbox)
    assert await outbox.relay(everything=True) == 1
    late = await Consumer(database, bus, "late").start()
    await outbox.relay(everything=True)
    await late.got(1)


async def test_a_consumer_that_no_longer_takes_the_type_is_not_waited_for(
    database: Database, outbox: Outbox, a: Consumer, b: Consumer
) -> None:
    envelope = await written(database, outbox)
    await a.handles(envelope)
    await Inbox(database, "b").register(["report.ready"])
    assert await outbox.relay() == 0


async def test_a_fresh_event_is_left_to_the_direct_publish(
    database: Database, outbox: Outbox, a: Consumer
) -> None:
    await written(database, outbox)
    await outbox.relay()
    await age(database, 29)
    await outbox.relay()
    await asyncio.sleep(SETTLED)
    assert a.taken == []
    await age(database, 2)
    await outbox.relay()
    await a.got(1)


async def test_everything_includes_what_is_fresh(database: Database, outbox: Outbox, a: Consumer) -> None:
    for published in (False, True):
        await written(database, outbox, published)
    await outbox.relay(everything=True)
    await a.got(2)


async def test_the_relay_waits_longer_each_time(database: Database, outbox: Outbox, a: Consumer) -> None:
    await written(database, outbox)
    for already, wait in enumerate((31, 61, 121, 241)):
        await outbox.relay()
        assert len(a.taken) == already
        await age(database, wait)
        await outbox.relay()
        await a.got(already + 1)


async def test_an_event_on_a_retry_rung_is_left_alone(
    database: Database, outbox: Outbox, a: Consumer, b: Consumer
) -> None:
    envelope = await written(database, outbox)
    await a.retries(envelope, 600)
    await outbox.relay(everything=True)
    await b.got(1)
    assert a.taken == []


async def test_an_event_whose_rung_is_long_over_is_sent_again(
    database: Database, outbox: Outbox, a: Consumer
) -> None:
    envelope = await written(database, outbox)
    await a.retries(envelope, -31)  # a memory bus died with it
    await outbox.relay(everything=True)
    await a.got(1)


async def test_more_than_one_batch_is_relayed(database: Database, outbox: Outbox, a: Consumer) -> None:
    envelopes = [Envelope.root(LoopPaused(), "/test") for _ in range(250)]
    async with database.transaction() as connection:
        await outbox.add(connection, envelopes)
    await outbox.relay(everything=True)
    await a.got(250)


async def test_what_nobody_can_take_does_not_crowd_out_what_somebody_can(
    database: Database, outbox: Outbox, a: Consumer
) -> None:
    nobody = [Envelope.root(event, "/test") for event in _of_a_type_that_nobody_takes(150)]
    async with database.transaction() as connection:
        await outbox.add(connection, nobody)
    await written(database, outbox)
    await outbox.relay(everything=True)
    await a.got(1)


async def test_a_missing_queue_does_not_keep_the_event_from_others(
    database: Database, outbox: Outbox, bus: MemoryBus, b: Consumer
) -> None:
    await Consumer(database, bus, "a").start(queue=False)
    envelope = await written(database, outbox)
    await outbox.relay(everything=True)
    await b.got(1)
    assert not await is_done(database, envelope.id)


async def test_a_stored_event_that_cannot_be_read_does_not_stop_the_relay(
    database: Database, outbox: Outbox, a: Consumer
) -> None:
    broken = await written(database, outbox)
    async with database.connection() as connection:
        await connection.execute(
            'update feedback_loop.outbox set envelope = \'{"type": "of.the.past"}\' where event_id = $1',
            broken.id,
        )
    await written(database, outbox)
    await outbox.relay(everything=True)
    await a.got(1)


async def test_two_relays_at_once_share_the_work(
    database: Database, outbox: Outbox, bus: MemoryBus, a: Consumer
) -> None:
    async with database.transaction() as connection:
        await outbox.add(connection, [Envelope.root(LoopPaused(), "/test") for _ in range(50)])
    await asyncio.gather(outbox.relay(everything=True), Outbox(database, bus).relay(everything=True))
    await wait_until(lambda: len({message.headers["ce-id"] for message in a.taken}) == 50)


# --- watching -------------------------------------------------------------------------------


class Counting(Outbox):
    """Counts how often it looks."""

    looks = 0

    async def relay(self, everything: bool = False) -> int:
        self.looks += 1
        return await super().relay(everything)


async def test_watching_ends_when_nothing_is_open(database: Database, bus: MemoryBus, a: Consumer) -> None:
    outbox = Counting(database, bus, grace=0.05)
    envelope = await written(database, outbox)
    await outbox.publish([envelope])
    await a.handles(envelope)
    await wait_until(lambda: outbox.looks)
    await asyncio.sleep(0.3)
    assert outbox.looks == 1
    await outbox.close()


async def test_watching_begins_again_with_the_next_event(
    database: Database, bus: MemoryBus, a: Consumer
) -> None:
    outbox = Counting(database, bus, grace=0.05)
    for looks in (1, 2):
        envelope = await written(database, outbox)
        await outbox.publish([envelope])
        await a.handles(envelope)
        await wait_until(lambda looks=looks: outbox.looks == looks)  # type: ignore[misc]
    await outbox.close()


async def test_watching_looks_ever_more_seldom_at_what_is_stuck(
    database: Database, bus: MemoryBus, a: Consumer
) -> None:
    outbox = Counting(database, bus, grace=0.05)
    await outbox.publish([await written(database, outbox)])
    await asyncio.sleep(0.9)  # looks at 0.05, 0.15, 0.35, 0.75
    assert 2 <= outbox.looks <= 4
    await outbox.close()


async def test_what_is_new_does_not_wait_for_what_is_stuck(
    database: Database, bus: MemoryBus, a: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Counting(database, bus, grace=0.05)
    outbox.watch()
    outbox._pause = 600  # something has been stuck for a while
    outbox.watch()
    await wait_until(lambda: outbox.looks, timeout=2)
    await outbox.close()


async def test_watching_survives_a_database_that_is_away(bus: MemoryBus) -> None:
    outbox = Counting(Database("postgresql://nobody@127.0.0.1:1/none"), bus, grace=0.02)
    outbox.watch()
    await wait_until(lambda: outbox.looks >= 2)
    await outbox.close()


def _of_a_type_that_nobody_takes(count: int) -> list[LoopPaused]:
    class Ignored(LoopPaused):
        type = "loop.ignored"

    return [Ignored() for _ in range(count)]


async def test_an_event_read_from_the_outbox_goes_out_as_the_same_bytes(database: Database) -> None:
    # Names of which jsonb keeps another order than they were written in.
    event = RetrainCompleted(
        outcome="promoted", reason="manual", gate={"shown": 1, "b": {"zz": 1, "y": 2}, "aa": 0}
    )
    envelope = Envelope.root(event, "/test")
    outbox = Outbox(database, MemoryBus())
    async with database.transaction() as connection:
        await outbox.add(connection, [envelope.follow(event, "test")])
    (stored,) = await outbox.unpublished(envelope.id, "test")
    assert encode(stored).body == encode(envelope).body
