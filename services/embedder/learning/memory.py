"""The feedback memory: what was liked for a question helps who asks it again. Pure.

    s(q, d) = s_hybrid(q, d) + bonus(q, d)
    bonus(q, d) = clip(a · Σᵢ κ(q, qᵢ) · yᵢ(d), −limit, limit)
    κ(q, qᵢ) = clip(max( (cos(q, qᵢ) − τ) / (σ − τ),  (lex(q, qᵢ) − τ′) / (σ′ − τ′) ), 0, 1)

where qᵢ are past questions and yᵢ(d) their targets (`credit`). `cos` compares vectors, `lex` is the
cosine of the questions' terms (`terms`), each term by its idf among the past questions: words left
out, typed in another order or misspelt move a sentence's vector far, and its terms little. It is
nearest-neighbour regression of the residual with a compact kernel (Nadaraya 1964, Watson 1964), in
closed form: nothing is trained, so nothing is forgotten, and a question far from every past one gets
exactly what it got before. One user's vote on a citation adds .3 at most, on an answer .4.

Measured on development questions (ΔnDCG@10; reworded | hard | new | unseen document, votes on chunks):
by vectors alone, τ = .7, σ = 1, a = .5: +.029 | +.007 | +.001 | −.003; by both, as above: +.053 | +.069
| +.002 | .000 (the former with fresh votes at full weight, the latter with votes of sixty days, decayed
and capped). A lower τ for vectors (.5) costs −.013 on new and −.024 on unseen documents.

What is guaranteed: keyed by chunk content hash, so it survives re-embedding of chunks and expires when
a text changes; a memory never changes; `from_bytes(to_bytes())` gives the same bonuses to the last bit.
What is not: the questions' vectors are of one embedding model; another needs them embedded again.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from services.embedder.learning.credit import Example
from services.embedder.terms import BITS, occurrences
from shared.embedding.vectors import Vectors

__all__ = ["LIMIT", "QUESTIONS", "Bonuses", "Memory"]

TAU_VECTOR, SURE_VECTOR = 0.8, 0.95
TAU_TERMS, SURE_TERMS = 0.3, 0.5
STRENGTH = 0.6
LIMIT = 0.4
"""All chosen on the development third of KorQuAD; scores of hybrid search lie between 0 and 1."""

QUESTIONS = 10_000
"""Past questions that are kept, at most: those with the most to say, of equal ones the newest."""

_FAINT = 0.01
"""Targets below this are not kept."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Bonuses:
    """Bonuses of several questions: question `rows[i]` gives chunk `memory.chunks[columns[i]]`
    `values[i]`; each pair once, in order of row, then column."""

    rows: Ints
    columns: Ints
    values: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """Past questions and what they taught.

    Attributes:
        vectors: of the past questions, shape (n, dimensions), length 1.
        terms, starts, owners, lengths: their terms, sorted, shape (t,); the questions that have term i
            are `owners[starts[i]:starts[i + 1]]`; the L2 norms of the questions' terms, shape (n,).
        chunks: hashes of all chunks with a target, sorted, as bytes.
        begins, targets, values: question i's targets are `values[begins[i]:begins[i + 1]]`, of the
            chunks `targets[…]` (places in `chunks`).
    """

    vectors: Vectors
    terms: NDArray[np.uint64]
    starts: Ints
    owners: Ints
    lengths: Floats
    chunks: NDArray[np.bytes_]
    begins: Ints
    targets: Ints
    values: Floats

    @classmethod
    def fit(cls, examples: Sequence[Example], vectors: Vectors, strength: float = 1.0) -> Memory:
        """Remember `examples`, whose questions have `vectors`, shape (examples, dimensions); targets count
        `strength` times.

        Raises:
            ValueError: there are not as many vectors as examples.
        """
        if len(examples) != len(vectors):
            raise ValueError(f"{len(examples)} questions and {len(vectors)} vectors")
        loud = [max(map(abs, example.targets.values()), default=0.0) for example in examples]
        order = sorted(range(len(examples)), key=lambda i: (-loud[i], -examples[i].voted.timestamp()))
        kept = [i for i in order if loud[i] >= _FAINT][:QUESTIONS]
        entries = [
            (row, chunk.encode("ascii"), y)
            for row, i in enumerate(kept)
            for chunk, y in sorted(examples[i].targets.items())
            if abs(y) >= _FAINT
        ]
        chunks, targets = np.unique(np.array([c for _, c, _ in entries], "S64"), return_inverse=True)
        rows = np.array([row for row, _, _ in entries], np.int64)
        return cls(
            np.asarray(vectors[kept], np.float32).reshape(len(kept), vectors.shape[1]),
            *_terms([examples[i].question for i in kept]),
            chunks,
            np.searchsorted(rows, np.arange(len(kept) + 1)),
            targets.astype(np.int64),
            np.array([strength * y for _, _, y in entries], np.float32),
        )

    def __len__(self) -> int:
        return len(self.vectors)

    def without(self, questions: Iterable[str]) -> Memory:
        """The memory without these past questions, which it knows by their terms: whatever has the very
        same terms goes too. The bonuses of others change a little, as each term is rarer or less rare."""
        gone = {_distinct(question).tobytes() for question in questions}
        of = np.repeat(self.terms, np.diff(self.starts))
        order = np.argsort(self.owners, kind="stable")  # of each question in order of its terms
        own = np.split(of[order], np.searchsorted(self.owners[order], np.arange(1, len(self))))
        kept = np.array([terms.tobytes() not in gone for terms in own[: len(self)]], bool)
        place = np.cumsum(kept) - 1
        sizes = np.diff(self.begins)
        of_kept, entries = kept[self.owners], np.repeat(kept, sizes)
        return Memory(
            self.vectors[kept],
            *_inverted(of[of_kept], place[self.owners[of_kept]], int(kept.sum())),
            self.chunks,
            np.append(0, np.cumsum(sizes[kept])).astype(np.int64),
            self.targets[entries],
            self.values[entries],
        )

    def bonus(self, vector: NDArray[np.floating], question: str = "") -> dict[str, float]:
        """What each chunk of a past question gets when `question`, whose vector is `vector`, shape
        (dimensions,), is asked; without its text, the vector alone decides. About a millisecond for
        10,000 past questions."""
        found = self.bonuses(np.asarray(vector, np.float32)[None], [question])
        hashes = [self.chunks[column].decode() for column in found.columns]
        return dict(zip(hashes, map(float, found.values), strict=True))

    def bonuses(self, vectors: Vectors, questions: Sequence[str], *, own: bool = True) -> Bonuses:
        """The bonuses of several questions; `own=False`: without a past question of the very same
        vector, that is, without the question itself."""
        nearness = self.nearness(vectors, questions)
        if not own:
            nearness[vectors @ self.vectors.T > 1 - 1e-5] = 0
        asked, past = np.nonzero(nearness)
        sizes = np.diff(self.begins)[past]
        inside = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        entry = np.repeat(self.begins[past], sizes) + inside
        keys = np.repeat(asked, sizes) * max(1, len(self.chunks)) + self.targets[entry]
        pairs, at = np.unique(keys, return_inverse=True)
        weights = np.repeat(nearness[asked, past], sizes) * self.values[entry]
        sums = np.bincount(at, weights, minlength=len(pairs))
        rows, columns = np.divmod(pairs, max(1, len(self.chunks)))
        return Bonuses(rows, columns, np.clip(STRENGTH * sums, -LIMIT, LIMIT).astype(np.float32))

    def nearness(self, vectors: Vectors, questions: Sequence[str]) -> Floats:
        """κ of each question and each past one, shape (questions, past questions), 0 to 1."""
        by_vector = (vectors @ self.vectors.T - TAU_VECTOR) / (SURE_VECTOR - TAU_VECTOR)
        by_terms = (self._alike(questions) - TAU_TERMS) / (SURE_TERMS - TAU_TERMS)
        return np.asarray(np.clip(np.maximum(by_vector, by_terms), 0, 1), np.float32)

    def to_bytes(self) -> bytes:
        """For an artefact: NumPy's own container; 10,000 questions of 512 dimensions take some 20 MB."""
        out = io.BytesIO()
        np.savez_compressed(out, **{each.name: getattr(self, each.name) for each in fields(self)})
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Memory:
        """Raises ValueError or KeyError where `data` is no memory."""
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return cls(**{each.name: stored[each.name] for each in fields(cls)})

    def _alike(self, questions: Sequence[str]) -> Floats:
        """The cosine of terms, shape (questions, past questions)."""
        alike = np.zeros((len(questions), len(self)), np.float32)
        idf = _idf(len(self), np.diff(self.starts))
        unknown = _idf(len(self), np.zeros(1))[0]
        for row, question in enumerate(questions):
            terms = _distinct(question)
            at = np.searchsorted(self.terms, terms)
            at = at[np.append(self.terms, ~np.uint64(0))[at] == terms]
            length = np.sqrt(np.square(idf[at]).sum() + (len(terms) - len(at)) * unknown**2)
            for term in at:
                alike[row, self.owners[self.starts[term] : self.starts[term + 1]]] += idf[term] ** 2
            if length:
                alike[row] /= length * self.lengths
        return alike


@lru_cache(4096)
def _distinct(question: str) -> NDArray[np.uint64]:
    return np.unique(occurrences([question])[0])


def _idf(questions: int, holders: NDArray[np.number]) -> NDArray[np.float64]:
    return np.asarray(np.log1p((questions - holders + 0.5) / (holders + 0.5)), np.float64)


def _terms(questions: Sequence[str]) -> tuple[NDArray[np.uint64], Ints, Ints, Floats]:
    """The inverted file of `questions`: terms, starts, owners and the norms of the questions."""
    found, of = occurrences(questions) if questions else (np.zeros(0, np.uint64), np.zeros(0, np.int32))
    return _inverted(found, of, len(questions))


def _inverted(
    found: NDArray[np.uint64], of: NDArray[np.integer], questions: int
) -> tuple[NDArray[np.uint64], Ints, Ints, Floats]:
    """The same, of terms and the questions that they occur in."""
    pairs = np.unique(found << np.uint64(64 - BITS) | of.astype(np.uint64))
    terms, first = np.unique(pairs >> np.uint64(64 - BITS), return_index=True)
    starts = np.append(first, len(pairs)).astype(np.int64)
    owners = (pairs & np.uint64((1 << 64 - BITS) - 1)).astype(np.int64)
    weights = np.repeat(_idf(questions, np.diff(starts)), np.diff(starts))
    lengths = np.sqrt(np.bincount(owners, weights**2, minlength=questions))
    # A question of signs alone has no terms, and is like nothing.
    return terms, starts, owners, np.where(lengths > 0, lengths, np.inf).astype(np.float32)
