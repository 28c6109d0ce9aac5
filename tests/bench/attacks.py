"""Votes that say nothing, and votes that lie."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from services.embedder.learning.credit import Vote


def deal(votes: Sequence[Vote], rng: np.random.Generator) -> list[Vote]:
    """The same votes, their thumbs dealt out at random: those on citations, those on answers."""
    thumbs = [value for vote in votes for value in vote.citations.values()]
    dealt = iter([thumbs[i] for i in rng.permutation(len(thumbs))])
    answers = [(vote.value, vote.reason) for vote in votes]
    order = rng.permutation(len(votes))
    return [
        replace(
            vote,
            value=answers[i][0],
            reason=answers[i][1],
            citations={chunk: next(dealt) for chunk in vote.citations},
        )
        for vote, i in zip(votes, order, strict=True)
    ]


def coins(cast: Sequence[Vote], rng: np.random.Generator) -> list[Vote]:
    """The same votes with thumbs from a tossed coin."""
    return [
        replace(
            vote,
            value=None if vote.value is None else int(rng.integers(2)),
            reason=None,
            citations={chunk: int(rng.integers(2)) for chunk in vote.citations},
        )
        for vote in cast
    ]


def brigade(cast: Sequence[Vote], rng: random.Random) -> list[Vote]:
    """One user likes the last chunk shown, whatever was asked."""
    return [
        replace(vote, user="brigade", value=1, citations={vote.shown[-1]: 1}, reason=None) for vote in cast
    ]


def brigade_among_noise(cast: Sequence[Vote], rng: random.Random) -> list[Vote]:
    """The same with four votes of five; the others are honest users' with random thumbs."""
    rest = deal(cast, np.random.default_rng(rng.randrange(2**32)))
    return [a if rng.random() < 0.8 else b for a, b in zip(brigade(cast, rng), rest, strict=True)]


def one_document(cast: Sequence[Vote], rng: random.Random) -> list[Vote]:
    """Every user likes one and the same chunk, as if search had shown it in the last place."""
    target = rng.choice(sorted({chunk for vote in cast for chunk in vote.shown}))
    return [_for(vote, target) for vote in cast]


def one_document_among_noise(cast: Sequence[Vote], rng: random.Random) -> list[Vote]:
    """The same with every second vote; the others have random thumbs."""
    rest = deal(cast, np.random.default_rng(rng.randrange(2**32)))
    return [a if rng.random() < 0.5 else b for a, b in zip(one_document(cast, rng), rest, strict=True)]


def _for(vote: Vote, target: str) -> Vote:
    shown = [*[chunk for chunk in vote.shown if chunk != target][:-1], target]
    return replace(vote, value=1, shown=shown, citations={target: 1}, reason=None)


def on_the_last(cast: Sequence[Vote], users: int, rng: random.Random) -> tuple[list[Vote], str]:
    """Fake users, who like the last chunk shown, on every second question that was asked."""
    asked = rng.sample(list(cast), len(cast) // 2)
    fakes = [
        replace(each, user=f"fake {i % users}", value=1, citations={each.shown[-1]: 1}, reason=None)
        for i, each in enumerate(asked)
    ]
    return fakes, rng.choice(fakes).shown[-1]


def on_one_document(cast: Sequence[Vote], users: int, rng: random.Random) -> tuple[list[Vote], str]:
    """Fake users, who like one and the same chunk on every second question, as if search had shown it."""
    target = rng.choice(sorted({chunk for vote in cast for chunk in vote.shown}))
    asked = rng.sample(list(cast), len(cast) // 2)
    return [replace(_for(each, target), user=f"fake {i % users}") for i, each in enumerate(asked)], target


ALONE = [brigade, brigade_among_noise, one_document, one_document_among_noise]
"""Instead of honest votes."""

MIXED = {
    "one user, last shown": (on_the_last, 1),
    "one user, one document": (on_one_document, 1),
    "five users, one document": (on_one_document, 5),
}
"""Added to honest votes: which, and by how many users."""
