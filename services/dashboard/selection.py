"""The votes that a filter means, in SQL, and a quiet place to read them.

What is guaranteed: figures read through one `Reader.open` are of one moment; a filter reaches SQL as
parameters only; no more than `AT_ONCE` readings take connections from the other services.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from typing import Any, Literal

from services.dashboard.filters import Filter, Span, span
from shared.postgres.database import Connection, Database, dump_json

__all__ = ["Chosen", "Reader", "choose", "where"]

AT_ONCE = 2

QUARTER = 900
"""Seconds that votes are counted by (`feedback_loop.votes_counted`)."""

# The plan that suits a day does not suit a year; and compiling one takes longer than most queries.
_OPEN = """
select now(), set_config('plan_cache_mode', 'force_custom_plan', true), set_config('jit', 'off', true)
"""


class Reader:
    """Opens snapshots of the database, a few at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turns = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Connection, datetime]]:
        """A connection that sees one moment, and that moment."""
        async with self._turns, self.export() as opened:
            yield opened

    @asynccontextmanager
    async def export(self) -> AsyncIterator[tuple[Connection, datetime]]:
        """As `open`, without a turn: for what may take minutes."""
        async with self._database.transaction("repeatable_read") as connection:
            yield connection, await connection.fetchval(_OPEN)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A filter, and what it means now.

    Attributes:
        every: all apps there are.
        apps: those that are looked at.
        chunks: hashes of the chunks of the filter's document.
    """

    filter: Filter
    span: Span
    every: tuple[str, ...]
    apps: tuple[str, ...]
    chunks: tuple[str, ...]

    @property
    def counted(self) -> bool:
        """Whether the counts of quarters of an hour tell its votes: they know app, generation and value, and
        in every time zone of today days begin with one."""
        asked = self.filter
        words = asked.reasons or asked.comment == "1" or asked.document or asked.cause or asked.group
        return not words and all(bound.timestamp() % QUARTER == 0 for bound in self.span.bounds)

    def without(self, name: Literal["rated", "reasons", "document", "cause", "group"]) -> Chosen:
        return replace(self, filter=self.filter.without(name))


async def choose(connection: Connection, asked: Filter, now: datetime, zone: tzinfo) -> Chosen:
    """Raises `filters.BadRange`."""
    days = span(asked, now, zone)
    every = tuple(
        row["app"]
        for row in await connection.fetch("select app from feedback_loop.dashboard_app order by app")
    )
    apps = (asked.app,) if asked.app else every
    chunks = []
    if asked.document:
        chunks = await connection.fetch(
            "select distinct hash from feedback_loop.dashboard_chunk where source = $1 and app = any($2)",
            asked.document,
            list(apps),
        )
    return Chosen(asked, days, every, apps, tuple(row["hash"] for row in chunks))


def where(chosen: Chosen, app: str = "any($1)") -> tuple[str, list[Any]]:
    """Conditions on `feedback_loop.dashboard_vote v`, and their parameters; the first is the apps.

    Args:
        app: what `v.app` equals; an app of `unnest($1::text[])` keeps the order of the index.
    """
    asked, given = chosen.filter, list[Any]([list(chosen.apps), chosen.span.start, chosen.span.end])
    apps = "array[$1]" if app == "$1" else "$1"
    parts = [f"v.app = {app}", "v.created_at >= $2", "v.created_at < $3"]

    def add(condition: str, *values: object) -> None:
        places = [f"${len(given) + n}" for n in range(1, len(values) + 1)]
        given.extend(values)
        parts.append(condition.format(*places))

    if asked.rated:
        add("v.value = {}", 1 if asked.rated == "up" else 0)
    if asked.reasons:
        add("v.reason_code = any({})", list(asked.reasons))
    if asked.comment == "1":
        parts.append("v.comment is not null")
    if asked.document:
        wanted = [{"source": asked.document}, *({"chunk": hash} for hash in chosen.chunks)]
        add(
            # By index what it may be; of a conversation's answers, a vote is on one.
            f"v.id = any(array(select feedback_loop.votes_about({apps}, "
            "{0}::text[]::jsonb[], $2, $3)))"
            " and (v.cited @> any({0}::text[]::jsonb[]) or v.shown @> any({0}::text[]::jsonb[]))",
            [dump_json([each]) for each in wanted],
        )
    if asked.generation:
        add("v.generation = {}", asked.generation)
    complaint = "exists (select from feedback_loop.complaint_of_vote k where k.vote = v.id and k."
    if asked.cause:
        add(complaint + "cause = {})", asked.cause)
    if asked.group:
        add(complaint + "group_id = {})", asked.group)
    return " and ".join(parts), given
