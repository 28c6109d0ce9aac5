"""The pool, transactions and migrations, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from shared.postgres.database import (
    Database,
    DatabaseUnavailable,
    is_conflict,
    is_unavailable,
    pooler_safe_dsn,
)
from tests.support.events import wait_until
from tests.support.proxy import Proxy, in_front_of


async def _admin(dsn: str, *statements: str) -> None:
    """Run statements from outside the test's database."""
    connection = await asyncpg.connect(urlunsplit(urlsplit(dsn)._replace(path="/postgres")))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _fails(database: Database, sql: str, *arguments: object) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await _run(database, sql, *arguments)
    return caught.value


async def _run(database: Database, sql: str, *arguments: object) -> object:
    async with database.connection() as connection:
        return await connection.fetchval(sql, *arguments)


# --- transactions ---------------------------------------------------------------------------


async def test_a_transaction_whose_process_stopped_gives_its_locks_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.postgres.database.IDLE", 0.1)

    async def stops() -> None:
        async with database.transaction() as stopped:
            await stopped.execute("select pg_advisory_xact_lock(1)")
            async with database.transaction() as other:
                await other.execute("select pg_advisory_xact_lock(1)", timeout=10)
            await stopped.execute("select 1")

    with pytest.raises(Exception) as caught:  # noqa: PT011
        await stops()
    assert is_unavailable(caught.value), "its event is parked, and no attempt burnt"


async def test_a_transaction_commits_at_its_end(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("create table public.t (n int)")
    assert await _run(database, "select count(*) from public.t") == 0


async def test_a_transaction_rolls_back_on_any_exception(database: Database) -> None:
    for error in (RuntimeError(), asyncio.CancelledError()):
        with suppress(type(error)):
            async with database.transaction() as connection:
                await connection.execute("create table public.t (n int)")
                raise error
        assert await _run(database, "select to_regclass('public.t')") is None


async def test_json_comes_back_as_it_went_in(database: Database) -> None:
    value = {"text": '부정 "비율" \\ \\u0000 👎', "list": [1, 2.5, None, True], "nested": {"": {}}}
    for kind in ("json", "jsonb"):
        assert await _run(database, f"select $1::{kind}", value) == value


# --- what cannot be reached, and what is wrong ----------------------------------------------


async def test_before_connecting_it_is_unavailable() -> None:
    with pytest.raises(DatabaseUnavailable):
        await Database("postgresql://localhost/none").ping()


@pytest.mark.parametrize("dsn", ["postgresql://127.0.0.1:1/none", "postgresql:///none?host=/nowhere"])
async def test_nobody_listening_is_unavailable(dsn: str) -> None:
    with pytest.raises(DatabaseUnavailable):
        await Database(dsn).connect()


@pytest.mark.parametrize("dsn", ["mysql://localhost/x", "postgresql://localhost:port/x", "nonsense"])
async def test_what_is_no_dsn_is_refused_for_good(dsn: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        await Database(dsn).connect()


async def test_a_database_that_takes_no_connections_is_unavailable_and_recovers(
    database: Database, dsn: str
) -> None:
    name = urlsplit(dsn).path[1:]
    await database.ping()
    await _admin(
        dsn,
        f"alter database {name} allow_connections false",
        f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'",
    )
    for _ in range(3):
        assert is_unavailable(await _fails(database, "select 1"))
    await _admin(dsn, f"alter database {name} allow_connections true")

    async def answers() -> bool:
        with suppress(DatabaseUnavailable, asyncpg.PostgresError, ConnectionError):
            await database.ping()
            return True
        return False

    await wait_until(answers)


class _Silent(Proxy):
    """Does not tell a client that the server has hung up."""

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionResetError):
            await super()._pump(reader, writer)


async def test_a_connection_whose_end_was_told_and_has_not_come_yet_is_unavailable(dsn: str) -> None:
    proxy = _Silent(dsn, 5432)
    await proxy.heal()
    database = Database(proxy.url)
    try:
        await database.connect()
        name = urlsplit(dsn).path[1:]
        await _admin(
            dsn, f"select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{name}'"
        )
        await asyncio.sleep(0.2)  # what the server said last is there
        assert is_unavailable(await _fails(database, "select 1"))
    finally:
        await proxy.cut()
        await database.close()


async def test_a_backend_terminated_in_a_transaction_is_unavailable(database: Database) -> None:
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)) as caught:
        await _die_in_transaction(database)
    assert is_unavailable(caught.value)
    assert await _run(database, "select to_regclass('public.t')") is None


async def _die_in_transaction(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("create table public.t (n int)")
        await connection.execute("select pg_terminate_backend(pg_backend_pid())")


async def test_a_line_that_breaks_within_a_transaction_is_unavailable(dsn: str) -> None:
    async with in_front_of(dsn, 5432) as proxy:
        database = Database(proxy.url)
        await database.connect()
        error: BaseException | None = None
        try:
            async with database.transaction() as connection:
                await connection.execute("create table public.t (n int)")
                await proxy.cut()
                await connection.execute("select 1")
        except Exception as caught:
            error = caught
        assert error is not None
        assert is_unavailable(error)
        await proxy.heal()
        await database.ping()
        assert await _run(database, "select to_regclass('public.t')") is None
        await database.close()


async def test_a_database_that_does_not_answer_in_time_is_unavailable(dsn: str) -> None:
    async with in_front_of(dsn, 5432) as proxy:
        database = Database(proxy.url)
        await database.connect()
        proxy.freeze()
        cutting = asyncio.create_task(_cut_soon(proxy))  # else giving the connection back takes 5 s
        with pytest.raises(DatabaseUnavailable):
            await _ping_soon(database)
        await cutting
        await database.close()


async def _cut_soon(proxy: Proxy) -> None:
    await asyncio.sleep(0.3)
    await proxy.cut()


async def _ping_soon(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("select 1", timeout=0.1)


async def test_what_was_closed_is_unavailable(database: Database) -> None:
    async with database.connection() as connection:
        await connection.close()
        with pytest.raises(asyncpg.InterfaceError) as caught:
            await connection.execute("select 1")
    assert is_unavailable(caught.value)


async def test_closing_while_a_connection_is_in_use_waits_for_it(database: Database) -> None:
    async with database.connection() as connection:
        closing = asyncio.create_task(database.close())
        await asyncio.sleep(0.05)
        assert await connection.fetchval("select 1") == 1
    await closing


@pytest.mark.parametrize(
    ("sql", "arguments"),
    [
        ("select $1::int", []),  # too few arguments
        ("select $1::int", ["x"]),
        ("select $1::text", ["\0"]),
        ("select no_such_column", []),
        ("select 1 / 0", []),
    ],
)
async def test_our_own_errors_are_not_taken_for_an_outage(
    database: Database, sql: str, arguments: list[object]
) -> None:
    assert not is_unavailable(await _fails(database, sql, *arguments))


@pytest.mark.parametrize(("code", "conflict"), [("40001", True), ("40P01", True), ("23505", False)])
async def test_conflicts_are_told_from_other_errors(database: Database, code: str, conflict: bool) -> None:
    error = await _fails(database, f"do $$ begin raise exception using errcode = '{code}'; end $$")
    assert is_conflict(error) is conflict
    assert not is_unavailable(error)


@pytest.mark.parametrize("code", ["57P01", "57P03", "53300", "53100", "25006", "08006", "57014"])
async def test_outages_are_known_by_their_code(database: Database, code: str) -> None:
    error = await _fails(database, f"do $$ begin raise exception using errcode = '{code}'; end $$")
    assert is_unavailable(error)


async def test_an_exhausted_pool_lets_others_wait(dsn: str) -> None:
    database = Database(dsn, size=2)
    await database.connect()

    async def work() -> None:
        async with database.transaction() as connection:
            await connection.execute("select pg_sleep(0.02)")

    await asyncio.gather(*(work() for _ in range(10)))
    await database.close()


# --- addresses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dsn", "kept", "pooled"),
    [
        ("postgresql://u:p@h/d", "postgresql://u:p@h/d", False),
        (
            "postgresql://u:p@h/d?sslmode=require&channel_binding=require",
            "postgresql://u:p@h/d?sslmode=require",
            False,
        ),
        ("postgresql://u:p@h:6543/d?pgbouncer=true", "postgresql://u:p@h:6543/d", True),
        ("postgresql://u:p@h/d?pgbouncer=false", "postgresql://u:p@h/d", False),
        ("postgresql://u:p@ep-x-pooler.eu.neon.tech/d", "postgresql://u:p@ep-x-pooler.eu.neon.tech/d", True),
        ("postgresql://u@/d?host=/tmp/a%20b", "postgresql://u@/d?host=%2Ftmp%2Fa+b", False),
        ("postgresql://u:p%40ss@h/d?connect_timeout=10", "postgresql://u:p%40ss@h/d", False),
    ],
)
def test_a_dsn_loses_what_the_server_would_refuse(dsn: str, kept: str, pooled: bool) -> None:
    assert pooler_safe_dsn(dsn) == (kept, pooled)


# --- migrations -----------------------------------------------------------------------------


@pytest.fixture
async def empty(postgres: str, dsn: str) -> Database:
    """The test's database before any migration."""
    database = Database(dsn)
    await database.connect()
    async with database.connection() as connection:
        await connection.execute("drop schema feedback_loop cascade")
    return database


async def test_migrating_twice_is_migrating_once(empty: Database) -> None:
    first = await empty.migrate()
    assert first == sorted(first)
    assert first[0].startswith("001_")
    assert await empty.migrate() == []
    await empty.close()


async def test_processes_that_migrate_at_once_do_not_collide(empty: Database) -> None:
    applied = await asyncio.gather(*(empty.migrate() for _ in range(4)))
    assert len([names for names in applied if names]) == 1
    await empty.close()


async def test_a_migration_that_fails_leaves_nothing(empty: Database) -> None:
    async with empty.connection() as connection:  # something of another owner is in the way
        await connection.execute("create schema feedback_loop")
        await connection.execute("create table feedback_loop.run (id int)")
    with pytest.raises(asyncpg.DuplicateTableError):
        await empty.migrate()
    assert await _run(empty, "select to_regclass('feedback_loop.outbox')") is None
    assert await _run(empty, "select to_regclass('feedback_loop.migration')") is None
    await empty.close()


async def test_migrating_leaves_the_public_schema_alone(empty: Database) -> None:
    objects = "select count(*) from pg_class where relnamespace = 'public'::regnamespace"
    await _run(empty, "create table public.feedback_log (id serial primary key)")
    before = await _run(empty, objects)
    await empty.migrate()
    assert await _run(empty, objects) == before
    await empty.close()
