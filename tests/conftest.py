"""Fixtures: a real PostgreSQL with a fresh database per test, a real RabbitMQ with names of its own.

`TEST_DATABASE_URL` may name another server (with the right to create databases); `TEST_AMQP_URL` is
given by `scripts/test`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from shared.bus.port import Topology
from shared.postgres.database import Database
from shared.postgres.embedded import start_postgres, stop_postgres
from shared.runtime import Builder, Runtime, running
from shared.settings import Settings

LADDER = (0.05, 0.1, 0.2)
"""A short retry ladder: tests wait for it."""


def _named(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


async def _execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A command that a test runs in this process sets up logging for all that follow."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The DSN of a server on which databases may be created."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    folder = Path(tempfile.mkdtemp(prefix="fl-pg-"))
    try:
        dsn = asyncio.run(start_postgres(folder))
        # Nothing here outlives the tests: no need to wait for the disk.
        asyncio.run(_execute(dsn, "alter system set fsync = off", "select pg_reload_conf()"))
        yield dsn
    finally:
        asyncio.run(stop_postgres(folder))
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template(postgres: str) -> Iterator[str]:
    """The name of a migrated database to copy: much faster than migrating for every test."""
    name = f"fl_template_{uuid.uuid4().hex[:8]}"

    async def make() -> None:
        await _execute(postgres, f"create database {name}")
        database = Database(_named(postgres, name))
        await database.connect()
        await database.migrate()
        await database.close()

    asyncio.run(make())
    yield name
    asyncio.run(_execute(postgres, f"drop database {name} with (force)"))


@pytest.fixture
async def dsn(postgres: str, template: str) -> AsyncIterator[str]:
    """The DSN of a fresh, migrated database."""
    name = f"fl_{uuid.uuid4().hex[:12]}"
    await _execute(postgres, f"create database {name} template {template}")
    yield _named(postgres, name)
    await _execute(postgres, f"drop database {name} with (force)")


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    database = Database(dsn)
    await database.connect()
    yield database
    await database.close()


@pytest.fixture
def make_settings(dsn: str) -> Callable[..., Settings]:
    """Settings on the test's database, untouched by the environment's `.env`."""

    def make(**given: Any) -> Settings:
        defaults: dict[str, Any] = {"database_url": dsn, "port": 0, "host": "127.0.0.1"}
        defaults["weekly_summary"] = "off"  # the same on every day of the week
        return Settings(_env_file=None, **{**defaults, **given})

    return make


@pytest.fixture
async def start(make_settings: Callable[..., Settings]) -> AsyncIterator[Callable[..., Any]]:
    """Start services in this process: `runtime = await start([builders], **settings)`."""
    async with AsyncExitStack() as stack:

        async def start(
            builders: Sequence[Builder], ladder: tuple[float, ...] = LADDER, **given: Any
        ) -> Runtime:
            settings = make_settings(**given)
            topology = Topology(settings.amqp_exchange, settings.amqp_queue_type, ladder)
            return await stack.enter_async_context(running(Runtime(settings, builders, topology)))

        yield start


@pytest.fixture(scope="session")
def amqp_url() -> str:
    """A RabbitMQ for tests; `scripts/test` brings one."""
    url = os.environ.get("TEST_AMQP_URL")
    if not url:
        pytest.fail("TEST_AMQP_URL is not set: run scripts/test, which brings a RabbitMQ")
    return url


@pytest.fixture
def exchange() -> str:
    """A name of the test's own for exchange and queues."""
    return f"t-{uuid.uuid4().hex[:10]}"
