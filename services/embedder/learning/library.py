"""What hybrid search finds for the questions that were voted on, as arrays: so that what is learned can
be fitted to many questions, and tried on others, without searching again. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from services.embedder.fusion import PRIOR
from services.embedder.learning.adapter import adapt
from services.embedder.learning.credit import normal
from services.embedder.learning.measures import Floats
from services.embedder.learning.memory import Memory
from shared.embedding.vectors import Vectors

__all__ = ["Learned", "Library"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """The artefacts of a generation; by default, nothing."""

    memory: Memory | None = None
    alpha: float = PRIOR
    adapter: Floats | None = None


@dataclass(frozen=True, eq=False)
class Library:
    """Questions and their candidates.

    Attributes:
        questions: their texts, distinct as `credit.normal` sees them.
        question_vectors: shape (questions, d).
        chunks: hashes of all chunks that are a candidate of any question.
        chunk_vectors: shape (chunks, d).
        candidates: places in `chunks`, shape (questions, most candidates); −1 where there is none.
        lexical: as in `Fused`, same shape.
        documents: chunk hash → document.
        baseline: as `fuse` takes it.
    """

    questions: Sequence[str]
    question_vectors: Vectors
    chunks: Sequence[str]
    chunk_vectors: Vectors
    candidates: Ints
    lexical: Floats
    documents: Mapping[str, str]
    baseline: float = 0.0

    @cached_property
    def rows(self) -> dict[str, int]:
        """Question, as `credit.normal` writes it → its row."""
        return {normal(question): row for row, question in enumerate(self.questions)}

    @cached_property
    def dense(self) -> Floats:
        """Of each candidate under the questions' own vectors; −inf where there is none."""
        return self._dense(np.arange(len(self.questions)), self.question_vectors)

    def at(self, questions: Sequence[str]) -> Ints:
        """The rows of `questions`.

        Raises:
            KeyError: one is not here.
        """
        return np.array([self.rows[normal(question)] for question in questions], np.int64)

    def scores(self, rows: Ints, learned: Learned) -> Floats:
        """What search would score the candidates of these questions; −inf where there is none."""
        dense = self.dense_under(rows, learned.adapter)
        scores = learned.alpha * dense + (1 - learned.alpha) * self.lexical[rows]
        if learned.memory is not None and len(rows):
            questions = [self.questions[row] for row in rows]
            found = learned.memory.bonuses(self.question_vectors[rows], questions)
            hashes = [chunk.decode() for chunk in learned.memory.chunks]
            place = np.array([self._places.get(chunk, -2) for chunk in hashes], np.int64)
            scores = scores + self._spread(rows, found.rows, place[found.columns], found.values)
        return scores

    def dense_under(self, rows: Ints, matrix: Floats | None) -> Floats:
        if matrix is None:
            return self.dense[rows]
        return self._dense(rows, adapt(matrix, self.question_vectors[rows]))

    def gains(self, rows: Ints, targets: Sequence[Mapping[str, float]]) -> Floats:
        """The positive part of each question's targets, at its candidates."""
        flat = [
            (row, self._places.get(chunk, -2), y)
            for row, wanted in enumerate(targets)
            for chunk, y in wanted.items()
            if y > 0
        ]
        at, place, values = zip(*flat, strict=True) if flat else ((), (), ())
        return self._spread(rows, np.array(at, np.int64), np.array(place, np.int64), np.array(values, float))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {chunk: place for place, chunk in enumerate(self.chunks)}

    def _spread(self, rows: Ints, at: Ints, place: Ints, values: Floats) -> Floats:
        """A matrix like the candidates of `rows`, with `values` where question `at` (an index into
        `rows`) has chunk `place`; what is no candidate is left out."""
        size = len(self.chunks) + 1
        candidates = self.candidates[rows]
        keys = (np.arange(len(rows))[:, None] * size + candidates).ravel()
        order = np.argsort(keys, kind="stable")
        wanted = at * size + place
        found = np.minimum(np.searchsorted(keys, wanted, sorter=order), max(0, len(keys) - 1))
        spread = np.zeros(keys.size, np.float32)
        if len(wanted) and len(keys):
            here = (keys[order[found]] == wanted) & (place >= 0)
            spread[order[found[here]]] = values[here]
        return spread.reshape(candidates.shape)

    def _dense(self, rows: Ints, vectors: Vectors) -> Floats:
        dense = np.full((len(rows), self.candidates.shape[1]), -np.inf, np.float32)
        for index, row in enumerate(rows):
            here = self.candidates[row] >= 0
            cosine = self.chunk_vectors[self.candidates[row][here]] @ vectors[index]
            dense[index, here] = (cosine - self.baseline) / (1 - self.baseline)
        return dense
