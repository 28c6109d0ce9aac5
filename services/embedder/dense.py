"""The vectors' half of a search, in SQL: cosines of a question and the chunks of one generation."""

from __future__ import annotations

from services.embedder.tables import Model
from shared.postgres.database import Connection

__all__ = ["cosines", "nearest", "vectors"]

_CANDIDATES = 100
"""How many the index weighs at once, at least (`hnsw.ef_search`): more find better, and slower."""

_EVEN = 5
"""By index, the `n` nearest cost about `n · stored / chunks` looks at a vector and whether it belongs to
the generation; comparing all costs `chunks` looks, each of a fifth."""


async def nearest(
    connection: Connection, model: Model, generation: int, chunks: int, vector: list[float], n: int
) -> dict[str, float]:
    """Content hash and cosine of the `n` chunks nearest to `vector`, in a generation of `chunks`.

    Of a large generation they are as good as the index finds them; of a small one, and where the index
    yields fewer than `n`, every vector is compared.
    """
    # Membership is a filter on what the index yields: it must go on until enough pass.
    stored = await connection.fetchval(
        "select reltuples from pg_class where oid = $1::text::regclass"
        " and set_config('hnsw.iterative_scan', 'strict_order', true) <> ''"
        " and set_config('hnsw.ef_search', $2, true) <> ''",
        model.table,
        str(max(_CANDIDATES, 2 * n)),
    )
    if chunks * chunks > _EVEN * n * max(stored, chunks):
        found = await _by_index(connection, model, generation, vector, n)
        if len(found) == n:
            return found
    return await _by_comparing_all(connection, model, generation, vector, n)


async def cosines(
    connection: Connection, model: Model, vector: list[float], hashes: list[str]
) -> dict[str, float]:
    """The cosines of the contents in `hashes`."""
    rows = await connection.fetch(
        f"select chunk_hash, 1 - (embedding <=> $1::real[]::{model.type}) as cosine"
        f" from {model.table} where chunk_hash = any($2::text[])",
        vector,
        hashes,
    )
    return {row["chunk_hash"]: row["cosine"] for row in rows}


async def vectors(connection: Connection, model: Model, hashes: list[str]) -> dict[str, list[float]]:
    """The vectors of the contents in `hashes`."""
    rows = await connection.fetch(
        f"select chunk_hash, embedding::real[] as vector from {model.table}"
        " where chunk_hash = any($1::text[])",
        hashes,
    )
    return {row["chunk_hash"]: row["vector"] for row in rows}


async def _by_index(
    connection: Connection, model: Model, generation: int, vector: list[float], n: int
) -> dict[str, float]:
    distance = f"v.embedding <=> $2::real[]::{model.type}"
    rows = await connection.fetch(
        # One expression, in one place: a small table is sorted, and would compute each of two for all rows.
        f"select v.chunk_hash, {distance} as distance from {model.table} v"
        # Neither a join nor an index by generation, which a planner would begin with: of a generation
        # just promoted it has no statistics, and takes it for a row or two.
        " where (select true from feedback_loop.generation_chunk m"
        "   join feedback_loop.document d on d.id = m.document"
        "   where m.chunk_hash = v.chunk_hash and m.generation + 0 = $1 limit 1)"
        " order by distance limit $3",
        generation,
        vector,
        n,
    )
    return {row["chunk_hash"]: 1 - row["distance"] for row in rows}


async def _by_comparing_all(
    connection: Connection, model: Model, generation: int, vector: list[float], n: int
) -> dict[str, float]:
    rows = await connection.fetch(
        "with shown as materialized (select distinct m.chunk_hash as hash"
        "   from feedback_loop.generation_chunk m join feedback_loop.document d on d.id = m.document"
        "   where m.generation = $1)"
        f" select s.hash, 1 - (v.embedding <=> $2::real[]::{model.type}) as cosine"
        f" from shown s join {model.table} v on v.chunk_hash = s.hash"
        " order by cosine desc, s.hash limit $3",
        generation,
        vector,
        n,
    )
    return {row["hash"]: row["cosine"] for row in rows}
