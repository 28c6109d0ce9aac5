"""What a person asks of the loop on the dashboard, through HTTP and down the bus."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from services.analyzer.build import build as analyzer
from services.dashboard.build import build
from shared.bus.envelope import Envelope, from_json
from shared.events import FeedbackEvaluate, GenerationRequested, LoopPaused, LoopResumed, RollbackRequested
from shared.postgres.database import Database
from shared.runtime import Runtime
from tests.support.dashboard import Start, url
from tests.support.embedder import start_rig
from tests.support.events import wait_until


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def order(http: aiohttp.ClientSession, runtime: Runtime, **body: Any) -> uuid.UUID:
    async with http.post(url(runtime, "/dashboard/commands"), json=body) as response:
        assert response.status == 202, await response.text()
        found = await response.json()
    assert found["status"] == "accepted"
    return uuid.UUID(found["event"])


async def written(database: Database, id: uuid.UUID) -> Envelope:
    async with database.connection() as connection:
        return from_json(
            await connection.fetchval("select envelope from feedback_loop.outbox where event_id = $1", id)
        )


@pytest.mark.parametrize(
    ("body", "event"),
    [
        ({"command": "run"}, FeedbackEvaluate(app="shop", requested_by="dashboard")),
        (
            {"command": "reembed"},
            GenerationRequested(app="shop", reason="manual", requested_by="dashboard"),
        ),
        (
            {"command": "rollback", "generation": 3, "why": "worse"},
            RollbackRequested(app="shop", to_generation=3, why="worse", requested_by="dashboard"),
        ),
        (
            {"command": "pause", "why": "a <b>holiday</b>\n"},
            LoopPaused(app="shop", why="a <b>holiday</b>", requested_by="dashboard"),
        ),
        ({"command": "resume"}, LoopResumed(app="shop", requested_by="dashboard")),
    ],
    ids=lambda given: given["command"] if isinstance(given, dict) else "",
)
async def test_command_becomes_its_event(
    start: Start, http: aiohttp.ClientSession, database: Database, body: dict[str, Any], event: object
) -> None:
    runtime = await start([build])
    envelope = await written(database, await order(http, runtime, app="shop", **body))
    assert (envelope.event, envelope.source) == (event, "/feedback-loop/dashboard")


async def test_pause_ends_after_its_hours(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    id = await order(http, runtime, command="pause", app="default", hours=1.5)
    event = (await written(database, id)).event
    assert isinstance(event, LoopPaused) and event.until is not None
    async with database.connection() as connection:
        left = event.until - await connection.fetchval("select now()")
    assert 5300 < left.total_seconds() <= 5400


async def test_run_and_pause_reach_the_analyzer(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([analyzer, build])
    await order(http, runtime, command="pause", app="default", why="holiday")

    async def verdict() -> str | None:
        async with database.connection() as connection:
            return await connection.fetchval("select verdict from feedback_loop.decision")  # type: ignore[no-any-return]

    async def paused() -> bool:
        async with database.connection() as connection:
            return bool(await connection.fetchval("select count(*) from feedback_loop.rest"))

    await wait_until(paused)
    await order(http, runtime, command="run", app="default")
    assert await wait_until(verdict) == "paused"


async def test_reembedding_and_rollback_reach_the_embedder(start: Start, http: aiohttp.ClientSession) -> None:
    rig = await start_rig(start, more=[build])
    await rig.post("a", "# A\n\nOne.")
    await order(http, rig.runtime, command="reembed", app="default")
    ended = await wait_until(lambda: rig.outcomes.completed, 30)
    first = ended[0][1].generation_after
    id = await order(http, rig.runtime, command="rollback", app="default", generation=first + 1000)
    [refused] = await wait_until(lambda: rig.outcomes.of(id), 30)
    assert (ended[0][1].outcome, refused.outcome, refused.generation_after) == (
        "promoted",
        "rejected",
        first,
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"app": "default"}, "command"),
        ({"command": "run"}, "app"),
        ({"command": "destroy", "app": "default"}, "command"),
        ({"command": "run", "app": "two words"}, "app"),
        ({"command": "run", "app": "default", "as_of": "2020-01-01T00:00:00Z"}, "as_of"),
        ({"command": "rollback", "app": "default", "generation": 0}, "generation"),
        ({"command": "pause", "app": "default", "hours": -1}, "hours"),
        ({"command": "pause", "app": "default", "hours": 1e9}, "hours"),
        ({"command": "run", "app": "default", "hours": 1}, "body"),
        ({"command": "reembed", "app": "default", "generation": 1}, "body"),
        ([], "body"),
    ],
)
async def test_command_that_does_not_fit_is_refused(
    start: Start, http: aiohttp.ClientSession, database: Database, body: object, field: str
) -> None:
    runtime = await start([build])
    async with http.post(url(runtime, "/dashboard/commands"), json=body) as response:
        assert (response.status, (await response.json())["field"]) == (422, field)
    async with database.connection() as connection:
        assert await connection.fetchval("select count(*) from feedback_loop.outbox") == 0


async def test_command_that_another_site_could_send_is_refused(
    start: Start, http: aiohttp.ClientSession
) -> None:
    runtime = await start([build])
    form = b'{"command": "run", "app": "default"}'
    async with http.post(
        url(runtime, "/dashboard/commands"), data=form, headers={"Content-Type": "text/plain"}
    ) as response:
        assert response.status == 415


async def test_command_without_the_token_does_nothing(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build], admin_token="root", read_token="eyes")
    body = {"command": "reembed", "app": "default"}
    for headers in ({}, {"Authorization": "Bearer eyes"}, {"Authorization": "Bearer wrong"}):
        async with http.post(url(runtime, "/dashboard/commands"), json=body, headers=headers) as response:
            assert response.status == 401
    async with database.connection() as connection:
        assert await connection.fetchval("select count(*) from feedback_loop.outbox") == 0
