"""Search over the active generation, always one whole generation.

What is guaranteed: `k` results where the generation has so many different contents, each content
once, in cosine order of what was found. What is not, in a large table: that these are the very
nearest (HNSW is approximate; a small generation is searched exactly).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from asyncpg import Record

from services.embedder import generations, tables
from services.embedder.models import Embedder
from services.embedder.tables import Model
from shared.database import Connection, Database

__all__ = ["Found", "Hit", "search"]

_CANDIDATES = 100
"""How many the index weighs at once, at least (`hnsw.ef_search`): more find better, and slower."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found. `score` is the cosine similarity, -1 to 1."""

    rank: int
    score: float
    source: str
    heading: str
    text: str
    chunk: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found in `generation`; None where there is none yet."""

    generation: int | None
    results: list[Hit]

    def public(self) -> dict[str, Any]:
        return {"generation": self.generation, "results": [asdict(hit) for hit in self.results]}


async def search(database: Database, embedder: Embedder, app: str, query: str, k: int) -> Found:
    """The `k` chunks nearest to `query`, best first.

    Raises:
        LookupError: the active generation is of a model that this process does not run.
    """
    vector = (await embedder.embed([query], urgent=True))[0].tolist()
    async with database.transaction("repeatable_read") as connection:
        # One snapshot: what is promoted meanwhile is not seen by half.
        generation = await generations.active(connection, app)
        if generation is None:
            return Found(None, [])
        model = await _model(connection, generation, embedder, len(vector))
        rows = await _nearest(connection, model, generation["id"], vector, k)
        if len(rows) < k:
            # The index gave up before enough of what it passed was of this generation.
            rows = await _compare_all(connection, model, generation["id"], vector, k)
    best = sorted(rows, key=lambda row: (-row["score"], row["hash"]))
    return Found(
        generation["id"],
        [
            Hit(rank, round(row["score"], 6), row["source"], row["heading"], row["text"], row["hash"])
            for rank, row in enumerate(best, start=1)
        ],
    )


async def _model(connection: Connection, generation: Record, embedder: Embedder, dimensions: int) -> Model:
    model = await tables.known_model(connection, generation["model_name"])
    assert model is not None
    if model.name != embedder.model:
        raise LookupError(
            f"generation {generation['id']} is of the model {model.name}; this embedder has"
            f" {embedder.model}: re-embed (`feedback-loop ingest`), or set EMBEDDER back"
        )
    if model.dimensions != dimensions:
        raise LookupError(
            f"{model.name} gives {dimensions} dimensions now, and {model.dimensions} when generation"
            f" {generation['id']} was built: give the model another name and re-embed, or use the old one"
        )
    return model


async def _nearest(
    connection: Connection, model: Model, generation: int, vector: list[float], k: int
) -> list[Record]:
    """Up to `k` chunks of a generation as the index finds them."""
    # Membership is a filter on what the index yields: it must go on until enough pass.
    await connection.execute(
        "select set_config('hnsw.iterative_scan', 'strict_order', true),"
        " set_config('hnsw.ef_search', $1, true)",
        str(max(_CANDIDATES, 2 * k)),
    )
    distance = f"v.embedding <=> $2::real[]::{model.type}"
    return await connection.fetch(
        f"select c.hash, m.source, c.heading, c.text, 1 - ({distance}) as score"
        f" from {model.table} v"
        # One content may stand in several documents: the first by name speaks for it.
        " cross join lateral (select m.source from feedback_loop.generation_chunk m"
        "   join feedback_loop.document d on d.id = m.document"
        "   where m.chunk_hash = v.chunk_hash and m.generation = $1 order by m.source limit 1) m"
        " join feedback_loop.chunk c on c.hash = v.chunk_hash"
        f" order by {distance} limit $3",
        generation,
        vector,
        k,
    )


async def _compare_all(
    connection: Connection, model: Model, generation: int, vector: list[float], k: int
) -> list[Record]:
    """The `k` nearest chunks of a generation, exactly: its every vector is compared."""
    return await connection.fetch(
        "with shown as materialized (select m.chunk_hash as hash, min(m.source) as source"
        "   from feedback_loop.generation_chunk m join feedback_loop.document d on d.id = m.document"
        "   where m.generation = $1 group by m.chunk_hash)"
        " select s.hash, s.source, c.heading, c.text,"
        f"   1 - (v.embedding <=> $2::real[]::{model.type}) as score"
        f" from shown s join {model.table} v on v.chunk_hash = s.hash"
        " join feedback_loop.chunk c on c.hash = s.hash"
        " order by score desc, s.hash limit $3",
        generation,
        vector,
        k,
    )
