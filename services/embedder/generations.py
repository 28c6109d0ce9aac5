"""Generations in SQL: plans, batches, the pointer.

A generation is immutable: a model, a chunker, and the chunks it shows. Promotion and rollback move
one pointer with a compare-and-set, so readers see exactly one whole generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from asyncpg import Record

from services.embedder.tables import Model, from_row
from shared.events import Because
from shared.postgres.database import Connection

__all__ = [
    "KEPT",
    "Batch",
    "active",
    "add",
    "build_under_way",
    "clean_up",
    "complete_batch",
    "finish",
    "move_pointer",
    "open_batch",
    "peek",
    "previous_of",
    "read",
    "rolled_back",
    "start_anew",
    "unembedded",
]

KEPT = 3
"""Generations whose membership is kept, to roll back to: those that were active last."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is left to embed of a batch: content hashes and the texts to embed."""

    model: Model
    hashes: list[str]
    texts: list[str]


# --- plans and batches ----------------------------------------------------------------------


async def add(
    connection: Connection,
    *,
    app: str,
    model: Model,
    chunker: str,
    base: int | None,
    reason: str,
    starts_anew: bool,
    counts: dict[str, Any],
    missing: list[str],
    batch: int,
    retrain: UUID | None,
    run: UUID | None,
    ratio: float | None,
    requested_by: str,
) -> tuple[int, int]:
    """Write a generation of today's documents and its batches; with none of those, it is built.

    Returns:
        Its id, and how many batches.
    """
    batches = [missing[start : start + batch] for start in range(0, len(missing), batch)]
    generation: int = await connection.fetchval(
        "insert into feedback_loop.generation (app, model, chunker, base, reason, starts_anew, counts,"
        " chunks, batches, remaining, state, retrain, run, ratio, requested_by)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, case when $9 = 0 then 'built' else 'building' end,"
        "   $10, $11, $12, $13) returning id",
        app,
        model.id,
        chunker,
        base,
        reason,
        starts_anew,
        counts,
        counts["chunks"],
        len(batches),
        retrain,
        run,
        ratio,
        requested_by,
    )
    await connection.execute(
        "insert into feedback_loop.generation_chunk (generation, chunk_hash, document, source, ordinal)"
        " select $1, c.chunk_hash, d.id, d.source, c.ordinal from feedback_loop.document d"
        " join feedback_loop.document_chunk c using (app, source) where d.app = $2",
        generation,
        app,
    )
    await connection.executemany(
        "insert into feedback_loop.batch (generation, number, hashes) values ($1, $2, $3)",
        [(generation, number, hashes) for number, hashes in enumerate(batches)],
    )
    return generation, len(batches)


async def unembedded(connection: Connection, model: Model, app: str) -> tuple[int, list[str]]:
    """How many chunks today's documents have, and the distinct hashes that have no vector yet.

    In the order of their length: texts of one length make a batch quick.
    """
    chunks: int = await connection.fetchval(
        "select count(*) from feedback_loop.document_chunk where app = $1", app
    )
    rows = await connection.fetch(
        "select c.hash from feedback_loop.chunk c"
        " where exists (select from feedback_loop.document_chunk d"
        "   where d.app = $1 and d.chunk_hash = c.hash)"
        f" and not exists (select from {model.table} v where v.chunk_hash = c.hash)"
        " order by length(c.text), c.hash",
        app,
    )
    return chunks, [row["hash"] for row in rows]


async def build_under_way(connection: Connection, app: str) -> int | None:
    """The app's open build, marked to be followed by another one; None where there is none."""
    found: int | None = await connection.fetchval(
        "update feedback_loop.generation set again = true"
        " where id = (select id from feedback_loop.generation"
        "   where app = $1 and state in ('building', 'built') order by id desc limit 1)"
        " returning id",
        app,
    )
    return found


async def open_batch(connection: Connection, generation: int, number: int) -> Batch | None:
    """What is left of a batch; None where it is done or its generation is no longer building."""
    row = await connection.fetchrow(
        "select m.*, b.hashes from feedback_loop.batch b"
        " join feedback_loop.generation g on g.id = b.generation and g.state = 'building'"
        " join feedback_loop.model m on m.id = g.model"
        " where b.generation = $1 and b.number = $2 and b.state <> 'done'",
        generation,
        number,
    )
    if row is None:
        return None
    model = from_row(row)
    left = await connection.fetch(
        "select c.hash, c.heading || E'\\n' || c.text as text from feedback_loop.chunk c"
        " where c.hash = any($1::text[])"
        f" and not exists (select from {model.table} v where v.chunk_hash = c.hash)",
        row["hashes"],
    )
    return Batch(model, [entry["hash"] for entry in left], [entry["text"] for entry in left])


async def complete_batch(
    connection: Connection, generation: int, number: int, embedded: int
) -> Record | None:
    """Mark a batch done, of which `embedded` chunks had to be embedded.

    Returns:
        The generation's row, `remaining` 0 for its last batch alone; None where the batch was done
        already or the generation is no longer building.
    """
    done = await connection.fetchval(
        "update feedback_loop.batch set state = 'done', done_at = now()"
        " where generation = $1 and number = $2 and state <> 'done' returning true",
        generation,
        number,
    )
    if not done:
        return None
    return await connection.fetchrow(
        "update feedback_loop.generation set remaining = remaining - 1, embedded = embedded + $2,"
        " state = case when remaining = 1 then 'built' else state end"
        " where id = $1 and state = 'building' returning *",
        generation,
        embedded,
    )


# --- the pointer ----------------------------------------------------------------------------


_WHOLE = """
select g.*, m.name as model_name, m.table_name, now() - g.created_at as age,
       coalesce(b.model = g.model, false) as same_model,
       coalesce((b.model, b.chunker) = (g.model, g.chunker), false) as same_recipe
from feedback_loop.generation g join feedback_loop.model m on m.id = g.model
left join feedback_loop.generation b on b.id = g.base
where g.id = $1
"""


async def peek(connection: Connection, generation: int) -> Record | None:
    """A generation's row with its model's name and table, and whether that and the chunker are its
    base's."""
    return await connection.fetchrow(_WHOLE, generation)


async def read(connection: Connection, generation: int) -> Record | None:
    """What `peek` reads, locked."""
    return await connection.fetchrow(f"{_WHOLE} for update of g", generation)


async def active(connection: Connection, app: str) -> Record | None:
    """The active generation's row with its model's name, or None."""
    return await connection.fetchrow(
        "select g.*, m.name as model_name from feedback_loop.active_generation a"
        " join feedback_loop.generation g on g.id = a.generation"
        " join feedback_loop.model m on m.id = g.model where a.app = $1",
        app,
    )


async def move_pointer(
    connection: Connection, app: str, base: int | None, to: int, kind: str, why: str
) -> bool:
    """Make `to` the active generation if `base` still is. Returns whether it was."""
    if base is None:
        moved = await connection.fetchval(
            "insert into feedback_loop.active_generation (app, generation) values ($1, $2)"
            " on conflict (app) do nothing returning true",
            app,
            to,
        )
    else:
        moved = await connection.fetchval(
            "update feedback_loop.active_generation set generation = $3, promoted_at = now()"
            " where app = $1 and generation = $2 returning true",
            app,
            base,
            to,
        )
    if moved:
        await connection.execute(
            "insert into feedback_loop.promotion (app, generation, previous, kind, why)"
            " values ($1, $2, $3, $4, $5)",
            app,
            to,
            base,
            kind,
            why,
        )
    return bool(moved)


async def previous_of(connection: Connection, app: str, generation: int) -> int | None:
    """The generation that was active before this one was promoted."""
    previous: int | None = await connection.fetchval(
        "select previous from feedback_loop.promotion where app = $1 and generation = $2"
        " and kind = 'promotion' order by id desc limit 1",
        app,
        generation,
    )
    return previous


async def start_anew(connection: Connection, generation: int) -> None:
    """More than documents changed: the votes of its base are not this generation's."""
    await connection.execute(
        "update feedback_loop.generation set starts_anew = true where id = $1", generation
    )


async def rolled_back(connection: Connection, app: str) -> bool:
    """Whether the pointer's last move was a rollback."""
    kind = await connection.fetchval(
        "select kind from feedback_loop.promotion where app = $1 order by id desc limit 1", app
    )
    return bool(kind == "rollback")


async def finish(
    connection: Connection,
    generation: int,
    state: str,
    gate: dict[str, Any],
    detail: str,
    because: Sequence[Because] = (),
) -> None:
    await connection.execute(
        "update feedback_loop.generation set state = $2, detail = $3, gate = $4, because = $5,"
        " finished_at = now() where id = $1",
        generation,
        state,
        detail,
        gate,
        [one.model_dump() for one in because],
    )


async def clean_up(connection: Connection, app: str) -> None:
    """Drop the membership of all generations but those that were active last, the batches of builds
    that have ended, and the vectors and texts that nothing shows then.

    The caller holds the knowledge lock: no plan counts on what is deleted here.
    """
    await connection.execute(
        "delete from feedback_loop.generation_chunk m using feedback_loop.generation g"
        " where g.id = m.generation and g.app = $1 and g.state not in ('building', 'built')"
        " and g.id not in (select generation from feedback_loop.promotion where app = $1"
        "   group by generation order by max(id) desc limit $2)"
        # Seven days on, the verdict may go back to what the last retrain was built on.
        " and g.id is distinct from (select base from feedback_loop.generation"
        "   where app = $1 and starts_anew and state = 'promoted' order by id desc limit 1)",
        app,
        KEPT,
    )
    await connection.execute(
        "delete from feedback_loop.batch b using feedback_loop.generation g"
        " where g.id = b.generation and g.app = $1 and g.state not in ('building', 'built')",
        app,
    )
    for model in map(from_row, await connection.fetch("select * from feedback_loop.model")):
        await connection.execute(
            f"delete from {model.table} v where not exists (select from feedback_loop.generation_chunk m"
            "   join feedback_loop.generation g on g.id = m.generation and g.model = $1"
            "   where m.chunk_hash = v.chunk_hash)",
            model.id,
        )
    await connection.execute(
        "delete from feedback_loop.chunk c"
        " where not exists (select from feedback_loop.generation_chunk m where m.chunk_hash = c.hash)"
        " and not exists (select from feedback_loop.document_chunk d where d.chunk_hash = c.hash)"
    )
