"""What is known of a window's dislikes, in one statement over the views that are there for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from types import MappingProxyType

from asyncpg import Record

from services.analyzer.causes import Dislike, Filed
from shared.postgres.database import Connection

__all__ = ["MOST_DISLIKES", "dislikes"]

MOST_DISLIKES = 1_000
"""Dislikes that are sorted: the newest, beside those that have just joined a group. A share of so many is
known to 3 points (95 %), and the report waits for each of them."""

MOST_LIKES = 20_000
"""Likes of citations, of any age, that may tell what would have been right: the newest."""

MOST_LIKED = 20
"""Chunks that users liked for one question: those that most of them did."""

LONGEST = 1_000
"""Characters of a question that are read."""

LONGEST_COMMENT = 2_000
"""The same of a comment."""

_NONE: Mapping[str, int] = MappingProxyType({})
_NOBODYS: frozenset[str] = frozenset()

# `limit 1` (ids are unique) keeps each dislike a look-up by its key: joined, all conversations ever would be
# read. `disliker <> user` is told from the aggregates: with all pairs of users, a question that thousands
# voted on would take minutes.
_DISLIKES = """
with dislike as materialized (
  select d.* from (
    (select id, left(comment, $8) as comment from feedback_loop.vote
     where app = $1 and name = 'user_feedback' and value = 0 and created_at > $2 and created_at <= $3
     order by created_at desc, id desc limit $4)
    union all
    select id, left(comment, $8) from feedback_loop.vote
    where id = any($9::bigint[]) and app = $1 and name = 'user_feedback' and value = 0
      and created_at > $2 and created_at <= $3) these
  cross join lateral (
    select d.*, these.comment from feedback_loop.dislike d where d.id = these.id limit 1) d
), newest as (
  select asked, user_id, chunk from feedback_loop.liked_citation where app = $1 and voted <= $3
  order by voted desc limit $5
), liked as (
  select asked, chunk, count(distinct user_id) as users, min(user_id) as one
  from newest where asked in (select asked from dislike) group by asked, chunk
), ranked as (
  select *, row_number() over (partition by asked order by users desc, chunk) as rank from liked l
  where exists (select from feedback_loop.standing_chunk s where s.app = $1 and s.chunk = l.chunk)
), best as (
  select asked, array_agg(chunk order by rank) as chunks,
         array_agg(case when users = 1 then one end order by rank) as only_by
  from ranked where rank <= $6 group by asked
)
select d.id, d.voted, d.user_id, d.reason_code, left(d.question, $7) as question,
       coalesce(d.asked, '') as asked, d.shown, d.dense, d.lexical, d.text_left,
       nullif(d.votes_on_citations, '{}') as votes_on_citations, b.chunks as liked, b.only_by, d.comment,
       c.cause, c.said, c.group_id
from dislike d left join best b on b.asked = d.asked and d.asked <> ''
left join lateral (
  select c.cause, c.said, c.group_id from feedback_loop.complaint c where c.vote = d.id limit 1) c on true
"""


async def dislikes(
    connection: Connection, app: str, start: datetime, end: datetime, also: Collection[int] = ()
) -> list[Dislike]:
    """The newest dislikes cast in `(start, end]`, in no order, and `also` these, however many are newer."""
    rows = await connection.fetch(
        _DISLIKES,
        *(app, start, end, MOST_DISLIKES, MOST_LIKES, MOST_LIKED, LONGEST, LONGEST_COMMENT),
        list(also),
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
        asked,
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
