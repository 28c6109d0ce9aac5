"""Every route says who may call it, and lets through just those, through HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from scripts import route_table
from services.embedder.build import build as embedder
from services.up import SERVICES
from shared.runtime import Builder, Runtime
from shared.settings import Settings
from shared.web.access import access_of
from shared.web.vote_token import VoteToken, issue
from tests.support.embedder import Bigrams

Start = Callable[..., Any]

BUILDERS: dict[str, Builder] = {**SERVICES, "embedder": partial(embedder, embedder=Bigrams())}

# --- what is said -----------------------------------------------------------------------------


def undeclared(routes: list[web.AbstractRouteDef]) -> list[str]:
    """What a router makes of the routes (HEAD among them) and no `Guard` has seen."""
    app = web.Application()
    app.add_routes(routes)
    return [
        f"{route.method} {route.resource and route.resource.canonical}"
        for route in app.router.routes()
        if access_of(route.handler) is None
    ]


@pytest.mark.parametrize("names", [[*BUILDERS], *([name] for name in BUILDERS)], ids="-".join)
def test_every_route_says_who_may_call_it(names: list[str]) -> None:
    runtime = Runtime(Settings(_env_file=None), [BUILDERS[name] for name in names])
    assert undeclared(runtime.routes) == []
    assert {"/healthz", "/readyz"} <= {
        route.path for route in runtime.routes if isinstance(route, web.RouteDef)
    }


def test_one_that_says_nothing_is_found() -> None:
    async def handler(request: web.Request) -> web.Response:
        raise NotImplementedError

    assert undeclared([web.get("/secret", handler)]) == ["HEAD /secret", "GET /secret"]


def test_security_md_lists_the_routes_as_they_are() -> None:
    assert route_table.main(["--check"]) == 0


# --- what is so -------------------------------------------------------------------------------

OPEN, TRIGGER, VOTE, BROWSER, FIGURES, WORDS, ADMIN = (
    "open", "trigger", "vote", "browser", "figures", "words", "admin",
)  # fmt: skip

ROUTES = {
    ("GET", "/healthz"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/metrics"): FIGURES,
    ("GET", "/run-feedback-loop"): TRIGGER,
    ("POST", "/run-feedback-loop"): TRIGGER,
    ("POST", "/events"): TRIGGER,
    ("GET", "/runs"): FIGURES,
    ("GET", "/runs/{id}"): FIGURES,
    ("POST", "/feedback"): BROWSER,
    ("PUT", "/feedback"): BROWSER,
    ("DELETE", "/feedback"): BROWSER,
    ("OPTIONS", "/feedback"): OPEN,
    ("POST", "/vote-tokens"): VOTE,
    ("POST", "/feedback/batch"): VOTE,
    ("POST", "/conversations"): VOTE,
    ("GET", "/documents"): ADMIN,
    ("POST", "/documents"): ADMIN,
    ("DELETE", "/documents"): ADMIN,
    ("GET", "/search"): WORDS,
    ("POST", "/search"): WORDS,
    ("POST", "/slack/commands"): OPEN,  # to the guard: the signature is the handler's
    ("POST", "/slack/interactions"): OPEN,
    ("GET", "/"): OPEN,
    ("GET", "/dashboard"): OPEN,
    ("GET", "/static/vega.js"): OPEN,
    ("GET", "/static/{name}"): OPEN,
    ("GET", "/dashboard/access"): OPEN,
    ("GET", "/dashboard/runs"): FIGURES,
    ("GET", "/dashboard/stream"): FIGURES,
    ("GET", "/dashboard/summary"): FIGURES,
    ("GET", "/dashboard/trend.json"): FIGURES,
    ("GET", "/dashboard/backtest"): FIGURES,
    ("GET", "/dashboard/groups"): WORDS,
    ("GET", "/dashboard/votes"): WORDS,
    ("GET", "/dashboard/votes.csv"): WORDS,
    ("GET", "/dashboard/webhook"): ADMIN,
    ("POST", "/dashboard/commands"): ADMIN,
    ("GET", "/openapi.json"): OPEN,
    ("GET", "/docs"): OPEN,
    ("GET", "/docs/reference.js"): OPEN,
    ("GET", "/docs/reference.css"): OPEN,
}
"""Every route, and what it is by anyone's reading of it. A new one belongs here, by hand."""

KEY = "k" * 32
EVERYONE = {"none", "wrong", "trigger", "api", "read", "admin", "ballot"}

DEVELOPMENT = dict.fromkeys((OPEN, TRIGGER, VOTE, BROWSER, FIGURES, WORDS, ADMIN), EVERYONE)
PRODUCTION = {**DEVELOPMENT, WORDS: set[str](), ADMIN: set[str]()}
CLOSED = {
    OPEN: EVERYONE,
    TRIGGER: {"trigger", "admin"},
    VOTE: {"api", "admin"},
    BROWSER: {"api", "admin", "ballot"},
    FIGURES: {"read", "api", "admin"},
    WORDS: {"read", "api", "admin"},
    ADMIN: {"admin"},
}
TOKENS = {f"{name}_token": name for name in ("trigger", "api", "read", "admin")}
WITHOUT_ADMIN = {name: token for name, token in TOKENS.items() if name != "admin_token"}
CLOSED_WITHOUT_ADMIN = {
    **{kind: opened - ({"admin"} if kind != OPEN else set()) for kind, opened in CLOSED.items()},
    ADMIN: {"api"},
}


@pytest.mark.parametrize(
    ("settings", "opens"),
    [
        ({}, DEVELOPMENT),
        ({"environment": "production"}, PRODUCTION),
        (TOKENS, CLOSED),
        ({**TOKENS, "environment": "production"}, CLOSED),
        ({**WITHOUT_ADMIN, "environment": "production"}, CLOSED_WITHOUT_ADMIN),
    ],
    ids=["development", "production", "development, tokens", "production, tokens", "without ADMIN_TOKEN"],
)
async def test_every_route_lets_through_those_it_is_for(
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    opens: dict[str, set[str]],
) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")  # no charts: they take long to make
    common = {"data_dir": tmp_path, "rate_limit": 0, "vote_token_secret": KEY}
    runtime = await start(list(BUILDERS.values()), **common, **settings)
    there = {(route.method, route.path) for route in runtime.routes}
    assert there == ROUTES.keys()
    found = {}
    async with aiohttp.ClientSession() as session:
        for (method, path), kind in ROUTES.items():
            let_in = {who for who in EVERYONE if await is_let_in(session, runtime.port, method, path, who)}
            if let_in != opens[kind]:
                found[method, path] = let_in
    assert found == {}


async def is_let_in(session: aiohttp.ClientSession, port: int, method: str, path: str, who: str) -> bool:
    """Whether the guard lets this caller through; what is sent is no request that does anything."""
    token = {"none": None, "ballot": ballot()}.get(who, who)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request: dict[str, Any] = {"data": b"{"} if method != "GET" else {}
    url = f"http://127.0.0.1:{port}{path.replace('{id}', 'x').replace('{name}', 'x')}?app=!"
    async with session.request(method, url, headers=headers, **request) as response:
        assert response.status != 500
        if response.status not in (401, 403):
            response.close()  # a stream does not end by itself
            return True
        return bool((await response.json())["field"] != "authorization" or path.startswith("/slack"))


def ballot() -> str:
    token = VoteToken(conversation_id="chat-1", exp=int(time.time()) + 60)
    return issue(token, [KEY.encode()])
