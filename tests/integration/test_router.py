"""The router between a bus and a database: one effect per event, whatever happens in between.

`Probe` stands for a service: it does what a test tells it. Tests that say nothing of the bus run on
both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from shared import events
from shared.bus.envelope import Envelope, Message, encode, from_json
from shared.bus.memory import MemoryBus
from shared.bus.port import BusError, Topology
from shared.delivery import router
from shared.delivery.work import UnitOfWork
from shared.events import Event, LoopFailed, LoopPaused, LoopResumed
from shared.failures import Reject, Retry, Unavailable
from shared.postgres.database import Database
from shared.runtime import Builder, Runtime
from tests.support.events import publish, publish_envelopes, wait_until
from tests.support.probe import Probe, nothing
from tests.support.proxy import in_front_of
from tests.support.rabbit import dead_letters, sweep

LADDER = (0.05, 0.1, 0.2)
SETTLED = 0.15
"""Seconds in which something unwanted would have shown up."""

Start = Callable[..., Awaitable[Runtime]]


async def effect(event: Event, work: UnitOfWork) -> list[Event]:
    """What most handlers do here: a row, and an event that follows."""
    connection = await work.begin()
    await connection.execute(
        "insert into public.effect (event_id, consumer) values ($1, $2)", work.envelope.id, work.consumer
    )
    return [LoopResumed(why="follows")]


def downstream() -> Probe:
    return Probe("downstream", nothing, LoopResumed)


def announced() -> Probe:
    """The service that `loop.failed` goes to."""
    return Probe("announced", nothing, LoopFailed, announces=False)


@dataclass
class Case:
    """Starts services on one of the two buses, and looks at what became of events."""

    start: Start
    database: Database
    settings: dict[str, Any]

    async def run(self, *builders: Builder, **settings: Any) -> Runtime:
        await self.database_ready()
        return await self.start(list(builders), LADDER, **self.settings, **settings)

    async def database_ready(self) -> None:
        async with self.database.connection() as connection:
            await connection.execute(
                "create table if not exists public.effect (event_id uuid not null, consumer text not null,"
                " xid xid8 not null default pg_current_xact_id())"
            )

    async def count(self, sql: str, *arguments: object) -> int:
        async with self.database.connection() as connection:
            return int(await connection.fetchval(f"select count(*) from {sql}", *arguments))

    async def effects(self, id: UUID) -> int:
        return await self.count("public.effect where event_id = $1", id)

    async def transactions(self, id: UUID) -> int:
        """How many transactions wrote the event's effect, inbox row and derived events."""
        return await self.count(
            "(select xid from public.effect where event_id = $1"
            " union select xid from feedback_loop.inbox where event_id = $1 and consumer = 'probe'"
            " union select xid from feedback_loop.outbox where cause = $1 and producer = 'probe') as x",
            id,
        )

    async def handled(self, id: UUID, consumer: str = "probe") -> bool:
        return bool(await self.state(id, consumer))

    async def state(self, id: UUID, consumer: str = "probe") -> str | None:
        async with self.database.connection() as connection:
            state: str | None = await connection.fetchval(
                "select state from feedback_loop.inbox where event_id = $1 and consumer = $2", id, consumer
            )
        return state

    async def buried(self, id: UUID) -> int:
        return await self.count("feedback_loop.inbox where event_id = $1 and buried_at is not null", id)

    async def failures(self, id: UUID) -> int:
        return await self.count("feedback_loop.attempt where event_id = $1 and failures > 0", id)

    async def dead(self, runtime: Runtime, count: int) -> list[tuple[bytes, str]]:
        """Body and reason of `count` dead letters."""
        bus = runtime.kernel.bus
        if isinstance(bus, MemoryBus):
            await wait_until(lambda: len(bus.dead) >= count)
            return [(message.body, reason) for _, message, reason in bus.dead]
        letters = await dead_letters(self.settings["amqp_url"], bus.topology, count)
        return [(letter.body, str(letter.headers["x-reason"])) for letter in letters]


@pytest.fixture(params=["memory", "rabbit"])
async def case(
    request: pytest.FixtureRequest, start: Start, database: Database, exchange: str
) -> AsyncIterator[Case]:
    if request.param == "memory":
        yield Case(start, database, {})
        return
    url = request.getfixturevalue("amqp_url")
    yield Case(start, database, {"amqp_url": url, "amqp_exchange": exchange})
    await sweep(url, Topology(exchange, ladder=LADDER), ["probe", "other", "downstream", "announced"])


@pytest.fixture
def memory(start: Start, database: Database) -> Case:
    return Case(start, database, {})


# --- one effect per event -------------------------------------------------------------------


async def test_effect_inbox_and_outbox_are_one_transaction(case: Case) -> None:
    probe, after = Probe(work=effect), downstream()
    runtime = await case.run(probe, after)
    (sent,) = await publish(runtime.kernel, LoopPaused(why="x"))
    await wait_until(lambda: after.calls)
    assert after.calls == [LoopResumed(why="follows")]
    assert await case.effects(sent.id) == 1
    assert await case.state(sent.id) == "processed"
    assert await case.count("feedback_loop.outbox where cause = $1 and producer = 'probe'", sent.id) == 1
    assert await case.transactions(sent.id) == 1


async def test_a_handler_that_raises_after_begin_leaves_nothing(case: Case) -> None:
    async def fail_once(event: Event, work: UnitOfWork) -> list[Event]:
        await effect(event, work)
        await seen.wait()
        if len(probe.calls) == 1:
            raise RuntimeError("a bug")
        return []

    seen = asyncio.Event()
    probe = Probe(work=fail_once)
    runtime = await case.run(probe)
    (sent,) = await publish(runtime.kernel, LoopPaused())
    seen.set()
    await wait_until(lambda: case.handled(sent.id))
    assert len(probe.calls) == 2
    assert await case.effects(sent.id) == 1
    assert await case.count("feedback_loop.outbox where cause = $1", sent.id) == 0


async def test_a_handler_without_a_transaction_has_its_inbox_row(case: Case) -> None:
    probe = Probe()
    runtime = await case.run(probe)
    (sent,) = await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: case.handled(sent.id))


async def test_derived_events_carry_cause_correlation_and_a_derived_id(memory: Case) -> None:
    got: list[Envelope] = []

    async def keep(event: Event, work: UnitOfWork) -> list[Event]:
        got.append(work.envelope)
        return []

    runtime = await memory.run(Probe(work=effect), Probe("downstream", keep, LoopResumed))
    (sent,) = await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: got)
    assert got[0].cause == sent.id
    assert got[0].correlation == sent.correlation
    assert got[0].source == "/feedback-loop/probe"
    assert got[0].id == events.derived(sent.id, "probe", "loop.resumed")


async def test_a_duplicate_has_no_second_effect(case: Case) -> None:
    probe = Probe(work=effect, prefetch=1)
    runtime = await case.run(probe, downstream())
    (sent,) = await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: case.handled(sent.id))
    await runtime.kernel.bus.publish(encode(sent))
    await wait_until(lambda: len(probe.calls) == 2)
    (last,) = await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: case.handled(last.id))
    assert await case.effects(sent.id) == 1
    assert await case.count("feedback_loop.outbox where cause = $1", sent.id) == 1


async def test_two_deliveries_at_once_at_two_routers_have_one_effect(case: Case) -> None:
    both = asyncio.Barrier(2)

    async def together(event: Event, work: UnitOfWork) -> list[Event]:
        await both.wait()  # each has looked, and neither has begun
        return await effect(event, work)

    one, two = Probe(work=together, prefetch=1), Probe(work=together, prefetch=1)
    first, second = await case.run(one), await case.run(two)
    sent = Envelope.root(LoopPaused(), "/test")
    message = encode(sent)
    await first.kernel.bus.publish(message)
    await second.kernel.bus.publish(message)
    await wait_until(lambda: len(one.calls) == len(two.calls) == 1)
    await wait_until(lambda: case.handled(sent.id))
    await asyncio.sleep(SETTLED)
    assert await case.effects(sent.id) == 1
    assert await case.count("feedback_loop.outbox where cause = $1", sent.id) == 1
    assert await case.failures(sent.id) == 0


async def test_a_duplicate_decides_as_before_though_data_changed(memory: Case) -> None:
    data = ["first"]

    async def decide(event: Event, work: UnitOfWork) -> list[Event]:
        await work.begin()
        return [LoopResumed(why=data[-1])]

    probe, after = Probe(work=decide), downstream()
    runtime = await memory.run(probe, after)
    (sent,) = await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: after.calls)
    data.append("second")
    await runtime.kernel.bus.publish(encode(sent))
    await wait_until(lambda: len(probe.calls) == 2)
    await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: LoopResumed(why="second") in after.calls)
    stored = await _fetch(memory, "select envelope from feedback_loop.outbox where cause = $1", sent.id)
    assert [row["envelope"]["data"]["why"] for row in stored] == ["first"]


async def test_a_duplicate_publishes_what_was_stored_and_not_published(
    memory: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe, after = Probe(work=effect), downstream()
    runtime = await memory.run(probe, after)
    bus = runtime.kernel.bus
    sent = Envelope.root(LoopPaused(), "/test")
    take = bus.publish

    async def refuse(message: Message) -> None:
        raise BusError("refused")

    monkeypatch.setattr(bus, "publish", refuse)
    await bus.send("probe", encode(sent))
    await wait_until(lambda: memory.handled(sent.id))
    await asyncio.sleep(SETTLED)
    assert after.calls == []
    monkeypatch.setattr(bus, "publish", take)
    await bus.send("probe", encode(sent))
    await wait_until(lambda: after.calls)
    assert len(probe.calls) == 2  # asked again, but its effect is rolled back
    assert await memory.effects(sent.id) == 1


async def test_a_conflict_is_tried_again_at_once_and_burns_no_attempt(memory: Case) -> None:
    async def conflict(event: Event, work: UnitOfWork) -> list[Event]:
        connection = await work.begin("repeatable_read")
        if len(probe.calls) == 1:
            await connection.execute("do $$ begin raise exception using errcode = '40001'; end $$")
        return []

    probe = Probe(work=conflict)
    runtime = await memory.run(probe)
    (sent,) = await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: memory.handled(sent.id))
    assert len(probe.calls) == 2
    assert await memory.failures(sent.id) == 0


# --- failures -------------------------------------------------------------------------------


async def test_a_failing_handler_climbs_the_ladder_and_is_dead_lettered(case: Case) -> None:
    async def fail(event: Event, work: UnitOfWork) -> list[Event]:
        times.append(asyncio.get_running_loop().time())
        await effect(event, work)
        raise RuntimeError("never\nworks\0")

    async def gave_up(event: Event, reason: str, work: UnitOfWork) -> list[Event]:
        connection = await work.begin()
        await connection.execute("insert into public.effect values ($1, 'gave up')", work.envelope.id)
        return [LoopResumed(why=reason)]

    times: list[float] = []
    probe, after, failed = Probe(work=fail, on_give_up=gave_up), downstream(), announced()
    runtime = await case.run(probe, after, failed)
    (sent,) = await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: failed.calls and after.calls)
    ((body, reason),) = await case.dead(runtime, 1)
    assert len(probe.calls) == len(LADDER) + 1
    assert all(
        later - earlier >= rung * 0.95 for earlier, later, rung in zip(times, times[1:], LADDER, strict=False)
    )
    assert reason == "RuntimeError: never works"
    assert body == encode(sent).body
    assert after.calls == [LoopResumed(why=reason)]
    assert failed.calls == [
        LoopFailed(
            failed_event=sent.id,
            failed_type="loop.paused",
            consumer="probe",
            reason=reason,
            attempts=len(LADDER) + 1,
            dead_letter=runtime.kernel.bus.topology.dead,
        )
    ]
    assert await case.state(sent.id) == "dead"
    assert await case.effects(sent.id) == 1  # the hook's; of the attempts nothing is left
    assert await case.transactions(sent.id) == 1


async def test_giving_up_is_announced_once_however_often_the_event_comes(memory: Case) -> None:
    async def fail(event: Event, work: UnitOfWork) -> list[Event]:
        raise Reject("no")

    probe, failed = Probe(work=fail), announced()
    runtime = await memory.run(probe, failed)
    (sent,) = await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: memory.buried(sent.id))
    await runtime.kernel.bus.publish(encode(sent))
    await wait_until(lambda: len(probe.calls) == 2)
    await asyncio.sleep(SETTLED)
    assert await memory.count("feedback_loop.outbox where type = 'loop.failed'") == 1
    assert len(await memory.dead(runtime, 1)) == 1


async def test_a_rejected_event_is_dead_lettered_at_once(case: Case) -> None:
    async def reject(event: Event, work: UnitOfWork) -> list[Event]:
        await effect(event, work)
        raise Reject("it can never work: \udcff")

    probe, failed = Probe(work=reject), announced()
    runtime = await case.run(probe, failed)
    (sent,) = await publish(runtime.kernel, LoopPaused())
    ((_, reason),) = await case.dead(runtime, 1)
    assert reason == "it can never work:"
    assert len(probe.calls) == 1
    assert await case.state(sent.id) == "dead"
    assert await case.effects(sent.id) == 0
    await wait_until(lambda: failed.calls)


async def test_retry_waits_at_least_as_long_as_it_says(case: Case) -> None:
    async def later(event: Event, work: UnitOfWork) -> list[Event]:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            raise Retry(0.15, "busy")
        return []

    times: list[float] = []
    runtime = await case.run(Probe(work=later))
    (sent,) = await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: case.handled(sent.id))
    assert times[1] - times[0] >= 0.19  # the rung of 0.2 s


BAD = {
    "no JSON": (Message("loop.paused", {"ce-id": "1"}, b"{"), "not JSON"),
    "unknown type": (
        Message("loop.paused", {"ce-id": "1", "ce-type": "no.such"}, b"{}"),
        "unknown event type",
    ),
    "not taken here": (
        Message("loop.paused", {"ce-id": "1", "ce-type": "loop.resumed"}, b"{}"),
        "does not take",
    ),
    "invalid data": (Message("loop.paused", {"ce-id": "1"}, b'{"until": 1e99}'), "until"),
    "no id": (Message("loop.paused", {}, b"{}"), "neither ce-id nor message_id"),
}


async def test_what_is_no_event_is_dead_lettered_at_once_and_neighbours_are_untouched(case: Case) -> None:
    probe, failed = Probe(), announced()
    runtime = await case.run(probe, failed)
    bad = dict(BAD)
    if case.settings:
        del bad["no id"]  # over RabbitMQ every publish of ours has a message_id
    good = []
    for message, _ in bad.values():
        await runtime.kernel.bus.publish(message)
        good += await publish(runtime.kernel, LoopPaused())
    for sent in good:
        await wait_until(lambda id=sent.id: case.handled(id))  # type: ignore[misc]
    letters = await case.dead(runtime, len(bad))
    for message, reason in bad.values():
        assert any(message.body == body and reason in why for body, why in letters), reason
    assert len(probe.calls) == len(good)
    await wait_until(lambda: len(failed.calls) == len(bad))
    assert await case.count("feedback_loop.attempt") == 0


async def test_the_same_invalid_message_is_announced_once(memory: Case) -> None:
    failed = announced()
    runtime = await memory.run(Probe(), failed)
    for _ in range(2):
        await runtime.kernel.bus.publish(BAD["no JSON"][0])
    await memory.dead(runtime, 2)
    await wait_until(lambda: failed.calls)
    await asyncio.sleep(SETTLED)
    assert await memory.count("feedback_loop.outbox where type = 'loop.failed'") == 1


@pytest.mark.parametrize("bad", ["rejected", "invalid"])
async def test_a_consumer_that_does_not_announce_never_does(memory: Case, bad: str) -> None:
    async def reject(event: Event, work: UnitOfWork) -> list[Event]:
        raise Reject("no")

    probe, failed = Probe(work=reject, announces=False), announced()
    runtime = await memory.run(probe, failed)
    if bad == "rejected":
        await publish(runtime.kernel, LoopPaused())
    else:
        await runtime.kernel.bus.publish(BAD["no JSON"][0])
    await memory.dead(runtime, 1)
    await asyncio.sleep(SETTLED)
    assert failed.calls == []
    assert await memory.count("feedback_loop.outbox where type = 'loop.failed'") == 0


async def test_an_event_that_never_finishes_ends(memory: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(event: Event, work: UnitOfWork) -> list[Event]:
        raise asyncio.CancelledError  # as a process that is killed: no failure is counted, no ack sent

    monkeypatch.setattr("shared.bus.memory.AGAIN", 0)
    probe, failed = Probe(work=die), announced()
    runtime = await memory.run(probe, failed)
    (sent,) = await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: failed.calls)
    assert len(probe.calls) == router.MOST_DELIVERIES + 1  # the first is not suspicious
    assert await memory.state(sent.id) == "dead"
    await memory.dead(runtime, 1)


async def test_giving_up_ends_though_its_hook_never_does(
    memory: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reject(event: Event, work: UnitOfWork) -> list[Event]:
        raise Reject("no")

    async def fail(event: Event, reason: str, work: UnitOfWork) -> list[Event]:
        hooks.append(event)
        raise RuntimeError("a bug in the hook")

    hooks: list[Event] = []
    monkeypatch.setattr("shared.bus.memory.AGAIN", 0)
    runtime = await memory.run(Probe(work=reject, on_give_up=fail))
    (sent,) = await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: memory.handled(sent.id))
    assert await memory.state(sent.id) == "dead"
    assert len(hooks) > router.MOST_DELIVERIES  # it had its chances
    await memory.dead(runtime, 1)


# --- crashes --------------------------------------------------------------------------------


async def test_the_relay_publishes_what_a_crash_left_between_commit_and_publish(
    memory: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = downstream()
    runtime = await memory.run(Probe(work=effect), after)
    bus = runtime.kernel.bus

    async def refuse(message: Message) -> None:
        raise BusError("refused")

    sent = Envelope.root(LoopPaused(), "/test")
    monkeypatch.setattr(bus, "publish", refuse)
    await bus.send("probe", encode(sent))
    await wait_until(lambda: memory.handled(sent.id))
    assert after.calls == []
    await runtime.kernel.outbox.relay(everything=True)
    await wait_until(lambda: after.calls)


async def test_a_crash_between_publish_and_acknowledgement_is_absorbed(
    memory: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = downstream()
    probe = Probe(work=effect)
    runtime = await memory.run(probe, after)
    outbox = runtime.kernel.outbox
    publish_soon = outbox.publish_soon

    async def publish_and_die(envelopes: list[Envelope]) -> None:
        await publish_soon(envelopes)
        if envelopes and len(probe.calls) == 1:
            raise asyncio.CancelledError

    monkeypatch.setattr(outbox, "publish_soon", publish_and_die)
    (sent,) = await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: len(probe.calls) == 2)
    await asyncio.sleep(SETTLED)
    assert await memory.effects(sent.id) == 1
    assert len(after.calls) == 1


async def test_a_crash_between_giving_up_and_burying_is_made_good(
    memory: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reject(event: Event, work: UnitOfWork) -> list[Event]:
        raise Reject("no")

    failed = announced()
    runtime = await memory.run(Probe(work=reject), failed)
    bus = runtime.kernel.bus
    bury = bus.bury
    crashes = 0

    async def die_once(consumer: str, message: Message, reason: str) -> None:
        nonlocal crashes
        crashes += 1
        if crashes == 1:
            raise asyncio.CancelledError
        await bury(consumer, message, reason)

    monkeypatch.setattr(bus, "bury", die_once)
    (sent,) = await publish(runtime.kernel, LoopPaused())
    ((_, reason),) = await memory.dead(runtime, 1)
    assert reason == "no"
    await wait_until(lambda: memory.buried(sent.id))
    assert len(failed.calls) == 1


async def test_a_bus_that_refuses_for_a_while_does_not_strand_a_message(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(event: Event, work: UnitOfWork) -> list[Event]:
        if len(probe.calls) == 1:
            raise RuntimeError("a bug")
        return []

    async def refuse(*arguments: object) -> None:
        raise BusError("refused")

    probe = Probe(work=fail)
    runtime = await case.run(probe)
    monkeypatch.setattr(runtime.kernel.bus, "send", refuse)  # so that it cannot go to its rung
    (sent,) = await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: case.handled(sent.id))


# --- stopping -------------------------------------------------------------------------------


async def test_a_cancelled_handler_leaves_nothing_and_its_event_comes_again(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(event: Event, work: UnitOfWork) -> list[Event]:
        await effect(event, work)
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr("shared.runtime.DRAIN", 0.1)
    hanging, next_one = Probe(work=hang), Probe(work=effect)
    first = await case.run(hanging)
    (sent,) = await publish(first.kernel, LoopPaused())
    await wait_until(lambda: hanging.calls)
    await first.stop()
    assert await case.effects(sent.id) == 0
    assert not await case.handled(sent.id)
    await case.run(next_one)
    await wait_until(lambda: case.handled(sent.id))
    assert await case.effects(sent.id) == 1
    assert await case.failures(sent.id) == 0


async def test_drain_waits_for_what_is_in_flight_and_takes_nothing_new(case: Case) -> None:
    async def slow(event: Event, work: UnitOfWork) -> list[Event]:
        await asyncio.sleep(0.3)
        return await effect(event, work)

    probe = Probe(work=slow, prefetch=1)
    runtime = await case.run(probe)
    first, second = await publish(runtime.kernel, LoopPaused(), LoopPaused())
    await wait_until(lambda: probe.calls)
    await runtime.routers[0].drain(5)
    assert await case.handled(first.id)
    await asyncio.sleep(SETTLED)
    assert len(probe.calls) == 1
    assert not await case.handled(second.id)


async def test_a_dependency_that_returns_does_not_end_a_drain(memory: Case) -> None:
    async def park(event: Event, work: UnitOfWork) -> list[Event]:
        await asyncio.sleep(SETTLED)
        raise Unavailable("the embedding API", "503", back.wait)

    back = asyncio.Event()
    back.set()
    probe = Probe(work=park, prefetch=1)
    runtime = await memory.run(probe)
    await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: probe.calls)
    await runtime.routers[0].drain(5)
    await asyncio.sleep(1.3)  # a paused consumer asks after a second
    assert len(probe.calls) == 1


# --- dependencies that are down -------------------------------------------------------------


async def test_an_event_parks_while_a_dependency_is_down(case: Case) -> None:
    up = asyncio.Event()

    async def probe_api() -> None:
        if not up.is_set():
            raise ConnectionError("still down")

    async def need_api(event: Event, work: UnitOfWork) -> list[Event]:
        if not up.is_set():
            raise Unavailable("the embedding API", "503", probe_api)
        return await effect(event, work)

    probe = Probe(work=need_api, prefetch=1)
    runtime = await case.run(probe)
    (sent,) = await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: runtime.routers[0].trouble())
    assert runtime.routers[0].trouble() == "probe waits for the embedding API"
    await asyncio.sleep(2 * LADDER[-1])
    assert len(probe.calls) <= 2  # parked; one more may have been under way
    up.set()
    await wait_until(lambda: case.handled(sent.id))
    await wait_until(lambda: runtime.routers[0].trouble() is None)
    assert await case.effects(sent.id) == 1
    assert await case.failures(sent.id) == 0


@pytest.mark.parametrize("when", ["before the handler", "within the handler"])
async def test_an_event_parks_while_the_database_is_down(case: Case, dsn: str, when: str) -> None:
    async with in_front_of(dsn, 5432) as proxy:

        async def cut(event: Event, work: UnitOfWork) -> list[Event]:
            connection = await work.begin()
            if when == "within the handler" and len(probe.calls) == 1:
                await proxy.cut()
            await connection.execute("insert into public.effect values ($1, 'probe')", work.envelope.id)
            return []

        probe = Probe(work=cut, prefetch=1)
        runtime = await case.run(probe, database_url=proxy.url)
        sent = Envelope.root(LoopPaused(), "/test")
        if when == "before the handler":
            await proxy.cut()
        await runtime.kernel.bus.publish(encode(sent))
        await wait_until(lambda: runtime.routers[0].trouble())
        assert runtime.routers[0].trouble() == "probe waits for the database"
        await proxy.heal()
        await wait_until(lambda: case.handled(sent.id))
        assert await case.effects(sent.id) == 1
        assert await case.failures(sent.id) == 0


async def test_a_wrong_statement_is_a_failure_not_an_outage(memory: Case) -> None:
    # asyncpg reports it as it reports a closed connection; taken for one, it would wait for ever.
    async def wrong(event: Event, work: UnitOfWork) -> list[Event]:
        await (await work.begin()).fetchval("select $1::int")
        return []

    runtime = await memory.run(Probe(work=wrong))
    (sent,) = await publish(runtime.kernel, LoopPaused())
    await wait_until(lambda: memory.handled(sent.id))
    assert await memory.state(sent.id) == "dead"


async def test_an_anonymous_evaluation_waits_as_it_came_while_the_database_is_down(
    memory: Case, dsn: str
) -> None:
    async with in_front_of(dsn, 5432) as proxy:
        probe = Probe(event=events.FeedbackEvaluate)
        runtime = await memory.run(probe, database_url=proxy.url)
        await proxy.cut()
        await runtime.kernel.bus.publish(Message("feedback.evaluate", {}, b'{"app": "shop"}'))
        await wait_until(lambda: runtime.routers[0].trouble())
        await proxy.heal()
        await wait_until(lambda: probe.calls)
    assert await memory.count("feedback_loop.run where app = 'shop'") == 1


# --- other programs' events -----------------------------------------------------------------


@pytest.mark.parametrize(
    "source", ["/" + "long" * 100, "/상점", "a\u200bb"], ids=["very long", "Korean", "invisible"]
)
async def test_whatever_a_foreign_source_is_called_its_event_can_be_relayed(
    memory: Case, source: str
) -> None:
    probe = Probe(event=events.FeedbackEvaluate)
    runtime = await memory.run(probe)
    for headers in ({"ce-source": source, "ce-id": "1"}, {"ce-source": source}):
        await runtime.kernel.bus.publish(Message("feedback.evaluate", headers, b"{}"))
    await wait_until(lambda: len(probe.calls) == 2)
    stored = await _fetch(memory, "select envelope from feedback_loop.outbox")
    assert len([from_json(row["envelope"]) for row in stored]) == 2


async def test_two_consumers_of_one_foreign_event_see_one_run(memory: Case) -> None:
    one = Probe("probe", nothing, events.FeedbackEvaluate)
    two = Probe("other", nothing, events.FeedbackEvaluate)
    runtime = await memory.run(one, two)
    headers = {"ce-id": "order-1", "ce-source": "/shop"}
    await runtime.kernel.bus.publish(Message("feedback.evaluate", headers, b"{}"))
    await wait_until(lambda: one.calls and two.calls)
    assert one.calls == two.calls
    assert one.calls[0] == replace_as_of(one.calls[0])
    assert await memory.count("feedback_loop.run") == 1
    assert await memory.count("(select distinct event_id from feedback_loop.inbox) as x") == 1


async def test_an_event_with_an_unknown_cause_is_no_trouble(memory: Case) -> None:
    probe = Probe()
    runtime = await memory.run(probe)
    sent = replace(Envelope.root(LoopPaused(), "/test"), cause=uuid4())
    await publish_envelopes(runtime.kernel, sent)
    await wait_until(lambda: memory.handled(sent.id))


def replace_as_of(event: Event) -> Event:
    assert isinstance(event, events.FeedbackEvaluate)
    assert event.as_of is not None
    return event


async def _fetch(case: Case, sql: str, *arguments: object) -> list[Any]:
    async with case.database.connection() as connection:
        return list(await connection.fetch(sql, *arguments))
