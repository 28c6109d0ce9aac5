"""Which callers a guard lets through, and how often."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from shared.settings import Settings
from shared.web import cors, http
from shared.web.access import Access, Guard, access_of, voter_of
from shared.web.vote_token import VoteToken, issue

KEY = "k" * 32
Client = TestClient[web.Request, web.Application]
Guarded = Callable[..., Awaitable[Client]]


async def _hello(request: web.Request) -> web.Response:
    voter = voter_of(request)
    return web.json_response(voter.conversation_id if voter else None)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def guarded(clock: Clock) -> AsyncIterator[Guarded]:
    """A server with a route of each kind, on these settings."""
    async with AsyncExitStack() as stack:

        async def start(**given: Any) -> Client:
            settings = Settings(_env_file=None, **given)
            guard = Guard(settings, clock)
            app = web.Application(middlewares=[http.errors, guard.strangers])
            app.on_response_prepare.append(cors.marker(settings))
            asked = cors.preflight(settings, "POST")

            async def who(request: web.Request) -> web.Response:
                return web.json_response(guard.allows(request, "admin"))

            app.add_routes(
                [
                    web.get("/open", guard.open(_hello)),
                    web.get("/who", guard.open(who)),
                    web.get("/probe", guard.open(_hello, rate="none")),
                    web.get("/trigger", guard.needs("trigger", _hello, rate="ample")),
                    web.get("/read", guard.needs("read", _hello)),
                    web.get("/admin", guard.needs("admin", _hello)),
                    web.post("/batch", guard.needs("vote", _hello)),
                    web.post("/vote", guard.needs("vote", _hello, browser=True)),
                    web.options("/vote", guard.open(asked, browser=True)),
                ]
            )
            return await stack.enter_async_context(TestClient(TestServer(app)))

        yield start


async def statuses(client: Client, path: str, times: int, token: str | None = None) -> list[int]:
    method = "POST" if path in ("/vote", "/batch") else "GET"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    found = []
    for _ in range(times):
        async with client.request(method, path, headers=headers) as response:
            found.append(response.status)
    return found


def token_for(conversation: str = "chat-1", key: str = KEY, **given: Any) -> str:
    return issue(VoteToken(conversation_id=conversation, **{"exp": 2**33, **given}), [key.encode()])


def fresh(conversation: str = "chat-1", key: str = KEY, minutes: int = 10) -> str:
    return token_for(conversation, key, exp=int(time.time()) + minutes * 60)


# --- what a route says ----------------------------------------------------------------------


def test_a_handler_that_was_let_through_says_so() -> None:
    handler = Guard(Settings(_env_file=None)).needs("read", _hello, personal=True, body=7)
    assert access_of(handler) == Access("token", "read", personal=True, body=7)
    assert access_of(_hello) is None


# --- rates ----------------------------------------------------------------------------------


async def test_a_caller_without_a_token_is_told_when_to_come_back(guarded: Guarded, clock: Clock) -> None:
    client = await guarded(rate_limit=3)
    assert await statuses(client, "/open", 4) == [200, 200, 200, 429]
    async with client.get("/open") as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "20")
        assert (await response.json())["field"] == "rate"
    clock.now += 20
    assert await statuses(client, "/open", 2) == [200, 429]


async def test_routes_that_are_not_there_count_too(guarded: Guarded) -> None:
    client = await guarded(rate_limit=3)
    assert await statuses(client, "/nothing", 4) == [404, 404, 404, 429]


async def test_a_right_token_is_not_limited(guarded: Guarded) -> None:
    client = await guarded(rate_limit=3, api_token="api")
    assert await statuses(client, "/batch", 50, "api") == [200] * 50


async def test_a_probe_is_never_refused(guarded: Guarded) -> None:
    client = await guarded(rate_limit=3)
    await statuses(client, "/open", 4)
    assert await statuses(client, "/probe", 50) == [200] * 50


async def test_a_scheduler_has_room(guarded: Guarded) -> None:
    client = await guarded(rate_limit=3)
    assert await statuses(client, "/trigger", 31) == [200] * 30 + [429]


async def test_no_limit_is_none(guarded: Guarded) -> None:
    client = await guarded(rate_limit=0)
    assert await statuses(client, "/open", 50) == [200] * 50


async def test_callers_behind_a_proxy_are_told_apart(guarded: Guarded) -> None:
    client = await guarded(rate_limit=1, trusted_proxies=1)
    found = []
    for caller in ("1.1.1.1", "2.2.2.2", "1.1.1.1", "9.9.9.9, 2.2.2.2"):
        async with client.get("/open", headers={"X-Forwarded-For": caller}) as response:
            found.append(response.status)
    assert found == [200, 200, 429, 429]


# --- guessing -------------------------------------------------------------------------------


async def test_guessing_is_slow_and_a_right_guess_is_not_heard(guarded: Guarded, clock: Clock) -> None:
    client = await guarded(rate_limit=30, api_token="api")
    assert await statuses(client, "/batch", 4, "wrong") == [401, 401, 401, 429]
    assert await statuses(client, "/batch", 1, "api") == [429]
    clock.now += 20
    assert await statuses(client, "/batch", 1, "api") == [200]


async def test_guesses_do_not_stop_who_was_known_before(guarded: Guarded) -> None:
    client = await guarded(rate_limit=30, api_token="api", trigger_token="go")
    assert await statuses(client, "/batch", 1, "api") == [200]
    await statuses(client, "/batch", 4, "wrong")
    assert await statuses(client, "/batch", 1, "api") == [200]
    assert await statuses(client, "/trigger", 1, "go") == [200]  # a scheduler always is


async def test_a_route_that_tells_what_a_token_opens_is_no_way_to_guess(guarded: Guarded) -> None:
    client = await guarded(rate_limit=30, api_token="api", admin_token="root")
    assert await statuses(client, "/who", 4, "wrong") == [200, 200, 200, 429]
    assert await statuses(client, "/who", 1, "root") == [429]
    assert await statuses(client, "/who", 1) == [200]


async def test_coming_without_a_token_is_no_guess(guarded: Guarded) -> None:
    client = await guarded(rate_limit=30, api_token="api")
    assert await statuses(client, "/batch", 20) == [401] * 20
    assert await statuses(client, "/batch", 1, "api") == [200]


# --- vote tokens ----------------------------------------------------------------------------

CLOSED = {"api_token": "api", "vote_token_secret": KEY}


async def test_a_vote_token_opens_what_browsers_may_call_and_nothing_else(guarded: Guarded) -> None:
    client = await guarded(**CLOSED, admin_token="root", read_token="eyes", trigger_token="go")
    found = {path: await statuses(client, path, 1, fresh()) for path in ("/vote", "/batch", "/read")}
    found |= {path: await statuses(client, path, 1, fresh()) for path in ("/trigger", "/admin")}
    assert found == {"/vote": [200], "/batch": [401], "/read": [401], "/trigger": [401], "/admin": [401]}


async def test_the_handler_knows_whose_vote_it_is(guarded: Guarded) -> None:
    client = await guarded(**CLOSED)
    async with client.post("/vote", headers={"Authorization": f"Bearer {fresh('chat-7')}"}) as response:
        assert await response.json() == "chat-7"
    async with client.post("/vote", headers={"Authorization": "Bearer api"}) as response:
        assert await response.json() is None


@pytest.mark.parametrize("settings", [CLOSED, {"vote_token_secret": KEY}])
async def test_a_vote_token_that_is_none_is_refused(guarded: Guarded, settings: dict[str, Any]) -> None:
    client = await guarded(**settings)
    for token in (fresh(key="x" * 32), token_for(exp=1), token_for()):
        assert await statuses(client, "/vote", 1, token) == [401]


async def test_without_a_secret_there_are_no_vote_tokens(guarded: Guarded) -> None:
    client = await guarded(api_token="api")
    assert await statuses(client, "/vote", 1, fresh()) == [401]


async def test_the_holder_of_a_vote_token_is_limited(guarded: Guarded) -> None:
    client = await guarded(**CLOSED, rate_limit=30)
    assert await statuses(client, "/vote", 4, fresh()) == [200, 200, 200, 429]
    assert await statuses(client, "/vote", 1, fresh("chat-2")) == [200]


async def test_forging_vote_tokens_is_guessing_and_an_old_one_is_not(guarded: Guarded) -> None:
    client = await guarded(**CLOSED, rate_limit=30)
    assert await statuses(client, "/vote", 10, token_for(exp=1)) == [401] * 10
    assert await statuses(client, "/vote", 1, fresh()) == [200]
    assert await statuses(client, "/vote", 4, fresh(key="x" * 32)) == [401, 401, 401, 429]
    assert await statuses(client, "/vote", 1, fresh("chat-2")) == [429]


# --- other origins --------------------------------------------------------------------------

SHOP = "https://shop.example"


async def test_pages_of_other_origins_are_kept_out_by_default(guarded: Guarded) -> None:
    client = await guarded()
    asked = {"Origin": SHOP, "Access-Control-Request-Method": "POST"}
    async with client.options("/vote", headers=asked) as response:
        assert response.status == 403
        assert not [name for name in response.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize(("origin", "status"), [(SHOP, 204), ("https://evil.example", 403), ("null", 403)])
async def test_a_browser_that_asks_before_is_answered(guarded: Guarded, origin: str, status: int) -> None:
    client = await guarded(cors_origins=f"{SHOP}, http://localhost:3000")
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    async with client.options("/vote", headers=asked) as response:
        assert (response.status, response.headers["Vary"]) == (status, "Origin")
        allowed = response.headers.get("Access-Control-Allow-Origin")
        assert allowed == (SHOP if status == 204 else None)
        assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("token", ["api", "wrong"])
async def test_answers_and_errors_may_be_read_by_pages_of_named_origins(guarded: Guarded, token: str) -> None:
    client = await guarded(cors_origins=SHOP, api_token="api")
    headers = {"Origin": SHOP, "Authorization": f"Bearer {token}"}
    async with client.post("/vote", headers=headers) as response:
        assert response.headers["Access-Control-Allow-Origin"] == SHOP
    async with client.post("/batch", headers=headers) as response:
        assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("given", ["*", "null", "shop.example", "https://shop.example/", "https://a b"])
def test_origins_are_exact(given: str) -> None:
    with pytest.raises(ValueError, match="cors_origins"):
        Settings(_env_file=None, cors_origins=given)


@pytest.mark.parametrize("given", ["short", f"{KEY},short"])
def test_the_keys_of_vote_tokens_are_long_and_not_told(given: str) -> None:
    with pytest.raises(ValueError, match="at least 32 characters"):
        Settings(_env_file=None, vote_token_secret=SecretStr(given))
