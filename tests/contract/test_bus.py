"""What the bus promises, on both adapters: in one process and over RabbitMQ."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import aio_pika
import aiormq
import pytest

from shared.bus.envelope import Message, decode
from shared.bus.memory import MemoryBus
from shared.bus.port import Bus, BusError, Delivery, Topology, Unroutable
from shared.bus.rabbit import RabbitBus
from tests.support.events import wait_until
from tests.support.proxy import Proxy, in_front_of
from tests.support.rabbit import channel, dead_letters, publish_over_http, sweep

LADDER = (0.05, 0.15, 0.4)
KEY = "feedback.evaluate"
SETTLED = 0.15
"""Seconds in which something unwanted would have shown up."""

Dead = Callable[[int], Awaitable[list[tuple[Message, str]]]]


@dataclass
class Case:
    """A bus, and a way to see its dead letters: the message, and the reason in its headers."""

    bus: Bus
    dead: Dead


@pytest.fixture(params=["memory", "rabbit"])
async def case(request: pytest.FixtureRequest, exchange: str) -> AsyncIterator[Case]:
    topology = Topology(exchange, ladder=LADDER)
    if request.param == "memory":
        bus = MemoryBus(topology)

        async def dead(count: int) -> list[tuple[Message, str]]:
            await wait_until(lambda: len(bus.dead) >= count)
            return [(message, message.headers["x-reason"]) for _, message, _ in bus.dead]

        await bus.connect()
        yield Case(bus, dead)
        await bus.close()
        return
    url = request.getfixturevalue("amqp_url")
    rabbit = RabbitBus(url, topology)

    async def letters(count: int) -> list[tuple[Message, str]]:
        found = await dead_letters(url, topology, count)
        return [
            (
                Message(
                    str(letter.headers["x-routing-key"]),
                    {name: str(value) for name, value in letter.headers.items()},
                    letter.body,
                ),
                str(letter.headers["x-reason"]),
            )
            for letter in found
        ]

    await rabbit.connect()
    yield Case(rabbit, letters)
    await rabbit.close()
    await sweep(url, topology, ["a", "b"])


@dataclass
class Consumer:
    """Keeps what it is given, acknowledges it, and can be told to do otherwise."""

    work: Callable[[Delivery], Awaitable[None]] | None = None
    """What happens instead of the acknowledgement."""
    taken: list[Delivery] = field(default_factory=list)

    async def __call__(self, delivery: Delivery) -> None:
        self.taken.append(delivery)
        await (self.work(delivery) if self.work else delivery.ack())

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.message.body for delivery in self.taken]

    async def has(self, count: int) -> None:
        """Wait for `count` deliveries, and a little for one too many."""
        await wait_until(lambda: len(self.taken) >= count)
        await asyncio.sleep(SETTLED)
        assert len(self.taken) == count


def message(body: bytes = b"{}", key: str = KEY, **headers: str) -> Message:
    return Message(key, headers, body)


# --- who gets a message ---------------------------------------------------------------------


async def test_publish_reaches_every_bound_consumer_once(case: Case) -> None:
    a, b = Consumer(), Consumer()
    await case.bus.subscribe("a", [KEY, "report.ready"], a, 4)
    await case.bus.subscribe("b", [KEY], b, 4)
    await case.bus.publish(message())
    await asyncio.gather(a.has(1), b.has(1))


async def test_publish_reaches_only_consumers_of_the_type(case: Case) -> None:
    a, b = Consumer(), Consumer()
    await case.bus.subscribe("a", [KEY], a, 4)
    await case.bus.subscribe("b", ["report.ready"], b, 4)
    await case.bus.publish(message())
    await a.has(1)
    assert b.taken == []


async def test_competing_subscriptions_share_a_queue(case: Case) -> None:
    async def slowly(delivery: Delivery) -> None:
        await asyncio.sleep(0.02)
        await delivery.ack()

    one, other = Consumer(slowly), Consumer(slowly)
    await case.bus.subscribe("a", [KEY], one, 1)
    await case.bus.subscribe("a", [KEY], other, 1)
    for number in range(10):
        await case.bus.publish(message(b"%d" % number))
    await wait_until(lambda: len(one.taken) + len(other.taken) == 10)
    assert sorted(one.bodies + other.bodies) == [b"%d" % number for number in range(10)]
    assert one.taken
    assert other.taken


async def test_an_unroutable_message_is_noticed(case: Case) -> None:
    await case.bus.subscribe("a", [KEY], Consumer(), 4)
    with pytest.raises(Unroutable):
        await case.bus.publish(message(key="report.ready"))


async def test_send_reaches_one_consumer_only(case: Case) -> None:
    a, b = Consumer(), Consumer()
    await case.bus.subscribe("a", [KEY], a, 4)
    await case.bus.subscribe("b", [KEY], b, 4)
    await case.bus.send("a", message())
    await a.has(1)
    assert b.taken == []


async def test_send_to_a_consumer_that_is_not_there_is_noticed(case: Case) -> None:
    with pytest.raises(Unroutable):
        await case.bus.send("nobody", message())


async def test_headers_and_body_survive(case: Case) -> None:
    consumer = Consumer()
    await case.bus.subscribe("a", [KEY], consumer, 4)
    headers = {"ce-id": "1", "ce-source": "/한국어", "x-own": "a, b", "content-type": "application/json"}
    body = '{"text": "부정 비율\\u2028 👎"}'.encode()
    await case.bus.publish(Message(KEY, headers, body))
    await consumer.has(1)
    received = consumer.taken[0].message
    assert received.routing_key == KEY
    assert received.body == body
    assert headers.items() <= received.headers.items()


# --- what is not acknowledged ---------------------------------------------------------------


async def test_a_first_delivery_is_not_marked_redelivered(case: Case) -> None:
    consumer = Consumer()
    await case.bus.subscribe("a", [KEY], consumer, 4)
    await case.bus.publish(message())
    await consumer.has(1)
    assert not consumer.taken[0].redelivered


@pytest.mark.parametrize("raises", [False, True], ids=["returns", "raises"])
async def test_a_message_left_unacknowledged_comes_again_marked_redelivered(case: Case, raises: bool) -> None:
    async def leave(delivery: Delivery) -> None:
        if delivery.redelivered:
            await delivery.ack()
        elif raises:
            raise RuntimeError("a bug")

    consumer = Consumer(leave)
    await case.bus.subscribe("a", [KEY], consumer, 1)
    await case.bus.publish(message(b"1"))
    await wait_until(lambda: len(consumer.taken) == 2)
    assert consumer.bodies == [b"1", b"1"]
    assert consumer.taken[1].redelivered


async def test_close_gives_back_what_is_unacknowledged(case: Case) -> None:
    async def never(delivery: Delivery) -> None:
        await asyncio.Event().wait()

    first, second = Consumer(never), Consumer()
    await case.bus.subscribe("a", [KEY], first, 4)
    await case.bus.publish(message(b"1"))
    await wait_until(lambda: first.taken)
    await case.bus.close()
    await case.bus.connect()
    await case.bus.subscribe("a", [KEY], second, 4)
    await second.has(1)
    assert second.taken[0].redelivered


@pytest.mark.parametrize(
    "waves",
    [["abc"], ["bc"], ["acef"], ["bd", "a", "f"], ["f", "e", "d", "c", "b"], ["ab", "cd", "f"], ["abcdef"]],
    ids="-".join,
)
async def test_what_is_not_acknowledged_comes_again_whatever_else_is(case: Case, waves: list[str]) -> None:
    turns = {letter: asyncio.Event() for letter in "abcdef"}

    async def wait(delivery: Delivery) -> None:
        await turns[delivery.message.body.decode()].wait()
        await delivery.ack()

    first, second = Consumer(wait), Consumer()
    await case.bus.subscribe("a", [KEY], first, len(turns))
    for letter in turns:
        await case.bus.publish(message(letter.encode()))
    await wait_until(lambda: len(first.taken) == len(turns))
    for wave in waves:  # of each, all at the same moment
        for letter in wave:
            turns[letter].set()
        await asyncio.sleep(0.02)
    await case.bus.close()
    await case.bus.connect()
    await case.bus.subscribe("a", [KEY], second, len(turns))
    left = set(turns) - set("".join(waves))
    await second.has(len(left))
    assert {body.decode() for body in second.bodies} == left


async def test_what_is_left_comes_again_while_others_are_acknowledged(case: Case) -> None:
    async def leave_the_first(delivery: Delivery) -> None:
        if delivery.message.body != b"0" or delivery.redelivered:
            await delivery.ack()

    consumer = Consumer(leave_the_first)
    await case.bus.subscribe("a", [KEY], consumer, 4)
    for number in range(8):
        await case.bus.publish(message(b"%d" % number))
    await wait_until(lambda: len(consumer.taken) == 9)
    assert consumer.bodies.count(b"0") == 2


async def test_a_closed_bus_refuses(case: Case) -> None:
    await case.bus.subscribe("a", [KEY], Consumer(), 4)
    await case.bus.close()
    assert case.bus.trouble()
    with pytest.raises(BusError):
        await case.bus.publish(message())
    with pytest.raises(BusError):
        await case.bus.send("a", message())
    with pytest.raises(BusError):
        await case.bus.bury("a", message(), "why")
    with pytest.raises(BusError):
        await case.bus.subscribe("b", [KEY], Consumer(), 4)


# --- delays and dead letters ----------------------------------------------------------------


async def test_a_delayed_message_returns_after_its_rung_and_to_its_consumer_only(case: Case) -> None:
    a, b = Consumer(), Consumer()
    await case.bus.subscribe("a", [KEY], a, 4)
    await case.bus.subscribe("b", [KEY], b, 4)
    start = time.monotonic()
    await case.bus.send("a", message(b"1", **{"x-own": "kept"}), LADDER[1])
    await wait_until(lambda: a.taken)
    assert LADDER[1] * 0.95 <= time.monotonic() - start < LADDER[1] + 1
    await a.has(1)
    assert a.bodies == [b"1"]
    assert a.taken[0].message.headers["x-own"] == "kept"
    assert b.taken == []


async def test_a_short_delay_does_not_wait_behind_a_long_one(case: Case) -> None:
    consumer = Consumer()
    await case.bus.subscribe("a", [KEY], consumer, 4)
    await case.bus.send("a", message(b"long"), LADDER[2])
    await case.bus.send("a", message(b"short"), LADDER[0])
    await wait_until(lambda: len(consumer.taken) == 2)
    assert consumer.bodies == [b"short", b"long"]


@pytest.mark.parametrize(
    ("after", "rung"),
    [(0, 1), (0.5, 1), (1, 1), (1.01, 5), (5, 5), (29, 30), (121, 600), (600, 600), (10_000, 600)],
)
def test_a_delay_takes_the_next_rung_not_shorter(after: float, rung: float) -> None:
    assert Topology(ladder=(1, 5, 30, 120, 600)).rung(after) == rung


async def test_a_buried_message_lies_in_the_dead_letter_queue_with_its_reason(case: Case) -> None:
    consumer = Consumer()
    await case.bus.subscribe("a", [KEY], consumer, 4)
    await case.bus.bury("a", message(b"broken", **{"ce-id": "7"}), "it is no JSON: 한국어")
    ((letter, reason),) = await case.dead(1)
    assert reason == "it is no JSON: 한국어"
    assert letter.body == b"broken"
    assert letter.routing_key == KEY
    assert letter.headers["ce-id"] == "7"
    assert consumer.taken == []


# --- flow -----------------------------------------------------------------------------------


async def test_prefetch_bounds_concurrency(case: Case) -> None:
    release = asyncio.Event()

    async def wait(delivery: Delivery) -> None:
        await release.wait()
        await delivery.ack()

    consumer = Consumer(wait)
    await case.bus.subscribe("a", [KEY], consumer, 3)
    for _ in range(8):
        await case.bus.publish(message())
    await consumer.has(3)
    release.set()
    await consumer.has(8)


async def test_pause_stops_deliveries_and_resume_continues(case: Case) -> None:
    consumer = Consumer()
    subscription = await case.bus.subscribe("a", [KEY], consumer, 4)
    await case.bus.publish(message(b"1"))
    await consumer.has(1)
    await subscription.pause()
    await subscription.pause()  # twice is once
    await case.bus.publish(message(b"2"))
    await asyncio.sleep(SETTLED)
    assert consumer.bodies == [b"1"]
    await subscription.resume()
    await subscription.resume()
    await consumer.has(2)
    assert consumer.bodies == [b"1", b"2"]


async def test_what_is_in_flight_survives_a_pause(case: Case) -> None:
    release = asyncio.Event()

    async def wait(delivery: Delivery) -> None:
        await release.wait()
        await delivery.ack()

    consumer = Consumer(wait)
    subscription = await case.bus.subscribe("a", [KEY], consumer, 1)
    await case.bus.publish(message())
    await wait_until(lambda: consumer.taken)
    await subscription.pause()
    release.set()
    await asyncio.sleep(SETTLED)
    await subscription.resume()
    await consumer.has(1)


# --- RabbitMQ alone: a line that breaks -----------------------------------------------------


@dataclass
class Line:
    bus: RabbitBus
    proxy: Proxy
    straight: str
    """The broker's own address."""


@pytest.fixture
async def line(amqp_url: str, exchange: str) -> AsyncIterator[Line]:
    topology = Topology(exchange, ladder=LADDER)
    async with in_front_of(amqp_url, 5672) as proxy:
        bus = RabbitBus(proxy.url, topology)
        await bus.connect()
        yield Line(bus, proxy, amqp_url)
        with suppress(BusError):
            await bus.close()
    await sweep(amqp_url, topology, ["a"])


async def test_one_delivery_open_for_ever_keeps_no_other_from_being_acknowledged(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.bus.rabbit_delivery._MOST_SETTLED", 3)

    async def hold_the_first(delivery: Delivery) -> None:
        if delivery.message.body == b"0" and not delivery.redelivered:
            await asyncio.Event().wait()
        await delivery.ack()

    first, second = Consumer(hold_the_first), Consumer()
    await line.bus.subscribe("a", [KEY], first, 2)
    for number in range(10):
        await line.bus.publish(message(b"%d" % number))
    await first.has(10)
    await line.bus.close()
    await line.bus.connect()
    await line.bus.subscribe("a", [KEY], second, 2)
    await second.has(1)
    assert second.bodies == [b"0"]


async def test_consuming_continues_after_the_connection_broke(line: Line) -> None:
    consumer = Consumer()
    await line.bus.subscribe("a", [KEY], consumer, 4)
    await line.proxy.drop()
    await wait_until(lambda: line.bus.trouble() is not None)
    await wait_until(lambda: line.bus.trouble() is None)

    async def published() -> bool:
        # A channel may still be opening when the connection is back; callers keep what is refused.
        try:
            await line.bus.publish(message(b"1"))
        except BusError:
            return False
        return True

    await wait_until(published)
    await wait_until(lambda: consumer.taken)
    assert set(consumer.bodies) == {b"1"}


async def test_what_was_in_flight_when_the_connection_broke_comes_again(line: Line) -> None:
    async def leave(delivery: Delivery) -> None:
        if not delivery.redelivered:
            await asyncio.Event().wait()
        await delivery.ack()

    consumer = Consumer(leave)
    await line.bus.subscribe("a", [KEY], consumer, 4)
    await line.bus.publish(message(b"1"))
    await wait_until(lambda: consumer.taken)
    await line.proxy.drop()
    await wait_until(lambda: len(consumer.taken) == 2)
    assert consumer.taken[1].redelivered


async def test_what_was_in_flight_when_the_connection_broke_is_finished(line: Line) -> None:
    came_again = asyncio.Event()

    async def finish(delivery: Delivery) -> None:
        if delivery.redelivered:
            came_again.set()
        else:
            await came_again.wait()
            finished.append(delivery)
        await delivery.ack()

    finished: list[Delivery] = []
    await line.bus.subscribe("a", [KEY], Consumer(finish), 4)
    await line.bus.publish(message(b"1"))
    await asyncio.sleep(SETTLED)
    await line.proxy.drop()
    await wait_until(lambda: finished)


@pytest.mark.parametrize("fault", ["cut", "frozen"])
async def test_a_publish_while_disconnected_is_refused_within_five_seconds(line: Line, fault: str) -> None:
    await line.bus.subscribe("a", [KEY], Consumer(), 4)
    if fault == "cut":
        await line.proxy.cut()
    else:
        line.proxy.freeze()
    start = time.monotonic()
    with pytest.raises(BusError):
        await line.bus.publish(message())
    assert time.monotonic() - start < 5


async def test_a_pause_while_disconnected_holds_after_the_reconnect(line: Line) -> None:
    consumer = Consumer()
    subscription = await line.bus.subscribe("a", [KEY], consumer, 4)
    await line.proxy.cut()
    await wait_until(lambda: line.bus.trouble() is not None)
    pausing = asyncio.create_task(subscription.pause())
    await asyncio.sleep(0)
    await line.proxy.heal()
    with suppress(BusError):
        await pausing
    await wait_until(lambda: line.bus.trouble() is None)
    async with channel(line.straight) as opened:
        await (await opened.get_exchange(line.bus.topology.exchange)).publish(aio_pika.Message(b"1"), KEY)
    await asyncio.sleep(SETTLED)
    assert consumer.taken == []

    async def resumed() -> bool:
        with suppress(BusError):  # the channel comes back a little after its connection
            await subscription.resume()
            return True
        return False

    await wait_until(resumed)
    await consumer.has(1)


async def test_connecting_to_nobody_is_refused(unused_tcp_port: int) -> None:
    bus = RabbitBus(f"amqp://guest:guest@127.0.0.1:{unused_tcp_port}/")
    with pytest.raises(BusError):
        await bus.connect()
    assert bus.trouble() == "not connected to RabbitMQ"


# --- RabbitMQ alone: messages of other programs ---------------------------------------------


async def _published(line: Line, foreign: aio_pika.Message) -> Delivery:
    consumer = Consumer()
    await line.bus.subscribe("a", [KEY], consumer, 4)
    async with channel(line.straight) as opened:
        exchange = await opened.get_exchange(line.bus.topology.exchange)
        await exchange.publish(foreign, routing_key=KEY)
    await consumer.has(1)
    return consumer.taken[0]


async def test_a_message_without_any_properties_is_delivered_as_anonymous(line: Line) -> None:
    consumer = Consumer()
    await line.bus.subscribe("a", [KEY], consumer, 4)
    await publish_over_http(line.bus.topology.exchange, KEY, '{"app": "shop"}')
    await consumer.has(1)
    received = consumer.taken[0].message
    assert received == Message(KEY, {"content-type": "application/json"}, b'{"app": "shop"}')
    assert decode(received).anonymous


async def test_a_bare_body_from_aio_pika_has_the_id_that_aio_pika_gave_it(line: Line) -> None:
    delivery = await _published(line, aio_pika.Message(b'{"app": "shop"}'))
    assert set(delivery.message.headers) == {"content-type", "ce-id"}
    assert not decode(delivery.message).anonymous


async def test_a_foreign_message_id_stands_in_for_the_event_id(line: Line) -> None:
    delivery = await _published(line, aio_pika.Message(b"{}", message_id="order-1"))
    assert delivery.message.headers["ce-id"] == "order-1"
    assert not decode(delivery.message).anonymous


async def test_an_event_id_goes_before_a_message_id(line: Line) -> None:
    foreign = aio_pika.Message(b"{}", message_id="random", headers={"ce-id": "order-1"})
    assert (await _published(line, foreign)).message.headers["ce-id"] == "order-1"


async def test_a_structured_message_keeps_its_content_type(line: Line) -> None:
    body = (
        b'{"specversion": "1.0", "id": "order-1", "source": "/shop", "type": "feedback.evaluate",'
        b' "data": {"app": "shop"}}'
    )
    foreign = aio_pika.Message(body, content_type="application/cloudevents+json; charset=utf-8")
    envelope = decode((await _published(line, foreign)).message)
    assert (envelope.source, envelope.type) == ("/shop", KEY)


async def test_headers_that_are_no_text_do_no_harm(line: Line) -> None:
    foreign = aio_pika.Message(
        b"{}",
        message_id="order-1",
        headers={
            "n": 7,
            "yes": True,
            "nothing": None,
            "list": [1],
            "table": {"a": 1},
            "bytes": bytearray(b"\xff"),
            "ce-id": None,
        },
    )
    delivery = await _published(line, foreign)
    assert delivery.message.headers == {
        "n": "7",
        "yes": "True",
        "bytes": "\N{REPLACEMENT CHARACTER}",
        "content-type": "application/json",
        "ce-id": "order-1",
    }


class Written(aiormq.spec.Basic.Properties):
    """Properties as bytes: flags and values, also such as no library writes."""

    def __init__(self, written: bytes) -> None:
        super().__init__(message_id="given, so that aiormq gives none")
        self.written = written

    def marshal(self) -> bytes:
        return self.written


def headers(entries: bytes) -> bytes:
    return struct.pack(">HI", 1 << 13, len(entries)) + entries


def tables(depth: int) -> bytes:
    """Tables, each in another one."""
    inner = b""
    for _ in range(depth):
        inner = b"\x01nF" + struct.pack(">I", len(inner)) + inner
    return inner


@pytest.mark.parametrize(
    "written",
    [
        struct.pack(">HQ", 1 << 6, 1_700_000_000_000_000),
        struct.pack(">HQ", 1 << 6, 2**64 - 1),
        headers(b"\x01tT" + b"\xff" * 8),
        headers(b"\x02\xff\xfeS" + struct.pack(">I", 0)),
        headers(tables(3000)),
        struct.pack(">HB", 1 << 7, 2) + b"\xff\xfe",
        struct.pack(">HB", 1 << 15, 2) + b"\xff\xfe",
    ],
    ids=["microseconds", "for ever", "header's time", "header's name", "tables", "id", "content type"],
)
async def test_a_property_that_cannot_be_read_ends_no_connection(line: Line, written: bytes) -> None:
    consumer = Consumer()
    await line.bus.subscribe("a", [KEY], consumer, 4)
    async with await aiormq.connect(line.straight) as connection:
        opened = await connection.channel()
        await opened.basic_publish(
            b"{}", exchange=line.bus.topology.exchange, routing_key=KEY, properties=Written(written)
        )
    await consumer.has(1)
    await line.bus.bury("a", consumer.taken[0].message, "a reason")
    assert line.bus.trouble() is None


async def test_headers_that_would_not_fit_again_are_cut_to_those_of_the_event(line: Line) -> None:
    large = {f"h{n}": bytearray(b"\xff" * 30_000) for n in range(4)}  # as text three times as long
    foreign = aio_pika.Message(b"{}", message_id="order-1", headers={**large, "ce-source": "/shop"})
    delivery = await _published(line, foreign)
    assert set(delivery.message.headers) == {"ce-source", "ce-id", "content-type"}
    await line.bus.bury("a", delivery.message, "a reason")
