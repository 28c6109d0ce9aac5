"""The owner's own `public.feedback_log` and `public.conversation_log`, read into the ledger.

The work is done by `feedback_loop.read_owner_tables()` (migration 007), which says what is guaranteed.
Nothing happens where there are no such tables. They are never written to.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.postgres.database import Connection

__all__ = ["OwnerTables", "read_owner_tables"]

WITHIN = 600.0
"""Seconds. The first reading takes the whole history, and a second reader waits for it."""


@dataclass(frozen=True, slots=True)
class OwnerTables:
    """What one reading found.

    Attributes:
        votes: new, changed or removed since the last reading.
        conversations: likewise.
        skipped: rows read whose vote is no known word, or whose ids are longer than 600 bytes.
    """

    votes: int
    conversations: int
    skipped: int


async def read_owner_tables(connection: Connection) -> OwnerTables:
    """Bring the ledger up to date with the owner's tables.

    Call it in a transaction; other readers wait until that ends.
    """
    rows = await connection.fetch("select * from feedback_loop.read_owner_tables()", timeout=WITHIN)
    changed = {row["source"]: row["changed"] for row in rows}
    return OwnerTables(
        changed.get("feedback_log", 0),
        changed.get("conversation_log", 0),
        sum(row["skipped"] for row in rows),
    )
