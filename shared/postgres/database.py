"""PostgreSQL: the pool, transactions, migrations.

Only what every deployment has is relied on: no session advisory locks, no LISTEN, no session state
(transaction poolers keep none). Database time orders everything, never the process clock.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
from asyncpg.pool import PoolConnectionProxy

if TYPE_CHECKING:
    Connection = PoolConnectionProxy[asyncpg.Record]
else:
    Connection = PoolConnectionProxy  # at run time it is not generic

__all__ = [
    "Connection",
    "Database",
    "DatabaseUnavailable",
    "SchemaBehind",
    "despite_conflicts",
    "dump_json",
    "is_conflict",
    "is_unavailable",
    "pooler_safe_dsn",
    "without_nul",
]

log = logging.getLogger(__name__)

T = TypeVar("T")

Isolation = Literal["read_committed", "repeatable_read"]

# What poolers and libpq add to a DSN; asyncpg would send them to the server, which refuses.
_FOREIGN_PARAMETERS = {"channel_binding", "pgbouncer", "connect_timeout", "pool_timeout", "connection_limit"}
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
_MAY_MIGRATE = """
select case when n.oid is null then has_database_privilege(current_database(), 'create')
            else pg_has_role(coalesce(c.relowner, n.nspowner), 'usage') end
from (values ('feedback_loop')) wanted (name)
left join pg_namespace n on n.nspname = wanted.name
left join pg_class c on c.relnamespace = n.oid and c.relname = 'migration'
"""
IDLE = 60.0
"""Seconds that a transaction may wait for its process between two statements: one that has stopped must
not keep its locks for ever. As long as a statement may take."""
LONGEST = 900.0
"""Seconds that a transaction may take in all, where PostgreSQL knows such a limit (17): one whose process
has stopped in the middle of a pipeline of messages does not count as idle."""
_MIGRATION = re.compile(r"(\d{3})_\w+\.sql")


class DatabaseUnavailable(Exception):
    """PostgreSQL cannot be reached now."""


class SchemaBehind(DatabaseUnavailable):
    """The schema is older than this program, and this role may not change it: whoever may has to."""


class Database:
    """A small pool. Connections are opened when needed and closed when idle for two minutes, so
    that a database which sleeps when unused can (Neon suspends after five)."""

    def __init__(self, dsn: str, size: int = 5) -> None:
        self._size = size
        self.use(dsn)
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    def use(self, dsn: str) -> None:
        """Set the address, where it is known only later; takes effect at the next `connect`."""
        self._dsn, pooled = pooler_safe_dsn(dsn)
        self._cache = 0 if pooled else 100

    async def connect(self) -> None:
        """Open the pool and prove that the server answers.

        Raises:
            DatabaseUnavailable: it does not.
            ValueError: the DSN is none.
        """
        if self._pool is not None:
            await self.close()
        self._pool = await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=self._size,
            max_inactive_connection_lifetime=120,
            timeout=10,
            command_timeout=60,
            statement_cache_size=self._cache,
            init=_prepare,
            reset=_as_it_is,
        )
        await self.ping()

    async def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                await asyncio.wait_for(pool.close(), 5)
            except TimeoutError:
                pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection with no transaction open; each statement commits by itself.

        Raises:
            DatabaseUnavailable: none can be had within ten seconds, or a statement took over sixty.
        """
        pool = self._pool  # `close` may come in between
        if pool is None:
            raise DatabaseUnavailable("not connected yet")
        try:
            connection = await pool.acquire(timeout=10)
        except TimeoutError:
            raise DatabaseUnavailable("no connection within 10 s") from None
        except OSError as error:  # first: a certificate that does not verify is a ValueError too
            raise DatabaseUnavailable(f"{type(error).__name__}: {error}") from error
        except ValueError:
            raise  # the DSN is none, which no waiting mends
        except (asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresError) as error:
            raise DatabaseUnavailable(f"{type(error).__name__}: {error}") from error
        try:
            try:
                yield connection
            finally:
                await pool.release(connection, timeout=5)
        except TimeoutError as error:
            raise DatabaseUnavailable("no answer in time") from error

    @asynccontextmanager
    async def transaction(self, isolation: Isolation = "read_committed") -> AsyncIterator[Connection]:
        """A connection in a transaction: commits at the end, rolls back on any exception, and by the server
        where its process lets it wait for more than `IDLE` seconds."""
        async with self.connection() as connection:
            # With its limits in one trip, which the driver's own `transaction` takes two for.
            begin = f"begin isolation level {isolation.replace('_', ' ')};"
            begin += f" set local idle_in_transaction_session_timeout = '{IDLE:g}s'"
            if connection.get_server_version().major >= 17:
                begin += f"; set local transaction_timeout = '{LONGEST:g}s'"
            try:
                await connection.execute(begin)
                yield connection
            except BaseException:
                await connection.execute("rollback")
                raise
            await connection.execute("commit")

    async def ping(self) -> None:
        async with self.connection() as connection:
            await connection.execute("select 1", timeout=5)

    async def migrate(self) -> list[str]:
        """Apply what is missing of `migrations/NNN_name.sql`, all in one transaction.

        A role that the schema does not belong to changes nothing (`shared/postgres/roles.py`).

        Returns:
            The names applied now; empty when the schema was up to date.

        Raises:
            SchemaBehind: it was not, and it is another role's.
        """
        files = sorted(
            entry.name
            for entry in resources.files("shared").joinpath("migrations").iterdir()
            if _MIGRATION.fullmatch(entry.name)
        )
        async with self.transaction() as connection:
            if not await connection.fetchval(_MAY_MIGRATE):
                await _compare(connection, files)
                return []
            # A transaction-level lock: it works behind a pooler and cannot be left behind.
            await connection.execute("select pg_advisory_xact_lock(hashtext('feedback_loop.migrate'))")
            await connection.execute("create schema if not exists feedback_loop")
            await connection.execute(
                "create table if not exists feedback_loop.migration"
                " (name text primary key, applied_at timestamptz not null default now())"
            )
            done = {row["name"] for row in await connection.fetch("select name from feedback_loop.migration")}
            missing = [name for name in files if name not in done]
            for name in missing:
                sql = resources.files("shared").joinpath("migrations", name).read_text(encoding="utf-8")
                await connection.execute(sql, timeout=600)
                await connection.execute("insert into feedback_loop.migration (name) values ($1)", name)
                log.info("migration applied", extra={"migration": name})
        return missing


async def _compare(connection: Connection, files: list[str]) -> None:
    """Raises `SchemaBehind` where the schema, another role's, lacks one of the migrations."""
    done: set[str] = set()
    if await connection.fetchval("select exists (select from pg_namespace where nspname = 'feedback_loop')"):
        done = {row["name"] for row in await connection.fetch("select name from feedback_loop.migration")}
    missing = [name for name in files if name not in done]
    if missing:
        raise SchemaBehind(
            f"the schema lacks {missing[0]}, and this role may not change it:"
            " run `feedback-loop migrate --roles` as the schema's owner"
        )


def pooler_safe_dsn(dsn: str) -> tuple[str, bool]:
    """The DSN without parameters that asyncpg would pass on, and whether a transaction pooler is
    behind it (then no prepared statement may outlive its transaction)."""
    parts = urlsplit(dsn)
    query = parse_qsl(parts.query, keep_blank_values=True)
    pooled = (
        any(name == "pgbouncer" and value not in ("false", "0") for name, value in query)
        or "-pooler." in (parts.hostname or "")
        or (parts.netloc.rpartition(":")[2] == "6543")
    )
    kept = urlencode([(name, value) for name, value in query if name not in _FOREIGN_PARAMETERS])
    return urlunsplit(parts._replace(query=kept)), pooled


def is_unavailable(error: BaseException) -> bool:
    """Whether the error says that the database cannot be used now (rather than that we erred)."""
    if isinstance(error, asyncpg.InterfaceError):
        # The same class says that a statement got too few arguments; that will not pass by waiting.
        return any(word in str(error) for word in ("closed", "closing", "released back"))
    if isinstance(error, asyncpg.InternalClientError):
        # The server has said that it ends the connection, and the end itself has not come yet.
        return "cannot switch to state" in str(error)
    return isinstance(
        error,
        DatabaseUnavailable
        | ConnectionError
        | asyncpg.PostgresConnectionError
        | asyncpg.CannotConnectNowError
        | asyncpg.TooManyConnectionsError
        | asyncpg.OperatorInterventionError
        | asyncpg.DiskFullError
        | asyncpg.ReadOnlySQLTransactionError,
    )


def is_conflict(error: BaseException) -> bool:
    """Whether another transaction got in the way: the whole thing may simply be done again."""
    return isinstance(error, asyncpg.SerializationError | asyncpg.DeadlockDetectedError)


async def despite_conflicts(do: Callable[[], Awaitable[T]], attempts: int = 3) -> T:
    """What `do` returns. Where another transaction got in its way it is done again, from its beginning.

    Raises: as `do`; at the last attempt the conflict too.
    """
    for _ in range(attempts - 1):
        try:
            return await do()
        except Exception as error:
            if not is_conflict(error):
                raise
    return await do()


async def _prepare(connection: Any) -> None:
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(
            kind, schema="pg_catalog", encoder=dump_json, decoder=json.loads, format="text"
        )


async def _as_it_is(connection: Any) -> None:
    """There is no session state to reset, so that a connection goes back without another round trip."""


def dump_json(value: object) -> str:
    """JSON as PostgreSQL takes it."""
    return without_nul(json.dumps(value, ensure_ascii=False))


def without_nul(text: str) -> str:
    """JSON without U+0000, which PostgreSQL's jsonb refuses."""
    # A backslash before it may itself be escaped. Hardly any text has one, and looking is quicker than `sub`.
    return _NUL.sub(r"\1", text) if "\\u0000" in text else text
