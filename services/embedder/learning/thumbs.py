"""Whether newer thumbs bear out what older votes taught. Pure.

Each newer 👍 or 👎 is about chunks: a citation about one, an answer about those it cites, or that were
shown, best first. Where the memory of the older votes says something about the question,

    agreement = nDCG of these chunks, whose gains are the memory's bonuses (0 where one is negative)

is 1 where users were shown just what the memory would have put on top, and less where it would have put
something else there. If the memory is right, 👍 lie where it agrees and 👎 where it does not. Thumbs dealt
out at random lie anywhere, however many of them are 👍: what a like adds by merely repeating that a chunk
was shown, which random thumbs add as well, does not count here.

    p = (1 + how many of `DEALS` random deals of the newer thumbs fit at least as well) / (1 + DEALS)

by Σ w · (agreement − its mean) over the 👍: a permutation test (Fisher, 1935; Phipson and Smyth, 2010, for
the 1s), with the thumbs on citations and those on answers dealt out apart from each other. w caps users
as `credit` does.

What is guaranteed: thumbs that were dealt out at random have p ≤ x with a probability of x at most, for
nothing was fitted to them. What is not: that 👎 mean retrieval; where they mostly do not, p is large.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.embedder.learning.credit import DEPTH, Vote, caps, last_votes, thumbed
from services.embedder.learning.library import Library
from services.embedder.learning.measures import Floats, ndcg
from services.embedder.learning.memory import Memory

__all__ = ["DEALS", "Thumbs", "heard"]

DEALS = 999
_BATCH = 50

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Thumbs:
    """Thumbs on what the memory had an opinion about, each of shape (thumbs,).

    Attributes:
        agreement: 0 to 1.
        liked: 👍 or 👎.
        direct: on a citation, or on an answer.
        weights: not negative.
    """

    agreement: Floats
    liked: Flags
    direct: Flags
    weights: Floats

    def mean(self, liked: bool) -> float:
        """The mean agreement of the 👍, or of the 👎; 0 where there is none."""
        weights = np.where(self.liked == liked, self.weights, 0)
        total = weights.sum()
        return float(self.agreement @ weights / total) if total else 0.0

    def p(self, seed: int = 0) -> float:
        """How likely random thumbs would fit as well."""
        rng, pull = np.random.default_rng(seed), np.zeros(len(self.liked))
        kinds = [np.flatnonzero(self.direct == kind) for kind in (True, False)]
        for at in kinds:
            if total := self.weights[at].sum():
                mean = self.agreement[at] @ self.weights[at] / total
                pull[at] = self.weights[at] * (self.agreement[at] - mean)
        better = 0
        for begin in range(0, DEALS, _BATCH):
            fits = np.zeros(min(_BATCH, DEALS - begin))
            for at in kinds:
                fits += rng.permuted(np.tile(self.liked[at], (len(fits), 1)), axis=1) @ pull[at]
            better += int((fits >= pull @ self.liked - 1e-9).sum())
        return (1 + better) / (1 + DEALS)


def heard(newer: Sequence[Vote], library: Library, memory: Memory) -> Thumbs:
    """The newer thumbs, and how far what they are about agrees with a memory of older votes."""
    votes = last_votes(newer)
    questions = list({question: None for question, _ in votes})
    rows = library.at(questions)
    found = memory.bonuses(library.question_vectors[rows], [library.questions[row] for row in rows])
    right: dict[str, dict[str, float]] = {question: {} for question in questions}
    for row, column, value in zip(found.rows, found.columns, found.values, strict=True):
        if value > 0:
            right[questions[row]][memory.chunks[column].decode()] = float(value)
    about = [
        (right[question], chunks, liked, direct, user)
        for (question, user), vote in votes.items()
        if right[question]
        for chunks, liked, direct in thumbed(vote)
    ]
    shape = len(about), DEPTH
    gains, ideal = np.zeros(shape), np.zeros(shape)
    for at, (wanted, chunks, _, _, _) in enumerate(about):
        gains[at, : len(chunks)] = [wanted.get(chunk, 0.0) for chunk in chunks]
        best = sorted(wanted.values(), reverse=True)[: len(chunks)]
        ideal[at, : len(best)] = best
    users = [user for _, _, _, _, user in about]
    factors = caps(Counter(users))
    return Thumbs(
        ndcg(gains, ideal),
        np.array([liked for _, _, liked, _, _ in about], bool),
        np.array([direct for _, _, _, direct, _ in about], bool),
        np.array([factors[user] for user in users], float),
    )
