"""What is learned, in SQL: the votes it starts from, and the artefacts of a generation."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from asyncpg import Record

from services.embedder.learning.credit import Vote
from shared.postgres.database import Connection

if TYPE_CHECKING:  # numpy is slow to import, and plans and rollbacks need none
    from services.embedder.learning.library import Learned

__all__ = ["anything_to_learn", "differ", "forget", "inherit", "read", "votes", "write"]

MOST_VOTES = 20_000
"""Votes that one fitting looks at: the newest."""


async def anything_to_learn(connection: Connection, app: str, since: int | None) -> bool:
    """Whether votes came, since `since` was fitted, that say something about what search showed; or went,
    that it was fitted to."""
    return bool(
        await connection.fetchval(
            "select exists (select from feedback_loop.judged_answer where app = $1"
            " and question is not null and (shown <> '[]' or cited <> '[]' or votes_on_citations <> '{}')"
            " and voted > coalesce((select fitted_at from feedback_loop.learned"
            "                       where generation = $2 and not refit), '-infinity'))",
            app,
            since,
        )
    )


async def votes(connection: Connection, app: str, generation: int) -> list[Vote]:
    """The app's votes on answers whose question is known, in terms of a generation's chunks."""
    rows = await connection.fetch(
        "select * from feedback_loop.judged_answer where app = $1 and question is not null"
        " order by voted desc limit $2",
        app,
        MOST_VOTES,
    )
    members = await connection.fetch(
        "select distinct source, chunk_hash from feedback_loop.generation_chunk where generation = $1",
        generation,
    )
    chunks_of = defaultdict(set)
    for member in members:
        chunks_of[member["source"]].add(member["chunk_hash"])
    return [_vote(row, chunks_of) for row in rows]


def _vote(row: Record, chunks_of: dict[str, set[str]]) -> Vote:
    shown = [entry["chunk"] for entry in row["shown"]]
    return Vote(
        question=row["question"],
        user=row["user_id"],
        value=row["value"],
        voted=row["voted"],
        shown=shown,
        cited=_cited(row["cited"], shown, chunks_of),
        citations=row["votes_on_citations"],
        reason=row["reason_code"],
    )


def _cited(cited: list[dict[str, Any]], shown: list[str], chunks_of: dict[str, set[str]]) -> list[str]:
    """The chunks that an answer cites. Where it names a document, those of it that were shown."""
    found = []
    for citation in cited:
        if citation.get("chunk"):
            found.append(citation["chunk"])
        elif source := citation.get("source"):
            # A bot may send either under one name.
            found += [hash for hash in shown if hash in chunks_of.get(source, ()) or hash == source]
    return list(dict.fromkeys(found))


async def read(connection: Connection, generation: int) -> Learned:
    """The artefacts of a generation; nothing where it has none."""
    import numpy as np

    from services.embedder.learning.library import Learned
    from services.embedder.learning.memory import Memory

    row = await connection.fetchrow(
        "select alpha, memory, adapter from feedback_loop.learned where generation = $1", generation
    )
    if row is None:
        return Learned()
    return Learned(
        memory=Memory.from_bytes(row["memory"]) if row["memory"] else None,
        alpha=row["alpha"],
        adapter=np.load(io.BytesIO(row["adapter"]), allow_pickle=False) if row["adapter"] else None,
    )


async def write(connection: Connection, generation: int, learned: Learned, figures: dict[str, Any]) -> None:
    await connection.execute(
        "insert into feedback_loop.learned (generation, alpha, memory, adapter, figures)"
        " values ($1, $2, $3, $4, $5)",
        generation,
        learned.alpha,
        learned.memory.to_bytes() if learned.memory is not None else None,
        _saved(learned.adapter) if learned.adapter is not None else None,
        figures,
    )


async def inherit(connection: Connection, generation: int) -> None:
    """Give a generation the artefacts of its base, if that is of the same model."""
    await connection.execute(
        "insert into feedback_loop.learned (generation, alpha, memory, adapter, figures, fitted_at, refit)"
        " select g.id, l.alpha, l.memory, l.adapter, l.figures, l.fitted_at, l.refit"
        " from feedback_loop.generation g"
        " join feedback_loop.generation b on b.id = g.base and b.model = g.model"
        " join feedback_loop.learned l on l.generation = b.id where g.id = $1",
        generation,
    )


async def forget(connection: Connection, apps: Sequence[str], questions: Iterable[str]) -> int:
    """Remove past questions from what the apps' generations remember. The next retrain fits anew what
    else rests on votes: how much other users' wording of a kept question counts, weight and adapter.

    Returns:
        How many past questions were removed, of all generations together.
    """
    from services.embedder.learning.memory import Memory

    gone, removed = list(questions), 0
    rows = await connection.fetch(
        "update feedback_loop.learned l set refit = true from feedback_loop.generation g"
        " where g.id = l.generation and g.app = any($1::text[]) returning l.generation, l.memory",
        list(apps),
    )
    for row in rows:
        if not row["memory"]:
            continue
        before = Memory.from_bytes(row["memory"])
        after = before.without(gone)
        if len(after) < len(before):
            removed += len(before) - len(after)
            await connection.execute(
                "update feedback_loop.learned set memory = $2 where generation = $1",
                row["generation"],
                after.to_bytes(),
            )
    return removed


async def differ(connection: Connection, one: int, other: int) -> bool:
    """Whether two generations have learned different things."""
    return bool(
        await connection.fetchval(
            "select (select fitted_at from feedback_loop.learned where generation = $1)"
            " is distinct from (select fitted_at from feedback_loop.learned where generation = $2)",
            one,
            other,
        )
    )


def _saved(matrix: Any) -> bytes:
    import numpy as np

    out = io.BytesIO()
    np.save(out, matrix, allow_pickle=False)
    return out.getvalue()
