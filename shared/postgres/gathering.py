"""Group commit: what is asked for at the same time is written together.

The first item goes at once; what arrives while it is being written goes together in the next write. So
nothing waits for company, and the busier it gets the fewer commits each item costs.

What is guaranteed: `add` returns when a write that contained the item has returned; one write at a time;
items with one key are never in one write, and go in the order in which they were added; an item that makes
a write fail fails alone. What is not: any order between keys, nor that an item whose sender has gone is
not written, once it was taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, MutableSequence, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from shared.postgres.database import DatabaseUnavailable, is_unavailable

__all__ = ["Gathering", "share"]

T = TypeVar("T")
Item = TypeVar("Item")
Done = TypeVar("Done")


class Gathering(Generic[Item, Done]):
    """Gathers items for `write`.

    Args:
        write: makes items durable, all of them or none; returns what became of each, in their order, an
            exception where an item is refused.
        key: what an item is about.
        most: items in one write.
        room: items that may wait for the next.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Done | Exception]]],
        key: Callable[[Item], Hashable],
        most: int = 256,
        room: int = 10_000,
    ) -> None:
        self._write = write
        self._key = key
        self._most = most
        self._room = room
        self._waiting: deque[tuple[Item, asyncio.Future[Done]]] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def add(self, item: Item) -> Done:
        """What became of the item.

        Raises:
            DatabaseUnavailable: too many wait already; or as `write` does, which then may have happened.
        """
        if len(self._waiting) >= self._room:
            raise DatabaseUnavailable(f"{self._room} wait for it already")
        done: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._writer is None:
            self._writer = asyncio.create_task(self._work(), context=Context())
        return await done

    async def _work(self) -> None:
        try:
            while True:
                await asyncio.sleep(0)  # what has arrived already comes along
                group = self._next()
                if not group:
                    return
                results = await self._results([item for item, _ in group])
                for (_, done), result in zip(group, results, strict=True):
                    if done.done():  # its sender has gone
                        continue
                    if isinstance(result, Exception):
                        done.set_exception(result)
                    else:
                        done.set_result(result)
        finally:
            self._writer = None

    def _next(self) -> list[tuple[Item, asyncio.Future[Done]]]:
        """The next to be written, without those whose senders have gone."""
        while self._waiting:
            group = share(self._waiting, lambda entry: self._key(entry[0]), self._most)
            if awaited := [entry for entry in group if not entry[1].done()]:
                return awaited
        return []

    async def _results(self, items: Sequence[Item]) -> Sequence[Done | Exception]:
        try:
            return await self._write(items)
        except Exception as error:
            if len(items) == 1 or is_unavailable(error):
                return [error] * len(items)
        return [result for item in items for result in await self._results([item])]


def share(waiting: deque[T], key: Callable[[T], Hashable], most: int) -> list[T]:
    """Take the first of each key out of `waiting`, `most` at most; the others stay in their order."""
    group: list[T] = []
    later: MutableSequence[T] = []
    keys: set[Hashable] = set()
    while waiting and len(group) < most and len(later) < most:  # one key may be all there is
        each = waiting.popleft()
        if (about := key(each)) in keys:
            later.append(each)
        else:
            keys.add(about)
            group.append(each)
    waiting.extendleft(reversed(later))
    return group
