"""The live stream: one reader of Postgres for all open pages of this process.

What is guaranteed: the reader runs while a page is open and not otherwise; every page sees every
step, across a broken connection too (it resumes at the cursor it last saw); after every change to votes
or conversations, `votes` follows, or a `hello`, at which a page reads them anyway; a page that reads too
slowly is cut off rather than buffered for. What is not: that a page sees each step once. Steps have
ids, and pages tell them apart by those. `votes` may come where nothing that the page shows has changed,
and does not come for a transaction that was open for more than a day.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from services.dashboard import facts, sse
from services.dashboard.facts import Horizon, Row
from services.dashboard.sse import Message
from shared.postgres.database import Connection, Database, is_unavailable

__all__ = ["Feed", "Page"]

log = logging.getLogger(__name__)

RUNS = 20
"""Runs in a snapshot."""
BACKLOG = 64
"""Messages a page may lag behind before it is cut off."""
PATIENCE = 8.0
"""Seconds one reading of the database may take."""
LONGEST_PAUSE = 5.0
WELCOME_BACK = sse.text([Message("hello", {"resumed": True})])
GOODBYE = 1.0
"""Seconds that pages get to take their end at shutdown."""


class Page:
    """One open page: what is yet to be written to it.

    Args:
        cursor: where it resumes; None: it knows nothing yet.
        transport: its connection.
        caller: whose it is (`Guard.caller`).
    """

    def __init__(
        self, cursor: int | None, transport: asyncio.WriteTransport | None, caller: str = "unknown"
    ) -> None:
        self.cursor = cursor
        self.caller = caller
        self.greeted = False
        self.troubled = False
        self._transport = transport
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(BACKLOG)

    @property
    def gone(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def send(self, chunk: bytes) -> None:
        if not chunk:
            return
        try:
            self._queue.put_nowait(chunk)
        except asyncio.QueueFull:
            log.info("a page reads too slowly: it is cut off and may resume")
            self.cut()

    def end(self) -> None:
        """Let the page's handler finish; what was not written yet is dropped."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    def cut(self) -> None:
        """End it now, also when its handler is stuck writing."""
        self.end()
        if self._transport is not None:
            self._transport.abort()

    async def chunks(self) -> AsyncIterator[bytes]:
        while (chunk := await self._queue.get()) is not None:
            yield chunk


@dataclass(frozen=True, slots=True)
class _Known:
    """What the pages have been told.

    Attributes:
        horizon: how far the last reading saw.
        seen: ids of the steps told already that the next reading finds again.
        pending: runs that may change without a step (their event published, a hit joined).
        running: builds under way.
    """

    horizon: Horizon
    seen: frozenset[str]
    pending: dict[str, Row]
    running: dict[int, Row]


class Feed:
    """Reads what is new and hands it to every open page.

    Args:
        interval: seconds between two readings.
        heartbeat: seconds between two signs of life.
        most: pages that may be open at once; `each`: of these, of one caller, so that nobody shuts out
            the others.
    """

    def __init__(
        self,
        database: Database,
        *,
        interval: float = 0.3,
        heartbeat: float = 15.0,
        most: int = 100,
        each: int = 50,
    ) -> None:
        self._database = database
        self._interval = interval
        self._heartbeat = heartbeat
        self._most, self._each = most, each
        self._pages: set[Page] = set()
        self._wake = asyncio.Event()
        self._known: _Known | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def polling(self) -> bool:
        """Whether Postgres is being read."""
        return self._task is not None and not self._task.done()

    def join(self, page: Page) -> bool:
        """Add a page; it is greeted at once. False where no more pages are taken."""
        its = sum(other.caller == page.caller for other in self._pages)
        if self._closed or len(self._pages) >= self._most or its >= self._each:
            return False
        self._pages.add(page)
        self._wake.set()
        if not self.polling:
            self._known = None
            self._task = asyncio.create_task(self._run())
        return True

    def leave(self, page: Page) -> None:
        self._pages.discard(page)
        if not self._pages:
            self._wake.set()

    async def close(self) -> None:
        """End every stream, and the reader; takes at most `GOODBYE` seconds."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for page in self._pages:
            page.end()
        if self._pages:
            self._wake.clear()
            await self._sleep(GOODBYE)
        for page in list(self._pages):
            page.cut()

    # --- the reader ---------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        beaten, pause = loop.time(), self._interval
        while self._pages:
            self._wake.clear()
            # Letting go of a connection that hangs may take longer than the patience: say so before.
            alarm = loop.call_later(PATIENCE, self._be_in_trouble, TimeoutError("it takes too long"))
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._read()
                pause = self._interval
            except Exception as error:
                self._be_in_trouble(error)
                pause = min(pause * 2, LONGEST_PAUSE)
            finally:
                alarm.cancel()
            if loop.time() - beaten >= self._heartbeat:
                beaten = loop.time()
                self._beat()
            await self._sleep(pause)
            for page in [page for page in self._pages if page.gone]:
                page.end()

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _read(self) -> None:
        """One look at the database, in one snapshot of it; then the pages hear of it."""
        async with self._database.transaction("repeatable_read") as connection:
            seen = await facts.horizon(connection)
            known, news = await self._news(connection, seen)
            greetings = {}
            for page in [page for page in self._pages if not page.greeted]:
                if page.cursor not in greetings:
                    greetings[page.cursor] = await _greeting(connection, seen, known, page.cursor)
        self._known = known
        self._tell(sse.text(news), greetings)

    async def _news(self, connection: Connection, seen: Horizon) -> tuple[_Known, list[Message]]:
        """What pages that are up to date have not heard, and what is known once they have."""
        known = self._known
        steps = None
        if known is not None:
            most = facts.MOST_STEPS + len(known.seen)
            steps = await facts.steps_since(connection, known.horizon.cursor, seen, most)
        if known is None or steps is None:
            whole = await facts.snapshot(connection, seen, RUNS)
            return _known_from(whole, seen), [_whole(whole, seen)]
        new = [step for step in steps if step["id"] not in known.seen]
        touched = {step["run"] for step in new}
        runs = await facts.runs(connection, touched | known.pending.keys())
        builds = await facts.builds(connection, known.running)
        changed = [run for run in runs if run["id"] in touched or known.pending.get(run["id"]) != run]
        moved = [build for build in builds if known.running.get(build["generation"]) != build]
        news = sse.tell(changed, moved, new, known.horizon.cursor, seen.cursor)
        if await facts.votes_changed(connection, known.horizon):
            news.append(Message("votes", {"at": seen.now.isoformat()}))
        return _known_after(runs, builds, steps, seen), news

    def _tell(self, news: bytes, greetings: Mapping[int | None, bytes]) -> None:
        for page in list(self._pages):
            if page.greeted:
                page.send((WELCOME_BACK if page.troubled else b"") + news)
            elif page.cursor in greetings:
                page.send(greetings[page.cursor])
                page.greeted = True
            else:
                continue  # joined while the database was read
            page.troubled = False

    def _beat(self) -> None:
        """A sign of life, also for proxies; its cursor keeps a quiet page's resume short."""
        cursor = self._known.horizon.cursor if self._known else None
        for page in list(self._pages):
            # A page that has not been greeted yet has its own cursor, which must not be passed over.
            beat = sse.text([Message("beat", {}, cursor if page.greeted else None)])
            page.send(b": still here\n" + beat)

    def _be_in_trouble(self, error: Exception) -> None:
        if is_unavailable(error) or isinstance(error, TimeoutError):
            log.warning("the dashboard cannot read the database: %s: %s", type(error).__name__, error)
        else:
            log.error("the dashboard cannot read the database", exc_info=error)
        for page in [page for page in self._pages if not page.troubled]:
            page.send(sse.text([Message("trouble", {"reason": "the database does not answer"})]))
            page.troubled = True


async def _greeting(connection: Connection, seen: Horizon, known: _Known, cursor: int | None) -> bytes:
    """The first thing a page hears: what is new since its cursor, else a snapshot."""
    steps = await facts.steps_since(connection, cursor, seen) if cursor is not None else None
    if cursor is None or steps is None:
        return sse.text([_whole(await facts.snapshot(connection, seen, RUNS), seen)])
    ids = {step["run"] for step in steps} | known.pending.keys()
    runs = await facts.runs(connection, ids)
    # A build that ended while the page was away is found through its run.
    builds = await facts.builds(connection, of=ids)
    hello = Message("hello", {"resumed": True}, None if steps else seen.cursor)
    return sse.text([hello, *sse.tell(runs, builds, steps, cursor, seen.cursor)])


def _whole(snapshot: dict[str, Any], seen: Horizon) -> Message:
    return Message("hello", {"resumed": False, **snapshot}, seen.cursor)


def _known_from(snapshot: dict[str, Any], seen: Horizon) -> _Known:
    runs = [{name: value for name, value in run.items() if name != "steps"} for run in snapshot["runs"]]
    steps = [step for run in snapshot["runs"] for step in run["steps"]]
    return _known_after(runs, snapshot["builds"], steps, seen)


def _known_after(runs: list[Row], builds: list[Row], steps: list[Row], seen: Horizon) -> _Known:
    return _Known(
        seen,
        frozenset(step["id"] for step in steps if step["xid"] >= seen.cursor),
        {run["id"]: run for run in runs if not facts.settled(run)},
        {build["generation"]: build for build in builds if build["running"]},
    )
