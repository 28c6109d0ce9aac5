"""How votes and conversations come into the ledger.

What is guaranteed: whatever returns is committed. Votes that come one by one share transactions
(`shared/postgres/gathering.py`), and none fails for another's sake; a batch is written as a whole or not at
all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import TypeVar

from services.collector import ledger
from services.collector.bodies import Conversation
from services.collector.counting import Counting
from services.collector.votes import Retraction, Vote, fold
from shared.postgres.database import Connection, despite_conflicts
from shared.postgres.gathering import Gathering
from shared.runtime import Kernel
from shared.web import http

__all__ = ["FromTheFuture", "Intake", "NoVote"]

WAIT = 0.5
"""Seconds a request waits while the process still connects; its sender can repeat it."""
ATTEMPTS = 4

T = TypeVar("T")


class FromTheFuture(Exception):
    """The item at `position` has a time more than five minutes ahead of the database's clock."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class NoVote(Exception):
    """There is no vote that the addition at `position` could be made to."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class Intake:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        # No more at once: while these are written there are others to read and to answer.
        self._singles = Gathering(self._write_singles, lambda item: item.key, most=32)
        self._counting = Counting(kernel.database)

    async def close(self) -> None:
        """Stop what is done beside the requests."""
        await self._counting.close()

    async def take(self, item: Vote | Retraction) -> bool:
        """Write one vote, addition or retraction. Returns whether a vote was retracted.

        Raises:
            FromTheFuture, NoVote: it cannot be written.
            NotReady: the process still connects.
        """
        await self._connected()
        retracted = await self._singles.add(item)
        self._kernel.metrics.votes.add(_kind(item))
        self._written((item.key.app,))
        return retracted

    async def take_all(self, items: Sequence[Vote | Retraction]) -> None:
        """Write these, one after the other, all or none.

        Raises: as `take`, for the first that cannot be written.
        """

        async def write(connection: Connection) -> None:
            await _none_late(connection, [item.created_at for item in items])
            applied = await ledger.apply(connection, fold(items))
            if applied.missing:
                raise NoVote(min(applied.missing))

        await self._connected()
        await self._in_transaction(write)
        for kind, number in Counter(map(_kind, items)).items():
            self._kernel.metrics.votes.add(kind, by=number)
        self._written({item.key.app for item in items})

    async def record(self, answers: Sequence[Conversation]) -> None:
        """Record answers, all or none.

        Raises: as `take`, for the first that cannot be written.
        """

        async def write(connection: Connection) -> None:
            await _none_late(connection, [answer.answered_at for answer in answers])
            await ledger.record_conversations(connection, answers)

        await self._connected()
        await self._in_transaction(write)

    async def _write_singles(self, items: Sequence[Vote | Retraction]) -> list[bool | Exception]:
        """Items of different keys, each on its own, in one transaction."""

        async def write(connection: Connection) -> list[bool | Exception]:
            late = await ledger.from_the_future(connection, [item.created_at for item in items])
            written = [item for position, item in enumerate(items) if position not in late]
            applied = await ledger.apply(connection, fold(written))
            unfounded = {written[position].key for position in applied.missing}
            return [
                FromTheFuture(0)
                if position in late
                else NoVote(0)
                if item.key in unfounded
                else item.key in applied.retracted
                for position, item in enumerate(items)
            ]

        return await self._in_transaction(write, alone=ledger.is_one_statement(items))

    def _written(self, apps: Iterable[str]) -> None:
        self._counting.after(apps)
        self._kernel.mirror.soon()

    async def _connected(self) -> None:
        if self._kernel.ready.is_set():
            return
        try:
            async with asyncio.timeout(WAIT):
                await self._kernel.ready.wait()
        except TimeoutError:
            raise http.NotReady(self._kernel.waiting_for) from None

    async def _in_transaction(self, write: Callable[[Connection], Awaitable[T]], *, alone: bool = False) -> T:
        """What `write` returns, committed; `alone`: its one statement is a transaction in itself."""
        database = self._kernel.database

        async def once() -> T:
            async with database.connection() if alone else database.transaction() as connection:
                return await write(connection)

        return await despite_conflicts(once, ATTEMPTS)


_KINDS = {1: "like", 0: "dislike", None: "addition"}


def _kind(item: Vote | Retraction) -> str:
    """As the metrics name it."""
    return "retracted" if isinstance(item, Retraction) else _KINDS[item.value]


async def _none_late(connection: Connection, times: Sequence[datetime | None]) -> None:
    late = await ledger.from_the_future(connection, times)
    if late:
        raise FromTheFuture(min(late))
