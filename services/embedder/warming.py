"""After a start, what a first search would wait for is loaded beside everything else: the lexical index of
apps that were searched lately, and the model where it runs in this process.

It asks the database once per start, when that is awake anyway, and never again. A process whose apps
nobody searches loads nothing, so it stays as small as it was. Apps count as searched by searches with a
`conversation_id`, as others are not remembered. Where it fails, the first search loads what it needs.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from shared.runtime import Kernel

if TYPE_CHECKING:  # with it comes numpy
    from services.embedder.search import Searcher

__all__ = ["SEARCHED_LATELY", "Warming"]

log = logging.getLogger(__name__)

PAUSE = 3.0
"""Seconds after the start: whoever woke the process is served first."""

SEARCHED_LATELY = (
    "select distinct app from (select app from feedback_loop.search_log"
    " where searched_at > now() - interval '7 days' order by searched_at desc limit 1000) latest order by app"
)


class Warming:
    """Warms the process's searcher once.

    Args:
        searcher: gives it; with the first call comes what is slow to import.
    """

    def __init__(self, kernel: Kernel, searcher: Callable[[], Searcher]) -> None:
        self._kernel = kernel
        self._searcher = searcher
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            await self._kernel.ready.wait()
            await asyncio.sleep(PAUSE)
            async with self._kernel.database.connection() as connection:
                apps = [row["app"] for row in await connection.fetch(SEARCHED_LATELY)]
            if apps:
                # In a thread: whoever asks meanwhile does not wait for the import.
                await asyncio.to_thread(importlib.import_module, "services.embedder.search")
            for app in apps:
                if await self._searcher().warm(app):
                    log.info("ready to search %s", app)
        except Exception as error:
            log.info("not ready to search yet, the first search will load what it needs: %s", error)
