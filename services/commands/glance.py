"""Commands that only look: they need the database and nothing of the services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar
from zoneinfo import ZoneInfo

from services.commands.tables import print_json
from shared.postgres.database import Connection, Database, DatabaseUnavailable
from shared.postgres.embedded import start_postgres
from shared.settings import Settings

__all__ = ["connect", "look"]

T = TypeVar("T")


async def connect(settings: Settings) -> Database:
    """The configured database, or the embedded one, at the newest schema.

    Raises:
        DatabaseUnavailable: it cannot be reached, or `DATABASE_URL` is no address that it could have.
    """
    dsn = (
        settings.database_url.get_secret_value()
        if settings.database_url
        else await start_postgres(settings.data_dir)
    )
    database = Database(dsn, settings.database_pool_size)
    try:
        await database.connect()
    except (ValueError, OverflowError) as error:
        raise DatabaseUnavailable(f"DATABASE_URL cannot be used: {error}") from None
    await database.migrate()
    return database


async def look(
    settings: Settings,
    read: Callable[[Connection], Awaitable[T]],
    show: Callable[[T, ZoneInfo], None],
    as_json: bool,
) -> None:
    """Print what `read` finds at one moment, as JSON or as `show` shows it."""
    database = await connect(settings)
    try:
        async with database.transaction("repeatable_read") as connection:
            found = await read(connection)
    finally:
        await database.close()
    if as_json:
        print_json(found)
    else:
        show(found, settings.zone)
