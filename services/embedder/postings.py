"""Where terms stand in some chunks: the parts that a lexical index is made of. Pure.

A segment never changes. As in Lucene, what is new makes a new one, what has gone is struck out in one
that shares its arrays with the old one, and small ones are merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.embedder.terms import occurrences

__all__ = ["Floats", "Ids", "Segment", "Spans", "as_ids", "compact", "segments"]

SEGMENT = 8_192
"""Chunks in a segment, at most: more make searches a little faster, and take more memory while they are
made (8,192 of 500 characters: 90 MB for a moment)."""

_STANDING = 0.75
"""Share of a segment's chunks without which it is made anew."""

_BATCH = 250_000
"""Characters that are taken apart at once."""

_ROW, _COUNT = 16, 8
"""Bits. A posting in the making is one number, `term · row · count`: sorting the numbers sorts it all."""

_END = ~np.uint64(0)
"""More than any term."""

Number = TypeVar("Number", bound=np.generic)
Ids: TypeAlias = NDArray[np.bytes_]
Floats: TypeAlias = NDArray[np.float32]
Spans: TypeAlias = tuple[NDArray[np.int32], NDArray[np.int32]]


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """The postings of some chunks.

    Attributes:
        ids: shape (chunks,), sorted; a chunk's place is its row.
        lengths: shape (chunks,): how many terms each has, repetitions counted.
        terms: shape (terms + 1,), sorted; behind them, `_END`.
        starts: shape (terms + 1,): postings `starts[i]` to `starts[i + 1]` are those of `terms[i]`.
        rows, counts: shape (postings,): where the term stands, and how often (255: or more); the rows of
            a term are sorted.
        standing: shape (chunks,): which chunks are not struck out; None: all.
    """

    ids: Ids
    lengths: NDArray[np.int32]
    terms: NDArray[np.uint64]
    starts: NDArray[np.int32]
    rows: NDArray[np.uint16]
    counts: NDArray[np.uint8]
    standing: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, ids: Ids, lengths: NDArray[np.int32], postings: NDArray[np.uint64]) -> Segment:
        """From postings of one number each, in any order; they are sorted in place."""
        postings.sort()
        keys = postings >> np.uint64(_ROW + _COUNT)
        first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
        return cls(
            ids,
            lengths,
            np.append(keys[first], _END),
            np.append(first, len(keys)).astype(np.int32),
            (postings >> np.uint64(_COUNT)).astype(np.uint16),
            postings.astype(np.uint8),
        )

    def __len__(self) -> int:
        return len(self.ids) if self.standing is None else int(self.standing.sum())

    @property
    def nbytes(self) -> int:
        arrays = (self.ids, self.lengths, self.terms, self.starts, self.rows, self.counts)
        return sum(array.nbytes for array in arrays)

    @property
    def occurrences(self) -> int:
        """Terms of all chunks, repetitions counted."""
        return int(self.lengths.sum() if self.standing is None else self.lengths[self.standing].sum())

    def spans(self, terms: NDArray[np.uint64]) -> Spans:
        """Where the postings of each of `terms` begin and end."""
        at = np.searchsorted(self.terms, terms)
        return self.starts[at], self.starts[at + (self.terms[at] == terms)]

    def holders(self, spans: Spans) -> NDArray[np.integer]:
        """How many chunks have each of the terms whose postings are at `spans`."""
        starts, ends = spans
        if self.standing is None:
            return ends - starts
        before = np.append(0, np.cumsum(self.standing[_sliced(self.rows, spans)]))
        holders: NDArray[np.integer] = np.diff(before[np.append(0, np.cumsum(ends - starts))])
        return holders

    def scores(self, spans: Spans, weights: Floats, saturation: Floats) -> NDArray[np.float64]:
        """BM25 of each chunk, shape (chunks,), for terms whose postings are at `spans`; 0 of those that
        are struck out.

        Args:
            weights: of each term, shape (terms,).
            saturation: K(d) of each chunk, shape (chunks,).
        """
        # All terms at once: a call to NumPy for each would take longer than what it does.
        rows, counts = _sliced(self.rows, spans), _sliced(self.counts, spans).astype(np.float32)
        shares = np.repeat(weights, spans[1] - spans[0]) * (counts / (counts + saturation[rows]))
        scores = np.asarray(np.bincount(rows, shares, len(self.ids)), np.float64)
        return scores if self.standing is None else scores * self.standing

    def rows_of(self, ids: Ids) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """The row of each of `ids`, and whether it is here at all."""
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        here = self.ids[at] == ids
        return at, here if self.standing is None else here & self.standing[at]

    def only(self, standing: NDArray[np.bool_]) -> Segment:
        """With these chunks alone, shape (chunks,); what is struck out stays so."""
        if standing.all():
            return self
        struck = replace(self, standing=standing)
        return struck if standing.mean() > _STANDING else struck.tidy()

    def tidy(self) -> Segment:
        """Without what is struck out. Nothing is sorted again."""
        if self.standing is None:
            return self
        kept = self.standing[self.rows]
        before = np.append(0, np.cumsum(kept, dtype=np.int32))[self.starts]
        left = np.append(before[1:] > before[:-1], True)  # the end stays
        rows = (np.cumsum(self.standing) - 1).astype(np.uint16)
        return Segment(
            self.ids[self.standing],
            self.lengths[self.standing],
            self.terms[left],
            before[left].astype(np.int32),
            rows[self.rows[kept]],
            self.counts[kept],
        )

    def packed(self, rows: NDArray[np.intp]) -> NDArray[np.uint64]:
        """Every posting in one number, its chunk at the place that `rows`, shape (chunks,), says."""
        packed = np.repeat(self.terms[:-1], np.diff(self.starts)) << np.uint64(_ROW + _COUNT)
        packed |= rows[self.rows].astype(np.uint64) << np.uint64(_COUNT)
        packed |= self.counts
        return packed


def _sliced(array: NDArray[Number], spans: Spans) -> NDArray[Number]:
    parts = [array[start:end] for start, end in zip(spans[0].tolist(), spans[1].tolist(), strict=True)]
    return np.concatenate(parts) if parts else array[:0]


def as_ids(ids: Iterable[str]) -> Ids:
    """Raises ValueError where an id is longer than 64 bytes: it would be cut."""
    array = np.array([id.encode("ascii") for id in ids], np.bytes_)
    if array.dtype.itemsize > 64:
        raise ValueError("an id has more than 64 characters")
    return array.astype("S64")


def segments(texts: Iterable[tuple[bytes, str]]) -> Iterator[Segment]:
    """Segments of chunks, which come sorted by id."""
    texts = iter(texts)
    while part := list(islice(texts, SEGMENT)):
        lengths = np.zeros(len(part), np.int32)
        postings = np.concatenate([_postings(part, begin, end, lengths) for begin, end in _batches(part)])
        yield Segment.of(np.array([id for id, _ in part], "S64"), lengths, postings)


def compact(all_: Iterable[Segment]) -> Iterator[Segment]:
    """Small segments merged, as long as they fit into one; empty ones left out."""
    group: list[Segment] = []
    for segment in sorted(all_, key=len, reverse=True):
        if group and sum(map(len, group)) + len(segment) > SEGMENT:
            yield _merged(group)
            group = []
        if len(segment):
            group.append(segment)
    if group:
        yield _merged(group)


def _merged(group: Sequence[Segment]) -> Segment:
    if len(group) == 1:
        return group[0]
    group = [segment.tidy() for segment in group]
    ids = np.concatenate([segment.ids for segment in group])
    order = np.argsort(ids, kind="stable")
    rows = np.empty(len(ids), np.intp)
    rows[order] = np.arange(len(ids))
    parts = np.split(rows, np.cumsum([len(segment) for segment in group])[:-1])
    postings = [segment.packed(part) for segment, part in zip(group, parts, strict=True)]
    lengths = np.concatenate([segment.lengths for segment in group])
    return Segment.of(ids[order], lengths[order], np.concatenate(postings))


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
