"""What RabbitMQ delivers, and what becomes of it: acknowledged, or given back."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context

from aio_pika.abc import AbstractIncomingMessage
from aiormq import spec
from aiormq.abc import AbstractChannel, DeliveredMessage

from shared.bus.bounded import Bounded
from shared.bus.envelope import Message
from shared.bus.port import AGAIN, RELAYED, BusError

__all__ = ["Acknowledgements", "RabbitDelivery"]

log = logging.getLogger(__name__)

_MOST_HEADERS = 64 * 1024
"""Bytes of headers that are passed on as they came. With what is added they must fit into a frame (128 KiB):
else the broker ends the connection, and sends the message again."""
_LONGEST_HEADER = 1000
_ATTRIBUTES = (
    *("ce-specversion", "ce-id", "ce-type", "ce-source", "ce-time", "ce-correlationid", "ce-causationid"),
    *("traceparent", RELAYED),
)
_BROKER_HEADERS = ("x-death", "x-first-death", "x-last-death", "x-delivery", "x-acquired")


_MOST_SETTLED = 10_000
"""Deliveries that may be settled while an earlier one is open."""


class Acknowledgements:
    """What is acknowledged on one channel.

    Guaranteed: nothing is acknowledged but what was added. What is added at the same moment goes as one frame
    as far as nothing that came before it is open: "all up to this one" costs no more than one does.

    Args:
        channel: the broker counts what it delivers there: 1, 2, 3 …
    """

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self._first_open = 1
        self._settled: set[int] = set()  # of those after it
        self._due: set[int] = set()
        self._sending: asyncio.Task[None] | None = None

    def add(self, tag: int) -> None:
        """Acknowledge it, in this turn of the event loop."""
        self._due.add(tag)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send(), context=Context())

    async def give_back(self, tag: int) -> None:
        """Return it to its queue, unless it is too late for that."""
        try:
            async with Bounded("give back"):
                await self.channel.basic_nack(tag, requeue=True)
        except BusError as error:
            log.debug("%s; the broker takes it back when the channel closes", error)
        else:
            self._settled.add(tag)

    async def flush(self) -> None:
        """Returns when what was added is on its way."""
        if self._sending is not None:
            await self._sending

    async def _send(self) -> None:
        try:
            while self._due:
                due, self._due = self._due, set()
                async with Bounded("acknowledge"):
                    await self._acknowledge(due)
        except BusError as error:
            log.debug("%s; what it was for comes again", error)
        finally:
            self._sending = None

    async def _acknowledge(self, due: set[int]) -> None:
        self._settled |= due
        while self._first_open in self._settled:
            self._settled.remove(self._first_open)
            self._first_open += 1
        if len(self._settled) > _MOST_SETTLED:  # one may be open for ever: the library may have dropped it
            self._settled.clear()
            self._first_open = 0
        together = {tag for tag in due if tag < self._first_open}
        if together:
            await self.channel.basic_ack(max(together), multiple=len(together) > 1, wait=False)
        for tag in due - together:
            await self.channel.basic_ack(tag, wait=False)


class RabbitDelivery:
    """See `shared.bus.port.Delivery`."""

    def __init__(
        self,
        incoming: AbstractIncomingMessage | DeliveredMessage,
        properties: AbstractIncomingMessage | spec.Basic.Properties,
        acknowledgements: Acknowledgements,
    ) -> None:
        assert incoming.delivery_tag is not None
        self._tag = incoming.delivery_tag
        self._acknowledgements = acknowledgements
        self._acknowledged = False
        self._headers = properties.headers or {}
        headers = {
            name: str(value.decode(errors="replace") if isinstance(value, bytes | bytearray) else value)
            for name, value in self._headers.items()
            if not name.startswith(_BROKER_HEADERS) and not isinstance(value, list | dict | None)
        }
        headers = _bounded_headers(headers)
        headers["content-type"] = properties.content_type or "application/json"
        if properties.message_id:
            headers.setdefault("ce-id", properties.message_id)
        self.message = Message(incoming.routing_key or "", headers, incoming.body)
        self.redelivered = bool(incoming.redelivered)

    async def ack(self) -> None:
        """It goes to the broker in this turn of the event loop; where it cannot, the message comes again."""
        self._acknowledged = True
        self._acknowledgements.add(self._tag)

    async def give_back(self) -> None:
        """Return it to its queue; a broker that counts returns is given time in between."""
        if self._acknowledged:
            return
        count = self._headers.get("x-delivery-count")
        await asyncio.sleep(min(AGAIN * 2 ** min(count, 10), 60) if isinstance(count, int) else AGAIN)
        await self._acknowledgements.give_back(self._tag)


def _bounded_headers(headers: dict[str, str]) -> dict[str, str]:
    """Headers as they came; where they are too large, what says which event it is, and no more."""
    letters = sum(len(name) + len(text) + 10 for name, text in headers.items())
    if 4 * letters <= _MOST_HEADERS:  # mostly: a letter has four bytes at most
        return headers
    size = sum(len(text.encode("utf-8", "replace")) + 5 for entry in headers.items() for text in entry)
    if size <= _MOST_HEADERS:
        return headers
    return {name: headers[name][:_LONGEST_HEADER] for name in _ATTRIBUTES if name in headers}
