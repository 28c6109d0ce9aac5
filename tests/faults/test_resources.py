"""Fault 16: the disk is full, the pool is exhausted, the embedding API is down for long. The service pauses,
its readiness says why, and when it is over everything is dealt with, with no attempt burnt.

A full disk is a tablespace on a small file system where this machine lets one be mounted (as root);
elsewhere PostgreSQL raises its error, 53100, at every write.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import aiohttp
import asyncpg
import pytest
from aiohttp import web

from services.embedder.build import build as embedder
from shared.bus.envelope import Envelope, encode
from shared.bus.port import Topology
from shared.embedding.openai_api import OpenAIEmbedder
from shared.events import FeedbackEvaluate, GenerationRequested
from shared.postgres.database import Database
from shared.runtime import Runtime
from tests.support.embedder import Bigrams
from tests.support.events import publish, wait_until
from tests.support.faults import Begin, Start
from tests.support.loop import LADDER, SERVICES, furnish, settle
from tests.support.processes import free_port
from tests.support.rabbit import depth

LONG = (0.0, 5.0, 40.0)
"""Seconds that a fault goes on once readiness has said so, in the full form: an hour, scaled."""
SIZE = 40
"""MB of the small file system; a migrated database has about 15."""


@dataclass
class Api:
    """An embeddings API that can be down.

    Attributes:
        status: what it answers while it is down; 0: nothing, and None: it is up.
    """

    port: int
    status: int | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.status:
            return web.Response(status=self.status)
        if self.status == 0:
            assert request.transport is not None
            request.transport.abort()
        vectors = await Bigrams().embed((await request.json())["input"])
        data = [{"index": index, "embedding": vector.tolist()} for index, vector in enumerate(vectors)]
        return web.json_response({"data": data})


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api = Api(free_port())
    app = web.Application()
    app.add_routes([web.post("/v1/embeddings", api.answer)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", api.port).start()
    yield api
    await runner.cleanup()


async def _unready(runtime: Runtime, word: str) -> bool:
    """Whether readiness says that it is not, and names the reason."""
    url = f"http://127.0.0.1:{runtime.port}/readyz"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return response.status == 503 and word in await response.text()


async def _ready(runtime: Runtime) -> bool:
    url = f"http://127.0.0.1:{runtime.port}/readyz"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return response.status == 200


async def _burnt(database: Database) -> list[str]:
    async with database.connection() as connection:
        failed = await connection.fetch(
            "select consumer, failures, reason from feedback_loop.attempt where failures > 0"
        )
        dead = await connection.fetch("select type, reason from feedback_loop.inbox where state = 'dead'")
    return [f"burnt: {dict(row)}" for row in [*failed, *dead]]


async def _decided(database: Database, apps: list[str]) -> list[str]:
    """Wait until each app's run is decided. Returns where that was not once."""

    async def all_are() -> bool:  # what is parked is on the broker alone: not yet an open event
        return not await _undecided(database, apps)

    with contextlib.suppress(AssertionError):
        await wait_until(all_are, 90)
    await settle(database, 60)
    return await _undecided(database, apps)


async def _undecided(database: Database, apps: list[str]) -> list[str]:
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select a.app, count(d.run) from unnest($1::text[]) a (app)"
            " left join feedback_loop.decision d using (app) group by 1 having count(d.run) <> 1",
            apps,
        )
    return [f"{row['app']}: {row['count']} decisions" for row in rows]


async def _said_and_resumed(runtime: Runtime, word: str, seconds: float, over: Callable[[], Any]) -> None:
    """Readiness says it; then the fault ends, and readiness says that."""
    await wait_until(lambda: _unready(runtime, word), 60)
    await asyncio.sleep(seconds)
    await over()
    await wait_until(lambda: _ready(runtime), 60)


# --- the faults -----------------------------------------------------------------------------


async def _ask_for_runs(runtime: Runtime, apps: list[str]) -> None:
    """As another service does: what becomes durable is the analyzer's business."""
    for app in apps:
        await runtime.kernel.bus.publish(encode(Envelope.root(FeedbackEvaluate(app=app), "/elsewhere")))


async def _pool_exhausted(runtime: Runtime, database: Database, seconds: float) -> list[str]:
    apps = [f"pool-{uuid4().hex[:8]}" for _ in range(6)]
    async with AsyncExitStack() as held:
        for _ in range(runtime.settings.database_pool_size):
            await held.enter_async_context(runtime.kernel.database.connection())
        await _ask_for_runs(runtime, apps)
        await _said_and_resumed(runtime, "database", seconds, held.aclose)
    return await _decided(database, apps)


async def _disk_full(
    runtime: Runtime, database: Database, seconds: float, disk: Raising | Small
) -> list[str]:
    apps: list[str] = []

    async def asked() -> bool:
        """Ask on: what the pages have room for still goes in."""
        apps.append(f"disk-{uuid4().hex[:8]}")
        await _ask_for_runs(runtime, apps[-1:])
        return await _unready(runtime, "database")

    await disk.fill()
    try:
        await wait_until(asked, 60)
        await wait_until(lambda: _unready(runtime, "database"), 60)
        await asyncio.sleep(seconds)
    finally:
        await disk.free()
    await wait_until(lambda: _ready(runtime), 60)
    return await _decided(database, apps)


async def _api_down(runtime: Runtime, database: Database, seconds: float, api: Api, status: int) -> list[str]:
    app = f"api-{uuid4().hex[:8]}"
    await furnish(database, [app])
    api.status = status
    await publish(runtime.kernel, GenerationRequested(app=app, reason="manual"))

    async def over() -> None:
        api.status = None

    await _said_and_resumed(runtime, "embedding API", seconds, over)
    await settle(database, 60)
    async with database.connection() as connection:
        shown = await connection.fetchval(
            "select count(*) from feedback_loop.active_chunk where app = $1", app
        )
    return [] if shown else [f"{app}: nothing was promoted"]


# --- a disk that can be full ----------------------------------------------------------------


_RAISES = """
create function public.full_disk() returns trigger language plpgsql as
$$ begin raise 'could not extend file: No space left on device' using errcode = '53100'; end $$
"""


class Raising:
    """PostgreSQL raises what it raises when its disk is full."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def _each(self, statement: str) -> None:
        async with self._database.transaction() as connection:
            for row in await connection.fetch(
                "select tablename as name from pg_tables where schemaname = 'feedback_loop'"
            ):
                await connection.execute(statement.format(row["name"]))

    async def fill(self) -> None:
        async with self._database.connection() as connection:
            await connection.execute("drop function if exists public.full_disk() cascade")
            await connection.execute(_RAISES)
        await self._each(
            "create trigger full_disk before insert or update on feedback_loop.{}"
            " for each statement execute function public.full_disk()"
        )

    async def free(self) -> None:
        async with self._database.connection() as connection:
            await connection.execute("drop function public.full_disk() cascade")


class Small:
    """A file system that is filled to its last block, under a tablespace of PostgreSQL."""

    def __init__(self, folder: Path) -> None:
        self._filler = folder / "filler"

    async def fill(self) -> None:
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    async def free(self) -> None:
        self._filler.unlink()


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A small file system. Skips the test where none can be mounted."""
    with tempfile.TemporaryDirectory(prefix="fl-disk-") as made:
        os.chmod(made, 0o755)
        disk = Path(made) / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "tmpfs", str(disk)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("no file system can be mounted here")
        try:
            yield disk
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def _room_for(server: Path, disk: Path) -> Path:
    """A folder on `disk` that the server whose data folder is `server` may write to."""
    if not server.exists():
        pytest.skip("the PostgreSQL is on another machine")
    folder = disk / "space"
    folder.mkdir()
    os.chown(folder, server.stat().st_uid, server.stat().st_gid)
    return folder


@asynccontextmanager
async def _database_on(disk: Path, postgres: str, template: str) -> AsyncIterator[str]:
    """A migrated database there. Yields its DSN."""
    name = f"fl_small_{uuid4().hex[:8]}"
    connection = await asyncpg.connect(postgres)
    try:
        folder = _room_for(Path(await connection.fetchval("show data_directory")), disk)
        await connection.execute(f"create tablespace {name} location '{folder}'")
        await connection.execute(f"create database {name} template {template} tablespace {name}")
        yield urlunsplit(urlsplit(postgres)._replace(path=f"/{name}"))
        await connection.execute(f"drop database {name} with (force)")
        await connection.execute(f"drop tablespace {name}")
    finally:
        await connection.close()


# --- the campaigns --------------------------------------------------------------------------


async def test_what_the_loop_lives_on_runs_out_and_no_attempt_is_burnt(
    campaign: Begin, start: Start, database: Database, api: Api, loop_settings: dict[str, Any]
) -> None:
    url = f"http://127.0.0.1:{api.port}/v1"
    remote = partial(
        embedder, embedder=OpenAIEmbedder(url, None, "bigrams", patience=0.3, timeout=2, batch=2)
    )
    runtime = await start([SERVICES["analyzer"], remote], LADDER, **loop_settings)
    raising = Raising(database)
    kinds: list[Callable[[float], Awaitable[list[str]]]] = [
        lambda seconds: _disk_full(runtime, database, seconds, raising),
        lambda seconds: _pool_exhausted(runtime, database, seconds),
        *(partial(_down, runtime, database, api, status) for status in (503, 429, 0)),
    ]
    with campaign(16, "disk full, pool exhausted, API down", quick=3, full=30) as fault:
        while fault.goes_on():
            seconds = fault.random.choice(LONG) if fault.full else 0
            fault.ran(1, await kinds[fault.runs % len(kinds)](seconds))
        fault.ran(0, await _burnt(database))
        dead = await depth(loop_settings["amqp_url"], Topology(loop_settings["amqp_exchange"]).dead)
        fault.ran(0, [f"{dead} dead letters"] * bool(dead))


async def _down(runtime: Runtime, database: Database, api: Api, status: int, seconds: float) -> list[str]:
    return await _api_down(runtime, database, seconds, api, status)


async def test_a_file_system_without_a_free_block_pauses_the_loop_and_burns_no_attempt(
    campaign: Begin,
    start: Start,
    postgres: str,
    template: str,
    small_disk: Path,
    loop_settings: dict[str, Any],
) -> None:
    async with _database_on(small_disk, postgres, template) as dsn:
        database = Database(dsn)
        await database.connect()
        settings = {**loop_settings, "database_url": dsn}
        runtime = await start([SERVICES["analyzer"]], LADDER, **settings)
        with campaign(16, "a real file system full", quick=1, full=10) as fault:
            while fault.goes_on():
                seconds = fault.random.choice(LONG) if fault.full else 0
                fault.ran(1, await _disk_full(runtime, database, seconds, Small(small_disk)))
            fault.ran(0, await _burnt(database))
        await runtime.stop()
        await database.close()
