"""The unit of work: one transaction that holds a handler's effect, its inbox row and its events.

As a context it commits when the block ends and rolls back when the block raises. Where the handler opened no
transaction, the inbox row and the events are one statement, which is one by itself, and is shared with other
deliveries that end at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Literal, Self

from shared.bus.envelope import Envelope
from shared.delivery.arrivals import Arrival, Arrivals, Duplicate
from shared.delivery.outbox import INSERT, columns
from shared.postgres.database import Connection, Database, Isolation

__all__ = ["Duplicate", "UnitOfWork"]


_ARRIVED = """
insert into feedback_loop.inbox (consumer, event_id, type, correlation, state, reason)
values ($1, $2, $3, $4, $5, $6) on conflict do nothing returning true
"""


class UnitOfWork:
    """Opens its transaction when first asked, and then inserts the inbox row before anything else:
    of two deliveries of one event, the second waits there for the first, and loses.

    Attributes:
        envelope: the event being handled, with its id, correlation and cause.
        consumer: who handles it.
    """

    def __init__(
        self, database: Database, envelope: Envelope, consumer: str, arrivals: Arrivals | None = None
    ) -> None:
        self.envelope = envelope
        self.consumer = consumer
        self._database = database
        self._arrivals = arrivals or Arrivals(database)
        self._transaction: AbstractAsyncContextManager[Connection] | None = None
        self._connection: Connection | None = None
        self._following: list[Envelope] = []

    async def begin(self, isolation: Isolation = "read_committed") -> Connection:
        """The transaction's connection; opened on the first call.

        Raises:
            Duplicate: another delivery of this event has committed. Nothing was written.
        """
        return await self._open("processed", None, isolation)

    async def begin_dead(self, reason: str) -> Connection:
        """Like `begin`, for an event that is given up."""
        return await self._open("dead", reason, "read_committed")

    def emit(self, following: Sequence[Envelope]) -> None:
        """Write these events to the outbox, in the same transaction, when the block ends."""
        self._following += following

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                await self._finish()
            except BaseException as failed:
                await self._end(type(failed), failed, failed.__traceback__)
                raise
        await self._end(kind, error, trace)

    async def _end(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._transaction is not None:
            await self._transaction.__aexit__(kind, error, trace)

    async def _finish(self) -> None:
        """The inbox row is written also where the handler wrote nothing."""
        if self._connection is None:
            await self._arrivals.add(Arrival(self.consumer, self.envelope, self._following))
        elif self._following:
            await self._connection.execute(INSERT.format(only=""), *columns(self._following), False)

    async def _open(
        self, state: Literal["processed", "dead"], reason: str | None, isolation: Isolation
    ) -> Connection:
        if self._connection is None:
            transaction = self._database.transaction(isolation)
            connection = self._connection = await transaction.__aenter__()
            self._transaction = transaction
            inserted = await connection.fetchval(
                _ARRIVED,
                self.consumer,
                self.envelope.id,
                self.envelope.type,
                self.envelope.correlation,
                state,
                reason,
            )
            if not inserted:
                raise Duplicate
        return self._connection
