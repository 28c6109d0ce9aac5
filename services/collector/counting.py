"""Votes are counted while they come, so that the day's evaluation finds the day counted.

With the first vote that comes in a new quarter of an hour, what the quarters before have is counted
(`shared/postgres/folding.py`), beside the votes and not in their way. What is not: that anything is counted
where no vote comes. Idle, nothing wakes the database, and the next evaluation does it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from contextvars import Context

from shared.postgres.database import Database
from shared.postgres.folding import QUARTER, fold

__all__ = ["Counting"]

log = logging.getLogger(__name__)


class Counting:
    """Counts the votes of the apps that it is told of. One per process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._quarter = time.time() // QUARTER
        self._voted: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def after(self, apps: Iterable[str]) -> None:
        """Votes of these apps have been written. Returns at once."""
        self._voted.update(apps)
        quarter = time.time() // QUARTER
        if quarter == self._quarter or (self._task is not None and not self._task.done()):
            return
        self._quarter = quarter
        voted, self._voted = self._voted, set()
        self._task = asyncio.create_task(self._count(voted), context=Context())

    async def close(self) -> None:
        """Stop; what is not counted is counted later."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _count(self, apps: Iterable[str]) -> None:
        try:
            for app in apps:
                await fold(self._database, app)
        except Exception as error:  # whatever it is, votes are taken all the same
            log.warning("votes are counted later: %s", error)
