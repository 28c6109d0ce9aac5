"""What a process keeps in memory of the generations it searched last: the lexical index, and what was
learned.

Both are made when a generation is first searched; where the app has been searched before, the index is
made just before the promotion, by whoever promotes. What a kept index knows is not read again, so a
promotion costs the new chunks only.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from dataclasses import dataclass

from services.embedder import learned
from services.embedder.learning.library import Learned
from services.embedder.lexical import LexicalIndex
from shared.postgres.database import Database

__all__ = ["Shelf", "Volume"]

_KEPT = 2
"""Generations per app: while one is promoted, searches of both are under way."""

_PART = 8_192
"""Texts that are read at once: 8 MB or so."""


@dataclass(frozen=True, slots=True)
class Volume:
    """One generation's share of memory."""

    index: LexicalIndex
    learned: Learned


class Shelf:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: defaultdict[str, OrderedDict[int, Volume]] = defaultdict(OrderedDict)
        self._ahead: dict[str, tuple[int, LexicalIndex]] = {}
        self._loading: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._making: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def of(self, app: str, generation: int) -> Volume | None:
        """What is kept of a promoted generation; None where it must be loaded first."""
        kept = self._kept[app]
        if generation in kept:
            kept.move_to_end(generation)
        return kept.get(generation)

    def last(self, app: str) -> int | None:
        """The generation that was searched last, and is still kept."""
        return next(reversed(self._kept[app]), None)

    async def load(self, app: str, generation: int, patience: float | None = None) -> bool:
        """Take a promoted generation into memory; concurrent calls do it once.

        Returns:
            Whether that was done within `patience` seconds; if not, it goes on.
        """
        key = app, generation
        if key not in self._loading:
            self._loading[key] = asyncio.create_task(self._load(app, generation))
            self._loading[key].add_done_callback(lambda task: self._loaded(key, task))
        task = self._loading[key]
        await asyncio.wait([task], timeout=patience)
        if task.done():
            task.result()
        return task.done()

    async def index(self, app: str, generation: int) -> LexicalIndex:
        """The lexical index of any generation, made from the one that was searched last. It is kept for
        the generation's promotion, if the app was searched at all."""
        async with self._making[app]:
            kept = self._kept[app]
            if generation in kept:
                return kept[generation].index
            ahead, index = self._ahead.get(app, (None, LexicalIndex()))
            if ahead != generation:
                last = self.last(app)
                index = await self._made(generation, kept[last].index if last is not None else index)
                if last is not None:
                    self._ahead[app] = generation, index
            return index

    async def prepare(self, app: str, generation: int) -> None:
        """Make the index of a generation that may be promoted soon, if the app was searched at all."""
        if self._kept[app]:
            await self.index(app, generation)

    async def _load(self, app: str, generation: int) -> None:
        index = await self.index(app, generation)
        async with self._database.connection() as connection:
            volume = Volume(index, await learned.read(connection, generation))
        kept = self._kept[app]
        kept[generation] = volume
        while len(kept) > _KEPT:
            kept.popitem(last=False)
        self._ahead.pop(app, None)

    def _loaded(self, key: tuple[str, int], task: asyncio.Task[None]) -> None:
        del self._loading[key]
        if not task.cancelled():
            task.exception()  # whoever still waits is told; else the next search tries again

    async def _made(self, generation: int, last: LexicalIndex) -> LexicalIndex:
        async with self._database.connection() as connection:
            # One array: a hundred thousand rows would keep the event loop busy for 0.1 s.
            ids = await connection.fetchval(
                "select array(select distinct chunk_hash from feedback_loop.generation_chunk"
                " where generation = $1)",
                generation,
            )
        index, missing = await asyncio.to_thread(last.renewal, ids)
        for start in range(0, len(missing), _PART):
            async with self._database.connection() as connection:
                rows = await connection.fetch(
                    "select hash, heading || E'\\n' || text as text from feedback_loop.chunk"
                    " where hash = any($1::text[])",
                    missing[start : start + _PART],
                )
            index = await asyncio.to_thread(index.extended, {row["hash"]: row["text"] for row in rows})
        return index
