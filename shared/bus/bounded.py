"""Operations on RabbitMQ, bounded in time, whose failures have one type."""

from __future__ import annotations

import asyncio
from types import TracebackType

import aio_pika
import aiormq

from shared.bus.port import BusError, Unroutable

__all__ = ["TIMEOUT", "Bounded"]

TIMEOUT = 4.0
"""Seconds for one operation, reconnecting included: the trigger must answer within five."""
_FAILURES = (
    aiormq.exceptions.AMQPError,
    aio_pika.exceptions.AMQPException,
    OSError,
    RuntimeError,
    asyncio.InvalidStateError,
)


class Bounded:
    """Bounds an operation in time and gives its failures one type.

    aio-pika's own `timeout` does not bound the wait for a reconnect. A class, for every event has
    one, and as a generator it would cost twice as much.
    """

    __slots__ = ("_limit", "_timeout", "_what")

    def __init__(self, what: str, limit: float = TIMEOUT) -> None:
        self._what = what
        self._limit = limit
        self._timeout = asyncio.timeout(limit)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise BusError(f"RabbitMQ: cannot {self._what} within {self._limit:g} s") from None
        if error is None:
            return
        if isinstance(error, aio_pika.exceptions.PublishError):
            raise Unroutable(f"RabbitMQ has no queue for this message: {error}") from None
        if isinstance(error, _FAILURES):
            raise BusError(f"RabbitMQ: cannot {self._what}: {type(error).__name__}: {error}") from error
