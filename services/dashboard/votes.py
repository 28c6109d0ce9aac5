"""Single votes: what people asked, were answered, and said of it, with the chunks it rests on.

What is guaranteed: a list goes on where it stopped, however many votes arrive meanwhile; every text is
bounded and fit to be shown. What is not: a chunk of a generation that is no longer kept is left out, where
the answer does not name its document.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from asyncpg import Record

from services.dashboard.filters import Cursor, Listing
from services.dashboard.selection import Chosen, where
from services.dashboard.text import lines
from shared.postgres.database import Connection
from shared.requester import printable

__all__ = ["HEAD", "cells", "export", "page"]

Row = dict[str, Any]
Chunks = Mapping[tuple[str, str], Record]

LONGEST = {"question": 500, "answer": 2_000, "comment": 2_000}
"""Characters of a text in the list."""
LONGEST_CELL = {"question": 32_000, "answer": 32_000, "comment": 32_000}
"""Characters of a text in a file: what a spreadsheet's cell holds."""
LONGEST_CHUNK, LONGEST_NAME = 500, 200
MOST_CHUNKS = 5
BATCH = 200

HEAD = (
    *(
        "id",
        "at",
        "app",
        "user_feedback",
        "negative_user_feedback",
        "reason",
        "comment",
        "question",
        "answer",
    ),
    *("documents", "cause", "group", "generation", "user", "conversation", "message"),
)
"""The columns of a file. `user_feedback`: 1 = like; `negative_user_feedback`: 1 = dislike, so that its
average is the negative ratio."""


async def page(connection: Connection, chosen: Chosen, listing: Listing) -> Row:
    """A page of the list, newest first; `next` is where it goes on, None at its end."""
    conditions, given = where(chosen, app="app.app")
    if listing.before:
        conditions += f" and (v.created_at, v.id) < (${len(given) + 1}, ${len(given) + 2})"
        given += listing.before
    newest = f"order by v.created_at desc, v.id desc limit {listing.limit + 1}"
    found = await connection.fetch(
        f"select v.* from unnest($1::text[]) app cross join lateral ("
        f" {_selected(LONGEST)} where {conditions} {newest}) v {newest}",
        *given,
    )
    shown = found[: listing.limit]
    last = Cursor(shown[-1]["created_at"], shown[-1]["id"]) if len(found) > len(shown) else None
    return {"votes": await _whole(connection, shown, LONGEST), "next": str(last) if last else None}


async def export(connection: Connection, chosen: Chosen) -> AsyncIterator[list[Row]]:
    """Every vote of the filter, app by app, newest first, in batches."""
    conditions, given = where(chosen, app="$1")
    for app in chosen.apps:
        cursor = await connection.cursor(
            f"{_selected(LONGEST_CELL)} where {conditions} order by v.created_at desc, v.id desc",
            app,
            *given[1:],
        )
        while batch := await cursor.fetch(BATCH):
            yield await _whole(connection, batch, LONGEST_CELL)


def cells(vote: Row) -> Sequence[str | int | None]:
    """A vote as the row of a file."""
    documents = dict.fromkeys(chunk["source"] for chunk in vote["chunks"] if chunk["source"])
    return (
        *(vote["id"], vote["at"], vote["app"], vote["value"], 1 - vote["value"]),
        *(vote["reason"], vote["comment"], vote["question"], vote["answer"]),
        "\n".join(documents),
        *(vote["cause"], vote["group"], vote["generation"]),
        *(vote["user"], vote["conversation"], vote["message"]),
    )


def _selected(longest: Mapping[str, int]) -> str:
    # One more than is shown: so a cut can be told.
    texts = ", ".join(f"left(v.{name}, {limit + 1}) as {name}" for name, limit in longest.items())
    return (
        "select v.id, v.app, v.created_at, v.value, v.user_id, v.conversation_id, v.message_id,"
        f" v.reason_code, v.generation, v.votes_on_citations, v.cited, v.shown, {texts}, c.cause, c.group_id"
        " from feedback_loop.dashboard_vote v"
        " left join feedback_loop.complaint_of_vote c on c.vote = v.id"
    )


async def _whole(connection: Connection, rows: Sequence[Record], longest: Mapping[str, int]) -> list[Row]:
    """The rows as the page has them, each with its chunks."""
    hashes = {hash for row in rows for item in _items(row) if (hash := item.get("chunk"))}
    found = await connection.fetch(
        "select distinct on (app, hash) app, hash, source, heading, left(text, $3) as text"
        " from feedback_loop.dashboard_chunk where hash = any($1) and app = any($2)"
        " order by app, hash, generation desc, source",
        list(hashes),
        list({row["app"] for row in rows}),
        LONGEST_CHUNK + 1,
    )
    chunks = {(row["app"], row["hash"]): row for row in found}
    return [_vote(row, chunks, longest) for row in rows]


def _vote(row: Record, chunks: Chunks, longest: Mapping[str, int]) -> Row:
    texts = {name: lines(row[name] or "", limit) for name, limit in longest.items()}
    return {
        "id": row["id"],
        "app": row["app"],
        "at": row["created_at"].isoformat(),
        "value": row["value"],
        "user": printable(row["user_id"], LONGEST_NAME),
        "conversation": printable(row["conversation_id"], LONGEST_NAME),
        "message": printable(row["message_id"], LONGEST_NAME),
        **texts,
        "comment": texts["comment"] or None,
        "reason": row["reason_code"],
        "generation": row["generation"],
        "cause": row["cause"],
        "group": row["group_id"],
        "chunks": _chunks(row, chunks),
    }


def _items(row: Record) -> list[Row]:
    """What the answer cites, else what search showed, the first in rank first."""
    cited = sorted(_objects(row["cited"]), key=lambda item: item.get("rank") or 0)
    return cited or [{**item, "rank": n} for n, item in enumerate(_objects(row["shown"]), start=1)]


def _objects(items: Iterable[object]) -> list[Row]:
    return [item for item in items if isinstance(item, dict)]


def _chunks(row: Record, chunks: Chunks) -> list[Row]:
    votes = row["votes_on_citations"]
    shown = []
    for item in _items(row):
        hash, source = item.get("chunk"), item.get("source")
        known = chunks.get((row["app"], hash)) if hash else None
        if known is None and not source:
            continue
        shown.append(
            {
                "source": printable(source or (known["source"] if known else ""), LONGEST_CHUNK),
                "heading": printable((known and known["heading"]) or "", LONGEST_CHUNK),
                "text": lines((known and known["text"]) or "", LONGEST_CHUNK),
                "vote": votes.get(hash, votes.get(source)),
                "rank": item.get("rank"),
            }
        )
    return shown[:MOST_CHUNKS]
