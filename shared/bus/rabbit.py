"""RabbitMQ behind the `Bus` port, through aio-pika.

What exists on the broker is in `shared/bus/declarations.py`. Attempts are counted in Postgres
(`shared/delivery/inbox.py`); the broker's own delivery limit is only a last resort, and what passes it lands
in the dead-letter queue too.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

import aio_pika
import aiormq
from aio_pika.abc import (
    AbstractExchange,
    AbstractIncomingMessage,
    AbstractRobustChannel,
    AbstractRobustConnection,
    AbstractRobustExchange,
    AbstractRobustQueue,
)

from shared.bus.declarations import Declarations, robust_channel
from shared.bus.decoding import lenient
from shared.bus.envelope import Message
from shared.bus.port import AGAIN, RELAYED, BusError, OnDelivery, Topology, Unroutable, with_headers

__all__ = ["RabbitBus"]

log = logging.getLogger(__name__)

_TIMEOUT = 4.0
"""Seconds for one operation, reconnecting included: the trigger must answer within five."""
_MOST_HEADERS = 64 * 1024
"""Bytes of headers that are passed on as they came. With what is added they must fit into a frame (128 KiB):
else the broker ends the connection, and sends the message again."""
_LONGEST_HEADER = 1000
_ATTRIBUTES = (
    *("ce-specversion", "ce-id", "ce-type", "ce-source", "ce-time", "ce-correlationid", "ce-causationid"),
    *("traceparent", RELAYED),
)
_PROCESS, _ATTEMPT = uuid.uuid4().hex, count(1)
_BROKER_HEADERS = ("x-death", "x-first-death", "x-last-death", "x-delivery", "x-acquired")


class _Delivery:
    def __init__(self, incoming: AbstractIncomingMessage) -> None:
        self._incoming = incoming
        headers = {
            name: str(value.decode(errors="replace") if isinstance(value, bytes | bytearray) else value)
            for name, value in incoming.headers.items()
            if not name.startswith(_BROKER_HEADERS) and not isinstance(value, list | dict | None)
        }
        headers = _bounded_headers(headers)
        headers["content-type"] = incoming.content_type or "application/json"
        if incoming.message_id:
            headers.setdefault("ce-id", incoming.message_id)
        self.message = Message(incoming.routing_key or "", headers, incoming.body)
        self.redelivered = bool(incoming.redelivered)

    async def ack(self) -> None:
        async with _bounded("acknowledge"):
            await self._incoming.ack()

    async def give_back(self) -> None:
        """Return it to its queue; a broker that counts returns is given time in between."""
        if self._incoming.processed:
            return
        count = self._incoming.headers.get("x-delivery-count")
        await asyncio.sleep(min(AGAIN * 2 ** min(count, 10), 60) if isinstance(count, int) else AGAIN)
        try:
            async with _bounded("give back"):
                await self._incoming.nack(requeue=True)
        except BusError as error:
            log.debug("%s; the broker takes it back when the channel closes", error)


def _bounded_headers(headers: dict[str, str]) -> dict[str, str]:
    """Headers as they came; where they are too large, what says which event it is, and no more."""
    if (
        sum(len(text.encode("utf-8", "replace")) + 5 for entry in headers.items() for text in entry)
        <= _MOST_HEADERS
    ):
        return headers
    return {name: headers[name][:_LONGEST_HEADER] for name in _ATTRIBUTES if name in headers}


class _Subscription:
    def __init__(
        self, channel: AbstractRobustChannel, queue: AbstractRobustQueue, on_delivery: OnDelivery
    ) -> None:
        self._channel = channel  # held: the connection keeps only a weak reference to restore
        self._queue = queue
        self._on_delivery = on_delivery
        self._tag: str | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def resume(self) -> None:
        if self._tag is None:
            async with _bounded("consume"):
                self._tag = await self._queue.consume(self._deliver)

    async def pause(self) -> None:
        tag, self._tag = self._tag, None
        if tag is not None:
            # Also where this fails, aio-pika does not restore the consumer after a reconnect.
            async with _bounded("cancel"):
                await self._queue.cancel(tag)

    async def close(self) -> None:
        """Cancel what is in flight; the broker takes it back when the connection closes."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=_TIMEOUT)

    async def _deliver(self, incoming: AbstractIncomingMessage) -> None:
        # In a task of its own: aio-pika cancels its callbacks when a channel closes. What takes longer
        # than the broker waits for an acknowledgement (30 minutes) would be begun again and again; so
        # it ends, and the delivery that came meanwhile finds it done.
        task = asyncio.create_task(self._hand_over(incoming))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _hand_over(self, incoming: AbstractIncomingMessage) -> None:
        delivery = _Delivery(incoming)
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
        self._exchange: AbstractRobustExchange | None = None
        self._retries: dict[float, AbstractRobustExchange] = {}
        self._subscriptions: list[_Subscription] = []

    async def connect(self) -> None:
        async with _bounded("connect", limit=10):
            connection = await aio_pika.connect_robust(
                self._url, timeout=5, heartbeat=10, reconnect_interval=1
            )
        self._connection = connection
        try:
            async with _bounded("declare", limit=10):
                channel = await robust_channel(connection)
                self._exchange, self._retries = await self._declarations.exchanges(channel)
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
            async with _bounded("close"):
                await connection.close()

    def trouble(self) -> str | None:
        if self._connection is None:
            return "not connected to RabbitMQ"
        if self._connection.reconnecting or not self._connection.connected.is_set():
            return "reconnecting to RabbitMQ"
        return None

    async def publish(self, message: Message) -> None:
        if self._exchange is None:
            raise BusError("not connected to RabbitMQ")
        await _publish(self._exchange, message, message.routing_key)

    async def send(self, consumer: str, message: Message, delay: float = 0) -> None:
        if self._channel is None:
            raise BusError("not connected to RabbitMQ")
        exchange = self._retries[self.topology.rung(delay)] if delay > 0 else self._channel.default_exchange
        await _publish(exchange, message, self.topology.queue(consumer))

    async def bury(self, consumer: str, message: Message, reason: str) -> None:
        if self._channel is None:
            raise BusError("not connected to RabbitMQ")
        letter = with_headers(
            message, x_consumer=consumer, x_routing_key=message.routing_key, x_reason=reason[:1000]
        )
        await _publish(self._channel.default_exchange, letter, self.topology.dead)

    async def subscribe(
        self, consumer: str, types: Sequence[str], on_delivery: OnDelivery, prefetch: int
    ) -> _Subscription:
        if self._connection is None or self._exchange is None:
            raise BusError("not connected to RabbitMQ")
        async with _bounded("subscribe", limit=10):
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
        async with _bounded("declare", limit=10):
            channel = await robust_channel(self._connection)
            try:
                await self._declarations.queue(channel, consumer, types)
            finally:
                await channel.close()

    async def consumers(self, consumer: str) -> int:
        """How many subscriptions a consumer's queue has; 0 also where there is no queue."""
        if self._connection is None:
            raise BusError("not connected to RabbitMQ")
        async with _bounded("look at a queue"):
            channel = await self._connection.channel()  # the broker closes it if there is no queue
            try:
                queue = await channel.declare_queue(self.topology.queue(consumer), passive=True)
                return queue.declaration_result.consumer_count or 0
            except aio_pika.exceptions.ChannelNotFoundEntity:
                return 0
            finally:
                await channel.close()


async def _publish(exchange: AbstractExchange, message: Message, routing_key: str) -> None:
    """Publish with a confirm.

    The AMQP `message_id` is another one at each attempt: two publishes in flight with one id on one channel
    could swap their confirms. The event's own id is a header.
    """
    async with _bounded("publish"):
        await exchange.publish(
            aio_pika.Message(
                message.body,
                headers={name: value for name, value in message.headers.items() if name != "content-type"},
                content_type=message.headers.get("content-type", "application/json"),
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                message_id=f"{_PROCESS}-{next(_ATTEMPT)}",
            ),
            routing_key=routing_key,
            mandatory=True,
        )


@asynccontextmanager
async def _bounded(what: str, limit: float = _TIMEOUT) -> AsyncIterator[None]:
    """Bound an operation in time and give its failures one type.

    aio-pika's own `timeout` does not bound the wait for a reconnect.
    """
    try:
        async with asyncio.timeout(limit):
            yield
    except aio_pika.exceptions.PublishError as error:
        raise Unroutable(f"RabbitMQ has no queue for this message: {error}") from None
    except (
        aiormq.exceptions.AMQPError,
        aio_pika.exceptions.AMQPException,
        OSError,
        RuntimeError,
        asyncio.InvalidStateError,
    ) as error:
        raise BusError(f"RabbitMQ: cannot {what}: {type(error).__name__}: {error}") from error
    except TimeoutError:
        raise BusError(f"RabbitMQ: cannot {what} within {limit:g} s") from None
