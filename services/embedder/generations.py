"""Generations in SQL: models and their vectors, plans, batches, the pointer.

A generation is immutable: a model, a chunker, and the chunks it shows. Vectors are stored once per
model and content hash, and shared. Promotion and rollback move one pointer with a compare-and-set,
so readers see exactly one whole generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from asyncpg import Record

from services.embedder.vectors import Vectors
from shared.database import Connection

__all__ = [
    "KEPT",
    "Batch",
    "Model",
    "active",
    "add",
    "build_under_way",
    "clean_up",
    "complete_batch",
    "finish",
    "model_named",
    "move_pointer",
    "open_batch",
    "previous_of",
    "read",
    "register_model",
    "store_vectors",
    "unembedded",
]

KEPT = 3
"""Promoted generations whose membership is kept, to roll back to."""
_HNSW_MOST = 2000
"""Most dimensions that HNSW takes for the type `vector`."""


@dataclass(frozen=True, slots=True)
class Model:
    """An embedding model as the database knows it; `table` holds its vectors."""

    id: int
    name: str
    dimensions: int
    table: str

    @property
    def type(self) -> str:
        """The column's type: HNSW takes 2,000 dimensions of `vector`, 4,000 of `halfvec`."""
        return "vector" if self.dimensions <= _HNSW_MOST else "halfvec"


@dataclass(frozen=True, slots=True)
class Batch:
    """What is left to embed of a batch: content hashes and the texts to embed."""

    model: Model
    hashes: list[str]
    texts: list[str]


# --- models and vectors ---------------------------------------------------------------------


async def model_named(connection: Connection, name: str) -> Model | None:
    row = await connection.fetchrow("select * from feedback_loop.model where name = $1", name)
    return _model(row) if row else None


async def register_model(connection: Connection, name: str, dimensions: int) -> Model:
    """The model of that name; the first time, with a table and an HNSW index for its vectors.

    Raises:
        ValueError: the name is known with other dimensions, or they are too many.
    """
    if dimensions > 2 * _HNSW_MOST:
        raise ValueError(f"{name} has {dimensions} dimensions, and an index takes at most {2 * _HNSW_MOST}")
    known = await model_named(connection, name)
    if known is not None:
        if known.dimensions != dimensions:
            raise ValueError(f"{name} gave {known.dimensions} dimensions before and gives {dimensions} now")
        return known
    row = await connection.fetchrow(
        "insert into feedback_loop.model (name, dimensions, table_name)"
        " values ($1, $2, 'vector_' || nextval('feedback_loop.vector_table')) returning *",
        name,
        dimensions,
    )
    assert row is not None
    model = _model(row)
    await connection.execute(
        f"create table {model.table} (chunk_hash text primary key, embedding {model.type}({dimensions}) not null);"
        f"create index on {model.table} using hnsw (embedding {model.type}_cosine_ops)"
    )
    await _renew_view(connection)
    return model


async def _renew_view(connection: Connection) -> None:
    """`active_chunk` gets a branch per model."""
    models = [_model(row) for row in await connection.fetch("select * from feedback_loop.model order by id")]
    branches = " union all ".join(
        "select a.app, m.source, m.ordinal, c.heading, c.text, c.hash, a.generation, v.embedding::vector as vector"
        " from feedback_loop.active_generation a"
        f" join feedback_loop.generation g on g.id = a.generation and g.model = {model.id}"
        " join feedback_loop.generation_chunk m on m.generation = g.id"
        " join feedback_loop.document d on d.app = a.app and d.source = m.source"
        " join feedback_loop.chunk c on c.hash = m.chunk_hash"
        f" join {model.table} v on v.chunk_hash = m.chunk_hash"
        for model in models
    )
    await connection.execute(f"create or replace view feedback_loop.active_chunk as {branches}")


async def store_vectors(connection: Connection, model: Model, hashes: list[str], vectors: Vectors) -> None:
    """Write vectors; those that are there already stay."""
    await connection.executemany(
        f"insert into {model.table} (chunk_hash, embedding) values ($1, $2::real[]::{model.type})"
        " on conflict do nothing",
        [(hash, vector.tolist()) for hash, vector in zip(hashes, vectors, strict=True)],
    )


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
    """Write a generation of today's documents and its batches. Returns its id and how many batches."""
    batches = [missing[start : start + batch] for start in range(0, len(missing), batch)]
    generation: int = await connection.fetchval(
        "insert into feedback_loop.generation (app, model, chunker, base, reason, starts_anew, counts,"
        " chunks, batches, remaining, retrain, run, ratio, requested_by)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11, $12, $13) returning id",
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
        "insert into feedback_loop.generation_chunk (generation, chunk_hash, source, ordinal)"
        " select $1, chunk_hash, source, ordinal from feedback_loop.document_chunk where app = $2",
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
        " where exists (select from feedback_loop.document_chunk d where d.app = $1 and d.chunk_hash = c.hash)"
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
        "   where app = $1 and state in ('building', 'built') order by id desc limit 1) returning id",
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
    model = _model(row)
    left = await connection.fetch(
        "select c.hash, c.heading || E'\\n' || c.text as text from feedback_loop.chunk c"
        " where c.hash = any($1::text[])"
        f" and not exists (select from {model.table} v where v.chunk_hash = c.hash)",
        row["hashes"],
    )
    return Batch(model, [entry["hash"] for entry in left], [entry["text"] for entry in left])


async def complete_batch(connection: Connection, generation: int, number: int) -> Record | None:
    """Mark a batch done. Returns the generation's row when it was the last one, once."""
    done = await connection.fetchval(
        "update feedback_loop.batch set state = 'done', done_at = now()"
        " where generation = $1 and number = $2 and state <> 'done' returning true",
        generation,
        number,
    )
    if not done:
        return None
    return await connection.fetchrow(
        "with counted as (update feedback_loop.generation set remaining = remaining - 1,"
        "   state = case when remaining = 1 then 'built' else state end"
        "   where id = $1 and state = 'building' returning *)"
        " select * from counted where remaining = 0",
        generation,
    )


# --- the pointer ----------------------------------------------------------------------------


async def read(connection: Connection, generation: int) -> Record | None:
    """A generation's row with its model's name and table, locked."""
    return await connection.fetchrow(
        "select g.*, m.name as model_name, m.table_name, now() - g.created_at as age"
        " from feedback_loop.generation g join feedback_loop.model m on m.id = g.model"
        " where g.id = $1 for update of g",
        generation,
    )


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


async def finish(
    connection: Connection, generation: int, state: str, detail: str, gate: dict[str, Any]
) -> None:
    await connection.execute(
        "update feedback_loop.generation set state = $2, detail = $3, gate = $4, finished_at = now()"
        " where id = $1",
        generation,
        state,
        detail,
        gate,
    )


async def clean_up(connection: Connection, app: str) -> None:
    """Drop the membership of all but the last promoted generations, and what nothing shows then."""
    await connection.execute(
        "delete from feedback_loop.generation_chunk m using feedback_loop.generation g"
        " where g.id = m.generation and g.app = $1 and g.state not in ('building', 'built')"
        " and g.id not in (select generation from feedback_loop.active_generation)"
        " and g.id not in (select id from feedback_loop.generation"
        "   where app = $1 and state = 'promoted' order by id desc limit $2)",
        app,
        KEPT,
    )
    for row in await connection.fetch("select table_name from feedback_loop.model"):
        await connection.execute(
            f"delete from feedback_loop.{row['table_name']} v where not exists"
            " (select from feedback_loop.generation_chunk m where m.chunk_hash = v.chunk_hash)"
        )
    await connection.execute(
        "delete from feedback_loop.chunk c"
        " where not exists (select from feedback_loop.generation_chunk m where m.chunk_hash = c.hash)"
        " and not exists (select from feedback_loop.document_chunk d where d.chunk_hash = c.hash)"
    )


def _model(row: Record) -> Model:
    return Model(row["id"], row["name"], row["dimensions"], f"feedback_loop.{row['table_name']}")
