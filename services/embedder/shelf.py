"""What a process keeps in memory of the generations it searched last: the lexical index, and what was
learned.

Both are made when a generation is first searched. What a kept index knows is not read again, so a
promotion costs the new chunks only.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from dataclasses import dataclass

from services.embedder import learned
from services.embedder.learning.library import Learned
from services.embedder.lexical import LexicalIndex
from shared.database import Database

__all__ = ["Shelf", "Volume"]

_KEPT = 2
"""Generations per app: while one is promoted, searches of both are under way."""


@dataclass(frozen=True, slots=True)
class Volume:
    """One generation's share of memory."""

    index: LexicalIndex
    learned: Learned


class Shelf:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: defaultdict[str, OrderedDict[int, Volume]] = defaultdict(OrderedDict)
        self._loading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def of(self, app: str, generation: int) -> Volume | None:
        """What is kept of a promoted generation; None where it must be loaded first."""
        return self._kept[app].get(generation)

    async def load(self, app: str, generation: int) -> None:
        """Take a promoted generation into memory; concurrent calls do it once."""
        async with self._loading[app]:
            kept = self._kept[app]
            if generation in kept:
                return
            index = await self.index(app, generation)
            async with self._database.connection() as connection:
                kept[generation] = Volume(index, await learned.read(connection, generation))
            while len(kept) > _KEPT:
                kept.popitem(last=False)

    async def index(self, app: str, generation: int) -> LexicalIndex:
        """The lexical index of any generation, made from the latest kept one."""
        kept = self._kept[app]
        if generation in kept:
            return kept[generation].index
        latest = next(reversed(kept.values())).index if kept else LexicalIndex()
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "select distinct chunk_hash from feedback_loop.generation_chunk where generation = $1",
                generation,
            )
            ids = [row["chunk_hash"] for row in rows]
            texts = await connection.fetch(
                "select hash, heading || E'\\n' || text as text from feedback_loop.chunk"
                " where hash = any($1::text[])",
                latest.missing(ids),
            )
        return await asyncio.to_thread(latest.renewed, ids, {row["hash"]: row["text"] for row in texts})
