"""The dashboard's runs and its live stream, through HTTP on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from services.collector.build import build as collector
from services.dashboard.build import build
from services.dashboard.stream import BACKLOG, Feed, Page
from services.trigger.build import build as trigger
from shared.delivery.router import Registration
from shared.delivery.work import UnitOfWork
from shared.events import Event, FeedbackEvaluate
from shared.postgres.database import Connection, Database
from shared.runtime import Kernel, Runtime, Service
from shared.settings import Settings
from tests.support.dashboard import (
    SOON,
    Start,
    Stream,
    add_generation,
    add_run,
    cast,
    dashboard_with,
    eventually,
    opened,
    read,
    url,
)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


# --- the snapshot ---------------------------------------------------------------------------


async def test_snapshot_of_nothing(start: Start, http: aiohttp.ClientSession) -> None:
    runtime = await start([build])
    async with http.get(url(runtime, "/dashboard/runs")) as response:
        assert response.headers["Cache-Control"] == "no-store"
        found = await response.json()
    assert (found["runs"], found["builds"], found["latest"]) == ([], [], None)


async def test_snapshot_has_the_latest_runs_with_their_steps(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    made = []
    for _ in range(3):
        async with database.transaction() as connection:
            made.append(await add_run(connection))
    async with http.get(url(runtime, "/dashboard/runs?limit=2")) as response:
        runs = (await response.json())["runs"]
    assert [[step["id"] for step in run["steps"]] for run in runs] == [[made[2]], [made[1]]]


async def test_latest_report_shows_though_later_runs_have_none(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    async with database.transaction() as connection:
        judged = (await add_run(connection)).removeprefix("emitted:")
        await _decide(connection, judged)
    async with database.transaction() as connection:
        await add_run(connection)
    async with http.get(url(runtime, "/dashboard/runs?limit=1")) as response:
        found = await response.json()
    assert found["runs"][0]["id"] != judged
    assert {name: found["latest"][name] for name in ("id", "verdict", "total", "ratio")} == {
        "id": judged,
        "verdict": "ok",
        "total": 100,
        "ratio": 0.13,
    }


async def _decide(connection: Connection, run: str) -> None:
    """What the analyzer writes with its verdict."""
    await connection.execute(
        "insert into feedback_loop.decision"
        " (run, app, as_of, scheduled, verdict, reason, explanation, window_start, likes, dislikes)"
        " values ($1, 'default', now(), true, 'ok', 'within_threshold', 'fine', now(), 87, 13)",
        uuid.UUID(run),
    )
    await connection.execute(
        "insert into feedback_loop.inbox (consumer, event_id, type, correlation, state)"
        " values ('analyzer', $1, 'feedback.evaluate', $1, 'processed')",
        uuid.UUID(run),
    )


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1e9", "٣", "9" * 5000])
async def test_limit_out_of_range_is_refused(start: Start, http: aiohttp.ClientSession, limit: str) -> None:
    runtime = await start([build])
    async with http.get(url(runtime, "/dashboard/runs"), params={"limit": limit}) as response:
        assert (response.status, (await response.json())["field"]) == (422, "limit")


async def test_hostile_name_is_data_and_never_markup(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    async with database.transaction() as connection:
        await add_run(connection, by="<script>alert(1)</script>\u202egnp.exe\nevent: forged")
    async with http.get(url(runtime, "/dashboard/runs")) as response:
        assert response.content_type == "application/json"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        shown = (await response.json())["runs"][0]["requested_by"]
    assert shown == "<script>alert(1)</script> gnp.exe event: forged"


# --- the stream -----------------------------------------------------------------------------


async def test_stream_begins_with_a_snapshot(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    async with database.transaction() as connection:
        step = await add_run(connection)
    async with opened(http, runtime) as page:
        hello = await page.until("hello")
        assert page.response.content_type == "text/event-stream"
    assert page.raw.startswith("retry: 2000\n")
    assert [each["id"] for run in hello.data["runs"] for each in run["steps"]] == [step]
    assert hello.data["resumed"] is False


async def test_run_shows_within_a_second(start: Start, http: aiohttp.ClientSession) -> None:
    runtime = await start([trigger, consumer, build])
    async with opened(http, runtime) as page:
        await page.until("hello")
        async with http.get(url(runtime, "/run-feedback-loop")) as response:
            run = response.headers["Feedback-Loop-Run"]
        began = time.monotonic()
        while {(step["what"], step["service"]) for step in page.told(run)} != {
            ("emitted", "trigger"),
            ("processed", "analyzer"),
        }:
            await page.until("step")
        assert time.monotonic() - began < 1


def consumer(kernel: Kernel) -> Service:
    """Takes evaluations, and finds nothing to say."""

    async def handle(event: FeedbackEvaluate, work: UnitOfWork, deps: object) -> list[Event]:
        return []

    return Service(name="analyzer", registrations=[Registration(FeedbackEvaluate, handle)])


async def test_each_step_is_told_once_while_the_page_stays(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([dashboard_with(interval=0.02, heartbeat=0.05)])
    async with opened(http, runtime) as page:
        await page.until("hello")
        async with database.connection() as late, late.transaction():
            # While this one is open, the cursor stands still and what follows is read again and again.
            last = await add_run(late)
            async with database.transaction() as connection:
                first = await add_run(connection)
            await page.until("step")
            for _ in range(3):
                await page.until("beat")
        await page.until("step")
        async with database.connection() as connection:
            await page.past(connection)
    assert page.steps() == [first, last]


async def test_resuming_loses_nothing_though_a_transaction_commits_late(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    async with database.connection() as late, late.transaction():
        old = await add_run(late)  # has its transaction id, and is not visible yet
        async with opened(http, runtime) as page:
            await page.until("hello")
            async with database.transaction() as connection:
                seen = await add_run(connection)
            assert (await page.until("step")).data["id"] == seen
    async with database.transaction() as connection:
        new = await add_run(connection)
    async with opened(http, runtime, page.last_id) as again:
        hello = await again.until("hello")
        while not {old, new} <= set(again.steps()):
            await again.until("step")
    assert hello.data["resumed"] is True


async def test_resuming_repeats_nothing_that_was_complete(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([dashboard_with(heartbeat=0.1)])
    async with opened(http, runtime) as page:
        await page.until("hello")
        async with database.transaction() as connection:
            await add_run(connection)
        async with database.connection() as connection:
            await page.past(connection)
    async with database.transaction() as connection:
        new = await add_run(connection)
    async with opened(http, runtime, page.last_id) as again:
        await again.until("step")
        async with database.connection() as connection:
            await again.past(connection)
    assert again.steps() == [new]


async def test_page_cut_off_in_the_middle_of_a_batch_hears_the_rest_on_resuming(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    async with opened(http, runtime) as page:
        await page.until("hello")
        async with database.transaction() as connection:
            both = {await add_run(connection), await add_run(connection)}
        await page.until("step")
    assert len(page.steps()) == 1
    async with opened(http, runtime, page.last_id) as again:
        while set(page.steps() + again.steps()) != both:
            await again.until("step")


@pytest.mark.parametrize("cursor", ["9" * 15, "9" * 40, "yesterday", "-1", "٣"])
async def test_cursor_that_is_none_of_ours_gives_a_snapshot(
    start: Start, http: aiohttp.ClientSession, cursor: str
) -> None:
    runtime = await start([build])
    async with http.get(url(runtime, "/dashboard/stream"), params={"last_event_id": cursor}) as response:
        hello = await Stream(response).until("hello")
    assert hello.data["resumed"] is False


async def test_change_without_a_step_is_told_too(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    async with database.transaction() as connection:
        run = (await add_run(connection)).removeprefix("emitted:")
        await connection.execute("update feedback_loop.outbox set published_at = null")
    async with opened(http, runtime) as page:
        assert (await page.until("hello")).data["runs"][0]["state"] == "waiting"
        async with database.connection() as connection:
            await connection.execute("update feedback_loop.outbox set published_at = now()")
        changed = await page.until("run")
    assert (changed.data["id"], changed.data["state"]) == (run, "started")


async def test_progress_of_a_build_is_told_until_it_ends(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    async with database.transaction() as connection:
        run = (await add_run(connection)).removeprefix("emitted:")
    await add_generation(database, state="building", promoted=None, run=run, batches=4)
    async with opened(http, runtime) as page:
        hello = await page.until("hello")
        async with database.connection() as connection:
            await connection.execute("update feedback_loop.generation set remaining = 1")
            under_way = await page.until("progress")
            await connection.execute("update feedback_loop.generation set remaining = 0, state = 'promoted'")
            ended = await page.until("progress")
    told = [(build["run"], build["done"], build["running"]) for build in hello.data["builds"]]
    told += [(build["run"], build["done"], build["running"]) for build in under_way.data["builds"]]
    told += [(build["run"], build["done"], build["running"]) for build in ended.data["builds"]]
    assert told == [(run, 0, True), (run, 3, True), (run, 4, False)]


async def test_quiet_stream_shows_that_it_lives(start: Start, http: aiohttp.ClientSession) -> None:
    runtime = await start([dashboard_with(interval=0.02, heartbeat=0.05)])
    async with opened(http, runtime) as page:
        await page.until("beat")
        await page.until("beat")
    assert "\n: still here\n" in page.raw


# --- votes ----------------------------------------------------------------------------------


async def test_vote_is_told_soon_after_it_was_cast(start: Start, http: aiohttp.ClientSession) -> None:
    runtime = await start([collector, build])
    async with opened(http, runtime) as page:
        await page.until("hello")
        body = {"conversation_id": "c", "feedback": "dislike"}
        async with http.post(url(runtime, "/feedback"), json=body) as response:
            assert response.status == 200
        told = await page.until("votes")
        shown = await read(http, runtime, "/dashboard/summary")
    assert datetime.fromisoformat(told.data["at"]).tzinfo is not None
    assert shown["tiles"]["dislikes"] == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/feedback", {"conversation_id": "old", "feedback": "like"}),
        ("POST", "/feedback", {"conversation_id": "old", "reason": "too late"}),
        ("DELETE", "/feedback", {"conversation_id": "old"}),
        ("POST", "/conversations", {"conversation_id": "old", "question": "When?"}),
    ],
    ids=["changed", "reason added", "retracted", "question recorded"],
)
async def test_change_of_a_vote_or_its_answer_is_told(
    start: Start, http: aiohttp.ClientSession, database: Database, method: str, path: str, body: Any
) -> None:
    runtime = await start([collector, build])
    await cast(database, 0, conversation="old")
    async with opened(http, runtime) as page:
        await page.until("hello")
        async with http.request(method, url(runtime, path), json=body) as response:
            assert response.status == 200
        await page.until("votes")


async def test_vote_that_commits_late_is_told_though_later_ones_were(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([dashboard_with(interval=0.02)])
    async with opened(http, runtime) as page:
        await page.until("hello")
        async with database.connection() as late, late.transaction():
            await late.execute("insert into feedback_loop.vote (conversation_id, value) values ('late', 0)")
            await cast(database, 0)
            await page.until("votes")
        await page.until("votes")


async def test_change_is_told_once_though_an_older_transaction_stays_open(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([dashboard_with(interval=0.02, heartbeat=0.05)])
    async with opened(http, runtime) as page:
        await page.until("hello")
        async with database.connection() as old, old.transaction():
            await old.execute("select pg_current_xact_id()")
            await cast(database, 0)
            await page.until("votes")
            for _ in range(3):
                await page.until("beat")
    assert [each.event for each in page.heard].count("votes") == 1


async def test_vote_read_from_the_owners_table_is_told(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    async with database.connection() as connection:
        await connection.execute("create table public.feedback_log (id int, feedback text)")
        await connection.execute("insert into public.feedback_log values (1, 'dislike')")
    async with opened(http, runtime) as page:
        await page.until("hello")
        async with database.connection() as connection:
            await connection.execute("select * from feedback_loop.read_owner_tables()")
        await page.until("votes")


async def test_hints_of_yesterday_are_swept(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "insert into feedback_loop.vote_change values ('3', now() - interval '25 hours')"
        )
        # One in a hundred writers sweeps: that none of 3,000 does is out of the question.
        await connection.execute(
            "do $$ begin for n in 1..3000 loop"
            " insert into feedback_loop.vote (conversation_id, value) values (n, 0); end loop; end $$"
        )
        assert await connection.fetchval("select count(*) from feedback_loop.vote_change") == 1


# --- what it costs --------------------------------------------------------------------------


class CountingDatabase(Database):
    used = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.used += 1
        async with super().connection() as connection:
            yield connection


async def test_postgres_is_read_only_while_a_page_is_open(
    start: Start, http: aiohttp.ClientSession, dsn: str
) -> None:
    database = CountingDatabase(dsn)
    await database.connect()
    before = database.used
    feed = Feed(database, interval=0.01)
    runtime = await start([lambda kernel: build(kernel, feed)])
    try:
        await asyncio.sleep(0.1)
        assert database.used == before, "nobody has opened the page yet"
        async with opened(http, runtime) as one, opened(http, runtime) as other:
            await one.until("hello")
            await other.until("hello")
            await eventually(lambda: database.used > before + 5)
        await eventually(lambda: not feed.polling)
        after = database.used
        await asyncio.sleep(0.1)
        assert database.used == after, "the last page has been closed"
        async with opened(http, runtime) as page:
            assert (await page.until("hello")).data["resumed"] is False
    finally:
        await runtime.services[0].on_stop()
        await database.close()


async def test_page_beyond_the_bound_is_refused(start: Start, http: aiohttp.ClientSession) -> None:
    runtime = await start([dashboard_with(most=1)])
    async with opened(http, runtime) as page:
        await page.until("hello")
        async with http.get(url(runtime, "/dashboard/stream")) as response:
            assert (response.status, (await response.json())["reason"]) == (503, "too many pages are open")


async def test_one_caller_cannot_take_every_page(start: Start, http: aiohttp.ClientSession) -> None:
    runtime = await start([dashboard_with(most=3, each=1)], trusted_proxies=1)
    async with opened(http, runtime) as page:
        await page.until("hello")
        async with http.get(url(runtime, "/dashboard/stream")) as response:
            assert response.status == 503
        others = {"X-Forwarded-For": "192.0.2.7"}
        async with http.get(url(runtime, "/dashboard/stream"), headers=others) as response:
            assert response.status == 200


async def test_page_that_does_not_read_is_cut_off(database: Database) -> None:
    joined: asyncio.Queue[Page] = asyncio.Queue()
    feed = Feed(database, interval=0.001, heartbeat=0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        page = Page(None, writer.transport)
        assert feed.join(page)
        joined.put_nowait(page)  # and nobody takes its chunks

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(host, port)
    page = await joined.get()
    async with asyncio.timeout(SOON):
        with pytest.raises((ConnectionResetError, EOFError)):
            await reader.readexactly(1)
    assert len([chunk async for chunk in page.chunks()]) <= BACKLOG
    feed.leave(page)
    writer.close()
    server.close()
    await feed.close()


async def test_streams_end_at_shutdown_at_once(
    make_settings: Callable[..., Settings], http: aiohttp.ClientSession
) -> None:
    runtime = Runtime(make_settings(), [build])
    await runtime.start()
    await runtime.ready()
    async with opened(http, runtime) as one, opened(http, runtime) as other:
        await one.until("hello")
        await other.until("hello")
        began = time.monotonic()
        await runtime.stop()
        took = time.monotonic() - began
        for page in (one, other):
            with pytest.raises(EOFError):
                await page.until("never")
    assert took < 2


# --- trouble --------------------------------------------------------------------------------


async def test_stream_says_when_the_database_is_away_and_goes_on_after(
    start: Start, http: aiohttp.ClientSession, postgres: str, dsn: str
) -> None:
    name = urlsplit(dsn).path.removeprefix("/")
    runtime = await start([dashboard_with(interval=0.02)])
    admin = await asyncpg.connect(postgres)
    try:
        async with opened(http, runtime) as page:
            await page.until("hello")
            await admin.execute(f"alter database {name} allow_connections false")
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name
            )
            trouble = await page.until("trouble")
            async with opened(http, runtime) as newcomer:
                await newcomer.until("trouble")
                await admin.execute(f"alter database {name} allow_connections true")
                assert (await page.until("hello")).data["resumed"] is True
                assert (await newcomer.until("hello")).data["resumed"] is False
            async with runtime.kernel.database.transaction() as connection:
                step = await add_run(connection)
            await page.until("step", lambda data: data["id"] == step)
    finally:
        await admin.execute(f"alter database {name} allow_connections true")
        await admin.close()
    assert trouble.data == {"reason": "the database does not answer"}
