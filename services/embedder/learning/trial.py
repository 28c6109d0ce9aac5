"""Fit on the older votes, judge on the newer, and only then fit on all. Pure.

What is guaranteed: what the gate judges has never seen a vote it is judged by, nor the choice between
the fitting's variants, which is made within the older votes. What is not: that votes of both parts are
of different people.

What is right for a newer question:

- Where its citations were voted on: these, and what was liked for *other* newer questions near it
  (κ of `memory`). Rankings are compared on the judged chunks alone ("condensed lists": Sakai,
  "Alternatives to bpref", SIGIR 2007): users judge what the old ranking showed, and a right chunk that
  it did not show must not count as a wrong one.
- Where only answers were: what was liked for other newer questions near it. By its own vote exactly
  what was shown would be right, and nothing could ever be better than no change. So an answer vote on
  a question that nobody else asked judges nothing.

The document-disjoint set looks for harm, so there whatever is not judged counts as wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np

from services.embedder.learning import adapter, fusion_weight
from services.embedder.learning.credit import Example, Vote, examples
from services.embedder.learning.gate import Decision, Evidence, Paired, judge
from services.embedder.learning.kinds import by_kind
from services.embedder.learning.library import Ints, Learned, Library
from services.embedder.learning.measures import Floats, by_rank, ndcg
from services.embedder.learning.memory import Memory
from services.embedder.learning.thumbs import Thumbs, heard
from shared.embedding.vectors import Vectors

__all__ = ["STRENGTHS", "Outcome", "Recipe", "fit", "learn", "split"]

NEWER = 0.4
"""The share of votes, newest first, that judge."""


STRENGTHS = (1.0, 0.5, 0.25)
"""Of the memory, in this order: where all that speaks against a change is what it might spoil, a weaker
one is tried. Half as strong, it keeps 90 % of its gain on Cranfield, and costs others half as much."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is fitted; the memory always is, and its bonuses are multiplied by `strength`."""

    weight: bool = False
    ridge: float | None = None
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """`learned` is from all votes where the decision is to promote; None where nothing changes."""

    learned: Learned | None
    decision: Decision
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True, slots=True, eq=False)
class _Judges:
    """Newer questions and what is right for them; which candidates are `judged`, shape as `gains`."""

    rows: Ints
    gains: Floats
    judged: Floats
    weights: Floats
    users: Sequence[str]
    documents: Sequence[str]

    def paired(self, before: Floats, after: Floats) -> Paired:
        return Paired(before, after, self.weights, self.users, self.documents)


def learn(
    votes: Sequence[Vote],
    library: Library,
    now: datetime,
    *,
    golden: Mapping[str, Mapping[str, float]] | None = None,
) -> Outcome:
    """Everything, in order. Blocks for seconds: run it in a thread.

    Args:
        library: with every question of `votes` and of `golden`.
        golden: question → chunk hash → gain.

    Raises:
        KeyError: a question is not in the library.
    """
    older, newer = split(votes)
    train = examples(older, now, library.documents)
    judges = _judges(examples(newer, now, library.documents), library)
    if not train or not len(judges.rows):
        why = "no vote says yet what search should have found"
        return Outcome(None, Decision(False, [why], {"votes": len(votes)}))
    recipe = _choose(older, library, now)
    # How strong the memory is does not matter to whether thumbs bear it out.
    thumbs = heard(newer, library, _remember(train, library, 1.0))
    for strength in STRENGTHS:
        recipe = replace(recipe, strength=strength)
        learned = fit(train, library, recipe)
        decision = judge(_evidence(train, thumbs, library, judges, recipe, learned, golden))
        if not decision.harms_only:
            break
    decision.figures["by_kind"] = by_kind(library, judges.rows, judges.gains, train, learned)
    decision.figures["recipe"] = {
        "alpha": learned.alpha, "ridge": recipe.ridge, "strength": strength, "questions": len(train)
    }  # fmt: skip
    final = fit(examples(votes, now, library.documents), library, recipe) if decision.promote else None
    return Outcome(final, decision, recipe)


def split(votes: Sequence[Vote], newer: float = NEWER) -> tuple[list[Vote], list[Vote]]:
    """The older and the newer votes."""
    ordered = sorted(votes, key=lambda vote: vote.voted)
    at = round(len(ordered) * (1 - newer))
    return ordered[:at], ordered[at:]


def fit(train: Sequence[Example], library: Library, recipe: Recipe) -> Learned:
    """What `recipe` learns from `train`."""
    memory = _remember(train, library, recipe.strength)
    matrix = None
    if recipe.ridge is not None:
        questions, chunks, weights, _ = _pairs(train, library)
        matrix = adapter.fit(questions, chunks, weights, recipe.ridge) if len(questions) else None
    alpha = Learned().alpha
    if recipe.weight:
        # Only votes on citations: those on answers call right whatever the old weight showed.
        rows = library.at([example.question for example in train])
        gains = library.gains(rows, [example.direct for example in train])
        trust = np.array([example.trust for example in train])
        dense = library.dense_under(rows, matrix)
        alpha = fusion_weight.fit(dense, library.lexical[rows], gains, trust).alpha
    return Learned(memory, alpha, matrix)


def _remember(train: Sequence[Example], library: Library, strength: float) -> Memory:
    rows = library.at([example.question for example in train])
    return Memory.fit(train, library.question_vectors[rows], strength)


def _choose(older: Sequence[Vote], library: Library, now: datetime) -> Recipe:
    """Add to the memory what surely does better on the newest of the older votes, one thing after another:
    on development questions, adapters that just did better gave +.000 on questions asked again, and −.001
    on new ones."""
    first, then = split(older)
    train = examples(first, now, library.documents)
    judges = _judges(examples(then, now, library.documents), library)
    recipe = Recipe()
    if not train or not len(judges.rows):
        return recipe
    whole = examples(older, now, library.documents)
    for better in (replace(recipe, weight=True), replace(recipe, ridge=_ridge(whole, library))):
        tried = replace(recipe, weight=recipe.weight or better.weight, ridge=better.ridge)
        if tried == recipe:
            continue
        old, new = (_ndcg(library, judges, fit(train, library, each)) for each in (recipe, tried))
        if judges.paired(old, new).delta().low > 0:
            recipe = tried
    return recipe


def _evidence(
    train: Sequence[Example],
    thumbs: Thumbs,
    library: Library,
    judges: _Judges,
    recipe: Recipe,
    learned: Learned,
    golden: Mapping[str, Mapping[str, float]] | None,
) -> Evidence:
    before, after = (_ndcg(library, judges, each) for each in (Learned(), learned))
    return Evidence(
        judges.paired(before, after),
        _overlap(library, judges.rows, learned),
        thumbs,
        _disjoint(train, library, judges, recipe),
        _golden(golden, library, learned),
    )


def _ridge(train: Sequence[Example], library: Library) -> float | None:
    return adapter.choose(*_pairs(train, library))


def _pairs(train: Sequence[Example], library: Library) -> tuple[Vectors, Vectors, Floats, Ints]:
    """Question vectors, vectors of chunks that were liked for them, weights, and which question. Only of
    votes on citations, as for the weight."""
    places = {chunk: place for place, chunk in enumerate(library.chunks)}
    rows = library.at([each.question for each in train])
    pairs = [
        (index, places[chunk], y)
        for index, each in enumerate(train)
        for chunk, y in each.direct.items()
        if y > 0 and chunk in places
    ]
    groups = np.array([index for index, _, _ in pairs], np.int64)
    chunks = np.array([place for _, place, _ in pairs], np.int64)
    weights = np.array([y for _, _, y in pairs], float)
    return library.question_vectors[rows[groups]], library.chunk_vectors[chunks], weights, groups


def _judges(newer: Sequence[Example], library: Library) -> _Judges:
    rows = library.at([each.question for each in newer])
    near: list[dict[str, float]] = [{} for _ in newer]
    if newer:
        memory = Memory.fit(newer, library.question_vectors[rows])
        questions = [each.question for each in newer]
        found = memory.bonuses(library.question_vectors[rows], questions, own=False)
        for row, column, value in zip(found.rows, found.columns, found.values, strict=True):
            near[row][memory.chunks[column].decode()] = float(value)
    right = [
        {
            chunk: each.direct.get(chunk, 0.0) + others.get(chunk, 0.0)
            for chunk in sorted({*each.direct, *others})
        }
        for each, others in zip(newer, near, strict=True)
    ]
    gains = library.gains(rows, right)
    told = library.gains(rows, [dict.fromkeys(each, 1.0) for each in right]) > 0
    counts = gains.max(1, initial=0) > 0
    kept = [i for i in range(len(newer)) if counts[i]]
    documents = [max(right[i], key=lambda chunk, i=i: right[i][chunk]) for i in kept]  # type: ignore[misc]
    return _Judges(
        rows[kept],
        gains[kept],
        (told | np.array([not each.direct for each in newer], bool)[:, None])[kept],
        np.array([newer[i].trust for i in kept]),
        [newer[i].users[0] if len(newer[i].users) == 1 else f"several: {i}" for i in kept],
        [library.documents.get(chunk, chunk) for chunk in documents],
    )


def _ndcg(library: Library, judges: _Judges, learned: Learned, *, whole: bool = False) -> Floats:
    """Of the chunks that are `judged`, or of all."""
    scores = library.scores(judges.rows, learned)
    return ndcg(*by_rank(scores if whole else np.where(judges.judged, scores, -np.inf), judges.gains))


def _overlap(library: Library, rows: Ints, learned: Learned) -> Floats:
    tops = [
        np.argsort(-library.scores(rows, each), axis=1, kind="stable")[:, :10]
        for each in (Learned(), learned)
    ]
    return np.asarray((tops[0][:, :, None] == tops[1][:, None, :]).any(2).mean(1))


def _disjoint(train: Sequence[Example], library: Library, judges: _Judges, recipe: Recipe) -> Paired:
    """Quarter by quarter of the documents: without any vote on them, on the questions about them. A
    question one of whose targets is theirs is left out with all of its votes, as what remained of them
    would be just the wrong ones. What is not judged counts as wrong here: this looks for harm."""
    before = _ndcg(library, judges, Learned(), whole=True)
    after = before.copy()
    about = np.array([_quarter(document) for document in judges.documents])
    told = [{_quarter(library.documents.get(c, c)) for c in example.targets} for example in train]
    for quarter in range(4):
        rest = [example for example, quarters in zip(train, told, strict=True) if quarter not in quarters]
        learned = fit(rest, library, recipe)
        after[about == quarter] = _ndcg(library, judges, learned, whole=True)[about == quarter]
    return judges.paired(before, after)


def _quarter(document: str) -> int:
    return hashlib.sha256(document.encode()).digest()[0] % 4


def _golden(
    golden: Mapping[str, Mapping[str, float]] | None, library: Library, learned: Learned
) -> Paired | None:
    if not golden:
        return None
    rows = library.at([*golden])
    gains = library.gains(rows, [*golden.values()])
    before, after = (ndcg(*by_rank(library.scores(rows, each), gains)) for each in (Learned(), learned))
    return Paired(before, after)
