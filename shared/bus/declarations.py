"""What exists on RabbitMQ, declared, or looked at by users who may declare nothing.

One topology that 3.10 to 4.x and LavinMQ all take: a topic exchange, a durable queue per consumer,
one retry queue per delay (fixed TTL, returning through the default exchange, so that only the
consumer that failed sees the message again) and one dead-letter queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aio_pika
from aio_pika.abc import (
    AbstractRobustChannel,
    AbstractRobustConnection,
    AbstractRobustQueue,
)

from shared.bus.port import Topology

__all__ = ["Declarations", "robust_channel"]

_DELIVERY_LIMIT = 100


async def robust_channel(connection: AbstractRobustConnection) -> AbstractRobustChannel:
    """A channel with confirms, on which what nobody takes comes back as an error."""
    channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
    assert isinstance(channel, AbstractRobustChannel)
    return channel


class Declarations:
    """A topology on a broker.

    Args:
        made_here: False where the user may declare and bind nothing. What is missing is an error then;
            with which arguments it exists is not looked at.
    """

    def __init__(self, topology: Topology, made_here: bool) -> None:
        self._topology = topology
        self._made_here = made_here

    async def exchanges(self, channel: AbstractRobustChannel) -> None:
        """The exchange of events, those of the retry queues, and all queues but consumers'."""
        await self._exchange(channel, self._topology.exchange, aio_pika.ExchangeType.TOPIC)
        if self._made_here:
            await channel.declare_queue(self._topology.dead, durable=True, arguments=self._arguments({}))
        for delay in self._topology.ladder:
            name = self._topology.retry(delay)
            await self._exchange(channel, name, aio_pika.ExchangeType.FANOUT)
            if self._made_here:
                waiting = {"x-message-ttl": round(delay * 1000), "x-dead-letter-exchange": ""}
                queue = await channel.declare_queue(name, durable=True, arguments=self._arguments(waiting))
                await queue.bind(name, routing_key="")

    async def queue(
        self, channel: AbstractRobustChannel, consumer: str, types: Sequence[str]
    ) -> AbstractRobustQueue:
        """A consumer's queue, bound to its types."""
        queue = await channel.declare_queue(
            self._topology.queue(consumer),
            durable=True,
            arguments=self._arguments(
                {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self._topology.dead},
                limited=True,
            ),
            passive=not self._made_here,
        )
        assert isinstance(queue, AbstractRobustQueue)
        for type in types if self._made_here else ():
            await queue.bind(self._topology.exchange, routing_key=type)
        return queue

    async def _exchange(self, channel: AbstractRobustChannel, name: str, type: aio_pika.ExchangeType) -> None:
        await channel.declare_exchange(name, type, durable=True, passive=not self._made_here)

    def _arguments(self, arguments: dict[str, Any], limited: bool = False) -> dict[str, Any]:
        """A queue's arguments; classic queues refuse those that only quorum queues have."""
        kind = self._topology.queue_type
        arguments = {"x-queue-type": kind, **arguments}
        if kind == "quorum":
            if "x-dead-letter-exchange" in arguments:
                arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
            if limited:
                arguments["x-delivery-limit"] = _DELIVERY_LIMIT
        return arguments
