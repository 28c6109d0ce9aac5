"""From the schema of an earlier version, with data in it, to today's."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import asyncpg
import pytest

from services.analyzer.build import build as analyzer
from services.dashboard.build import build as dashboard
from services.trigger.build import build as trigger
from shared.postgres.database import Database
from shared.settings import Settings
from tests.support.events import wait_until

MIGRATIONS = Path(__file__).parents[2] / "shared" / "migrations"
EARLIER = {"0.1.0": ("011_causes.sql", "2c19c79f")}
"""The last migration of each version, and how the digest of all its statements begins: what has been
applied somewhere is never edited, only added to."""

DATA = """
insert into feedback_loop.conversation (conversation_id, user_id, question, answer, answered_at)
select 'c' || n, 'u' || n % 7, '환불은 며칠 걸리나요? ' || n % 5, '사흘', now() - interval '2 hours'
from generate_series(1, 60) n;
insert into feedback_loop.vote (conversation_id, user_id, value, comment, citations, created_at)
select 'c' || n, 'u' || n % 7, (n % 3 <> 0)::int, case when n % 3 = 0 then '틀렸어요' end,
    case when n % 4 = 0 then '{"x": 1}'::jsonb else '{}' end, now() - interval '1 hour'
from generate_series(1, 60) n;
insert into feedback_loop.model (name, dimensions, table_name) values ('m', 3, 'vector_1');
insert into feedback_loop.generation
    (app, model, chunker, reason, state, chunks, batches, remaining, counts, starts_anew)
values ('default', 1, 'c', 'manual', 'promoted', 0, 0, 0, '{}', true);
insert into feedback_loop.run (id, app, started_at, as_of, requested_by, scheduled, joinable)
values ('00000000-0000-4000-8000-000000000001', 'default', now() - interval '1 day',
    now() - interval '1 day', 'cron-job.org', true, true);
insert into feedback_loop.decision
    (run, app, as_of, scheduled, verdict, reason, explanation, window_start, likes, dislikes)
values ('00000000-0000-4000-8000-000000000001', 'default', now() - interval '1 day', true, 'ok',
    'within_threshold', 'within the threshold', now() - interval '2 days', 9, 1);
"""
KEPT = ("conversation", "vote", "generation", "run", "decision")


def _upto(last: str) -> list[Path]:
    return [path for path in sorted(MIGRATIONS.glob("*.sql")) if path.name <= last]


@pytest.fixture(params=EARLIER)
async def earlier(request: pytest.FixtureRequest, postgres: str) -> AsyncIterator[str]:
    """The DSN of a database as that version left it, with data."""
    name = f"fl_{uuid.uuid4().hex[:12]}"
    dsn = urlunsplit(urlsplit(postgres)._replace(path=f"/{name}"))
    server = await asyncpg.connect(postgres)
    await server.execute(f"create database {name}")
    connection = await asyncpg.connect(dsn)
    await connection.execute("create schema feedback_loop")
    await connection.execute(
        "create table feedback_loop.migration"
        " (name text primary key, applied_at timestamptz not null default now())"
    )
    for path in _upto(EARLIER[request.param][0]):
        await connection.execute(path.read_text(encoding="utf-8"))
        await connection.execute("insert into feedback_loop.migration (name) values ($1)", path.name)
    await connection.execute(DATA)
    await connection.close()
    yield dsn
    await server.execute(f"drop database {name} with (force)")
    await server.close()


async def _counts(database: Database) -> dict[str, int]:
    async with database.connection() as connection:
        return {
            table: await connection.fetchval(f"select count(*) from feedback_loop.{table}") for table in KEPT
        }


@pytest.mark.parametrize("version", EARLIER)
def test_what_was_applied_is_never_edited(version: str) -> None:
    last, begins = EARLIER[version]
    statements = hashlib.sha256()
    for path in _upto(last):
        lines = path.read_text(encoding="utf-8").splitlines()
        statements.update("\n".join(line for line in lines if not line.startswith("--")).encode())
    assert statements.hexdigest().startswith(begins)


async def test_an_upgrade_keeps_what_was_there(earlier: str) -> None:
    database = Database(earlier)
    await database.connect()
    before = await _counts(database)
    applied = await database.migrate()
    after = await _counts(database)
    again = await database.migrate()
    await database.close()
    assert applied and not again
    assert after == before == {"conversation": 60, "vote": 60, "generation": 1, "run": 1, "decision": 1}


async def test_votes_on_chunks_know_their_question_after_an_upgrade(earlier: str) -> None:
    database = Database(earlier)
    await database.connect()
    await database.migrate()
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select c.question, count(distinct v.asked) as keys, count(v.asked) as known,"
            " count(*) filter (where v.citations <> '{}') as cited"
            " from feedback_loop.vote v"
            " join feedback_loop.conversation c using (app, conversation_id, message_id) group by 1"
        )
    await database.close()
    assert [(row["keys"], row["known"], row["cited"]) for row in rows] == [(1, 3, 3)] * 5


async def test_the_loop_goes_on_after_an_upgrade(
    earlier: str, start: Callable[..., Any], make_settings: Callable[..., Settings]
) -> None:
    runtime = await start([trigger, analyzer, dashboard], database_url=earlier)
    base = f"http://localhost:{runtime.port}"
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{base}/run-feedback-loop") as answer:
            assert answer.status == 200

        async def judged() -> Any:
            async with session.get(f"{base}/runs") as answer:
                runs = (await answer.json())["runs"]
            return next((run for run in runs if run["verdict"] and run["total"] == 60), None)

        run = await wait_until(judged)
        async with session.get(f"{base}/dashboard/summary") as answer:
            tiles = (await answer.json())["tiles"]
    assert (run["likes"], run["dislikes"]) == (tiles["likes"], tiles["dislikes"]) == (40, 20)
