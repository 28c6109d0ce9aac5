"""Whom learning helps: every measure apart for questions asked again, new ones, and those about documents
that nobody had voted on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from services.embedder.learning.credit import Example
from services.embedder.learning.library import Ints, Learned, Library
from services.embedder.learning.measures import Floats, bootstrap, measure

__all__ = ["AGAIN", "KINDS", "by_kind"]

AGAIN = 0.15
"""The nearness (κ of `memory`) from which a question counts as asked again."""

KINDS = ("asked again", "new", "unseen document")


def by_kind(
    library: Library, rows: Ints, gains: Floats, train: Sequence[Example], learned: Learned
) -> dict[str, Any]:
    """Every measure before, after and its change, for *asked again*, *new* and *unseen document*
    questions: kind → measure → "before" | "after" | "delta" → interval."""
    taught = {library.documents.get(c, c) for each in train for c, y in each.targets.items() if y > 0}
    best = np.take_along_axis(library.candidates[rows], gains.argmax(1)[:, None], 1)[:, 0]
    wanted = [library.chunks[place] for place in best]
    unseen = np.array([library.documents.get(chunk, chunk) not in taught for chunk in wanted], bool)
    again = np.zeros(len(rows), bool)
    if learned.memory is not None and len(learned.memory):
        questions = [library.questions[row] for row in rows]
        again = learned.memory.nearness(library.question_vectors[rows], questions).max(1) >= AGAIN
    kind = np.where(unseen, KINDS[2], np.where(again, KINDS[0], KINDS[1]))
    before = measure(library.scores(rows, Learned()), gains)
    after = measure(library.scores(rows, learned), gains)
    return {
        name: {
            key: {
                "before": bootstrap(before[key][kind == name]).public(),
                "after": bootstrap(after[key][kind == name]).public(),
                "delta": bootstrap((after[key] - before[key])[kind == name]).public(),
            }
            for key in before
        }
        for name in KINDS
    }
