"""What a vote means: the words people send for it, the reasons they give, and what several of them add
up to.

Pure. `feedback_loop.vote_word` and `feedback_loop.reason_word` hold the same words for the owner's
tables, which are read in SQL; a test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

__all__ = ["REASONS", "VOTES", "Changes", "Key", "Retraction", "Vote", "fold", "reason_code_of", "vote_of"]

VOTES = {
    "like": 1, "up": 1, "thumbs_up": 1, "thumbsup": 1, "positive": 1, "true": 1, "1": 1,
    "dislike": 0, "down": 0, "thumbs_down": 0, "thumbsdown": 0, "negative": 0, "false": 0, "0": 0, "-1": 0,
}  # fmt: skip
"""Word, in small letters → value: 1 = 👍, 0 = 👎. `-1` is what those send who count to zero."""

REASONS = {
    "wrong": (
        "wrong", "incorrect", "inaccurate", "not true", "false", "hallucination", "wrong answer",
        "틀림", "틀렸어요", "오답", "부정확", "부정확해요", "사실과 다름", "사실과 달라요",
    ),
    "outdated": (
        "outdated", "out of date", "old", "obsolete", "stale",
        "오래됨", "오래된 정보", "오래된 정보예요", "예전 정보", "최신 아님", "최신 정보가 아니에요",
    ),
    "incomplete": (
        "incomplete", "missing", "not enough", "too short", "partial", "missing information",
        "불완전", "부족", "부족해요", "내용 부족", "설명 부족", "정보 부족", "빠진 내용",
    ),
    "irrelevant": (
        "irrelevant", "off topic", "unrelated", "not relevant", "did not answer", "not what i asked",
        "관련 없음", "무관", "동문서답", "질문과 다름", "관련 없는 답변", "엉뚱한 답변",
    ),
    "unclear": (
        "unclear", "confusing", "hard to understand", "too long",
        "이해 안 됨", "이해하기 어려움", "이해하기 어려워요", "불명확", "너무 길어요",
    ),
    "source": (
        "source", "bad source", "wrong source", "wrong citation", "no source", "broken link",
        "출처", "출처 오류", "출처 없음", "링크 오류",
    ),
    "tone": (
        "tone", "rude", "impolite", "unfriendly",
        "말투", "말투 불만", "불친절", "불친절해요", "무례함",
    ),
    "slow": ("slow", "too slow", "latency", "느림", "느려요", "너무 느려요"),
    "unsafe": ("unsafe", "harmful", "offensive", "유해함", "부적절", "부적절해요"),
    "other": ("other", "others", "etc", "misc", "기타"),
}  # fmt: skip
"""Reason code → the words that mean it, as `_words` writes them. Anything else is a comment."""

_CODES = {word: code for code, words in REASONS.items() for word in words}


class Key(NamedTuple):
    """What there is one vote of."""

    app: str
    conversation_id: str
    message_id: str
    user_id: str
    name: str


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Vote(NamedTuple):
    """A vote, or what is added to one: a tuple, for thousands are made in a second.

    Attributes:
        value: 1 = 👍, 0 = 👎; None: the vote that is there stays.
        citations: chunk → 1, 0, or None to take that one back.
        created_at: when it was cast, where the sender says.
    """

    key: Key
    value: int | None
    reason_code: str | None = None
    comment: str | None = None
    citations: Mapping[str, int | None] = _NOTHING
    generation: int | None = None
    source: str | None = None
    metadata: Mapping[str, Any] = _NOTHING
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Retraction:
    key: Key
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What a batch comes to: first `retracted` go, then `votes` are cast, then `additions` made.

    Attributes:
        additions: to votes that must be in the ledger, each with its position in the batch.
    """

    retracted: set[Key]
    votes: dict[Key, Vote]
    additions: dict[Key, tuple[int, Vote]]


def vote_of(given: object) -> int | None:
    """The value of a vote as people send it; None retracts.

    Raises:
        ValueError: it is none of the known words.
    """
    if given is None:
        return None
    if isinstance(given, float) and given.is_integer():  # JSON does not tell 1.0 from 1
        given = int(given)
    if isinstance(given, str | int):  # a bool is an int, and its name is a known word
        # Bounded first: an integer may have more digits than Python is willing to print.
        word = given if isinstance(given, str) else given if -1 <= given <= 1 else ""
        value = VOTES.get(str(word).strip().lower())
        if value is not None:
            return value
    raise ValueError("unknown vote: send 'like' or 'dislike', or null to retract")


def reason_code_of(reason: str) -> str | None:
    """The code of a reason that is a known word; None for free text."""
    return _CODES.get(_words(reason))


def fold(items: Sequence[Vote | Retraction]) -> Changes:
    """What these come to, one after the other: of several votes with one key the last wins."""
    changes = Changes(set(), {}, {})
    for position, item in enumerate(items):
        key = item.key
        if isinstance(item, Retraction):
            changes.retracted.add(key)
            changes.votes.pop(key, None)
            changes.additions.pop(key, None)
        elif key in changes.votes:
            changes.votes[key] = _after(changes.votes[key], item)
        elif item.value is None:
            _, earlier = changes.additions.get(key, (position, None))
            changes.additions[key] = position, _after(earlier, item)
        else:
            _, earlier = changes.additions.pop(key, (position, None))
            changes.votes[key] = _after(earlier, item)
    return changes


def _after(old: Vote | None, new: Vote) -> Vote:
    """`new` on top of `old`, by the rules of the ledger's upsert: a changed vote drops the reason of the
    old one, everything else stays until it is replaced."""
    if old is None:
        return new
    changed = None not in (old.value, new.value) and old.value != new.value
    return Vote(
        key=new.key,
        value=old.value if new.value is None else new.value,
        reason_code=new.reason_code if changed else new.reason_code or old.reason_code,
        comment=new.comment if changed else new.comment or old.comment,
        citations={**old.citations, **new.citations},
        generation=old.generation if new.generation is None else new.generation,
        source=new.source or old.source,
        metadata={**old.metadata, **new.metadata},
        created_at=new.created_at if changed else new.created_at or old.created_at,
    )


def _words(text: str) -> str:
    return re.sub(r"[\s_.!-]+", " ", text.lower()).strip()
