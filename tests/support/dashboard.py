"""What the dashboard's tests share: a dashboard that runs, its pages, and votes and answers by SQL."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp

from services.dashboard.build import build
from services.dashboard.stream import Feed
from shared.postgres.database import Connection, Database
from shared.runtime import Kernel, Runtime, Service

__all__ = [
    "NINE",
    "SOON",
    "Heard",
    "Start",
    "Stream",
    "add_generation",
    "add_run",
    "answer",
    "cast",
    "complain",
    "dashboard_with",
    "eventually",
    "opened",
    "read",
    "url",
]

SOON = 20.0
"""Seconds after which what should happen has not happened, on a busy machine too."""

Start = Callable[..., Any]
NINE = datetime(2026, 11, 18, 0, 0, tzinfo=UTC)
"""09:00 in Seoul."""


def dashboard_with(**given: Any) -> Callable[[Kernel], Service]:
    """The dashboard with a feed of its own measure."""
    return lambda kernel: build(kernel, Feed(kernel.database, **given))


@dataclass(frozen=True)
class Heard:
    event: str
    data: Any
    id: str | None


class Stream:
    """One open page, as a browser reads it."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.heard: list[Heard] = []
        self.raw = ""

    @property
    def last_id(self) -> str:
        return next((each.id for each in reversed(self.heard) if each.id), "")

    def steps(self) -> list[str]:
        return [each.data["id"] for each in self.heard if each.event == "step"]

    def told(self, run: str) -> list[Any]:
        return [each.data for each in self.heard if each.event == "step" and each.data["run"] == run]

    async def next(self) -> Heard:
        """The next event; comments and `retry` are passed over."""
        fields: dict[str, str] = {}
        while True:
            line = (await self.response.content.readline()).decode()
            if not line:
                raise EOFError
            self.raw += line
            name, _, value = line.rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "event" in fields:
                found = Heard(fields["event"], json.loads(fields["data"]), fields.get("id"))
                self.heard.append(found)
                return found
            else:
                fields = {}

    async def until(self, event: str, fits: Callable[[Any], bool] = lambda data: True) -> Heard:
        async with asyncio.timeout(SOON):
            while True:
                found = await self.next()
                if found.event == event and fits(found.data):
                    return found

    async def past(self, connection: Connection) -> None:
        """Read on until the cursor is beyond every transaction so far."""
        now = await connection.fetchval("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
        async with asyncio.timeout(SOON):
            while int(self.last_id or 0) < now:
                await self.next()


@asynccontextmanager
async def opened(http: aiohttp.ClientSession, runtime: Runtime, cursor: str = "") -> AsyncIterator[Stream]:
    headers = {"Last-Event-ID": cursor} if cursor else {}
    async with http.get(url(runtime, "/dashboard/stream"), headers=headers) as response:
        assert response.status == 200
        yield Stream(response)


def url(runtime: Runtime, path: str) -> str:
    return f"http://127.0.0.1:{runtime.port}{path}"


async def add_run(connection: Connection, by: str = "curl") -> str:
    """A run and its event, as the trigger writes them. Returns the id of its step."""
    id = uuid.uuid4()
    await connection.execute(
        "insert into feedback_loop.run (id, app, as_of, requested_by) values ($1, 'default', now(), $2)",
        id,
        by,
    )
    await connection.execute(
        "insert into feedback_loop.outbox (event_id, type, producer, correlation, envelope, published_at)"
        " values ($1, 'feedback.evaluate', 'trigger', $1, '{}', now())",
        id,
    )
    return f"emitted:{id}"


async def eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not true():
            await asyncio.sleep(0.01)


async def read(http: aiohttp.ClientSession, runtime: Runtime, path: str, **query: Any) -> Any:
    """What `GET path` answers, as JSON; a list as a value repeats the parameter."""
    async with http.get(url(runtime, path), params=query) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def cast(
    database: Database,
    value: int = 0,
    at: datetime = NINE,
    *,
    app: str = "default",
    conversation: str | None = None,
    user: str = "",
    reason: str | None = None,
    comment: str | None = None,
    generation: int | None = None,
    citations: dict[str, int] | None = None,
) -> int:
    """A vote as the ledger keeps it. Returns its id."""
    async with database.connection() as connection:
        id: int = await connection.fetchval(
            "insert into feedback_loop.vote (app, conversation_id, user_id, value, reason_code, comment,"
            " generation, citations, created_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning id",
            app,
            conversation or str(uuid.uuid4()),
            user,
            value,
            reason,
            comment,
            generation,
            citations or {},
            at,
        )
    return id


async def answer(
    database: Database,
    conversation: str,
    at: datetime = NINE,
    *,
    app: str = "default",
    question: str = "",
    text: str = "",
    citations: list[dict[str, Any]] | None = None,
    generation: int | None = None,
) -> None:
    """An answer as the collector records it."""
    async with database.connection() as connection:
        await connection.execute(
            "insert into feedback_loop.conversation (app, conversation_id, question, answer, citations,"
            " generation, answered_at) values ($1, $2, $3, $4, $5, $6, $7)",
            app,
            conversation,
            question,
            text,
            citations or [],
            generation,
            at,
        )


async def complain(
    database: Database, vote: int, cause: str = "unknown", group: str | None = None, label: str = "shipping"
) -> None:
    """What the analyzer found out about a dislike."""
    async with database.connection() as connection:
        if group is not None:
            await connection.execute(
                "insert into feedback_loop.complaint_group (id, app, label) values ($1, 'default', $2)"
                " on conflict do nothing",
                group,
                label,
            )
        await connection.execute(
            "insert into feedback_loop.complaint (vote, app, cause, group_id) values ($1, 'default', $2, $3)",
            vote,
            cause,
            group,
        )


async def add_generation(
    database: Database,
    chunks: dict[str, str] | None = None,
    *,
    app: str = "default",
    promoted: datetime | None = NINE,
    state: str = "promoted",
    reason: str = "feedback",
    gate: dict[str, Any] | None = None,
    run: str | None = None,
    batches: int = 0,
) -> int:
    """A generation that shows chunks, hash -> source; `promoted`: since when it is the active one."""
    async with database.transaction() as connection:
        await connection.execute(
            "insert into feedback_loop.model (name, dimensions, table_name) values ('m', 2, 'vector_m')"
            " on conflict do nothing"
        )
        id: int = await connection.fetchval(
            "insert into feedback_loop.generation (app, model, chunker, reason, starts_anew, state, chunks,"
            " batches, remaining, counts, gate, run, finished_at) select $1, m.id, 'c', $2, true, $3, 0, $4,"
            " $4, '{}', $5, $6, case when $4 = 0 then now() end from feedback_loop.model m returning id",
            app,
            reason,
            state,
            batches,
            gate or {},
            uuid.UUID(run) if run else None,
        )
        for ordinal, (hash, source) in enumerate((chunks or {}).items()):
            await connection.execute(
                "insert into feedback_loop.chunk values ($1, $2, $3) on conflict do nothing",
                hash,
                f"Heading of {hash}",
                f"Text of {hash}",
            )
            await connection.execute(
                "insert into feedback_loop.generation_chunk values ($1, $2, 1, $3, $4)",
                id,
                hash,
                source,
                ordinal,
            )
        if promoted:
            await connection.execute(
                "insert into feedback_loop.promotion (app, generation, kind, promoted_at)"
                " values ($1, $2, 'promotion', $3)",
                app,
                id,
                promoted,
            )
            await connection.execute(
                "insert into feedback_loop.active_generation values ($1, $2, $3)"
                " on conflict (app) do update set generation = $2, promoted_at = $3",
                app,
                id,
                promoted,
            )
    return id
