"""Who may call a route, and how much: everyone, whoever holds a token of a scope, or Slack.

What is guaranteed: every handler that a `Guard` has let through carries its `Access`, and a test fails on
a route without one; tokens are compared in constant time; what shows people's words and what changes the
loop is never open in production; limits come before the work. What is not: that a guess of a short token
fails, it is only slow (`limits.py`).

| scope | token | where that is not set |
|---|---|---|
| `trigger` | `TRIGGER_TOKEN` | open |
| `vote` | `API_TOKEN` | open |
| `read` | `READ_TOKEN`, `API_TOKEN` | figures: open; people's words: open in development only |
| `admin` | `ADMIN_TOKEN`, or else `API_TOKEN` | open in development only |

`ADMIN_TOKEN` opens everything. A vote token (`vote_token.py`) opens what a page of `CORS_ORIGINS` may call.
"""

from __future__ import annotations

import functools
import hmac
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from aiohttp import web
from pydantic import SecretStr

from shared.settings import Settings
from shared.web import vote_token
from shared.web.http import BODY_LIMIT, SMALL_BODY, refuse
from shared.web.limits import Limits, Rate, address_of
from shared.web.vote_token import BadToken, VoteToken

__all__ = ["Access", "Guard", "Handler", "Scope", "access_of", "voter_of"]

Scope = Literal["trigger", "vote", "read", "admin"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

VARIABLES: dict[Scope, str] = {
    "trigger": "TRIGGER_TOKEN",
    "vote": "API_TOKEN",
    "read": "READ_TOKEN",
    "admin": "ADMIN_TOKEN",
}
VOTER: web.RequestKey[VoteToken | None] = web.RequestKey("voter")


@dataclass(frozen=True, slots=True)
class Access:
    """What a route says about its callers.

    Attributes:
        kind: `open` to everyone, by `token`, or `slack`: signed by Slack.
        scope: which tokens open it; None unless `kind` is `token`.
        personal: it shows what people wrote.
        browser: a vote token opens it too, and pages of `CORS_ORIGINS` may call it.
        body: most bytes of a request's body.
        rate: how often a caller without a token may call: `RATE_LIMIT` or ten times that, if at all.
    """

    kind: Literal["open", "token", "slack"]
    scope: Scope | None = None
    personal: bool = False
    browser: bool = False
    body: int = SMALL_BODY
    rate: Rate = "plain"


def access_of(handler: object) -> Access | None:
    """What a routed handler says about its callers; None where it says nothing."""
    return getattr(handler, "access", None)


def voter_of(request: web.Request) -> VoteToken | None:
    """The vote token that the caller came with; None: the caller may vote as anyone."""
    return request.get(VOTER)


class Guard:
    """Lets callers through to handlers, as the settings say. One per process: it counts.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._proxies = settings.proxies
        self._limits = Limits(settings.requests_a_minute, clock)
        self._keys = settings.vote_token_keys
        admin = settings.admin_token or settings.api_token
        self._tokens: dict[Scope, Sequence[SecretStr | None]] = {
            "trigger": (settings.trigger_token, settings.admin_token),
            "vote": (settings.api_token, settings.admin_token),
            "read": (settings.read_token, settings.api_token, settings.admin_token),
            "admin": (admin,),
        }
        self._closed: dict[Scope, bool] = {
            "trigger": settings.trigger_token is not None,
            "vote": settings.api_token is not None,
            "read": settings.read_token is not None,
            "admin": admin is not None or settings.production,
        }
        self._words_closed = bool(settings.read_token or settings.api_token or settings.production)

    def open(self, handler: Handler, *, rate: Rate = "plain", browser: bool = False) -> Handler:
        """The handler, for everyone."""
        return self._declared(Access("open", rate=rate, browser=browser), handler)

    def signed(self, handler: Handler, *, body: int) -> Handler:
        """The handler, which itself takes nothing but what Slack has signed."""
        return self._declared(Access("slack", body=body, rate="ample"), handler)

    def needs(
        self,
        scope: Scope,
        handler: Handler,
        *,
        personal: bool = False,
        browser: bool = False,
        body: int = SMALL_BODY,
        rate: Rate = "plain",
    ) -> Handler:
        """The handler, for whoever may do this; others get 401, or 403 where no token would open it.

        Args: as of `Access`.
        """
        return self._declared(Access("token", scope, personal, browser, body, rate), handler)

    def allows(self, request: web.Request, scope: Scope, *, personal: bool = False) -> bool:
        """Whether this caller may do this."""
        return not self._shut(scope, personal) or self._fitting(request, scope) is not None

    def caller(self, request: web.Request) -> str:
        """Who calls, as limits count: an address, or the network of one."""
        peer = request.transport and request.transport.get_extra_info("peername")
        address = peer[0] if isinstance(peer, tuple) else None
        forwarded = request.headers.getall("X-Forwarded-For", ()) if self._proxies else ()
        return address_of(address, forwarded, self._proxies)

    @web.middleware
    def strangers(self, request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        """Limits what leads to no handler: a path that is not there, or another method."""
        if access_of(request.match_info.handler) is None:
            handler = self._limited(handler)
        return handler(request)  # not awaited here: this is no layer of its own around every other request

    def _limited(self, handler: Handler) -> Handler:
        async def limited(request: web.Request) -> web.StreamResponse:
            return _too_often(self._limits.call(self.caller(request), "plain")) or await handler(request)

        return limited

    # --- one request --------------------------------------------------------------------

    def _declared(self, access: Access, handler: Handler) -> Handler:
        @functools.wraps(handler)
        async def declared(request: web.Request) -> web.StreamResponse:
            request[BODY_LIMIT] = access.body
            request[VOTER] = None  # what is not there is slow to ask for
            return self._refusal(request, access) or await handler(request)

        declared.access = access  # type: ignore[attr-defined]
        return declared

    def _refusal(self, request: web.Request, access: Access) -> web.Response | None:
        """Why the request goes no further; None: it does."""
        caller, scope = self.caller(request), access.scope
        if scope is None:
            guessing = self._guessing(request, caller) if access == Access("open") else 0.0
            return _too_often(guessing or self._limits.call(caller, access.rate))
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if access.browser and self._keys and vote_token.is_one(bearer):
            return self._vote(request, caller, bearer)
        token = self._fitting(request, scope)
        if token is not None:
            # A scheduler is never refused: guessing its token gains little, a report missed is a loss.
            heard = scope == "trigger" or self._limits.proven(caller, token)
            return None if heard else _too_often(self._limits.deaf(caller))
        if not self._shut(scope, access.personal):
            return _too_often(self._limits.call(caller, access.rate))
        if not any(self._tokens[scope]):
            return _too_often(self._limits.call(caller, access.rate)) or refuse(
                403, "authorization", f"closed until {VARIABLES[scope]} is set"
            )
        wait = self._limits.failed(caller) if bearer else self._limits.call(caller, access.rate)
        return _too_often(wait) or _unknown("needs the header 'Authorization: Bearer <token>'")

    def _guessing(self, request: web.Request, caller: str) -> float:
        """Seconds to wait for one who tries tokens where an open route may tell what they open."""
        if "Authorization" not in request.headers or not any(map(any, self._tokens.values())):
            return 0.0
        fitting = (self._fitting(request, scope) for scope in self._tokens)
        token = next((token for token in fitting if token is not None), None)
        if token is None:
            return self._limits.failed(caller)
        return 0.0 if self._limits.proven(caller, token) else self._limits.deaf(caller)

    def _vote(self, request: web.Request, caller: str, bearer: str) -> web.Response | None:
        if wait := self._limits.deaf(caller):
            return _too_often(wait)
        try:
            # The clock of the process, see `vote_token.py`.
            token = vote_token.read(bearer, self._keys, time.time())
        except BadToken as error:
            wait = self._limits.failed(caller) if error.forged else self._limits.call(caller, "plain")
            return _too_often(wait) or _unknown(str(error))
        request[VOTER] = token
        return _too_often(self._limits.vote((token.app, token.conversation_id, token.user_id)))

    def _shut(self, scope: Scope, personal: bool) -> bool:
        return self._closed[scope] or (personal and self._words_closed)

    def _fitting(self, request: web.Request, scope: Scope) -> int | None:
        """Which token of the scope the caller has presented."""
        if (given := request.headers.get("Authorization")) is None:
            return None
        sent = given.encode("utf-8", "surrogateescape")
        matches = [
            token is not None and hmac.compare_digest(sent, f"Bearer {token.get_secret_value()}".encode())
            for token in self._tokens[scope]
        ]
        return hash(self._tokens[scope][matches.index(True)]) if any(matches) else None


def _unknown(reason: str) -> web.Response:
    return refuse(401, "authorization", reason, **{"WWW-Authenticate": "Bearer"})


def _too_often(wait: float) -> web.Response | None:
    """The answer to one who must wait so many seconds; None for who need not."""
    if not wait:
        return None
    seconds = math.ceil(wait)
    reason = f"too many requests: again in {seconds} s"
    return refuse(429, "rate", reason, **{"Retry-After": str(seconds)})
