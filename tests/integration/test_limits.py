"""What a process takes from its callers: how much, how fast, how often, and from which pages."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.analyzer.build import build as analyzer
from services.collector.build import build as collector
from services.trigger.build import build as trigger
from shared.runtime import Runtime
from shared.web import http as shared_http
from shared.web import listener

Start = Callable[..., Any]

ROOT = Path(__file__).parents[2]
KEY = "k" * 32
SHOP = "https://shop.example"
JSON = {"Content-Type": "application/json"}
HEAD = b"POST /feedback HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
VOTE = {"conversation_id": "chat-1", "feedback": "like"}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


def url(runtime: Runtime, path: str) -> str:
    return f"http://127.0.0.1:{runtime.port}{path}"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def vote(http: aiohttp.ClientSession, runtime: Runtime, token: str, **body: Any) -> tuple[int, Any]:
    """What `POST /feedback` answers."""
    given: dict[str, Any] = {"json": {**VOTE, **body}, "headers": bearer(token)}
    async with http.post(url(runtime, "/feedback"), **given) as response:
        return response.status, await response.json()


# --- how often --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "headers"),
    [({"environment": "production"}, {}), ({"rate_limit": 5, "trigger_token": "go"}, bearer("go"))],
)
async def test_a_thousand_hits_at_once_all_start_the_loop(
    start: Start,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    headers: dict[str, str],
) -> None:
    monkeypatch.setattr("services.trigger.app.WITHIN", 60)  # a busy machine takes longer
    runtime = await start([trigger, analyzer], **settings)

    async def hit() -> tuple[int, Any]:
        async with http.get(url(runtime, "/run-feedback-loop"), headers=headers) as response:
            return response.status, await response.json()

    answers = await asyncio.gather(*(hit() for _ in range(1000)))
    others = [answer for answer in answers if answer != (200, {"status": "Feedback loop started"})]
    assert others == []


async def test_a_bot_with_its_token_is_not_slowed(start: Start, http: aiohttp.ClientSession) -> None:
    runtime = await start([collector], api_token="api", rate_limit=5)
    answers = await asyncio.gather(*(vote(http, runtime, "api", message_id=n) for n in range(100)))
    assert {status for status, _ in answers} == {200}


async def test_who_calls_too_often_is_told_before_any_work(start: Start, http: aiohttp.ClientSession) -> None:
    runtime = await start([collector], rate_limit=3)
    answers = [await vote(http, runtime, "", message_id=number) for number in range(5)]
    assert [status for status, _ in answers] == [200, 200, 200, 429, 429]
    async with runtime.kernel.database.connection() as connection:
        assert await connection.fetchval("select count(*) from feedback_loop.vote") == 3


# --- how fast ---------------------------------------------------------------------------------


async def talk(runtime: Runtime, said: bytes) -> bytes:
    """What a connection that says this, and then nothing, hears until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", runtime.port)
    writer.write(said)
    try:
        async with asyncio.timeout(20):
            return await ending(reader)
    finally:
        writer.close()


async def ending(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the line is closed, or cut."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("said", [b"", WHOLE[:-2]])
async def test_a_header_that_never_ends_is_cut_off(
    start: Start, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(listener, "HEADER_TIME", 0.2)
    runtime = await start([])
    assert await talk(runtime, said) == b""


async def test_a_second_header_that_never_ends_is_cut_off(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HEADER_TIME", 0.5)
    runtime = await start([])
    reader, writer = await asyncio.open_connection("127.0.0.1", runtime.port)
    writer.write(WHOLE)
    await reader.readuntil(b"}")
    writer.write(WHOLE[:-2])
    async with asyncio.timeout(20):
        assert await ending(reader) == b""
    writer.close()


async def test_a_connection_may_rest_between_requests(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HEADER_TIME", 0.1)
    runtime = await start([])
    reader, writer = await asyncio.open_connection("127.0.0.1", runtime.port)
    for _ in range(2):
        writer.write(WHOLE)
        answer = await reader.readuntil(b"}")
        assert answer.startswith(b"HTTP/1.1 200")
        await asyncio.sleep(0.3)
    writer.close()


async def test_a_body_that_never_ends_is_refused(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_http, "BODY_TIME", 0.1)
    runtime = await start([collector])
    reader, writer = await asyncio.open_connection("127.0.0.1", runtime.port)
    writer.write(HEAD + b"Content-Length: 99\r\n\r\n{")
    assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()


# --- how much ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "largest"),
    [("/feedback", 256), ("/vote-tokens", 128), ("/feedback/batch", 1024), ("/conversations", 1024)],
)
async def test_each_route_takes_so_much_and_no_more(
    start: Start, http: aiohttp.ClientSession, path: str, largest: int
) -> None:
    runtime = await start([collector], vote_token_secret=KEY)
    statuses = []
    for size in (largest * 1024, largest * 1024 + 1):
        async with http.post(url(runtime, path), data=b" " * size, headers=JSON) as response:
            statuses.append(response.status)
    assert statuses == [400, 413]


async def test_what_is_too_large_is_refused_before_it_is_sent(start: Start) -> None:
    runtime = await start([collector])
    reader, writer = await asyncio.open_connection("127.0.0.1", runtime.port)
    writer.write(HEAD + b"Content-Length: 999999999\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()


@pytest.mark.parametrize("line", [b"GET /healthz HTTP/1.1", b"GET /nothing HTTP/1.1", b"what is this"])
async def test_answers_do_not_tell_what_they_run_on(start: Start, line: bytes) -> None:
    runtime = await start([])
    answer = (await talk(runtime, line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")).lower()
    assert b"\r\nserver: feedback-loop\r\n" in answer
    assert b"python" not in answer
    assert b"aiohttp" not in answer


@pytest.mark.parametrize("rest", [b"\x01", b"x" * 9000])
async def test_a_request_that_cannot_be_read_leaves_nothing_in_the_log(
    start: Start, caplog: pytest.LogCaptureFixture, rest: bytes
) -> None:
    """A token with a stray control character is a token."""
    runtime = await start([])
    said = WHOLE[:-2] + b"Authorization: Bearer canary" + rest + b"\r\n\r\n"
    assert b" 400 Bad Request" in await talk(runtime, said)
    assert "canary" not in caplog.text


async def test_who_leaves_before_being_told_to_go_on_leaves_nothing_in_the_log(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = await start([collector])
    begun = b"POST /feedback HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", runtime.port)
    writer.write(begun)
    writer.write_eof()
    await reader.read()
    writer.close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_what_breaks_in_the_server_itself_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    listener._Discreet(listener.log, {}).exception("it broke", exc_info=ValueError("because"))
    assert "ValueError: because" in caplog.text


# --- vote tokens ------------------------------------------------------------------------------

CLOSED = {"api_token": "api", "vote_token_secret": KEY}


async def token_of(http: aiohttp.ClientSession, runtime: Runtime, **body: Any) -> str:
    asked = {"conversation_id": "chat-1", **body}
    async with http.post(url(runtime, "/vote-tokens"), json=asked, headers=bearer("api")) as response:
        assert response.status == 201, await response.text()
        answer = await response.json()
    assert answer["expires"] == pytest.approx(time.time() + body.get("ttl", 60) * 60, abs=60)
    return str(answer["token"])


async def test_a_vote_token_votes_changes_and_takes_back(start: Start, http: aiohttp.ClientSession) -> None:
    runtime = await start([collector], **CLOSED)
    token = await token_of(http, runtime)
    said = {"conversation_id": "chat-1"}
    found = []
    for method, request in (
        ("POST", {"json": VOTE}),
        ("PUT", {"json": {**said, "feedback": "dislike", "comment": "no"}}),
        ("DELETE", {"params": said}),
    ):
        given: dict[str, Any] = {"headers": bearer(token), **request}
        async with http.request(method, url(runtime, "/feedback"), **given) as response:
            found.append((response.status, (await response.json())["message"]))
    assert found == [(200, "Feedback recorded."), (200, "Feedback recorded."), (200, "Feedback retracted.")]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"conversation_id": "chat-2"}, "conversation_id"),
        ({"app": "other"}, "app"),
        ({"user_id": "lee"}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"message_id": "4"}, "message_id"),
        ({"created_at": "2026-01-01T00:00:00Z"}, "created_at"),
        ({"generation": 1}, "generation"),
        ({"source": "survey"}, "source"),
    ],
)
async def test_a_vote_token_cannot_vote_as_or_for_another(
    start: Start, http: aiohttp.ClientSession, body: dict[str, Any], field: str
) -> None:
    runtime = await start([collector], **CLOSED)
    token = await token_of(http, runtime, user_id="kim", message_id=3)
    own = {"user_id": "kim", "message_id": "3"}
    status, answer = await vote(http, runtime, token, **{**own, **body})
    assert (status, answer["field"]) == (403, field)
    assert (await vote(http, runtime, token, **own))[0] == 200


async def test_a_vote_token_takes_back_no_other_vote(start: Start, http: aiohttp.ClientSession) -> None:
    runtime = await start([collector], **CLOSED)
    token = await token_of(http, runtime)
    given: dict[str, Any] = {"params": {"conversation_id": "chat-2"}, "headers": bearer(token)}
    async with http.delete(url(runtime, "/feedback"), **given) as response:
        assert response.status == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "conversation_id"),
        ({"conversation_id": " "}, "conversation_id"),
        ({"conversation_id": "c", "ttl": 0}, "ttl"),
        ({"conversation_id": "c", "ttl": 7 * 24 * 60 + 1}, "ttl"),
        ({"conversation_id": "c", "app": "a b"}, "app"),
        ({"conversation_id": "c", "scope": "admin"}, "scope"),
    ],
)
async def test_a_vote_token_is_for_something(
    start: Start, http: aiohttp.ClientSession, body: dict[str, Any], field: str
) -> None:
    runtime = await start([collector], **CLOSED)
    async with http.post(url(runtime, "/vote-tokens"), json=body, headers=bearer("api")) as response:
        assert (response.status, (await response.json())["field"]) == (422, field)


async def test_without_a_secret_no_vote_token_is_made(start: Start, http: aiohttp.ClientSession) -> None:
    runtime = await start([collector], api_token="api")
    given: dict[str, Any] = {"json": {"conversation_id": "c"}, "headers": bearer("api")}
    async with http.post(url(runtime, "/vote-tokens"), **given) as response:
        assert (response.status, (await response.json())["reason"]) == (
            403,
            "closed until VOTE_TOKEN_SECRET is set",
        )


# --- pages of other origins ---------------------------------------------------------------------


async def test_a_page_of_a_named_origin_votes_with_its_token(
    start: Start, http: aiohttp.ClientSession
) -> None:
    runtime = await start([collector], **CLOSED, cors_origins=SHOP)
    asked = {
        "Origin": SHOP,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    async with http.options(url(runtime, "/feedback"), headers=asked) as response:
        allowed = response.headers
        assert (response.status, allowed["Access-Control-Allow-Origin"]) == (204, SHOP)
        assert {"POST", "PUT", "DELETE"} <= set(allowed["Access-Control-Allow-Methods"].split(", "))
        assert {"Authorization", "Content-Type"} <= set(allowed["Access-Control-Allow-Headers"].split(", "))
    headers = {"Origin": SHOP, **JSON, **bearer(await token_of(http, runtime))}
    for body, status in ((json.dumps(VOTE), 200), ("{", 400)):
        async with http.post(url(runtime, "/feedback"), data=body, headers=headers) as response:
            assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (status, SHOP)
            assert response.headers["Vary"] == "Origin"
            assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("path", ["/feedback/batch", "/conversations", "/vote-tokens", "/readyz", "/nothing"])
async def test_no_other_route_is_open_to_pages(start: Start, http: aiohttp.ClientSession, path: str) -> None:
    runtime = await start([collector], **CLOSED, cors_origins=SHOP)
    for method in ("GET", "POST", "OPTIONS"):
        async with http.request(method, url(runtime, path), headers={"Origin": SHOP}) as response:
            assert "Access-Control-Allow-Origin" not in response.headers


# --- the command --------------------------------------------------------------------------------


async def command(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """What `feedback-loop vote-token` prints, in a folder without a `.env`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "vote-token", *arguments),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", **environment},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode().strip()


async def test_a_vote_token_made_by_the_command_votes(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    runtime = await start([collector], **CLOSED)
    code, token = await command(tmp_path, "chat-1", "--user", "kim", "--minutes", "5", VOTE_TOKEN_SECRET=KEY)
    assert code == 0
    assert (await vote(http, runtime, token, user_id="kim"))[0] == 200
    assert (await vote(http, runtime, token, user_id="lee"))[0] == 403


@pytest.mark.parametrize(
    ("arguments", "said"), [(("chat-1",), "VOTE_TOKEN_SECRET is not set"), (("",), "conversation_id")]
)
async def test_the_command_says_what_does_not_fit(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    secret = {} if "SECRET" in said else {"VOTE_TOKEN_SECRET": KEY}
    code, output = await command(tmp_path, *arguments, **secret)
    assert code == 1
    assert said in output
