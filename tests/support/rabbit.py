"""What tests do on a RabbitMQ beside the bus: as another program would, with plain aio-pika."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aio_pika
import aiohttp
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from yarl import URL

from shared.bus.port import Topology

__all__ = ["Tap", "channel", "dead_letters", "depth", "publish_over_http", "sweep", "tapped"]


@asynccontextmanager
async def channel(url: str) -> AsyncIterator[AbstractChannel]:
    """A channel on a connection of its own."""
    async with await aio_pika.connect(url) as connection, connection.channel() as opened:
        yield opened


async def dead_letters(url: str, topology: Topology, count: int) -> list[AbstractIncomingMessage]:
    """Take `count` dead letters, waiting up to ten seconds for them."""
    found: list[AbstractIncomingMessage] = []
    async with asyncio.timeout(10), channel(url) as opened:
        queue = await opened.get_queue(topology.dead)
        while len(found) < count:
            message = await queue.get(no_ack=True, fail=False)
            if message is None:
                await asyncio.sleep(0.02)
            else:
                found.append(message)
    return found


async def publish_over_http(exchange: str, routing_key: str, body: str) -> None:
    """Publish a bare body with no properties at all, which AMQP clients do not do (aio-pika adds a
    `message_id`). Skips the test where the broker has no HTTP API."""
    api = os.environ.get("TEST_RABBITMQ_API")
    if not api:
        pytest.skip("the broker has no HTTP API")
    message = {"routing_key": routing_key, "properties": {}, "payload": body, "payload_encoding": "string"}
    url = URL(f"{api}/api/exchanges/%2F/{exchange}/publish", encoded=True)
    async with aiohttp.ClientSession() as session, session.post(url, json=message) as response:
        assert (await response.json()) == {"routed": True}


async def sweep(url: str, topology: Topology, consumers: Iterable[str]) -> None:
    """Delete what a test declared; what is not there is no error."""
    queues = [topology.dead, *(topology.retry(delay) for delay in topology.ladder)]
    queues += [topology.queue(consumer) for consumer in consumers]
    async with channel(url) as opened:
        for name in queues:
            await opened.queue_delete(name)
        for name in (topology.exchange, *(topology.retry(delay) for delay in topology.ladder)):
            await opened.exchange_delete(name)


async def depth(url: str, name: str) -> int:
    """How many messages a queue holds that nobody has; 0 also where there is no queue."""
    async with channel(url) as opened:
        try:
            queue = await opened.declare_queue(name, passive=True)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return 0
        return queue.declaration_result.message_count or 0


@dataclass
class Tap:
    """What passed through an exchange.

    Attributes:
        bodies: by event, the body of each copy.
        runs: by correlation, the events.
    """

    bodies: dict[uuid.UUID, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    runs: dict[uuid.UUID, set[uuid.UUID]] = field(default_factory=lambda: defaultdict(set))

    def of_run(self, run: uuid.UUID) -> set[uuid.UUID]:
        return self.runs.get(run, set())

    async def take(self, message: AbstractIncomingMessage) -> None:
        id = uuid.UUID(str(message.headers["ce-id"]))
        self.bodies[id].append(message.body)
        self.runs[uuid.UUID(str(message.headers["ce-correlationid"]))].add(id)


@asynccontextmanager
async def tapped(url: str, topology: Topology, *types: str) -> AsyncIterator[Tap]:
    """Listen to event types on an exchange that is there, as a consumer of its own would."""
    tap = Tap()
    async with channel(url) as opened:
        queue = await opened.declare_queue(exclusive=True)
        for type in types:
            await queue.bind(topology.exchange, routing_key=type)
        await queue.consume(tap.take, no_ack=True)
        yield tap
