"""The whole loop in one process on the in-process bus, over a real PostgreSQL; it can die at any moment.

Synchronous on the outside (its event loop runs only during a call), so that a state machine can drive it.
"""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import aiohttp
import asyncpg

from services.notifier.build import build as notifier
from services.notifier.poster import Timing
from shared.bus.envelope import encode, from_json
from shared.bus.port import Topology
from shared.events import Event
from shared.runtime import Builder, Runtime
from shared.settings import Settings
from tests.support.events import publish
from tests.support.loop import SERVICES, settle

__all__ = ["World", "run_of"]

T = TypeVar("T")

_LADDER = (0.02, 0.05, 0.1, 0.2, 0.4, 0.5)
_GRACE = 0.5
_TIMING = Timing(attempt=0.2, lease=0.3, settle=0.02)


class World:
    """A database of its own, and a process that runs every service on it.

    Args:
        server: DSN of a server on which databases may be created.
        template: the migrated database to copy.
    """

    def __init__(self, server: str, template: str) -> None:
        self._runner = asyncio.Runner()
        self._server = server
        self._name = f"fl_world_{uuid.uuid4().hex[:10]}"
        self.run(self._execute(f"create database {self._name} template {template}"))
        self._stream = io.StringIO()
        self.runtime = self.run(self._start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def close(self) -> None:
        self.run(self.runtime.stop())
        self.run(self._execute(f"drop database {self._name} with (force)"))
        self._runner.close()

    # --- what happens from outside ------------------------------------------------------

    def post(self, path: str, body: object, **headers: str) -> dict[str, str]:
        """A request that must succeed. Returns the answer's headers."""
        return self.run(self._request("POST", path, body, headers))

    def delete(self, path: str) -> int:
        return self.run(self._status("DELETE", path))

    def publish(self, event: Event) -> None:
        """As the command line does."""
        self.run(publish(self.runtime.kernel, event))

    def redeliver(self, number: int) -> None:
        """Deliver an event of the past again."""

        async def again() -> None:
            stored = await self._fetch(
                "select envelope from feedback_loop.outbox order by created_at, event_id"
            )
            if stored:
                envelope = from_json(stored[number % len(stored)]["envelope"])
                await self.runtime.kernel.bus.publish(encode(envelope))

        self.run(again())

    def pass_time(self, seconds: float) -> None:
        """Let the process work on."""
        self.run(asyncio.sleep(seconds))

    def crash(self, seconds: float) -> None:
        """The process dies after so long, with all that it had in memory; another one starts."""

        async def die() -> None:
            await asyncio.sleep(seconds)
            pool, self.runtime.kernel.database._pool = self.runtime.kernel.database._pool, None
            assert pool is not None
            pool.terminate()  # no goodbye: the server finds the lines cut, and rolls back
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=5)
            assert self.runtime._runner is not None
            await self.runtime._runner.cleanup()
            self.runtime = await self._start()

        self.run(die())

    # --- what is there ------------------------------------------------------------------

    def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        return self.run(self._fetch(query, *arguments))

    def settle(self) -> None:
        """Wait until every event is dealt with, and let the relay note it.

        Raises:
            AssertionError: one never is.
        """

        async def wait() -> None:
            await settle(self.runtime.kernel.database, 60)
            await self.runtime.kernel.outbox.relay()

        self.run(wait())

    async def _start(self) -> Runtime:
        dsn = urlunsplit(urlsplit(self._server)._replace(path=f"/{self._name}"))
        settings = Settings(
            _env_file=None, database_url=dsn, port=0, host="127.0.0.1", embedding_batch=2, cooldown_days=0,
            min_votes=5, report_window="7d",
        )  # fmt: skip
        terminal: Builder = partial(notifier, stream=self._stream, timing=_TIMING)
        services = {**SERVICES, "notifier": terminal}
        runtime = Runtime(settings, list(services.values()), Topology(ladder=_LADDER))
        # A retry that was waiting in the memory of a dead process comes again by the relay.
        runtime.kernel.outbox._grace = runtime.kernel.outbox._pause = _GRACE
        await runtime.start()
        await runtime.ready()
        return runtime

    async def _request(self, method: str, path: str, body: object, headers: dict[str, str]) -> dict[str, str]:
        url = f"http://127.0.0.1:{self.runtime.port}{path}"
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, url, json=body, headers=headers) as response,
        ):
            assert response.status < 300, await response.text()
            return dict(response.headers)

    async def _status(self, method: str, path: str) -> int:
        url = f"http://127.0.0.1:{self.runtime.port}{path}"
        async with aiohttp.ClientSession() as http, http.request(method, url) as response:
            return response.status

    async def _fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        async with self.runtime.kernel.database.connection() as connection:
            return list(await connection.fetch(query, *arguments))

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self._server)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


def run_of(headers: dict[str, str]) -> UUID:
    """The run that a hit on the trigger belongs to."""
    return UUID(headers["Feedback-Loop-Run"])
