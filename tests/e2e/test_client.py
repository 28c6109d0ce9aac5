"""The Python client against the composed services, closed to whoever has no token."""

from __future__ import annotations

import ast
import asyncio
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from feedback_loop_client import AsyncFeedbackLoop, FeedbackLoop, FeedbackLoopError
from shared.postgres.database import Database
from shared.runtime import Runtime
from tests.support.openapi import BUILDERS, SETTINGS, furnished

FOLDER = Path(__file__).parents[2] / "clients/python"
EXTRAS = {"langchain.py": {"langchain_core"}, "llama_index.py": {"llama_index"}}
API, TRIGGER = SETTINGS["api_token"], SETTINGS["trigger_token"]

Start = Callable[..., Awaitable[Runtime]]


@pytest.fixture
async def url(start: Start, tmp_path: Path) -> str:
    """Every service in one process, with nothing in it."""
    runtime = await start(list(BUILDERS.values()), data_dir=tmp_path, **SETTINGS)
    return f"http://127.0.0.1:{runtime.port}"


@pytest.fixture
async def loop(url: str) -> AsyncIterator[AsyncFeedbackLoop]:
    """A client that holds `API_TOKEN`."""
    async with AsyncFeedbackLoop(url, API) as loop:
        yield loop


async def one(database: Database, query: str) -> tuple[Any, ...]:
    async with database.connection() as connection:
        (row,) = await connection.fetch(query)
    return tuple(row)


VOTE = "select app, conversation_id, message_id, user_id, value, reason_code, comment from feedback_loop.vote"


# --- votes ------------------------------------------------------------------------------------


async def test_a_vote_arrives_with_all_that_is_said(loop: AsyncFeedbackLoop, database: Database) -> None:
    cast = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    await loop.vote(
        "chat-1",
        "dislike",
        message_id=3,
        user_id="kim",
        reason="outdated",
        comment="열 시예요",
        citations={"library.md": "dislike"},
        app="shop",
        generation=7,
        created_at=cast,
        metadata={"model": "m"},
    )
    assert await one(database, VOTE) == ("shop", "chat-1", "3", "kim", 0, "outdated", "열 시예요")
    more = await one(
        database,
        "select citations->>'library.md', generation, created_at, metadata->>'model' from feedback_loop.vote",
    )
    assert more == ("0", 7, cast, "m")


@pytest.mark.parametrize(("said", "kept"), [("like", 1), ("dislike", 0), (True, 1), (False, 0)])
async def test_a_vote_is_said_by_word_or_truth(
    loop: AsyncFeedbackLoop, database: Database, said: Any, kept: int
) -> None:
    await loop.vote("c", said)
    assert (await one(database, VOTE))[4] == kept


async def test_a_reason_is_added_to_the_vote_that_is_there(
    loop: AsyncFeedbackLoop, database: Database
) -> None:
    await loop.vote("c", "dislike")
    await loop.vote("c", None, reason="wrong")
    assert await one(database, VOTE) == ("default", "c", "", "", 0, "wrong", None)


async def test_a_vote_is_taken_back(loop: AsyncFeedbackLoop, database: Database) -> None:
    await loop.vote("c", "like", message_id="3", user_id="kim", app="shop")
    await loop.retract("c", message_id="3", user_id="kim", app="shop")
    assert await one(database, "select count(*) from feedback_loop.vote") == (0,)


async def test_a_conversation_arrives(loop: AsyncFeedbackLoop, database: Database) -> None:
    await loop.conversation("chat-1", "When?", "At nine.", message_id=3, user_id="kim", citations=["a.md"])
    found = await one(
        database,
        "select message_id, user_id, question, answer, citations->0->>'source'"
        " from feedback_loop.conversation",
    )
    assert found == ("3", "kim", "When?", "At nine.", "a.md")


# --- vote tokens ------------------------------------------------------------------------------


async def test_a_vote_token_votes_in_its_conversation_alone(
    url: str, loop: AsyncFeedbackLoop, database: Database
) -> None:
    made = await loop.vote_token("chat-1", message_id=3, user_id="kim", ttl=5)
    assert made.expires == pytest.approx(time.time() + 300, abs=60)
    async with AsyncFeedbackLoop(url, made.token) as page:
        await page.vote("chat-1", "like", message_id=3, user_id="kim")
        with pytest.raises(FeedbackLoopError) as refused:
            await page.vote("chat-2", "like", message_id=3, user_id="kim")
    assert (refused.value.status, refused.value.field) == (403, "conversation_id")
    assert (await one(database, VOTE))[1] == "chat-1"


# --- evaluations and searches -----------------------------------------------------------------


async def test_an_evaluation_starts_a_run(url: str, database: Database) -> None:
    async with AsyncFeedbackLoop(url, TRIGGER) as loop:
        run = await loop.evaluate("shop", "24h", requested_by="가게")
    found = await one(database, "select id::text, app, requested_by from feedback_loop.run")
    assert found == (run, "shop", "가게")


async def test_evaluations_join_unless_they_have_ids(url: str) -> None:
    async with AsyncFeedbackLoop(url, TRIGGER) as loop:
        joined = {await loop.evaluate(), await loop.evaluate()}
        own = {await loop.evaluate(event_id="밤 1"), await loop.evaluate(event_id="밤 1")}
        assert (len(joined), len(own), len(joined | own)) == (1, 1, 2)


async def test_a_search_finds_chunks(start: Start, tmp_path: Path) -> None:
    url, _ = await furnished(start, tmp_path)
    async with AsyncFeedbackLoop(url, API) as loop:
        found = await loop.search("opening hours", 2, conversation_id="c", message_id="1")
    assert found.generation is not None
    assert [hit.rank for hit in found.results] == [1, 2][: len(found.results)]
    assert found.results[0].text


# --- what goes wrong --------------------------------------------------------------------------


async def test_a_field_that_does_not_fit_is_named(loop: AsyncFeedbackLoop) -> None:
    with pytest.raises(FeedbackLoopError) as refused:
        await loop.vote("c", "like", reason="x" * 300)
    assert (refused.value.status, refused.value.field) == (422, "reason")
    assert not refused.value.passing


async def test_without_a_token_the_door_is_closed(url: str) -> None:
    with pytest.raises(FeedbackLoopError) as refused:
        await asyncio.to_thread(FeedbackLoop(url).vote, "c", "like")
    assert (refused.value.status, refused.value.field) == (401, "authorization")


def test_no_answer_is_an_error_without_a_status(unused: int) -> None:
    with pytest.raises(FeedbackLoopError) as refused:
        FeedbackLoop(f"http://127.0.0.1:{unused}", retries=0).vote("c", "like")
    assert refused.value.status is None
    assert refused.value.passing


@pytest.fixture
def unused() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("loop.example.com", None),
        ("file:///etc/passwd", None),
        ("http://", None),
        ("http://x?a=b", None),
        ("http://x", "a\nb"),
        ("http://x", "토큰"),
    ],
)
def test_what_cannot_be_called_is_refused_at_once(url: str, token: str | None) -> None:
    with pytest.raises(ValueError, match=r"URL|token"):
        FeedbackLoop(url, token)


# --- servers that refuse ----------------------------------------------------------------------


@dataclass
class Scripted:
    """A server that answers as it is told, and counts."""

    url: str
    asked: list[dict[str, Any]]


@asynccontextmanager
async def scripted(
    answers: Sequence[web.Response], together: asyncio.Barrier | None = None
) -> AsyncIterator[Scripted]:
    """It gives these answers, one after the other; then it is content.

    `together`: that many requests must be there before any is answered.
    """
    asked: list[dict[str, Any]] = []
    waiting = list(answers)

    async def answer(request: web.Request) -> web.Response:
        asked.append({"path": request.path, "body": await request.text(), **request.headers})
        if together:
            await together.wait()
        return waiting.pop(0) if waiting else web.json_response({"status": "ok", "message": "."})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield Scripted(f"http://127.0.0.1:{runner.addresses[0][1]}", asked)
    finally:
        await runner.cleanup()


def refusal(status: int, after: str | None = "0") -> web.Response:
    headers = {"Retry-After": after} if after is not None else None
    return web.json_response({"status": "unavailable", "reason": "not now"}, status=status, headers=headers)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_what_fails_in_passing_is_sent_again(status: int) -> None:
    async with scripted([refusal(status), refusal(status)]) as server:
        async with AsyncFeedbackLoop(server.url) as loop:
            await loop.vote("c", "like")
        assert len(server.asked) == 3
        assert len({request["body"] for request in server.asked}) == 1


async def test_it_gives_up_in_the_end() -> None:
    async with scripted([refusal(503) for _ in range(9)]) as server:
        async with AsyncFeedbackLoop(server.url, retries=1) as loop:
            with pytest.raises(FeedbackLoopError, match="503 not now"):
                await loop.vote("c", "like")
        assert len(server.asked) == 2


async def test_who_must_wait_long_is_told_so_at_once() -> None:
    async with scripted([refusal(429, "3600")]) as server:
        async with AsyncFeedbackLoop(server.url) as loop:
            with pytest.raises(FeedbackLoopError) as refused:
                await loop.vote("c", "like")
        assert refused.value.retry_after == 3600
        assert len(server.asked) == 1


async def test_a_refusal_is_not_sent_again() -> None:
    async with scripted([refusal(500)]) as server:
        async with AsyncFeedbackLoop(server.url) as loop:
            with pytest.raises(FeedbackLoopError, match="500"):
                await loop.vote("c", "like")
        assert len(server.asked) == 1


async def test_a_token_does_not_follow_a_redirect() -> None:
    async with scripted([]) as elsewhere:
        moved = web.Response(status=307, headers={"Location": f"{elsewhere.url}/feedback"})
        async with scripted([moved]) as server, AsyncFeedbackLoop(server.url, "secret") as loop:
            with pytest.raises(FeedbackLoopError, match="307"):
                await loop.vote("c", "like")
        assert elsewhere.asked == []


@pytest.mark.parametrize("status", [200, 404])
async def test_a_page_instead_of_the_service_is_an_error(status: int) -> None:
    page = web.Response(status=status, text="<h1>Welcome</h1>", content_type="text/html")
    async with scripted([page]) as server, AsyncFeedbackLoop(f"{server.url}/loop/") as loop:
        with pytest.raises(FeedbackLoopError) as refused:
            await loop.vote("c", "like")
        assert refused.value.status == status
        assert server.asked[0]["path"] == "/loop/feedback"


async def test_calls_are_under_way_together() -> None:
    both = asyncio.Barrier(2)  # no call is answered before the other one has come
    async with scripted([], both) as server, AsyncFeedbackLoop(server.url, retries=0) as loop:
        await asyncio.gather(loop.vote("first", "like"), loop.vote("second", "like"))
        assert len(server.asked) == 2


# --- the package ------------------------------------------------------------------------------


async def test_the_readmes_examples_run(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = await furnished(start, tmp_path)
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    for written, real in (
        ("http://127.0.0.1:8080", url),
        ("API_TOKEN", API),
        ("TRIGGER_TOKEN", TRIGGER),
    ):
        code = code.replace(f'"{written}"', f'"{real}"')
    await asyncio.to_thread(exec, compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "422 conversation_id must not be empty" in printed


def test_it_needs_nothing_and_reads_as_python_3_10() -> None:
    for path in (FOLDER / "feedback_loop_client").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        modules += [
            name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
        ]
        heads = {module.partition(".")[0] for module in modules}
        assert heads <= sys.stdlib_module_names | {"feedback_loop_client"} | EXTRAS.get(path.name, set())
