"""RabbitMQ behind the `Bus` port, through aio-pika, and aiormq beneath it where every event passes
(`docs/adr/0010-aiormq-where-events-pass.md`).

What exists on the broker is in `shared/bus/declarations.py`. Attempts are counted in Postgres
(`shared/delivery/inbox.py`); the broker's own delivery limit is only a last resort, and what passes it lands
in the dead-letter queue too.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import cast

import aio_pika
import aiormq
from aio_pika.abc import (
    AbstractIncomingMessage,
    AbstractRobustChannel,
    AbstractRobustConnection,
    AbstractRobustQueue,
)

from shared.bus.bounded import TIMEOUT, Bounded
from shared.bus.declarations import Declarations, robust_channel
from shared.bus.decoding import lenient
from shared.bus.envelope import Message
from shared.bus.port import BusError, OnDelivery, Topology, with_headers
from shared.bus.rabbit_delivery import Acknowledgements, RabbitDelivery
from shared.bus.writing import Connection

__all__ = ["RabbitBus"]

log = logging.getLogger(__name__)

_PROCESS, _ATTEMPT = uuid.uuid4().hex, count(1)
_DEFAULT_EXCHANGE = ""
"""To the queue that the routing key names."""


class _Subscription:
    def __init__(
        self, channel: AbstractRobustChannel, queue: AbstractRobustQueue, on_delivery: OnDelivery
    ) -> None:
        self._channel = channel  # held: the connection keeps only a weak reference to restore
        self._queue = queue
        self._on_delivery = on_delivery
        self._tag: str | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._acknowledgements: Acknowledgements | None = None

    async def resume(self) -> None:
        if self._tag is None:
            async with Bounded("consume"):
                self._tag = await self._queue.consume(self._deliver)

    async def pause(self) -> None:
        tag, self._tag = self._tag, None
        if tag is not None:
            # Also where this fails, aio-pika does not restore the consumer after a reconnect.
            async with Bounded("cancel"):
                await self._queue.cancel(tag)

    async def close(self) -> None:
        """Cancel what is in flight; the broker takes it back when the connection closes."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=TIMEOUT)
        if self._acknowledgements is not None:
            await self._acknowledgements.flush()

    async def _deliver(self, incoming: AbstractIncomingMessage) -> None:
        """The first on each channel. aio-pika makes of each a message and a task of its own, so aiormq, on
        which it rests, is told to come to us; where aio-pika consumes anew, it comes here first again."""
        with suppress(aiormq.exceptions.ChannelInvalidStateError):  # else it comes again, on another
            channel = cast(aiormq.Channel, incoming.channel)
            if incoming.consumer_tag in channel.consumers:
                channel.consumers[incoming.consumer_tag] = self._take
            self._begin(RabbitDelivery(incoming, incoming, self._acknowledging(channel)))

    async def _take(self, message: aiormq.abc.DeliveredMessage) -> None:
        acknowledgements = self._acknowledging(message.channel)
        self._begin(RabbitDelivery(message, message.header.properties, acknowledgements))

    def _acknowledging(self, channel: aiormq.abc.AbstractChannel) -> Acknowledgements:
        if self._acknowledgements is None or self._acknowledgements.channel is not channel:
            self._acknowledgements = Acknowledgements(channel)
        return self._acknowledgements

    def _begin(self, delivery: RabbitDelivery) -> None:
        # In a task of its own: aiormq cancels its callbacks when a channel closes. What takes longer
        # than the broker waits for an acknowledgement (30 minutes) would be begun again and again; so
        # it ends, and the delivery that came meanwhile finds it done.
        task = asyncio.create_task(self._hand_over(delivery))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _hand_over(self, delivery: RabbitDelivery) -> None:
        try:
            await self._on_delivery(delivery)
        except Exception:
            log.exception("a delivery handler raised")
        await delivery.give_back()


class RabbitBus:
    """See `shared.bus.port.Bus`. One connection per process: free plans count them.

    Args:
        declares: False where the user may declare nothing: what there should be is only looked at.
    """

    system = "rabbitmq"

    def __init__(self, url: str, topology: Topology | None = None, declares: bool = True) -> None:
        lenient()
        self.topology = topology or Topology()
        self._url = url
        self._declarations = Declarations(self.topology, declares)
        self._connection: AbstractRobustConnection | None = None
        self._channel: AbstractRobustChannel | None = None
        self._subscriptions: list[_Subscription] = []

    async def connect(self) -> None:
        async with Bounded("connect", limit=10):
            connection = await aio_pika.connect_robust(
                self._url, timeout=5, heartbeat=10, reconnect_interval=1, connection_class=Connection
            )
        self._connection = connection
        try:
            async with Bounded("declare", limit=10):
                channel = await robust_channel(connection)
                await self._declarations.exchanges(channel)
                self._channel = channel
        except BaseException:
            await connection.close()
            self._connection = None
            raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        await asyncio.gather(*(subscription.close() for subscription in self._subscriptions))
        self._subscriptions.clear()
        if connection is not None:
            async with Bounded("close"):
                await connection.close()

    def trouble(self) -> str | None:
        if self._connection is None:
            return "not connected to RabbitMQ"
        if self._connection.reconnecting or not self._connection.connected.is_set():
            return "reconnecting to RabbitMQ"
        return None

    async def publish(self, message: Message) -> None:
        await self._publish(message, self.topology.exchange, message.routing_key)

    async def send(self, consumer: str, message: Message, delay: float = 0) -> None:
        exchange = self.topology.retry(self.topology.rung(delay)) if delay > 0 else _DEFAULT_EXCHANGE
        await self._publish(message, exchange, self.topology.queue(consumer))

    async def bury(self, consumer: str, message: Message, reason: str) -> None:
        letter = with_headers(
            message, x_consumer=consumer, x_routing_key=message.routing_key, x_reason=reason[:1000]
        )
        await self._publish(letter, _DEFAULT_EXCHANGE, self.topology.dead)

    async def _publish(self, message: Message, exchange: str, routing_key: str) -> None:
        """Publish with a confirm.

        By aiormq, on which aio-pika rests: aio-pika copies each message, and waits for the socket before it
        waits for the confirm. The AMQP `message_id` is another one at each attempt: two publishes in flight
        with one id on one channel could swap their confirms. The event's own id is a header.
        """
        if self._channel is None:
            raise BusError("not connected to RabbitMQ")
        async with Bounded("publish"):
            channel = cast(aiormq.Channel, await self._channel.get_underlay_channel())
            await channel.basic_publish(
                message.body,
                exchange=exchange,
                routing_key=routing_key,
                properties=aiormq.spec.Basic.Properties(
                    content_type=message.headers.get("content-type", "application/json"),
                    headers={
                        name: value for name, value in message.headers.items() if name != "content-type"
                    },
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    message_id=f"{_PROCESS}-{next(_ATTEMPT)}",
                ),
                mandatory=True,
                wait=False,
            )

    async def subscribe(
        self, consumer: str, types: Sequence[str], on_delivery: OnDelivery, prefetch: int
    ) -> _Subscription:
        if self._connection is None:
            raise BusError("not connected to RabbitMQ")
        async with Bounded("subscribe", limit=10):
            channel = await robust_channel(self._connection)
            await channel.set_qos(prefetch_count=prefetch)
            queue = await self._declarations.queue(channel, consumer, types)
        subscription = _Subscription(channel, queue, on_delivery)
        await subscription.resume()
        self._subscriptions.append(subscription)
        return subscription

    async def declare(self, consumer: str, types: Sequence[str]) -> None:
        """Make a consumer's queue and its bindings, for one that may not."""
        if self._connection is None:
            raise BusError("not connected to RabbitMQ")
        async with Bounded("declare", limit=10):
            channel = await robust_channel(self._connection)
            try:
                await self._declarations.queue(channel, consumer, types)
            finally:
                await channel.close()

    async def consumers(self, consumer: str) -> int:
        """How many subscriptions a consumer's queue has; 0 also where there is no queue."""
        if self._connection is None:
            raise BusError("not connected to RabbitMQ")
        async with Bounded("look at a queue"):
            channel = await self._connection.channel()  # the broker closes it if there is no queue
            try:
                queue = await channel.declare_queue(self.topology.queue(consumer), passive=True)
                return queue.declaration_result.consumer_count or 0
            except aio_pika.exceptions.ChannelNotFoundEntity:
                return 0
            finally:
                await channel.close()
