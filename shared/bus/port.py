"""The bus: the port that the router speaks, whatever carries the messages.

Two adapters mean the same by it: `rabbit` (RabbitMQ) and `memory` (one process). One contract
suite, `tests/contract/test_bus.py`, runs on both.

Guaranteed: at least once to every consumer whose queue is bound when `publish` returns; competing
subscriptions of one consumer share its queue. Not guaranteed: order, and exactly once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from shared.bus.envelope import Message

__all__ = [
    "AGAIN",
    "RELAYED",
    "Bus",
    "BusError",
    "Delivery",
    "Topology",
    "Unroutable",
    "with_headers",
]

RELAYED = "x-relayed"
"""Own header: the relay sent this message again."""

AGAIN = 1.0
"""Seconds before what a handler left unacknowledged comes again, at the earliest."""


class BusError(Exception):
    """The bus did not take the message, or cannot be reached."""


class Unroutable(BusError):
    """No queue is bound for this message: nobody would ever see it."""


@dataclass(frozen=True, slots=True)
class Topology:
    """What exists on the broker, as data: one exchange, a queue per consumer, one retry queue per
    delay, one dead-letter queue.
    """

    exchange: str = "feedback-loop"
    queue_type: str = "quorum"
    ladder: tuple[float, ...] = (1, 5, 30, 120, 600)
    """Delays between attempts, in seconds; one attempt more than there are rungs."""

    @property
    def dead(self) -> str:
        return f"{self.exchange}.dead"

    def queue(self, consumer: str) -> str:
        return f"{self.exchange}.{consumer}"

    def retry(self, delay: float) -> str:
        return f"{self.exchange}.retry.{round(delay * 1000)}ms"

    def rung(self, after: float) -> float:
        """The shortest delay of the ladder that is not shorter than `after` (else the longest)."""
        return next((delay for delay in self.ladder if delay >= after), self.ladder[-1])


class Delivery(Protocol):
    """One message in a consumer's hands; unacknowledged, it comes again."""

    @property
    def message(self) -> Message: ...
    @property
    def redelivered(self) -> bool:
        """An earlier delivery of it was not acknowledged."""
        ...

    async def ack(self) -> None: ...


OnDelivery = Callable[[Delivery], Awaitable[None]]


class Subscription(Protocol):
    """One consumer's flow of deliveries."""

    async def pause(self) -> None:
        """Take no further deliveries; what is in flight stays in flight."""
        ...

    async def resume(self) -> None: ...


class Bus(Protocol):
    """Every method raises `BusError` when the bus cannot take it within its time limit."""

    topology: Topology
    system: str
    """What carries the messages, as OpenTelemetry names it."""

    async def connect(self) -> None: ...

    async def close(self) -> None:
        """Give back what is unacknowledged and let go of the connection."""
        ...

    def trouble(self) -> str | None:
        """Why the bus is not ready, or None when it is."""
        ...

    async def publish(self, message: Message) -> None:
        """To every consumer bound to the routing key; returns when it is safe.

        Raises:
            Unroutable: no queue is bound to the routing key.
        """
        ...

    async def send(self, consumer: str, message: Message, delay: float = 0) -> None:
        """To one consumer's queue, at once or after the rung not shorter than `delay` seconds."""
        ...

    async def bury(self, consumer: str, message: Message, reason: str) -> None:
        """To the dead-letter queue, with the reason."""
        ...

    async def subscribe(
        self, consumer: str, types: Sequence[str], on_delivery: OnDelivery, prefetch: int
    ) -> Subscription:
        """Declare and bind the consumer's queue, then consume: at most `prefetch` at a time.

        What `on_delivery` leaves unacknowledged, also by raising, comes again after `AGAIN`; what a
        cancelled one leaves does so when the bus closes, at the latest.
        """
        ...


def with_headers(message: Message, **headers: str) -> Message:
    """The message with own headers set (`x_relayed` is the header `x-relayed`)."""
    added: Mapping[str, str] = {name.replace("_", "-"): value for name, value in headers.items()}
    return replace(message, headers={**message.headers, **added})
