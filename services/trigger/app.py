"""The trigger's HTTP routes.

A hit answers 200 once its run is durable and its event is published, 503 "not yet" otherwise: the
run is kept, and the relay or the next hit publishes it. Hits that arrive while others are being written
share the next transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import unquote
from uuid import UUID

from aiohttp import web
from asyncpg import Record
from pydantic import BaseModel, ConfigDict, Field

from shared import events
from shared.bus.envelope import STRUCTURED, Envelope, InvalidMessage, Message, decode
from shared.bus.port import BusError
from shared.delivery import runs
from shared.events import FeedbackEvaluate
from shared.postgres.database import Connection
from shared.postgres.gathering import Gathering
from shared.requester import CRON_JOB_ORG, requester
from shared.runtime import Kernel
from shared.telemetry.tracing import here
from shared.web import http

__all__ = ["Trigger"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Target = tuple[str, datetime | None, str | None]
"""What makes hits be one run: app, `as_of`, idempotency key."""

EVENT_TYPES = ("application/json", STRUCTURED)
STARTED = {"status": "Feedback loop started"}
STARTING = 20.0
"""Seconds a hit waits while the process still connects: cron-job.org gives it thirty."""
WITHIN = 4.5
"""Seconds to make a run durable and publish it."""


class HitBody(BaseModel):
    """What a POST may say. All of it is optional."""

    model_config = ConfigDict(extra="forbid")

    app: str | None = Field(None, min_length=1, max_length=64, pattern=r"^[\w.-]+$")
    as_of: events.Instant | None = None
    window: str | None = Field(None, pattern=r"^(since_last|[1-9]\d{0,4}[mhd])$")
    requested_by: str | None = Field(None, min_length=1, max_length=200)
    scheduled: bool | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """One hit, as it came."""

    body: HitBody
    by: str
    key: str | None
    traceparent: str | None = None

    def hits(self, apps: Sequence[str]) -> list[runs.Hit]:
        body = self.body
        scheduled = body.scheduled if body.scheduled is not None else self.by == CRON_JOB_ORG
        return [
            runs.Hit(app, self.by, body.window, scheduled, body.as_of, self.key, traceparent=self.traceparent)
            for app in apps
        ]


class RunsQuery(BaseModel):
    app: str | None = Field(None, min_length=1, max_length=64, pattern=r"^[\w.-]+$")
    limit: int = Field(20, ge=1, le=200)


class Trigger:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._hits: Gathering[Asked, list[runs.Run]] = Gathering(self._start, key=id, most=10_000)

    async def hit(self, request: web.Request) -> web.Response:
        """`GET|POST /run-feedback-loop`: start a run for each app, or join the one under way."""
        body = await self._body(request)
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        if key is not None and not (1 <= len(key) <= 200 and key.isprintable()):
            raise http.BadRequest("Idempotency-Key", "must have 1 to 200 printable characters")
        if not await self._is_ready():
            return http.unavailable(self._kernel.waiting_for)
        by = requester(request.headers.get("User-Agent"), body.requested_by)
        started = await _within(self._hits.add(Asked(body, by, key, here().traceparent)))
        ids = ", ".join(str(run.id) for run in started)
        return web.json_response(STARTED, headers={"Feedback-Loop-Run": ids})

    async def _start(self, asked: Sequence[Asked]) -> list[list[runs.Run] | Exception]:
        """The runs of each hit, durable and published."""
        try:
            return [*await _within(self._started(asked))]
        except (BusError, http.NotReady) as error:
            return [error] * len(asked)  # and not once more: the runs may be durable

    async def _started(self, asked: Sequence[Asked]) -> list[list[runs.Run]]:
        started: dict[Target, runs.Run] = {}
        outbox = self._kernel.outbox
        async with self._kernel.database.transaction() as connection:
            every = [] if all(one.body.app for one in asked) else await _apps_with_votes(connection)
            hits = [one.hits([one.body.app] if one.body.app else every) for one in asked]
            for hit in _merged(hit for each in hits for hit in each):
                run = await runs.hit(connection, outbox, hit, self._kernel.trigger_window)
                started[_target(hit)] = run
                how = "joined" if run.joined else "started"
                log.info("run %s %s by %s", run.id, how, hit.requested_by)
        # Also those that an earlier hit could not publish; a hit is the moment to look after the rest.
        await outbox.publish([run.envelope for run in started.values() if not run.published])
        outbox.watch()
        return [[started[_target(hit)] for hit in each] for each in hits]

    async def _is_ready(self) -> bool:
        if self._kernel.stopping:
            return False
        try:
            async with asyncio.timeout(STARTING):
                await self._kernel.ready.wait()
        except TimeoutError:
            return False
        return True

    async def _body(self, request: web.Request) -> HitBody:
        if request.can_read_body and request.method == "POST":
            return http.read_model(HitBody, await http.read_json(request))
        # Schedulers append parameters of their own to a URL: only ours are read.
        known = {name: value for name, value in request.query.items() if name in HitBody.model_fields}
        return http.read_model(HitBody, known)

    async def take_event(self, request: web.Request) -> web.Response:
        """`POST /events`: a `feedback.evaluate` as a CloudEvent (binary or structured mode), for
        publishers who have no broker."""
        named = request.can_read_body and "Content-Type" in request.headers
        if named and request.content_type not in EVENT_TYPES:
            raise http.BadRequest("content-type", f"must be {' or '.join(EVENT_TYPES)}", status=415)
        headers = {
            # In HTTP headers (and only there) CloudEvents percent-encodes what is not ASCII.
            name.lower(): unquote(value) if name.lower().startswith("ce-") else value
            for name, value in request.headers.items()
        }
        message = Message(headers.get("ce-type", ""), headers, await http.read_body(request))
        try:
            envelope = decode(message)
        except InvalidMessage as error:
            raise http.BadRequest("event", str(error), status=422) from None
        if not isinstance(envelope.event, FeedbackEvaluate):
            raise http.BadRequest("type", "only feedback.evaluate is taken here", status=422)
        if envelope.source == runs.SOURCE:
            raise http.BadRequest("source", "is the trigger's own: name yourself", status=422)
        if not await self._is_ready():
            return http.unavailable(self._kernel.waiting_for)
        if envelope.traceparent is None or "traceparent" in headers:
            envelope = replace(envelope, traceparent=here().traceparent)
        adopted = await _within(self._take(envelope))
        return web.json_response({"status": "accepted", "run": str(adopted.id)}, status=202)

    async def _take(self, envelope: Envelope) -> Envelope:
        adopted = await self._kernel.adopt(envelope)
        await self._kernel.outbox.publish([adopted])
        return adopted

    async def list_runs(self, request: web.Request) -> web.Response:
        """`GET /runs?app=&limit=`: the latest runs and where each stands."""
        query = http.read_model(RunsQuery, dict(request.query))
        async with self._kernel.database.connection() as connection:
            rows = await connection.fetch(
                "select * from feedback_loop.run_status where $1::text is null or app = $1"
                " order by started_at desc limit $2",
                query.app,
                query.limit,
            )
        return web.json_response({"runs": [_public(row) for row in rows]})

    async def show_run(self, request: web.Request) -> web.Response:
        """`GET /runs/{id}`: one run."""
        try:
            id = UUID(request.match_info["id"])
        except ValueError:
            raise http.BadRequest("id", "must be a UUID", status=422) from None
        async with self._kernel.database.connection() as connection:
            row = await connection.fetchrow("select * from feedback_loop.run_status where id = $1", id)
        if row is None:
            raise http.BadRequest("id", "there is no such run", status=404)
        return web.json_response(_public(row))


def _target(hit: runs.Hit) -> Target:
    return hit.app, hit.as_of, hit.key


def _merged(hits: Iterable[runs.Hit]) -> list[runs.Hit]:
    """One hit for each run that they are for, in the order of the apps, so that none waits for another in a
    circle. As if they came one after the other: the first says who asked and for which window."""
    merged: dict[Target, runs.Hit] = {}
    for hit in hits:
        if (first := merged.get(_target(hit))) is None:
            merged[_target(hit)] = hit
        else:
            scheduled = first.scheduled or hit.scheduled
            merged[_target(hit)] = replace(first, scheduled=scheduled, times=first.times + hit.times)
    return sorted(merged.values(), key=lambda hit: hit.app)


async def _within(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns, if it does so within `WITHIN` seconds.

    Raises:
        NotReady: it does not. It is cancelled, and the answer does not wait for its rollback: a
            database that hangs lets that hang too.
    """
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=WITHIN)
    if task.done():
        return task.result()
    task.add_done_callback(lambda late: late.cancelled() or late.exception())
    task.cancel()
    raise http.NotReady(f"the run is not durable and published within {WITHIN:g} s")


async def _apps_with_votes(connection: Connection) -> list[str]:
    """Every app that has votes (`default` where none has), by skipping from app to app in the index."""
    rows = await connection.fetch(
        "with recursive apps (app) as ("
        " select min(app) from feedback_loop.vote"
        " union all select (select min(app) from feedback_loop.vote where app > apps.app) from apps"
        " where app is not null)"
        " select app from apps where app is not null"
        " union select 'default' where to_regclass('public.feedback_log') is not null order by app"
    )
    return [row["app"] for row in rows] or ["default"]


def _public(row: Record) -> dict[str, Any]:
    """A row as JSON: times in ISO 8601, ids as text."""
    return {
        name: value.isoformat()
        if isinstance(value, datetime)
        else str(value)
        if isinstance(value, UUID)
        else value
        for name, value in row.items()
    }
