"""Hybrid search over the active generation: vectors and words, fused.

What is guaranteed: a search sees exactly one whole generation, also while another is promoted; `k`
results where the generation has so many different contents, each content once; a chunk's score does
not depend on `k`. What is not, in a large table: that the nearest vectors are the very nearest (HNSW
is approximate).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from asyncpg import Record

from services.embedder import dense, generations, tables
from services.embedder.fusion import CANDIDATES, Floats, fuse, mean_cosine
from services.embedder.learning.adapter import adapt
from services.embedder.lexical import LexicalIndex, Match
from services.embedder.shelf import Shelf, Volume
from services.embedder.tables import Model
from shared.database import Connection, Database
from shared.embedding.models import Embedder, Vectors

__all__ = ["Candidates", "Found", "Hit", "Question", "Searcher", "View"]

_TRIES = 5
"""Promotions that one search may run into before it gives up."""

UNRELATED = (
    "The ferry leaves at seven in the morning.", "오늘 저녁에는 김치찌개를 끓였다.",
    "Photosynthesis turns light into sugar.", "환율이 사흘째 떨어지고 있다.",
    "Her violin needs a new string.", "이 다리는 백 년 전에 지어졌다.",
    "Goalkeepers wear a different shirt.", "고양이는 하루에 열네 시간을 잔다.",
    "Invoices are due within thirty days.", "태풍이 남해안으로 올라오고 있다.",
    "The theorem has a short proof.", "새 운동화를 신으니 발이 아프다.",
)  # fmt: skip
"""Sentences with nothing in common: their mean cosine is a model's zero."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. With a `conversation_id`, what is shown is remembered for a later vote."""

    text: str
    k: int = 10
    app: str = "default"
    conversation_id: str = ""
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found.

    Attributes:
        score: what it is ranked by, `scores` weighed; of one question only, scores compare.
        scores: by part: `dense` (1: same direction as the question, about 0: unrelated), `lexical`
            (0 to 1), and `memory` (what users liked for a question like this one, if anything).
    """

    rank: int
    score: float
    scores: dict[str, float]
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


class Searcher:
    """Searches of one process."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self._database = database
        self._embedder = embedder
        self._shelf = Shelf(database)
        self._baseline: float | None = None

    async def search(self, question: Question) -> Found:
        """The best `k` chunks, best first.

        Raises:
            LookupError: the active generation is of a model that this process does not run.
        """
        vector = (await self._embedder.embed([question.text], urgent=True))[0]
        baseline = await self.zero()
        for _ in range(_TRIES):
            async with self._database.transaction("repeatable_read") as connection:
                # One snapshot: what is promoted meanwhile is not seen by half.
                generation = await generations.active(connection, question.app)
                if generation is None:
                    return Found(None, [])
                volume = self._shelf.of(question.app, generation["id"])
                if volume is not None:
                    model = await self._model(connection, generation, len(vector))
                    view = View(connection, generation["id"], model, volume.index)
                    found = await view.find(question, vector, volume, baseline)
                    break
            # Made outside: no connection waits for it.
            await self._shelf.load(question.app, generation["id"])
        else:
            raise LookupError("generations change faster than they can be searched")
        if question.conversation_id:
            await self._remember(question, found)
        return found

    async def index(self, app: str, generation: int) -> LexicalIndex:
        """The lexical index of any generation, also of one that is not promoted."""
        return await self._shelf.index(app, generation)

    async def _model(self, connection: Connection, generation: Record, dimensions: int) -> Model:
        model = await tables.known_model(connection, generation["model_name"])
        assert model is not None
        if model.name != self._embedder.model:
            raise LookupError(
                f"generation {generation['id']} is of the model {model.name}; this embedder has"
                f" {self._embedder.model}: re-embed (`feedback-loop ingest`), or set EMBEDDER back"
            )
        if model.dimensions != dimensions:
            raise LookupError(
                f"{model.name} gives {dimensions} dimensions now, and {model.dimensions} when generation"
                f" {generation['id']} was built: give the model another name and re-embed, or use the old one"
            )
        return model

    async def zero(self) -> float:
        """The cosine of unrelated texts under this model; measured once. That of `use` is near 0."""
        if self._baseline is None:
            measured = self._embedder.name == "openai"
            vectors = await self._embedder.embed(UNRELATED, urgent=True) if measured else None
            self._baseline = min(0.95, max(0.0, mean_cosine(vectors))) if vectors is not None else 0.0
        return self._baseline

    async def _remember(self, question: Question, found: Found) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "insert into feedback_loop.search_log"
                " (app, conversation_id, message_id, query, generation, shown)"
                " values ($1, $2, $3, $4, $5, $6)",
                question.app,
                question.conversation_id,
                question.message_id,
                question.text,
                found.generation,
                # By part as well: the fused score alone does not tell that nothing is near.
                [{"chunk": hit.chunk, "score": hit.score, **hit.scores} for hit in found.results],
            )


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What competes for one question, in the order of `hashes`.

    Attributes:
        lexical: as in `Fused`, shape (candidates,).
    """

    hashes: list[str]
    lexical: Floats


@dataclass(frozen=True, slots=True)
class View:
    """One generation, as one transaction sees it."""

    connection: Connection
    generation: int
    model: Model
    index: LexicalIndex

    async def find(self, question: Question, vector: Vectors, volume: Volume, baseline: float) -> Found:
        """Candidates are the best of each half, and what users liked for questions like this one."""
        learned = volume.learned
        bonus = learned.memory.bonus(vector, question.text) if learned.memory is not None else {}
        known = self._inside(bonus)
        if learned.adapter is not None:
            vector = adapt(learned.adapter, vector[None])[0]
        cosines, match = await self._match(question.text, vector.tolist(), max(CANDIDATES, question.k), known)
        hashes = sorted(cosines)
        fused = fuse(
            np.array([cosines[hash] for hash in hashes]),
            match.scores(hashes),
            best=match.best,
            bound=match.bound,
            alpha=learned.alpha,
            baseline=baseline,
        )
        memory = np.array([bonus.get(hash, 0.0) for hash in hashes], np.float32)
        score = fused.score + memory
        order = np.argsort(-score, kind="stable")
        shown = await self._shown(hashes)
        # A chunk that is not shown is of a document deleted after the generation was built.
        best = [at for at in order if hashes[at] in shown][: question.k]
        hits = []
        for rank, at in enumerate(best, start=1):
            parts = {"dense": _rounded(fused.dense[at]), "lexical": _rounded(fused.lexical[at])}
            if memory[at]:
                parts["memory"] = _rounded(memory[at])
            hits.append(Hit(rank, _rounded(score[at]), parts, chunk=hashes[at], **shown[hashes[at]]))
        return Found(self.generation, hits)

    async def candidates(self, question: str, vector: list[float], besides: Iterable[str]) -> Candidates:
        """The best of each half, and those of `besides` that are in the generation."""
        known = self._inside(besides)
        cosines, match = await self._match(question, vector, CANDIDATES, known)
        hashes = sorted(cosines)
        scores = match.scores(hashes)
        zeros = np.zeros(len(hashes), np.float32)
        return Candidates(hashes, fuse(zeros, scores, best=match.best, bound=match.bound).lexical)

    def _inside(self, hashes: Iterable[str]) -> list[str]:
        """Those of `hashes` that the generation shows."""
        wanted = set(hashes)
        return sorted(wanted.difference(self.index.missing(wanted)))

    async def _match(
        self, question: str, vector: list[float], n: int, besides: list[str]
    ) -> tuple[dict[str, float], Match]:
        """The cosine of every candidate, and the match that knows their words."""
        match = await asyncio.to_thread(self.index.match, question)
        cosines = await dense.nearest(self.connection, self.model, self.generation, vector, n)
        others = [hash for hash in {*match.top(n), *besides} if hash not in cosines]
        return cosines | await dense.cosines(self.connection, self.model, vector, others), match

    async def _shown(self, hashes: list[str]) -> dict[str, dict[str, str]]:
        """Source, heading and text of contents that stand in a document of today. One content may
        stand in several: the first by name speaks for it."""
        rows = await self.connection.fetch(
            "select distinct on (c.hash) c.hash, m.source, c.heading, c.text from feedback_loop.chunk c"
            " join feedback_loop.generation_chunk m on m.chunk_hash = c.hash and m.generation = $1"
            " join feedback_loop.document d on d.id = m.document"
            " where c.hash = any($2::text[]) order by c.hash, m.source",
            self.generation,
            hashes,
        )
        return {
            row["hash"]: {"source": row["source"], "heading": row["heading"], "text": row["text"]}
            for row in rows
        }


def _rounded(number: np.floating[Any]) -> float:
    return round(float(number), 6)
