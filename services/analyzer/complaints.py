"""What dislikes have in common, as it is told: names of the groups, and what a report says of them. Pure.

What is guaranteed: a label is made of words of the group's own comments, if possible of two users, and
stays until one of its words is in none of them; a group is reported from `LEAST` votes of `USERS` users
on; the same votes give the same report. What is not: that a label says what a group is about. It says
which words stand out.

A dislike that belongs to no group by what it says, or says nothing, belongs to its reason code's. The
code `other` makes no group: it says nothing.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from math import log
from typing import NamedTuple
from uuid import NAMESPACE_OID, UUID, uuid5

from shared.events import ComplaintGroup
from shared.requester import printable

__all__ = [
    "LEAST",
    "USERS",
    "Complaint",
    "clean",
    "code_group",
    "digest",
    "enough",
    "group_id",
    "label",
    "report",
    "still_said",
]

LEAST, USERS = 3, 2
"""Votes, and users that they come from, that make a group."""

LONGEST = 500
"""Characters of a comment that count."""

QUOTE, LABEL, REPORTED = 200, 60, 10
"""Characters of a quote and of a label; groups in a report."""

TERMS, BETWEEN = 3, " · "

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_HANGUL = re.compile(r"[가-힣]")

_EMPTY = frozenset(
    """
    the a an is it its it's be been are was were am i i'm you your my me we they he she this that these
    those there here to of in on at by for from with as and or but if so do does did has have had will
    would can could should just very too not no nor please get got than then what which who how when
    where why all any some more most much many about into out up only also even don't doesn't didn't
    너무 좀 더 안 못 왜 잘 그냥 정말 진짜 매우 아주 다 또 이 그 저 이런 그런 것 거 게 걸 수 때 등 및 제 내
    있어요 없어요 해요 합니다 했어요 입니다 있는데 주세요 같아요 네요 답변 답변이 답변을 답변은 답
    """.split()  # noqa: SIM905 (as words they can be read)
)
"""Words that alone say nothing."""

_FORE = frozenset({"the", "a", "an", "is", "it", "its", "it's", "this", "that", "i", "my", "to", "of", "and"})
"""Words that a pair does not begin with."""


class Complaint(NamedTuple):
    """A dislike of the report window, and its group.

    Attributes:
        near: how near the centre of the group its comment is: 0 the nearest; None where not known.
    """

    vote: int
    user: str
    group: str
    text: str = ""
    near: int | None = None


def clean(comment: str | None) -> str:
    """A comment as it is compared: one line, bounded; empty where it has neither letter nor digit."""
    text = printable(comment, LONGEST) if comment else ""
    return text if any(character.isalnum() for character in text) else ""


def digest(text: str) -> str:
    """Tells whether a comment is still the same."""
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


def enough(users: Sequence[str]) -> bool:
    """Whether votes of these users, one each, make a group."""
    return len(users) >= LEAST and len(set(users)) >= USERS


def group_id(run: UUID, vote: int) -> str:
    """The id of the group that a run makes, named after one of its votes; the same however often."""
    return uuid5(run, f"complaints\0{vote}").hex[:16]


@lru_cache(1024)
def code_group(app: str, code: str | None) -> str | None:
    """The id of a reason code's group; None where it makes none."""
    return uuid5(NAMESPACE_OID, f"complaints\0{app}\0{code}").hex[:16] if code and code != "other" else None


def report(complaints: Iterable[Complaint], labels: Mapping[str, str]) -> list[ComplaintGroup]:
    """The groups that are large enough, the largest first.

    Args:
        complaints: of the report window, in any order.
        labels: of their groups.
    """
    members: dict[str, list[Complaint]] = defaultdict(list)
    for one in complaints:
        members[one.group].append(one)
    groups = [
        ComplaintGroup(
            id=id,
            label=labels[id],
            votes=len(ones),
            users=len({one.user for one in ones}),
            quote=_quote(ones),
        )
        for id, ones in members.items()
        if enough([one.user for one in ones])
    ]
    return sorted(groups, key=lambda group: (-group.votes, -group.users, group.id))[:REPORTED]


def still_said(label: str, texts: Iterable[str]) -> bool:
    """Whether each term of a label is in one of the texts."""
    said = [text.casefold() for text in texts]
    return all(any(term in text for text in said) for term in label.casefold().rstrip("…").split(BETWEEN))


def label(said: Sequence[tuple[str, str]], others: Iterable[str] = ()) -> str:
    """What stands out in a group's comments: up to three words, or pairs of words, of theirs.

    A term counts as often as users say it, and the more the fewer of the other comments have it. Words
    with one stem count as one and show as the form that most have.

    Args:
        said: user and comment, the most central first.
        others: comments of no group or of other groups.
    """
    forms: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    users: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for user, text in said:
        for stems, form in _terms(text).items():
            forms[stems][form] += 1
            users[stems].add(user)
    elsewhere, number = Counter[tuple[str, ...]](), 0
    for text in others:
        elsewhere.update(_terms(text).keys())
        number += 1

    def weight(stems: tuple[str, ...]) -> float:
        rare = log((2 + number) / (1 + elsewhere[stems]))
        return len(users[stems]) * (1 + rare) * (1.3 if len(stems) > 1 else 1)

    shared = [stems for stems in forms if len(users[stems]) >= min(USERS, len({user for user, _ in said}))]
    chosen: list[tuple[str, ...]] = []
    for stems in sorted(shared, key=lambda stems: (-weight(stems), stems)):
        if len(chosen) < TERMS and not any(set(stems) & set(other) for other in chosen):
            chosen.append(stems)
    terms = [min(forms[stems].items(), key=lambda form: (-form[1], form[0]))[0] for stems in chosen]
    return printable(BETWEEN.join(terms) or (said[0][1] if said else ""), LABEL)


def _terms(text: str) -> dict[tuple[str, ...], str]:
    """Words and pairs of words, by their stems, as the text has them, in small letters."""
    text = text.casefold()
    words = list(_WORD.finditer(text))
    found: dict[tuple[str, ...], str] = {}
    for word in words:
        if _tells(word[0]):
            found.setdefault((_stem(word[0]),), word[0])
    for word, next in pairwise(words):
        adjacent = text[word.end() : next.start()] == " "
        if adjacent and _tells(next[0]) and word[0] not in _FORE:
            found.setdefault((_stem(word[0]), _stem(next[0])), f"{word[0]} {next[0]}")
    return found


def _tells(word: str) -> bool:
    return word not in _EMPTY and not word.isdigit() and len(word) >= (2 if _HANGUL.search(word) else 3)


def _stem(word: str) -> str:
    """What the forms of a word have in common, roughly: two syllables of Korean, five letters else."""
    return word[:2] if _HANGUL.search(word) else word[:5]


def _quote(members: Iterable[Complaint]) -> str:
    """The comment nearest to the centre of its group, one that fits if there is any."""
    said = [one for one in members if one.text]

    def rank(one: Complaint) -> tuple[bool, bool, int, int]:
        return len(one.text) > QUOTE, one.near is None, one.near or 0, -one.vote

    return printable(min(said, key=rank).text, QUOTE) if said else ""
