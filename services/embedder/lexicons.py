"""The lexical indexes that a process keeps: one per app, of the generations searched last.

An index is made from the chunks' texts when a generation is first searched; what a kept index knows
is not read again, so a promotion costs the new chunks only.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict

from services.embedder.lexical import LexicalIndex
from shared.database import Database

__all__ = ["Lexicons"]

_KEPT = 2
"""Generations per app: while one is promoted, searches of both are under way."""


class Lexicons:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: defaultdict[str, OrderedDict[int, LexicalIndex]] = defaultdict(OrderedDict)
        self._loading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def of(self, app: str, generation: int) -> LexicalIndex | None:
        """The index of a generation; None where it must be loaded first."""
        return self._kept[app].get(generation)

    async def load(self, app: str, generation: int) -> None:
        """Make the index of a generation; concurrent calls make it once."""
        async with self._loading[app]:
            kept = self._kept[app]
            if generation in kept:
                return
            latest = next(reversed(kept.values())) if kept else LexicalIndex()
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
            by_hash = {row["hash"]: row["text"] for row in texts}
            kept[generation] = await asyncio.to_thread(latest.renewed, ids, by_hash)
            while len(kept) > _KEPT:
                kept.popitem(last=False)
