"""BM25 over the chunks of one generation, in memory. Pure.

    score(q, d) = Σ over the terms t of q of  n(t, q) · idf(t) · (k1 + 1) · n(t, d) / (n(t, d) + K(d))
    K(d) = k1 · (1 − b + b · |d| / mean |d|),   idf(t) = ln(1 + (N − N(t) + ½) / (N(t) + ½))

with k1 = 1.2 and b = 0.75 (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and
Beyond", 2009; idf as in Lucene). What the terms are is in `terms`.

What is guaranteed: an index never changes, so a search may go on in one while the next is made; a
score depends on the question and on the set of chunks alone, to the last bit, whether the index was
built at once or renewed a hundred times; equal scores go by id. What is not: a question with more than
`LONGEST` different terms that stand in chunks is judged by the weightiest of them.

Chunks are kept in segments, as in Lucene: a renewal makes new ones of what is new, drops from the
others what has gone, and merges small ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.embedder.terms import occurrences

__all__ = ["LONGEST", "LexicalIndex", "Match"]

K1 = 1.2
B = 0.75

LONGEST = 128
"""Different terms of a question that are looked for: it bounds the time of a page pasted as a question."""

SEGMENT = 8_192
"""Chunks in a segment, at most: more make searches faster (at 100,000 chunks: 16,384 take 0.7 of the
time), and take more memory while they are made (8,192 of 500 characters: 90 MB for a moment)."""

_BATCH = 250_000
"""Characters that are taken apart at once."""

_ROW, _COUNT = 16, 8
"""Bits. A posting in the making is one number, `term · row · count`: sorting the numbers sorts it all."""

Ids: TypeAlias = NDArray[np.bytes_]
Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Segment:
    """The postings of some chunks.

    Attributes:
        ids: shape (chunks,), sorted; a chunk's place is its row.
        lengths: shape (chunks,): how many terms each has, repetitions counted.
        terms: shape (terms,), sorted.
        starts: shape (terms + 1,): postings `starts[i]` to `starts[i + 1]` are those of `terms[i]`.
        rows, counts: shape (postings,): where the term stands, and how often (255: or more).
    """

    ids: Ids
    lengths: NDArray[np.int32]
    terms: NDArray[np.uint64]
    starts: NDArray[np.int32]
    rows: NDArray[np.uint16]
    counts: NDArray[np.uint8]

    @classmethod
    def of(cls, ids: Ids, lengths: NDArray[np.int32], postings: NDArray[np.uint64]) -> _Segment:
        """From postings of one number each, in any order; they are sorted in place."""
        postings.sort()
        keys = postings >> np.uint64(_ROW + _COUNT)
        first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
        return cls(
            ids,
            lengths,
            keys[first],
            np.append(first, len(keys)).astype(np.int32),
            (postings >> np.uint64(_COUNT)).astype(np.uint16),
            postings.astype(np.uint8),
        )

    def postings(self, rows: NDArray[np.intp]) -> NDArray[np.uint64]:
        """Every posting in one number, its chunk at the place that `rows`, shape (chunks,), says; those
        whose place is negative are left out."""
        moved = rows[self.rows]
        packed = np.repeat(self.terms, np.diff(self.starts)) << np.uint64(_ROW + _COUNT)
        packed |= moved.astype(np.uint64) << np.uint64(_COUNT)
        packed |= self.counts
        chosen: NDArray[np.uint64] = packed[moved >= 0]
        return chosen

    def spans(self, terms: NDArray[np.uint64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Where the postings of each of `terms` begin and end."""
        at = np.searchsorted(self.terms, terms)
        found = np.append(self.terms, ~np.uint64(0))[at] == terms
        return self.starts[np.where(found, at, 0)], self.starts[np.where(found, at + 1, 0)]

    def rows_of(self, ids: Ids) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """The row of each of `ids`, and whether it is here at all."""
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return at, self.ids[at] == ids


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """How well every chunk of an index matches one question.

    Attributes:
        best: the highest score; 0 where nothing matches.
        bound: what no chunk's score can reach, Σ n(t, q) · idf(t) · (k1 + 1), with the terms that no
            chunk has: against it, `best` tells how much of the question is found at all.
    """

    best: float
    bound: float
    _segments: tuple[_Segment, ...]
    _scores: Floats

    def top(self, n: int) -> list[str]:
        """The ids of the `n` best chunks, best first; fewer where fewer have any of the terms."""
        places = np.flatnonzero(self._scores)
        if 0 < n < len(places):
            least = np.partition(self._scores[places], -n)[-n]
            places = places[self._scores[places] >= least]
        ends = np.cumsum([len(segment.ids) for segment in self._segments])
        of = np.searchsorted(ends, places, side="right")
        found = [
            (-self._scores[place], self._segments[index].ids[place - ends[index]])
            for place, index in zip(places, of, strict=True)
        ]
        return [id.decode() for _, id in sorted(found)[:n]]

    def scores(self, ids: Sequence[str]) -> Floats:
        """The score of each of `ids`; 0 where a chunk has none of the terms.

        Raises:
            KeyError: no such chunk is in the index.
        """
        wanted = _ids(ids)
        scores = np.zeros(len(wanted), np.float32)
        known = np.zeros(len(wanted), bool)
        begin = 0
        for segment in self._segments:
            rows, here = segment.rows_of(wanted)
            scores[here] = self._scores[begin + rows[here]]
            known |= here
            begin += len(segment.ids)
        if not known.all():
            raise KeyError(ids[int(np.argmin(known))])
        return scores


class LexicalIndex:
    """The chunks of one generation by their terms; `LexicalIndex()` holds none."""

    def __init__(self, segments: Sequence[_Segment] = ()) -> None:
        self._segments = tuple(segments)
        self._chunks = sum(len(segment.ids) for segment in segments)
        self._mean = sum(int(segment.lengths.sum()) for segment in segments) / max(1, self._chunks) or 1.0

    def __len__(self) -> int:
        return self._chunks

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(
            array.nbytes
            for s in self._segments
            for array in (s.ids, s.lengths, s.terms, s.starts, s.rows, s.counts)
        )

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Which of `ids` `renewed` needs the texts of, each once, in order."""
        return [id.decode() for id in self._missing(np.unique(_ids(ids)))]

    def renewed(self, ids: Iterable[str], texts: Mapping[str, str]) -> LexicalIndex:
        """The index of exactly the chunks `ids`. Blocks: run it in a thread. To fill a large one in
        little memory, let each call add some thousands.

        Args:
            ids: one for each content, such as its hash: up to 64 ASCII characters. What has the same
                id has the same text, for good.
            texts: the texts of those that are `missing`, at least.

        Raises:
            KeyError: a text is missing.
        """
        wanted = np.unique(_ids(ids))
        kept = [_merged([segment], wanted) for segment in self._segments]
        made = _made((id, texts[id.decode()]) for id in self._missing(wanted))
        return LexicalIndex(tuple(_compact(segment for segment in [*kept, *made] if len(segment.ids))))

    def match(self, question: str) -> Match:
        """Score every chunk: about a millisecond for 10,000 of 500 characters."""
        terms, weights, bound = self._weigh(question)
        scores = np.zeros(self._chunks, np.float32)
        begin = 0
        for segment in self._segments:
            end = begin + len(segment.ids)
            self._add(segment, terms, weights, scores[begin:end])
            begin = end
        return Match(float(scores.max(initial=0)), bound, self._segments, scores)

    def _weigh(self, question: str) -> tuple[NDArray[np.uint64], Floats, float]:
        """The terms of a question to look for, what each can add to a score, and the bound of scores."""
        terms, times = np.unique(occurrences([question])[0], return_counts=True)
        holders = np.zeros(len(terms))
        for segment in self._segments:
            starts, ends = segment.spans(terms)
            holders += ends - starts
        weights = times * (K1 + 1) * np.log1p((self._chunks - holders + 0.5) / (holders + 0.5))
        # What nobody wrote costs no time, and must not crowd out what somebody did.
        order = np.argsort(np.where(holders, -weights, 0), kind="stable")[:LONGEST]
        chosen = np.sort(order[holders[order] > 0])
        bound = weights[chosen].sum() + weights[holders == 0].sum()
        return terms[chosen], weights[chosen].astype(np.float32), float(bound)

    def _add(self, segment: _Segment, terms: NDArray[np.uint64], weights: Floats, scores: Floats) -> None:
        saturation = (K1 * (1 - B + B * segment.lengths / self._mean)).astype(np.float32)
        for start, end, weight in zip(*segment.spans(terms), weights, strict=True):
            if start < end:
                rows = segment.rows[start:end]
                counts = segment.counts[start:end].astype(np.float32)
                scores[rows] += weight * counts / (counts + saturation[rows])

    def _missing(self, wanted: Ids) -> Ids:
        known = [segment.ids for segment in self._segments]
        return np.setdiff1d(wanted, np.concatenate(known), assume_unique=True) if known else wanted


def _ids(ids: Iterable[str]) -> Ids:
    """Raises ValueError where an id is longer than 64 bytes: it would be cut."""
    array = np.array([id.encode("ascii") for id in ids], np.bytes_)
    if array.dtype.itemsize > 64:
        raise ValueError("an id has more than 64 characters")
    return array.astype("S64")


def _made(texts: Iterable[tuple[bytes, str]]) -> Iterator[_Segment]:
    """Segments of what is new, sorted by id."""
    texts = iter(texts)
    while part := list(islice(texts, SEGMENT)):
        lengths = np.zeros(len(part), np.int32)
        postings = np.concatenate([_postings(part, begin, end, lengths) for begin, end in _batches(part)])
        yield _Segment.of(np.array([id for id, _ in part], "S64"), lengths, postings)


def _batches(part: Sequence[tuple[bytes, str]]) -> Iterator[tuple[int, int]]:
    begin = characters = 0
    for end, (_, text) in enumerate(part, start=1):
        characters += len(text)
        if characters >= _BATCH or end == len(part):
            yield begin, end
            begin, characters = end, 0


def _postings(
    part: Sequence[tuple[bytes, str]], begin: int, end: int, lengths: NDArray[np.int32]
) -> NDArray[np.uint64]:
    terms, owners = occurrences([text for _, text in part[begin:end]])
    owners += begin
    lengths[begin:end] = np.bincount(owners, minlength=end)[begin:end]
    standing, counts = np.unique(terms << np.uint64(_ROW) | owners.astype(np.uint64), return_counts=True)
    postings: NDArray[np.uint64] = standing << np.uint64(_COUNT) | np.minimum(counts, 255).astype(np.uint64)
    return postings


def _merged(segments: Sequence[_Segment], wanted: Ids | None = None) -> _Segment:
    """One segment of what is `wanted` in several; all without it."""
    ids = np.concatenate([segment.ids for segment in segments])
    keep = np.ones(len(ids), bool) if wanted is None else np.isin(ids, wanted)
    if len(segments) == 1 and keep.all():
        return segments[0]
    lengths = np.concatenate([segment.lengths for segment in segments])
    order = np.argsort(ids, kind="stable")
    order = order[keep[order]]
    rows = np.full(len(ids), -1)
    rows[order] = np.arange(len(order))
    parts = np.split(rows, np.cumsum([len(segment.ids) for segment in segments])[:-1])
    postings = [segment.postings(part) for segment, part in zip(segments, parts, strict=True)]
    return _Segment.of(ids[order], lengths[order], np.concatenate(postings))


def _compact(segments: Iterable[_Segment]) -> Iterator[_Segment]:
    """Small segments merged, as long as they fit into one."""
    group: list[_Segment] = []
    for segment in sorted(segments, key=lambda segment: -len(segment.ids)):
        if group and sum(len(other.ids) for other in group) + len(segment.ids) > SEGMENT:
            yield _merged(group)
            group = []
        group.append(segment)
    if group:
        yield _merged(group)
