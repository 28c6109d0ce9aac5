"""Votes counted by quarter of an hour (`feedback_loop.vote_count`), brought up to date.

Nothing depends on it but time: what is not counted yet is read from the ledger. Why no vote is missed,
however late it commits, stands at `fold_votes` (`shared/migrations/017_rollup.sql`).
"""

from __future__ import annotations

from shared.postgres.database import Database

__all__ = ["QUARTER", "fold"]

QUARTER = 900.0
"""Seconds."""

A_DAY = 96
"""Quarters that are counted in one transaction."""

MOST_DAYS = 31
"""Days that are counted at most: what the windows of an evaluation have. The rest has time."""

WITHIN = 600.0
"""Seconds that counting a day may take."""


async def fold(database: Database, app: str) -> int:
    """Count anew what votes of late have changed, the newest first; each day in a transaction of its own.

    Not for use within a transaction. Of two at once, of an app, one does it.

    Returns:
        How many quarters of an hour were counted.
    """
    counted = 0
    for _ in range(MOST_DAYS):
        async with database.connection() as connection:
            some: int = await connection.fetchval(
                "select feedback_loop.fold_votes($1, $2)", app, A_DAY, timeout=WITHIN
            )
        counted += some
        if some < A_DAY:
            break
    return counted
