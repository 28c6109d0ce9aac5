"""What is known of a window's dislikes, in one statement."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from types import MappingProxyType

from asyncpg import Record

from services.analyzer.causes import Dislike, Filed
from shared.postgres.database import Connection

__all__ = ["MOST_DISLIKES", "dislikes", "find_questions"]

MOST_DISLIKES = 1_000
"""Dislikes that are sorted: the newest, beside those that have just joined a group. A share of so many is
known to 3 points (95 %), and the report waits for each of them."""

MOST_LIKES = 200
"""Votes that like a chunk for one question, of any age, and may tell what would have been right: the
newest."""

MOST_LIKED = 20
"""Chunks that users liked for one question: those that most of them did."""

LONGEST = 1_000
"""Characters of a question that are read."""

LONGEST_COMMENT = 2_000
"""The same of a comment."""

_NONE: Mapping[str, int] = MappingProxyType({})
_NOBODYS: frozenset[str] = frozenset()

_DISLIKES = """
select id, voted, user_id, reason_code, left(question, $8) as question, asked, shown, dense, lexical,
       text_left, votes_on_citations, liked, only_by, left(comment, $9) as comment, cause, said, group_id
from feedback_loop.dislikes_of($1, $2, $3, $4, $5, $6, $7)
"""


async def find_questions(connection: Connection, app: str) -> None:
    """Note what was asked where a vote and its answer were written at the same time."""
    await connection.execute("select feedback_loop.find_questions($1)", app)


async def dislikes(
    connection: Connection, app: str, start: datetime, end: datetime, also: Collection[int] = ()
) -> list[Dislike]:
    """The newest dislikes cast in `(start, end]`, in no order, and `also` these, however many are newer."""
    rows = await connection.fetch(
        _DISLIKES,
        *(app, start, end, MOST_DISLIKES, list(also), MOST_LIKES, MOST_LIKED, LONGEST, LONGEST_COMMENT),
    )
    found = [_dislike(row) for row in rows]
    return list({one.vote: one for one in found}.values()) if also else found


def _dislike(row: Record) -> Dislike:
    """Most are alike: what they do not have costs nothing."""
    (
        vote, voted, user, reason, question, asked, shown, dense, lexical, text_left, citations,
        liked, only_by, comment, cause, said, group,
    ) = row  # fmt: skip
    return Dislike(
        reason,
        question or "",
        asked or "",
        frozenset(shown) if shown else _NOBODYS,
        dense,
        lexical,
        text_left,
        citations or _NONE,
        # None: several users did.
        frozenset(chunk for chunk, by in zip(liked, only_by, strict=True) if by != user)
        if liked
        else _NOBODYS,
        vote,
        voted,
        user,
        comment,
        Filed(cause, said, group) if cause else None,
    )
