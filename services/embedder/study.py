"""A study of the votes: what search over a generation finds for the questions that were voted on, what
can be learned from that, and whether it holds on votes it was not fitted to.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import log2

import numpy as np
from asyncpg import Record

from services.embedder import dense, generations, learned
from services.embedder.golden import GoldenSet
from services.embedder.learning.credit import Vote, normal
from services.embedder.learning.gate import Decision, Paired
from services.embedder.learning.library import Learned, Library
from services.embedder.learning.measures import Floats
from services.embedder.learning.trial import Outcome, learn
from services.embedder.search import Candidates, Question, Searcher, View
from services.embedder.shelf import Volume
from services.embedder.tables import known_model
from shared.embedding.models import Embedder
from shared.embedding.vectors import Vectors
from shared.postgres.database import Connection, Database

__all__ = ["Study"]

log = logging.getLogger(__name__)

MOST_QUESTIONS = 5_000
"""Questions that are searched for again, at most: the newest. About ten milliseconds each."""
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Study:
    """What a study needs: `searcher` searches as users do, of any generation."""

    database: Database
    embedder: Embedder
    searcher: Searcher
    golden: GoldenSet

    async def of(self, generation: Record) -> Outcome | None:
        """Learn from the votes on an app, over a built generation. Takes seconds to a minute, and
        holds no transaction.

        None where that is not asked for: only documents changed, or a first build by hand, before
        anybody voted.
        """
        if generation["reason"] not in ("feedback", "manual"):
            return None
        async with self.database.connection() as connection:
            votes = await learned.votes(connection, generation["app"], generation["id"])
            now: datetime = await connection.fetchval("select now()")
            model = await known_model(connection, generation["model_name"])
            documents = await _documents(connection, generation["id"])
        assert model is not None
        votes, questions = _limited(votes, self.golden)
        log.info("learning from %d votes on %d questions", len(votes), len(questions))
        if not votes:
            nobody = Outcome(None, Decision(False, ["nobody voted on a question that is known"]))
            return nobody if generation["reason"] == "feedback" else None
        index = await self.searcher.index(generation["app"], generation["id"])
        vectors = await self._embed(questions)
        judged = _judged(votes)
        found = []
        for question, vector in zip(questions, vectors, strict=True):
            async with self.database.transaction() as connection:
                view = View(connection, generation["id"], model, index)
                found.append(await view.candidates(question, vector.tolist(), judged[normal(question)]))
        async with self.database.connection() as connection:
            chunks = await dense.vectors(
                connection, model, sorted({h for each in found for h in each.hashes})
            )
        library = _library(questions, vectors, found, chunks, documents, await self.searcher.zero())
        golden = {
            question: {hash: 1.0 for hash, source in documents.items() if source in sources}
            for question, sources in self.golden.items()
        }
        try:
            return await asyncio.to_thread(learn, votes, library, now, golden=golden or None)
        except Exception as error:
            # Changed documents must not wait for what learning cannot cope with; the outcome says so.
            log.exception("learning failed")
            return Outcome(None, Decision(False, [f"learning failed: {type(error).__name__}: {error}"]))

    async def golden_change(self, generation: Record, new: Learned | None) -> Paired | None:
        """How the golden set fares in a built generation beside its base; None without either.

        A question scores 1 / log₂(rank + 1) of the first hit of an expected source, 0 beyond ten:
        nDCG@10 with one relevant document.

        Args:
            new: what it has learned now; None: it inherits.
        """
        async with self.database.connection() as connection:
            base = await generations.peek(connection, generation["base"]) if generation["base"] else None
            if not self.golden or base is None or base["model_name"] != self.embedder.model:
                return None
            old = await learned.read(connection, base["id"])
        vectors = await self._embed(list(self.golden))
        before = await self._golden(base, old, vectors)
        after = await self._golden(
            generation, new or (old if generation["same_model"] else Learned()), vectors
        )
        return Paired(before, after)

    async def _golden(self, generation: Record, taught: Learned, vectors: Vectors) -> Floats:
        volume = Volume(await self.searcher.index(generation["app"], generation["id"]), taught)
        zero = await self.searcher.zero()
        gains = []
        for (text, sources), vector in zip(self.golden.items(), vectors, strict=True):
            async with self.database.transaction() as connection:
                model = await known_model(connection, generation["model_name"])
                assert model is not None
                view = View(connection, generation["id"], model, volume.index)
                found = await view.find(Question(text, app=generation["app"]), vector, volume, zero)
            ranks = [hit.rank for hit in found.results if hit.source in sources]
            gains.append(1 / log2(ranks[0] + 1) if ranks else 0.0)
        return np.array(gains, np.float32)

    async def _embed(self, questions: list[str]) -> Vectors:
        parts = [
            await self.embedder.embed(questions[start : start + _BATCH])
            for start in range(0, len(questions), _BATCH)
        ]
        return np.concatenate(parts)


async def _documents(connection: Connection, generation: int) -> dict[str, str]:
    rows = await connection.fetch(
        "select chunk_hash, min(source) as source from feedback_loop.generation_chunk"
        " where generation = $1 group by chunk_hash",
        generation,
    )
    return {row["chunk_hash"]: row["source"] for row in rows}


def _limited(votes: list[Vote], golden: GoldenSet) -> tuple[list[Vote], list[str]]:
    """The votes on the questions asked last, and these questions, each once; the golden ones too."""
    texts: dict[str, str] = {}
    for vote in sorted(votes, key=lambda vote: vote.voted, reverse=True):
        if len(texts) < MOST_QUESTIONS:
            texts.setdefault(normal(vote.question), vote.question)
    kept = [vote for vote in votes if normal(vote.question) in texts]
    for question in golden:
        texts.setdefault(normal(question), question)
    return kept, list(texts.values())


def _judged(votes: Sequence[Vote]) -> defaultdict[str, set[str]]:
    """Question -> every chunk that a vote on it is about: candidates, wherever search ranks them now."""
    judged = defaultdict[str, set[str]](set)
    for vote in votes:
        judged[normal(vote.question)].update(vote.shown, vote.cited, vote.citations)
    return judged


def _library(
    questions: Sequence[str],
    vectors: Vectors,
    found: Sequence[Candidates],
    chunks: Mapping[str, list[float]],
    documents: Mapping[str, str],
    baseline: float,
) -> Library:
    """What search found, as arrays."""
    place = {hash: at for at, hash in enumerate(chunks)}
    width = max(len(each.hashes) for each in found)
    places = np.full((len(found), width), -1, np.int64)
    lexical = np.zeros((len(found), width), np.float32)
    for row, each in enumerate(found):
        places[row, : len(each.hashes)] = [place[hash] for hash in each.hashes]
        lexical[row, : len(each.hashes)] = each.lexical
    stacked = np.array(list(chunks.values()), np.float32).reshape(len(chunks), vectors.shape[1])
    return Library(questions, vectors, list(chunks), stacked, places, lexical, documents, baseline)
