"""The gate: a generation is promoted only when it is whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asyncpg import Record

from shared.database import Connection

__all__ = ["Verdict", "complete"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a generation passes, with every figure that was looked at."""

    passed: bool
    detail: str
    figures: dict[str, Any]


async def complete(connection: Connection, generation: Record) -> Verdict:
    """Completeness: as many chunks as planned, every one with a vector."""
    row = await connection.fetchrow(
        "select count(*) as shown, count(v.chunk_hash) as embedded"
        " from feedback_loop.generation_chunk m"
        f" left join feedback_loop.{generation['table_name']} v on v.chunk_hash = m.chunk_hash"
        " where m.generation = $1",
        generation["id"],
    )
    assert row is not None
    planned, shown, embedded = generation["chunks"], row["shown"], row["embedded"]
    figures = {"planned": planned, "shown": shown, "embedded": embedded}
    if not planned == shown == embedded:
        detail = f"of {planned} planned chunks {shown} are there and {embedded} are embedded"
        return Verdict(False, detail, figures)
    return Verdict(True, "", figures)
