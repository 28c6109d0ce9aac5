"""One generation as a transaction sees it: what a search finds in it, and why."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.embedder import dense
from services.embedder.found import Found, Hit, Question
from services.embedder.fusion import CANDIDATES, Floats, fuse
from services.embedder.learning.adapter import adapt
from services.embedder.lexical import LexicalIndex, Match
from services.embedder.shelf import Volume
from services.embedder.tables import Model
from shared.embedding.vectors import Vectors
from shared.postgres.database import Connection

__all__ = ["Candidates", "Found", "Hit", "Question", "View"]


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
        asked = vector
        if learned.adapter is not None:
            vector = adapt(learned.adapter, asked[None])[0]
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
        shown = await self._shown([hashes[at] for at in order[: question.k]])
        if len(shown) < min(question.k, len(hashes)):
            # A chunk that is not shown is of a document deleted after the generation was built.
            shown |= await self._shown([hashes[at] for at in order[question.k :]])
        best = [at for at in order if hashes[at] in shown][: question.k]
        plain = {}
        if learned.adapter is not None:
            plain = await dense.cosines(
                self.connection, self.model, asked.tolist(), [hashes[at] for at in best]
            )
        hits = []
        for rank, at in enumerate(best, start=1):
            parts = {"dense": _rounded(fused.dense[at]), "lexical": _rounded(fused.lexical[at])}
            if plain:
                moved = (cosines[hashes[at]] - plain[hashes[at]]) / (1 - baseline)
                parts["adapter"] = round(moved, 6)
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
        # The database looks for vectors while a thread here looks for words.
        matching = asyncio.create_task(asyncio.to_thread(self.index.match, question))
        cosines = await dense.nearest(
            self.connection, self.model, self.generation, len(self.index), vector, n
        )
        match = await matching
        others = [hash for hash in {*match.top(n), *besides} if hash not in cosines]
        return cosines | await dense.cosines(self.connection, self.model, vector, others), match

    async def _shown(self, hashes: list[str]) -> dict[str, dict[str, str]]:
        """Source, heading and text of contents that stand in a document of today. One content may
        stand in several: the first by name speaks for it."""
        rows = await self.connection.fetch(
            # For each a look-up by its hash: see `dense`.
            "select c.hash, m.source, c.heading, c.text from feedback_loop.chunk c"
            " cross join lateral (select m.source from feedback_loop.generation_chunk m"
            "   join feedback_loop.document d on d.id = m.document"
            "   where m.chunk_hash = c.hash and m.generation + 0 = $1 order by m.source limit 1) m"
            " where c.hash = any($2::text[])",
            self.generation,
            hashes,
        )
        return {
            row["hash"]: {"source": row["source"], "heading": row["heading"], "text": row["text"]}
            for row in rows
        }


def _rounded(number: np.floating[Any]) -> float:
    return round(float(number), 6)
