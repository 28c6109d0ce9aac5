"""From votes to what each question should have found. Pure.

    y(q, d) = clip(Σᵤ wᵤ·cᵤ(q, d) / max(2, Σᵤ wᵤ), −1, 1)
    wᵤ = 2^(−age / HALF_LIFE) · cap(user) · cap(document) · cap(chunk)

`c` is the credit that user u's vote gives chunk d:

- A vote on a citation counts for that chunk: +1, or −`BLAME`. Who votes on citations has said it all:
  the vote on the answer is then not shared out as well.
- A vote on an answer is shared by 1/rank among the chunks it cites (where the bot does not say which,
  among those shown): 1, ½, ⅓, … times `ANSWER`, or times −`ANSWER`·`BLAME` where the reason points at
  retrieval:
  *irrelevant* and *source* do. *outdated* does not (the right chunk was found, its text must change),
  nor do *wrong*, *incomplete*, *unclear*, *tone*, *slow*, *unsafe* and *other*, and not a 👎 without a
  reason: they speak of the answer.

What is guaranteed: one user has one vote on a question (the last); y is −1 to 1, and a liked citation
counts fully from two users up; no user, no document and no chunk holds more of all weight than
`share(how many there are)`, a chunk half of that where there are many, and one that is alone holds
nothing; a chunk that was neither shown nor cited gets nothing. What is not: that two users are two
people. Votes without a user should come with their conversation instead.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

__all__ = [
    "BLAME",
    "DEPTH",
    "HALF_LIFE",
    "Example",
    "Vote",
    "caps",
    "examples",
    "last_votes",
    "normal",
    "share",
    "thumbed",
]

HALF_LIFE = 90.0
"""Days in which a vote loses half its weight."""

BLAME = 0.3
"""What a 👎 weighs against a 👍: that a chunk is wrong here says less than that it is right."""

ANSWER = 1.5
"""What the first chunk of a liked answer gets, a liked citation getting 1. Of the ranks of an answer each
gets something, so that only differences between them matter; a citation's neighbours get nothing, or a
👎. On development questions 1.5 instead of 1 gives +.003 (reworded) and +.010 (hard) nDCG@10, and −.001
on new ones; steeper shares (1/rank², the first alone, by score) gain nothing on KorQuAD and cost up to
.03 on Cranfield, where several chunks are right."""

FULL = 2.0
"""Users who must agree before a question and a cited chunk count fully."""

MOST, MOST_OF_CHUNK = 0.1, 0.05
"""Of all weight, what one of many users or documents may hold, and what one of many chunks."""

DEPTH = 10
"""Ranks that can get credit for an answer."""

RETRIEVAL_REASONS = frozenset({"irrelevant", "source"})


@dataclass(frozen=True, slots=True)
class Vote:
    """One user's vote on one answer.

    Attributes:
        value: 1 = 👍, 0 = 👎, None: only citations were voted on.
        shown: hashes of the chunks that search showed, best first.
        cited: hashes of those that the answer cites, best first, where the bot says.
        citations: chunk hash → 1 or 0.
        reason: a code of the ledger.
    """

    question: str
    user: str
    value: int | None
    voted: datetime
    shown: Sequence[str] = ()
    cited: Sequence[str] = ()
    citations: Mapping[str, int] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """What the votes on one question come to.

    Attributes:
        targets: chunk hash → y, −1 to 1.
        direct: the part of `targets` that rests on votes on citations alone.
        users: who voted, sorted.
        trust: what is left of the votes' weight after decay and caps, 0 to 1.
        voted: the last vote.
    """

    question: str
    targets: dict[str, float]
    direct: dict[str, float]
    users: tuple[str, ...]
    trust: float
    voted: datetime

    @property
    def liked(self) -> bool:
        return any(y > 0 for y in self.targets.values())


@dataclass(slots=True)
class _Credit:
    """One vote's word on one chunk."""

    question: str
    chunk: str
    user: str
    value: float
    weight: float
    direct: bool


def examples(
    votes: Iterable[Vote], now: datetime, documents: Mapping[str, str] | None = None
) -> list[Example]:
    """One example for each question that got any credit, sorted by question.

    Args:
        now: votes age up to it.
        documents: chunk hash → its document; a chunk that is missing is its own.
    """
    last = last_votes(votes)
    credits = [credit for (question, _), vote in last.items() for credit in _credits(question, vote, now)]
    before = [abs(credit.value) for credit in credits]
    _cap(credits, [credit.user for credit in credits])
    owners = documents or {}
    _cap(credits, [owners.get(credit.chunk, credit.chunk) for credit in credits])
    _cap(credits, [credit.chunk for credit in credits], MOST_OF_CHUNK)
    grouped: dict[str, list[tuple[_Credit, float]]] = defaultdict(list)
    for credit, size in zip(credits, before, strict=True):
        grouped[credit.question].append((credit, size))
    voted: dict[str, datetime] = {}
    for (question, _), vote in last.items():
        voted[question] = max(vote.voted, voted.get(question, vote.voted))
    return [_example(question, grouped[question], voted[question]) for question in sorted(grouped)]


def last_votes(votes: Iterable[Vote]) -> dict[tuple[str, str], Vote]:
    """(Question as `normal` writes it, user) → that user's last vote on it."""
    return {(normal(vote.question), vote.user): vote for vote in sorted(votes, key=lambda vote: vote.voted)}


def thumbed(vote: Vote) -> list[tuple[Sequence[str], bool, bool]]:
    """What a vote's thumbs are about: chunks, best first, `DEPTH` at most; whether they are liked; whether
    they are a citation. Who votes on citations has said it all."""
    seen = {*vote.shown, *vote.cited}
    direct = [([chunk], bool(liked), True) for chunk, liked in vote.citations.items() if chunk in seen]
    ranked = list(dict.fromkeys(vote.cited or vote.shown))[:DEPTH]
    if direct or vote.value is None or not ranked:
        return list(direct)
    return [(ranked, bool(vote.value), False)]


def normal(question: str) -> str:
    """What makes two questions the same: neither case, nor spacing, nor a sign at the end."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split()).rstrip(" ?!.。？！")


def share(groups: int, most: float = MOST) -> float:
    """The most of all weight that one of so many may hold: `most`; of few, 2/groups; never more than
    half."""
    return min(0.5, max(most, 2 / max(1, groups)))


def caps(masses: Mapping[str, float], most: float = MOST) -> dict[str, float]:
    """By how much the weight of each group is to be multiplied, 0 to 1, so that none holds more than
    its `share` of what is then left. Where no other division will do, nothing is left."""
    most = share(len(masses), most)
    order = sorted(masses.values(), reverse=True)
    rest, total = sum(order), 0.0
    for capped, mass in enumerate(order):
        # With the `capped` heaviest at the limit L = most · T, the total is T = capped · L + rest.
        if capped * most >= 1:
            break
        total = rest / (1 - capped * most)
        if mass <= most * total * (1 + 1e-9):
            break
        rest -= mass
        total = 0.0
    limit = most * total
    return {group: min(1.0, limit / mass) if mass else 0.0 for group, mass in masses.items()}


def _credits(question: str, vote: Vote, now: datetime) -> list[_Credit]:
    age = max(0.0, (now - vote.voted).total_seconds() / 86_400)
    weight = 2 ** (-age / HALF_LIFE)
    return [
        _Credit(question, chunk, vote.user, size * (1 if liked else -BLAME) / rank, weight, direct)
        for chunks, liked, direct in thumbed(vote)
        if direct or liked or vote.reason in RETRIEVAL_REASONS
        for size in [1.0 if direct else ANSWER]
        for rank, chunk in enumerate(chunks, start=1)
    ]


def _cap(credits: Sequence[_Credit], groups: Sequence[str], most: float = MOST) -> None:
    masses: dict[str, float] = defaultdict(float)
    for credit, group in zip(credits, groups, strict=True):
        masses[group] += credit.weight * abs(credit.value)
    factors = caps(masses, most)
    for credit, group in zip(credits, groups, strict=True):
        credit.weight *= factors[group]


def _example(question: str, credits: Sequence[tuple[_Credit, float]], voted: datetime) -> Example:
    kept = sum(credit.weight * size for credit, size in credits)
    return Example(
        question,
        _targets(credit for credit, _ in credits),
        _targets(credit for credit, _ in credits if credit.direct),
        tuple(sorted({credit.user for credit, _ in credits})),
        kept / sum(size for _, size in credits),
        voted,
    )


def _targets(credits: Iterable[_Credit]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    weights: dict[str, float] = defaultdict(float)
    for credit in credits:
        sums[credit.chunk] += credit.weight * credit.value
        weights[credit.chunk] += credit.weight
    return {chunk: min(1.0, max(-1.0, total / max(FULL, weights[chunk]))) for chunk, total in sums.items()}
