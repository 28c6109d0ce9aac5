"""Programs that take a message two hops further; `bench_hop` runs each in a process of its own.

A hop: consume, decide, publish the next message with a confirm, acknowledge last. All do it with persistent
messages over the same quorum queues, declared beforehand, with the same prefetch, on one connection.
"""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import aio_pika
from pydantic import SecretStr

from shared.bus.port import Topology
from shared.delivery.router import Registration
from shared.delivery.work import UnitOfWork
from shared.events import Event, GenerationRequested, LoopPaused, LoopResumed
from shared.runtime import Builder, Kernel, Runtime, Service, running
from shared.settings import Settings

if TYPE_CHECKING:
    from aio_pika.abc import AbstractExchange, AbstractIncomingMessage

__all__ = ["HOPS", "TYPES", "Way", "aio_pika_alone", "faststream_does", "product", "product_writes"]

TYPES = (LoopPaused.type, LoopResumed.type, GenerationRequested.type)
"""What is consumed by the first hop, by the second, and what comes out."""
HOPS = ("first", "second")


@dataclass(frozen=True, slots=True)
class Way:
    """Where the messages go: from `TYPES[0]` on the exchange to the queue of `TYPES[2]`."""

    amqp: str
    exchange: str
    dsn: str
    prefetch: int

    @property
    def topology(self) -> Topology:
        return Topology(self.exchange)


async def aio_pika_alone(way: Way) -> None:
    """No inbox, no outbox: the body goes on as it is."""
    connection = await aio_pika.connect_robust(way.amqp)
    publishing = await connection.channel(publisher_confirms=True, on_return_raises=True)
    exchange = await publishing.get_exchange(way.exchange)
    for hop, following in zip(HOPS, TYPES[1:], strict=True):
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=way.prefetch)
        queue = await channel.get_queue(way.topology.queue(hop))
        await queue.consume(partial(_pass_on, exchange, following))


async def _pass_on(exchange: AbstractExchange, following: str, incoming: AbstractIncomingMessage) -> None:
    message = aio_pika.Message(
        incoming.body,
        headers=dict(incoming.headers),
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
    await exchange.publish(message, routing_key=following)
    await incoming.ack()


async def faststream_does(way: Way) -> None:
    """As its documentation shows it: what a handler returns is published, then comes the acknowledgement."""
    rabbit: Any = import_module("faststream.rabbit")  # may be missing
    publishing = rabbit.Channel(publisher_confirms=True, on_return_raises=True)
    broker = rabbit.RabbitBroker(way.amqp, default_channel=publishing, logger=None)
    exchange = rabbit.RabbitExchange(
        way.exchange, type=rabbit.ExchangeType.TOPIC, durable=True, declare=False
    )
    for hop, following in zip(HOPS, TYPES[1:], strict=True):
        name = way.topology.queue(hop)
        queue = rabbit.RabbitQueue(name, queue_type=rabbit.QueueType.QUORUM, durable=True, declare=False)
        consuming = rabbit.Channel(prefetch_count=way.prefetch)

        async def decide(body: dict[str, Any]) -> dict[str, Any]:
            return body

        publish = broker.publisher(exchange=exchange, routing_key=following, persist=True)
        broker.subscriber(queue, channel=consuming)(publish(decide))
    await broker.start()


async def product(way: Way) -> None:
    """The router, inbox and outbox with it; the handlers only decide."""
    await _serve(way, _Hops(way.prefetch, writes=False))


async def product_writes(way: Way) -> None:
    """The same, and each handler writes a row, as those of the program do."""
    await _serve(way, _Hops(way.prefetch, writes=True))


@dataclass(frozen=True, slots=True)
class _Hops:
    """Builds the two services."""

    prefetch: int
    writes: bool

    def builders(self) -> list[Builder]:
        return [partial(self._build, *named) for named in self._registrations()]

    def _build(self, name: str, registration: Registration, kernel: Kernel) -> Service:
        return Service(name, registrations=[registration], prefetch=self.prefetch)

    def _registrations(self) -> list[tuple[str, Registration]]:
        async def first(event: LoopPaused, work: UnitOfWork, deps: object) -> list[Event]:
            await self._effect(work)
            return [LoopResumed(app=event.app, why=event.why, requested_by=event.requested_by)]

        async def second(event: LoopResumed, work: UnitOfWork, deps: object) -> list[Event]:
            await self._effect(work)
            return [GenerationRequested(app=event.app, reason="manual", requested_by=event.requested_by)]

        return [("first", Registration(LoopPaused, first)), ("second", Registration(LoopResumed, second))]

    async def _effect(self, work: UnitOfWork) -> None:
        if self.writes:
            connection = await work.begin()
            await connection.execute("insert into effect (event_id) values ($1)", work.envelope.id)


async def _serve(way: Way, built: _Hops) -> None:
    settings = Settings(_env_file=None, database_url=SecretStr(way.dsn), amqp_url=SecretStr(way.amqp))
    async with running(Runtime(settings, built.builders(), way.topology), http_server=False):
        gc.freeze()  # as `shared.process` does
        await asyncio.Event().wait()
