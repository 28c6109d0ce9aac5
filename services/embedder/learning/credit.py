"""From votes to what each question should have found. Pure.

    y(q, d) = Σᵤ wᵤ·cᵤ(q, d) / max(2, Σᵤ wᵤ),    wᵤ = 2^(−age / HALF_LIFE) · cap(user) · cap(document)

`c` is the credit that user u's vote gives chunk d, −1 to 1:

- A vote on a citation counts for that chunk: +1, or −`BLAME`. Who votes on citations has said it all:
  the vote on the answer is then not shared out as well.
- A vote on an answer is shared by 1/rank among the chunks it cites (where the bot does not say which,
  among those shown): 1, ½, ⅓, … times +1, or times −`BLAME` where the reason points at retrieval:
  *irrelevant* and *source* do. *outdated* does not (the right chunk was found, its text must change),
  nor do *wrong*, *incomplete*, *unclear*, *tone*, *slow*, *unsafe* and *other*, and not a 👎 without a
  reason: they speak of the answer.

What is guaranteed: one user has one vote on a question (the last); a pair counts fully from two users
up; no user and no document holds more of all weight than `share(how many there are)`, and a user or a
document that is alone holds nothing; a chunk that was neither shown nor cited gets nothing. What is
not: that two users are two people. Votes without a user should come with their conversation instead.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

__all__ = ["BLAME", "HALF_LIFE", "Example", "Vote", "caps", "examples", "normal", "share"]

HALF_LIFE = 90.0
"""Days in which a vote loses half its weight."""

BLAME = 0.3
"""What a 👎 weighs against a 👍: that a chunk is wrong here says less than that it is right."""

FULL = 2.0
"""Users who must agree before a question and a chunk count fully."""

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
    last: dict[tuple[str, str], Vote] = {}
    for vote in sorted(votes, key=lambda vote: vote.voted):
        last[normal(vote.question), vote.user] = vote
    credits = [credit for (question, _), vote in last.items() for credit in _credits(question, vote, now)]
    before = [abs(credit.value) for credit in credits]
    _cap(credits, [credit.user for credit in credits])
    owners = documents or {}
    _cap(credits, [owners.get(credit.chunk, credit.chunk) for credit in credits])
    grouped: dict[str, list[tuple[_Credit, float]]] = defaultdict(list)
    for credit, size in zip(credits, before, strict=True):
        grouped[credit.question].append((credit, size))
    voted: dict[str, datetime] = {}
    for (question, _), vote in last.items():
        voted[question] = max(vote.voted, voted.get(question, vote.voted))
    return [_example(question, grouped[question], voted[question]) for question in sorted(grouped)]


def normal(question: str) -> str:
    """What makes two questions the same: neither case, nor spacing, nor a sign at the end."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split()).rstrip(" ?!.。？！")


def share(groups: int) -> float:
    """The most of all weight that one of so many may hold: a tenth; of fewer than twenty, 2/groups;
    never more than half."""
    return min(0.5, max(0.1, 2 / max(1, groups)))


def caps(masses: Mapping[str, float]) -> dict[str, float]:
    """By how much the weight of each group is to be multiplied, 0 to 1, so that none holds more than
    its `share` of what is then left. Where no other division will do, nothing is left."""
    most = share(len(masses))
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
    seen = {*vote.shown, *vote.cited}
    direct = {chunk: value for chunk, value in vote.citations.items() if chunk in seen}
    if direct:
        given = [(chunk, 1.0 if value else -BLAME) for chunk, value in direct.items()]
    elif vote.value == 1 or (vote.value == 0 and vote.reason in RETRIEVAL_REASONS):
        ranked = list(dict.fromkeys(vote.cited or vote.shown))[:DEPTH]
        sign = 1.0 if vote.value else -BLAME
        given = [(chunk, sign / rank) for rank, chunk in enumerate(ranked, start=1)]
    else:
        given = []
    return [_Credit(question, chunk, vote.user, value, weight, bool(direct)) for chunk, value in given]


def _cap(credits: Sequence[_Credit], groups: Sequence[str]) -> None:
    masses: dict[str, float] = defaultdict(float)
    for credit, group in zip(credits, groups, strict=True):
        masses[group] += credit.weight * abs(credit.value)
    factors = caps(masses)
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
    return {chunk: total / max(FULL, weights[chunk]) for chunk, total in sums.items()}
