"""What every route shares: errors as JSON with field and reason, bodies, bearer tokens."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import BaseModel, Field, SecretStr, field_validator

from shared.bus.port import BusError
from shared.postgres.database import DatabaseUnavailable
from shared.settings import Settings
from shared.web import http
from shared.web.access import Guard

Client = TestClient[web.Request, web.Application]

RAISED: dict[str, Exception] = {
    "bad": http.BadRequest("field", "a reason", status=422),
    "bus": BusError("the broker is away"),
    "database": DatabaseUnavailable("refused"),
    "line": ConnectionResetError("reset"),
    "not-ready": http.NotReady("starting"),
    "bug": RuntimeError("s3cret of the inside"),
    "conflict": web.HTTPConflict(reason="taken"),
    "redirect": web.HTTPFound("/elsewhere"),
}


class Body(BaseModel):
    count: int = Field(ge=1)
    nested: dict[str, int] = {}

    @field_validator("count")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd")
        return value


async def _raise(request: web.Request) -> web.Response:
    raise RAISED[request.match_info["what"]]


async def _echo(request: web.Request) -> web.Response:
    request[http.BODY_LIMIT] = 100
    return web.json_response({"json": await http.read_json(request)})


async def _model(request: web.Request) -> web.Response:
    return web.json_response(http.read_model(Body, await http.read_json(request)).model_dump())


async def _hello(request: web.Request) -> web.Response:
    return web.json_response("hello")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    app = web.Application(middlewares=[http.errors])
    app.add_routes(
        [
            web.get("/raise/{what}", _raise),
            web.post("/echo", _echo),
            web.post("/model", _model),
            web.get("/open", Guard(Settings()).needs("trigger", _hello)),
            web.get("/guarded", Guard(Settings(trigger_token=SecretStr("s3cret"))).needs("trigger", _hello)),
        ]
    )
    async with TestClient(TestServer(app)) as client:
        yield client


async def ask(client: Client, method: str, path: str, **request: Any) -> tuple[int, Any]:
    async with client.request(method, path, allow_redirects=False, **request) as response:
        return response.status, json.loads(await response.read() or b"null")


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "status", "reason"),
    [
        ("bus", 503, "the bus does not answer; the log has more"),
        ("database", 503, "the database does not answer; the log has more"),
        ("line", 503, "the database does not answer; the log has more"),
        ("not-ready", 503, "starting"),
    ],
)
async def test_what_may_work_later_is_503(client: Client, what: str, status: int, reason: str) -> None:
    assert await ask(client, "GET", f"/raise/{what}") == (
        status,
        {"status": "unavailable", "reason": reason},
    )


async def test_what_a_dependency_says_is_for_the_log(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    assert "the broker is away" not in str(await ask(client, "GET", "/raise/bus"))
    assert "the broker is away" in caplog.text


async def test_a_bad_request_names_field_and_reason(client: Client) -> None:
    assert await ask(client, "GET", "/raise/bad") == (
        422,
        {"status": "error", "field": "field", "reason": "a reason"},
    )


async def test_a_bug_is_500_and_tells_only_the_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        status, answer = await ask(client, "GET", "/raise/bug")
    assert status == 500
    assert "s3cret" not in json.dumps(answer)
    assert "s3cret of the inside" in caplog.text


async def test_other_http_errors_are_json_too(client: Client) -> None:
    assert await ask(client, "GET", "/raise/conflict") == (
        409,
        {"status": "error", "field": "request", "reason": "taken"},
    )


async def test_redirects_pass(client: Client) -> None:
    async with client.get("/raise/redirect", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, "/elsewhere")


async def test_a_wrong_method_names_the_right_ones(client: Client) -> None:
    async with client.put("/echo") as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
        assert (await response.json())["field"] == "method"


async def test_a_path_that_is_not_there_is_404(client: Client) -> None:
    status, answer = await ask(client, "GET", "/no/such")
    assert (status, answer["field"]) == (404, "path")


# --- bodies ---------------------------------------------------------------------------------

JSON = {"Content-Type": "application/json"}


async def test_json_is_read(client: Client) -> None:
    for body in ('{"text": "👎"}'.encode(), b"[1]", b"null"):
        status, answer = await ask(client, "POST", "/echo", data=body, headers=JSON)
        assert (status, answer) == (200, {"json": json.loads(body)})


@pytest.mark.parametrize(
    ("headers", "body", "status", "field"),
    [
        (JSON, b"", 400, "body"),
        (JSON, b"{", 400, "body"),
        (JSON, b"\xff", 400, "body"),
        (JSON, b"[" * 99, 400, "body"),
        (JSON, b" " * 101, 413, "body"),
        ({"Content-Type": "text/json"}, b"{}", 415, "content-type"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"{}", 415, "content-type"),
    ],
)
async def test_what_is_no_json_is_refused(
    client: Client, headers: dict[str, str], body: bytes, status: int, field: str
) -> None:
    got, answer = await ask(client, "POST", "/echo", data=body, headers=headers)
    assert (got, answer["status"], answer["field"]) == (status, "error", field)


async def test_a_body_in_chunks_is_bounded_too(client: Client) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"          "

    status, answer = await ask(client, "POST", "/echo", data=chunks(), headers=JSON)
    assert (status, answer["field"]) == (413, "body")


@pytest.mark.parametrize("body", [b"[" + b"1," * 50_000 + b"1]", b"1" * 99_999])
async def test_a_body_is_bounded_as_unpacked(client: Client, body: bytes) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}
    status, answer = await ask(client, "POST", "/echo", data=gzip.compress(body), headers=headers)
    assert (status, answer["field"]) == (413, "body")


@pytest.mark.parametrize(
    "packed", [b"[1]", gzip.compress(b"[1]" * 50)[:-20] + b"\xff" * 20], ids=["none", "cut"]
)
async def test_a_body_that_cannot_be_unpacked_is_refused(client: Client, packed: bytes) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}
    status, answer = await ask(client, "POST", "/echo", data=packed, headers=headers)
    assert (status, answer["field"]) == (400, "body")


@pytest.mark.parametrize("body", [b"[1]", b" " * 101])
async def test_a_connection_whose_body_was_refused_says_that_it_ends(client: Client, body: bytes) -> None:
    """A proxy that did not know would send the next caller's request into it."""
    headers = {**JSON, "Content-Encoding": "gzip"} if body == b"[1]" else JSON
    async with client.post("/echo", data=body, headers=headers) as response:
        assert response.headers.get("Connection") == "close"


async def test_a_body_that_dawdles_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_TIME", 0.1)
    ended = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"["
        await ended.wait()

    status, answer = await ask(client, "POST", "/echo", data=chunks(), headers=JSON)
    ended.set()
    assert (status, answer["field"]) == (408, "body")


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ("{}", "count", "Field required"),
        ('{"count": "x"}', "count", "valid integer"),
        ('{"count": 0}', "count", "greater than or equal to 1"),
        ('{"count": 2}', "count", "must be odd"),
        ('{"count": 1, "nested": {"a": "x"}}', "nested.a", "valid integer"),
        ("[]", "body", "valid dictionary"),
    ],
)
async def test_a_field_that_does_not_fit_is_named(client: Client, body: str, field: str, reason: str) -> None:
    status, answer = await ask(client, "POST", "/model", data=body, headers=JSON)
    assert (status, answer["field"]) == (422, field)
    assert reason in answer["reason"]
    assert not answer["reason"].startswith("Value error")


# --- tokens ---------------------------------------------------------------------------------


async def test_without_a_token_set_a_route_is_open(client: Client) -> None:
    assert await ask(client, "GET", "/open") == (200, "hello")


async def test_the_right_token_opens(client: Client) -> None:
    headers = {"Authorization": "Bearer s3cret"}
    assert await ask(client, "GET", "/guarded", headers=headers) == (200, "hello")


@pytest.mark.parametrize(
    "given", [None, "", "s3cret", "Bearer", "Bearer s3cre", "Bearer s3crets", "Basic s3cret"]
)
async def test_any_other_is_refused(client: Client, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given}
    async with client.get("/guarded", headers=headers) as response:
        assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert (await response.json())["field"] == "authorization"


async def test_a_token_is_compared_in_constant_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, expected: bytes) -> bool:
        compared.append((given, expected))
        return False

    monkeypatch.setattr("hmac.compare_digest", compare)
    await ask(client, "GET", "/guarded", headers={"Authorization": "Bearer x"})
    assert compared == [(b"Bearer x", b"Bearer s3cret")]
