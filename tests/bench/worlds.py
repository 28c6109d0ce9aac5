"""What is asked of a collection while votes are cast, and what afterwards."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.embedder.learning.credit import Vote
from services.embedder.learning.library import Library
from services.embedder.learning.measures import Floats
from tests.bench import simulation as sim

SETS = ("asked again, reworded", "asked again, hard", "new", "unseen document")


@dataclass(frozen=True, eq=False)
class World:
    """One seed of one collection: what is asked while votes are cast, and what is asked afterwards."""

    engine: sim.Engine
    asked: list[sim.Asked]
    library: Library
    seen: list[list[str]]
    truth: dict[int, dict[str, float]]
    tests: dict[str, tuple[Library, Floats]]

    def votes(self, seed: int, *, on_chunks: bool) -> list[Vote]:
        return sim.votes(self.asked, self.seen, self.truth, random.Random(seed), on_chunks=on_chunks)


def development(question: str) -> bool:
    """Whether parameters may be chosen by it: every third question, by its hash."""
    return hashlib.sha256(question.encode()).digest()[0] % 3 == 0


def world(engine: sim.Engine, seed: int, *, dev: bool = False, taught: int = 1500, again: int = 700) -> World:
    """`taught` questions are voted on, and `again` of them asked again while votes are cast."""
    rng = random.Random(f"{engine.collection.name} {seed}")
    collection = engine.collection
    train, new, unseen = parts(collection, usable(collection, dev), taught, rng)
    asked = sim.stream(collection, train, again, rng)
    texts = {
        SETS[0]: [sim.reworded(collection.questions[q], rng) for q in train],
        SETS[1]: [sim.hard(collection.questions[q], rng) for q in train],
        SETS[2]: [collection.questions[q] for q in new],
        SETS[3]: [collection.questions[q] for q in unseen],
    }
    tests = {}
    for name, sources in zip(SETS, (train, train, new, unseen), strict=True):
        library = engine.library(texts[name], whole=True)
        first = {normal_row: i for i, normal_row in reversed(list(enumerate(library.at(texts[name]))))}
        kept = [sources[first[row]] for row in range(len(library.questions))]
        tests[name] = library, library.gains(np.arange(len(kept)), engine.truth(kept))
    library = engine.library([each.text for each in asked])
    truth = dict(enumerate(engine.truth(range(len(collection.questions)))))
    return World(engine, asked, library, sim.shown(library, asked), truth, tests)


def usable(collection: sim.Collection, dev: bool = False) -> list[int]:
    """The questions of one part; of a small collection, all."""
    few = len(collection.questions) < 1000
    return [q for q, text in enumerate(collection.questions) if few or development(text) == dev]


def parts(
    collection: sim.Collection, asked: Sequence[int], taught: int, rng: random.Random
) -> tuple[list[int], list[int], list[int]]:
    """Questions that are voted on; others about the same documents; others about none of these."""
    order = rng.sample(list(asked), len(asked))
    of = {q: {collection.documents[place] for place in collection.right[q]} for q in order}
    if len(order) < 1000:
        train = order[: len(order) * 2 // 3]
    else:
        apart = set(rng.sample(sorted(set(collection.documents)), len(set(collection.documents)) // 5))
        train = [q for q in order if not of[q] & apart][:taught]
    known = set().union(*(of[q] for q in train))
    rest = [q for q in order if q not in set(train)]
    return train, [q for q in rest if of[q] & known], [q for q in rest if not of[q] & known]
