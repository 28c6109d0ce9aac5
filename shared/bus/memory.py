"""The bus within one process: acknowledgements, redelivery, delayed retry, dead letters, competing
consumers.

It forgets everything when the process ends; the outbox in Postgres brings back what was open.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.bus.envelope import Message
from shared.bus.port import AGAIN, BusError, OnDelivery, Topology, Unroutable, with_headers

__all__ = ["MemoryBus"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Queue:
    types: set[str] = field(default_factory=set)
    waiting: deque[tuple[Message, bool]] = field(default_factory=deque)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, message: Message, redelivered: bool = False) -> None:
        if redelivered:
            self.waiting.appendleft((message, True))
        else:
            self.waiting.append((message, False))
        self.arrived.set()

    async def take(self) -> tuple[Message, bool]:
        while not self.waiting:
            self.arrived.clear()
            await self.arrived.wait()
        return self.waiting.popleft()


@dataclass(slots=True)
class _Delivery:
    message: Message
    redelivered: bool
    open: bool = True

    async def ack(self) -> None:
        self.open = False


class _Subscription:
    """Takes deliveries from its queue and runs at most `prefetch` of them at a time."""

    def __init__(self, queue: _Queue, on_delivery: OnDelivery, prefetch: int) -> None:
        self._queue = queue
        self._on_delivery = on_delivery
        self._slots = asyncio.Semaphore(prefetch)
        self._pump: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def resume(self) -> None:
        if self._pump is None:
            self._pump = asyncio.create_task(self._take())

    async def pause(self) -> None:
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def close(self) -> None:
        await self.pause()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _take(self) -> None:
        while True:
            await self._slots.acquire()
            try:
                message, redelivered = await self._queue.take()
            except BaseException:
                self._slots.release()
                raise
            delivery = _Delivery(message, redelivered)
            task = asyncio.create_task(self._hand_over(delivery))
            self._running.add(task)
            # Not in the task itself: one that is cancelled before its first step runs nothing.
            task.add_done_callback(functools.partial(self._let_go, delivery))

    async def _hand_over(self, delivery: _Delivery) -> None:
        try:
            await self._on_delivery(delivery)
        except Exception:
            log.exception("a delivery handler raised")
        if delivery.open:
            await asyncio.sleep(AGAIN)

    def _let_go(self, delivery: _Delivery, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._slots.release()
        if delivery.open:
            self._queue.put(delivery.message, redelivered=True)


class MemoryBus:
    """See `shared.bus.port.Bus`."""

    system = "feedback_loop"

    def __init__(self, topology: Topology | None = None) -> None:
        self.topology = topology or Topology()
        self.dead: list[tuple[str, Message, str]] = []
        """Dead letters: consumer, message, reason."""
        self._queues: dict[str, _Queue] = {}
        self._subscriptions: list[_Subscription] = []
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._ids = itertools.count()
        self._open = False

    async def connect(self) -> None:
        self._open = True

    async def close(self) -> None:
        self._open = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await asyncio.gather(*(subscription.close() for subscription in self._subscriptions))
        self._subscriptions.clear()

    def trouble(self) -> str | None:
        return None if self._open else "the in-process bus is not running"

    async def publish(self, message: Message) -> None:
        self._require_open()
        bound = [queue for queue in self._queues.values() if message.routing_key in queue.types]
        if not bound:
            raise Unroutable(f"no consumer takes {message.routing_key!r}")
        for queue in bound:
            queue.put(message)

    async def send(self, consumer: str, message: Message, delay: float = 0) -> None:
        self._require_open()
        queue = self._queues.get(consumer)
        if queue is None:
            raise Unroutable(f"there is no consumer {consumer!r}")
        if delay <= 0:
            queue.put(message)
            return
        key = next(self._ids)

        def due() -> None:
            del self._timers[key]
            queue.put(message)

        self._timers[key] = asyncio.get_running_loop().call_later(self.topology.rung(delay), due)

    async def bury(self, consumer: str, message: Message, reason: str) -> None:
        self._require_open()
        self.dead.append((consumer, with_headers(message, x_reason=reason), reason))

    async def subscribe(
        self, consumer: str, types: Sequence[str], on_delivery: OnDelivery, prefetch: int
    ) -> _Subscription:
        self._require_open()
        queue = self._queues.setdefault(consumer, _Queue())
        queue.types.update(types)
        subscription = _Subscription(queue, on_delivery, prefetch)
        self._subscriptions.append(subscription)
        await subscription.resume()
        return subscription

    def _require_open(self) -> None:
        if not self._open:
            raise BusError("the in-process bus is not running")
