"""Embedding models in SQL: a table of vectors for each, because HNSW needs one dimension.

A vector is stored once per model and content hash; every generation that shows the content shares it.
The tables are made by the function `feedback_loop.register_model`, their HNSW indexes by `index_vectors`
(migration 026): the embedder itself may make none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncpg import Record

from shared.postgres.database import Connection

if TYPE_CHECKING:
    from shared.embedding.vectors import Vectors

__all__ = [
    "Model",
    "from_row",
    "index_later",
    "index_vectors",
    "known_model",
    "register_model",
    "store_vectors",
]

_HNSW_MOST = 2000
"""Most dimensions that HNSW takes for the type `vector`; of `halfvec` it takes twice as many."""

_LATER = 10_000_000
"""Numbers in vectors that are indexed after they are stored: as much as PostgreSQL builds an index of within
its `maintenance_work_mem` as it comes (64 MB), in seconds. Of more it makes a longer stop than vectors that
are indexed as they come."""

_INDEXING = 600.0
"""Seconds that making an index may take."""


@dataclass(frozen=True, slots=True)
class Model:
    """An embedding model as the database knows it; `table` holds its vectors."""

    id: int
    name: str
    dimensions: int
    table: str

    @property
    def type(self) -> str:
        """The column's type."""
        return "vector" if self.dimensions <= _HNSW_MOST else "halfvec"


def from_row(row: Record) -> Model:
    return Model(row["id"], row["name"], row["dimensions"], f"feedback_loop.{row['table_name']}")


async def known_model(connection: Connection, name: str) -> Model | None:
    row = await connection.fetchrow("select * from feedback_loop.model where name = $1", name)
    return from_row(row) if row else None


async def register_model(connection: Connection, name: str, dimensions: int) -> Model:
    """The model of that name; the first time, with a table for its vectors.

    Raises:
        ValueError: the name is known with other dimensions, or they are too many.
    """
    if dimensions > 2 * _HNSW_MOST:
        raise ValueError(f"{name} has {dimensions} dimensions, and an index takes at most {2 * _HNSW_MOST}")
    known = await known_model(connection, name)
    if known is not None:
        if known.dimensions != dimensions:
            raise ValueError(f"{name} gave {known.dimensions} dimensions before and gives {dimensions} now")
        return known
    row = await connection.fetchrow("select * from feedback_loop.register_model($1, $2)", name, dimensions)
    assert row is not None
    return from_row(row)


def index_later(model: Model, vectors: int) -> bool:
    """Whether so many are better indexed when they are all there."""
    return vectors * model.dimensions <= _LATER


async def index_vectors(connection: Connection, model: int) -> None:
    """See to it that the vectors of a model have their HNSW index. Nobody can add any while it is made."""
    await connection.execute("select feedback_loop.index_vectors($1)", model, timeout=_INDEXING)


async def store_vectors(connection: Connection, model: Model, hashes: list[str], vectors: Vectors) -> None:
    """Write vectors; those that are there already stay."""
    # In one order everywhere: two builds that write the same content must not wait for each other.
    rows = sorted(zip(hashes, vectors, strict=True), key=lambda row: row[0])
    await connection.executemany(
        f"insert into {model.table} (chunk_hash, embedding) values ($1, $2::real[]::{model.type})"
        " on conflict do nothing",
        [(hash, vector.tolist()) for hash, vector in rows],
    )
