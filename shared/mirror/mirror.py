"""Votes, mirrored to another system: one that people look at already.

What is guaranteed: each change of a vote that commits while mirroring is on (migration 024) arrives there in
the end, retractions too, also when processes die in between; sent again it changes nothing, for a score's id
is stored before it is first sent. Nobody who votes waits for it. One process at a time sends (a lease), so an
old state never follows a new one. What is not: how soon, nor that a vote that the other side refuses for good
gets there (the log tells).

It is looked at when a process starts, with each evaluation and shortly after votes; where the other side is
away, a few times more, ever later. Idle, nothing polls.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from shared.mirror import marks
from shared.mirror.langfuse import Langfuse, Score, SinkError
from shared.postgres.database import Database, is_unavailable
from shared.settings import Settings

__all__ = ["Mirror", "Sink", "Timing", "make_mirror", "make_sink"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds.

    Attributes:
        gather: after a vote, so that what follows at once goes along.
        settle: from the last sending of a score to its deletion. Langfuse writes what it takes some 15 s
            later (`LANGFUSE_INGESTION_QUEUE_DELAY_MS`), and deletes at once.
        pauses: before each further attempt where it fails; then it rests until there is another reason.
    """

    gather: float = 2.0
    settle: float = 60.0
    pauses: tuple[float, ...] = (2, 10, 60, 300)


class Sink(Protocol):
    """Where votes are mirrored to."""

    @property
    def name(self) -> str: ...
    async def send(self, scores: Sequence[Score]) -> set[uuid.UUID]: ...
    async def delete(self, id: uuid.UUID) -> None: ...
    async def close(self) -> None: ...


class Mirror:
    """Sends what has changed. One per process.

    Args:
        sink: None: nothing is mirrored.
        comments: whether what people wrote goes there too.
    """

    def __init__(
        self,
        database: Database,
        sink: Sink | None,
        comments: bool = True,
        timing: Timing | None = None,
    ) -> None:
        self._database, self._sink, self._comments = database, sink, comments
        self._timing = timing or Timing()
        self._task: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._rested_at = 0.0

    async def start(self) -> None:
        """Say where votes go from now on, and send what is left. Failing is not fatal."""
        try:
            async with self._database.transaction() as connection:
                await marks.declare(connection, self._sink.name if self._sink else None)
        except Exception:
            log.exception("where votes are mirrored to could not be noted")
            return
        self.soon()

    def soon(self) -> None:
        """Send what has changed, in a moment. Returns at once; costs nothing where nothing is mirrored."""
        if self._sink is None:
            return
        if asyncio.get_running_loop().time() < self._rested_at:
            return
        self._asked.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Stop; what is left is sent at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._sink is not None:
            await self._sink.close()

    async def drain(self) -> float | None:
        """Send what has changed. Returns None when nothing is left, else the seconds to wait for the rest.

        Raises:
            SinkError: the other side does not take it.
        """
        assert self._sink is not None
        sink, lease, trouble = self._sink, uuid.uuid4(), None
        wait = self._timing.settle
        try:
            while True:
                async with self._database.transaction() as connection:
                    origin = await marks.hold(connection, lease, sink.name)
                    plan = await marks.plan(connection, origin, self._timing.settle, self._comments)
                if not plan.due:
                    break
                await self._deliver(sink, plan, lease)
        except marks.Overtaken:
            wait = self._timing.gather
        except SinkError as error:
            trouble = str(error)
            raise
        finally:
            async with self._database.connection() as connection:
                await marks.release(connection, lease, trouble)
        async with self._database.connection() as connection:
            return wait if await marks.left(connection, sink.name) else None

    async def _work(self) -> None:
        failures = 0
        while self._asked.is_set():
            await asyncio.sleep(self._timing.gather)
            self._asked.clear()
            try:
                wait = await self.drain()
                failures = 0
            except Exception as error:
                wait = self._after(error, failures)
                failures += 1
            if wait is None:
                continue
            if failures:
                await asyncio.sleep(wait)
            else:  # whoever votes meanwhile need not wait for what settles
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._asked.wait(), wait)
            self._asked.set()

    def _after(self, error: Exception, failures: int) -> float | None:
        """Seconds until another attempt; None: not before there is another reason, and some rest."""
        pauses, asked = self._timing.pauses, 0.0
        last = failures >= len(pauses)
        if isinstance(error, SinkError):
            last = last or not error.passing
            asked = error.retry_after or 0.0
            when = "with the next vote, evaluation or start" if last else "soon"
            log.warning("votes are not mirrored: %s; again %s", error, when)
        elif not is_unavailable(error):
            log.error("votes are not mirrored", exc_info=error)
            last = True
        if last:
            self._rested_at = asyncio.get_running_loop().time() + pauses[-1]
            return None
        return min(max(pauses[failures], asked), max(pauses))

    async def _deliver(self, sink: Sink, plan: marks.Plan, lease: uuid.UUID) -> None:
        """Send a batch; what has arrived is no longer due."""
        if plan.scores:
            for id in await sink.send(list(plan.scores.values())):
                log.warning("the vote mirrored as %s is refused for good (HTTP 400)", id)
        async with self._database.connection() as connection:
            await marks.arrived(connection, plan, plan.due.keys() - plan.gone.keys())
        for vote, score in plan.gone.items():
            async with self._database.transaction() as connection:
                await marks.hold(connection, lease, sink.name)
            await sink.delete(score)
            async with self._database.transaction() as connection:
                await marks.deleted(connection, plan, [vote])


def make_sink(settings: Settings) -> Langfuse:
    """Where the settings say that votes go; only where they say so."""
    assert settings.mirror_public_key is not None and settings.mirror_secret_key is not None
    return Langfuse(
        settings.mirror_url,
        settings.mirror_public_key.get_secret_value(),
        settings.mirror_secret_key.get_secret_value(),
    )


def make_mirror(settings: Settings, database: Database) -> Mirror:
    """The mirror that the settings name."""
    sink = make_sink(settings) if settings.mirror == "langfuse" else None
    return Mirror(database, sink, settings.mirror_comments)
