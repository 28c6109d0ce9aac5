"""The ledger in PostgreSQL: votes cast, added to, retracted; conversations recorded.

Every statement takes any number of rows, and always in the order of their key, so that two batches
queue up where they meet. Call them in a transaction, where there are several.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.collector.bodies import Conversation
from services.collector.votes import Changes, Key, Retraction, Vote
from shared.postgres.database import Connection

__all__ = [
    "Applied",
    "Entered",
    "apply",
    "enter",
    "from_the_future",
    "is_one_statement",
    "record_conversations",
    "unknown_conversations",
]

_KEY = "app, conversation_id, message_id, user_id, name"
_KEYS = f"unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) as g ({_KEY})"
# An array for each column: they are made and read in a fifth of the time that a JSON document takes. In place
# of one that has nothing there may be null.
_VOTES = f"""(
    select {_KEY}, value, reason_code, comment, coalesce(citations, '{{}}') as citations, generation, source,
        coalesce(metadata, '{{}}') as metadata, created_at
    from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::text[],
        $8::text[], $9::text[]::jsonb[], $10::bigint[], $11::text[], $12::text[]::jsonb[], $13::timestamptz[])
        as u ({_KEY}, value, reason_code, comment, citations, generation, source, metadata, created_at)
) g"""
_SAME_KEY = (
    "v.app = g.app and v.conversation_id = g.conversation_id and v.message_id = g.message_id"
    " and v.user_id = g.user_id and v.name = g.name and v.row_key = ''"
)
# The search that an answer was made from tells its generation, where nobody else does. Of several the
# latest; one that names the message before one that names the conversation alone.
_SEARCHED = """
left join lateral (
    select l.generation from feedback_loop.search_log l
    where l.app = g.app and l.conversation_id = g.conversation_id and l.message_id in (g.message_id, '')
    order by l.message_id = g.message_id desc, l.id desc limit 1
) s on true
"""
# The reason for a 👎 says nothing about the 👍 that replaces it.
_KEPT = "case when v.value = excluded.value then coalesce(excluded.{0}, v.{0}) else excluded.{0} end"
# Said again it stays when it was cast, unless a time is given (and now() is none).
_CAST_AT = (
    "case when v.value = excluded.value and excluded.created_at = now() then v.created_at"
    " else excluded.created_at end"
)
_CAST = f"""
insert into feedback_loop.vote as v (app, conversation_id, message_id, user_id, name, value, reason_code,
    comment, citations, generation, source, metadata, created_at)
select g.app, g.conversation_id, g.message_id, g.user_id, g.name, g.value, g.reason_code, g.comment,
    jsonb_strip_nulls(g.citations), coalesce(g.generation, c.generation, s.generation),
    coalesce(g.source, 'api'), g.metadata, coalesce(g.created_at, now())
from {_VOTES}
left join feedback_loop.conversation c using (app, conversation_id, message_id)
{_SEARCHED}
order by 1, 2, 3, 4, 5
on conflict (app, conversation_id, message_id, user_id, name, row_key) do update set
    value = excluded.value,
    reason_code = {_KEPT.format("reason_code")},
    comment = {_KEPT.format("comment")},
    citations = v.citations || excluded.citations,
    generation = coalesce(excluded.generation, v.generation),
    source = excluded.source,
    source_id = null,
    metadata = v.metadata || excluded.metadata,
    created_at = {_CAST_AT},
    updated_at = now()
"""
# As `_CAST`, of votes that were cast elsewhere: what is there already, or was said here later, stays.
_ENTERED = f"""
insert into feedback_loop.vote as v (app, conversation_id, message_id, user_id, name, row_key, value,
    reason_code, comment, citations, generation, source, metadata, created_at)
select g.app, g.conversation_id, g.message_id, g.user_id, g.name, k.row_key, g.value, g.reason_code,
    g.comment, jsonb_strip_nulls(g.citations), coalesce(g.generation, c.generation, s.generation),
    coalesce(g.source, 'import'), g.metadata, coalesce(g.created_at, now())
from (select g.*, row_number() over () as n from {_VOTES}) g
join unnest($14::text[]) with ordinality as k (row_key, n) using (n)
left join feedback_loop.conversation c using (app, conversation_id, message_id)
{_SEARCHED}
order by 1, 2, 3, 4, 5, 6
on conflict (app, conversation_id, message_id, user_id, name, row_key) do update set
    value = excluded.value, reason_code = {_KEPT.format("reason_code")}, comment = {_KEPT.format("comment")},
    citations = v.citations || excluded.citations, generation = coalesce(excluded.generation, v.generation),
    metadata = v.metadata || excluded.metadata, created_at = {_CAST_AT}, updated_at = now()
where v.created_at <= excluded.created_at and (v.value, v.reason_code, v.comment, v.citations, v.metadata,
    v.generation, v.created_at) is distinct from (excluded.value, {_KEPT.format("reason_code")},
    {_KEPT.format("comment")}, v.citations || excluded.citations, v.metadata || excluded.metadata,
    coalesce(excluded.generation, v.generation), {_CAST_AT})
returning xmax = 0 as new
"""
_UNKNOWN = """
select n - 1 as position
from unnest($1::text[], $2::text[], $3::text[]) with ordinality as g (app, conversation_id, message_id, n)
where not exists (select from feedback_loop.conversation c where c.app = g.app
    and c.conversation_id = g.conversation_id and c.message_id = g.message_id)
"""
_ADD = f"""
update feedback_loop.vote v set
    reason_code = coalesce(g.reason_code, v.reason_code),
    comment = coalesce(g.comment, v.comment),
    citations = jsonb_strip_nulls(v.citations || g.citations),
    generation = coalesce(g.generation, v.generation),
    metadata = v.metadata || g.metadata,
    updated_at = now()
from {_VOTES}
where {_SAME_KEY}
returning v.app, v.conversation_id, v.message_id, v.user_id, v.name
"""
_RETRACT = f"""
delete from feedback_loop.vote v using {_KEYS} where {_SAME_KEY}
returning v.app, v.conversation_id, v.message_id, v.user_id, v.name
"""
_CONVERSATIONS = f"""
insert into feedback_loop.conversation as c
    (app, conversation_id, message_id, user_id, question, answer, citations, generation, answered_at)
select g.app, g.conversation_id, g.message_id, g.user_id, coalesce(g.question, ''), coalesce(g.answer, ''),
    coalesce(g.citations, '[]'), coalesce(g.generation, s.generation), coalesce(g.answered_at, now())
from jsonb_to_recordset($1) as g (app text, conversation_id text, message_id text, user_id text,
    question text, answer text, citations jsonb, generation bigint, answered_at timestamptz)
{_SEARCHED}
order by 1, 2, 3
on conflict (app, conversation_id, message_id) do update set
    user_id = coalesce(nullif(excluded.user_id, ''), c.user_id),
    question = coalesce(nullif(excluded.question, ''), c.question),
    answer = coalesce(nullif(excluded.answer, ''), c.answer),
    citations = coalesce(nullif(excluded.citations, '[]'), c.citations),
    generation = coalesce(excluded.generation, c.generation),
    source = 'api',
    answered_at = case when excluded.answered_at = now() then c.answered_at else excluded.answered_at end,
    updated_at = now()
"""


@dataclass(frozen=True, slots=True)
class Applied:
    """What has been done.

    Attributes:
        retracted: whose vote has gone. One read from the owner's table comes back when that table is read
            again: it is the truth about itself.
        missing: the positions of additions that there is no vote for; they are not made.
    """

    retracted: Collection[Key] = ()
    missing: Collection[int] = ()


@dataclass(frozen=True, slots=True)
class Entered:
    """What became of votes that were cast elsewhere; the others were there already, or are older than what is
    there."""

    new: int
    changed: int


def is_one_statement(items: Iterable[Vote | Retraction]) -> bool:
    """Whether writing these takes one statement alone, so that it needs no transaction around it."""
    return all(
        isinstance(item, Vote)
        and item.value is not None
        and item.created_at is None
        and not (item.citations and None in item.citations.values())
        for item in items
    )


async def apply(connection: Connection, changes: Changes) -> Applied:
    """Write what several changes come to."""
    retracted: set[Key] = set()
    missing: list[int] = []
    if changes.retracted:
        rows = await connection.fetch(_RETRACT, *zip(*changes.retracted, strict=True))
        retracted = {Key(*row) for row in rows}
    if changes.votes:
        await connection.execute(_CAST, *_columns(changes.votes.values()))
        # An insert cannot take a citation back from a vote that is there.
        if took_back := [vote for vote in changes.votes.values() if None in vote.citations.values()]:
            await connection.execute(_ADD, *_columns(took_back))
    if changes.additions:
        rows = await connection.fetch(_ADD, *_columns(vote for _, vote in changes.additions.values()))
        found = {Key(*row) for row in rows}
        missing = [position for key, (position, _) in changes.additions.items() if key not in found]
    return Applied(retracted, missing)


async def enter(connection: Connection, votes: Mapping[tuple[Key, str], Vote]) -> Entered:
    """Enter votes that were cast elsewhere, each under its key and its `row_key`. Doing it again changes
    nothing, and no vote that was cast here later is touched."""
    row_keys = [row_key for _, row_key in votes]
    rows = await connection.fetch(_ENTERED, *_columns(votes.values()), row_keys)
    new = sum(row["new"] for row in rows)
    return Entered(new, len(rows) - new)


async def unknown_conversations(
    connection: Connection, conversations: Sequence[Conversation]
) -> list[Conversation]:
    """Those of which nothing is recorded."""
    keys = list(zip(*(one.key for one in conversations), strict=True)) or [()] * 3
    rows = await connection.fetch(_UNKNOWN, *map(list, keys))
    return [conversations[row["position"]] for row in rows]


async def record_conversations(connection: Connection, conversations: Sequence[Conversation]) -> None:
    """Record answers; of several with one key what is given last stands."""
    merged: dict[tuple[str, str, str], dict[str, Any]] = {}
    for one in conversations:
        given = one.model_dump(mode="json", exclude={"citations"}) | {"citations": one.ranked()}
        known = {name: value for name, value in given.items() if value not in (None, "", [])}
        merged[one.key] = merged.get(one.key, {"message_id": "", "user_id": ""}) | known
    await connection.execute(_CONVERSATIONS, list(merged.values()))


async def from_the_future(connection: Connection, times: Sequence[datetime | None]) -> set[int]:
    """The positions of the times more than five minutes ahead of the database's clock."""
    if not any(times):
        return set()
    rows = await connection.fetch(
        "select n - 1 as position from unnest($1::timestamptz[]) with ordinality as t (at, n)"
        " where at > now() + interval '5 minutes'",
        list(times),
    )
    return {row["position"] for row in rows}


def _columns(votes: Iterable[Vote]) -> list[tuple[Any, ...] | None]:
    """As `_VOTES` takes them. Most have little more than a value, and the driver looks at each element of an
    array: a column of nothing is none."""
    rows = [
        (
            *(*vote.key, vote.value, vote.reason_code, vote.comment, _json(vote.citations)),
            *(vote.generation, vote.source, _json(vote.metadata), vote.created_at),
        )
        for vote in votes
    ]
    columns = zip(*rows, strict=True)
    return [None if column.count(None) == len(column) else column for column in columns]


def _json(value: Mapping[str, Any]) -> str | None:
    return json.dumps(value, ensure_ascii=False) if value else None
