"""Search over the active generation: exact cosine order as HNSW finds it, always one whole generation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from services.embedder import generations
from services.embedder.models import Embedder
from shared.database import Database

__all__ = ["Found", "Hit", "search"]

_SPARE = 4
"""Candidates per wanted result: one content may stand in several documents."""


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
        if generation["model_name"] != embedder.model:
            raise LookupError(
                f"generation {generation['id']} is of the model {generation['model_name']};"
                f" this embedder has {embedder.model}: re-embed, or set EMBEDDER back"
            )
        model = await generations.model_named(connection, embedder.model)
        assert model is not None
        query_vector = f"$3::real[]::{model.type}"
        # A generation's membership is a filter: the index must go on until enough pass it.
        await connection.execute("set local hnsw.iterative_scan = strict_order")
        rows = await connection.fetch(
            f"select v.chunk_hash, m.source, c.heading, c.text, 1 - (v.embedding <=> {query_vector}) as score"
            f" from {model.table} v"
            " join feedback_loop.generation_chunk m on m.chunk_hash = v.chunk_hash and m.generation = $1"
            " join feedback_loop.document d on d.app = $2 and d.source = m.source"
            " join feedback_loop.chunk c on c.hash = v.chunk_hash"
            f" order by v.embedding <=> {query_vector} limit $4",
            generation["id"],
            app,
            vector,
            k * _SPARE,
        )
    unique = {row["chunk_hash"]: row for row in reversed(rows)}
    best = sorted(unique.values(), key=lambda row: -row["score"])[:k]
    return Found(
        generation["id"],
        [
            Hit(rank, round(row["score"], 6), row["source"], row["heading"], row["text"], row["chunk_hash"])
            for rank, row in enumerate(best, start=1)
        ],
    )
