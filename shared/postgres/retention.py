"""What users wrote, removed when it is older than `RETENTION_DAYS`.

The work is done by `feedback_loop.retain()` (migration 015), which says what is guaranteed. It is looked at
when the analyzer starts, and with each evaluation.
"""

from __future__ import annotations

import logging

from shared.postgres.database import Connection, Database

__all__ = ["look_after", "retain"]

log = logging.getLogger(__name__)

WITHIN = 600.0
"""Seconds. The first time it goes through all there is."""


async def retain(connection: Connection, days: int) -> int:
    """Strip what is older than so many days; 0: nothing. Returns how many rows were stripped."""
    if not days:
        return 0
    stripped: int = await connection.fetchval("select feedback_loop.retain($1)", days, timeout=WITHIN)
    if stripped:
        log.info("what users wrote more than %d days ago was removed: %d rows", days, stripped)
    return stripped


async def look_after(database: Database, days: int) -> None:
    """`retain` in a transaction of its own. Failing is not fatal: the next evaluation does it."""
    if not days:
        return
    try:
        async with database.transaction() as connection:
            await retain(connection, days)
    except Exception:
        log.exception("what is older than RETENTION_DAYS could not be removed")
