"""Who may call a route: everyone, whoever holds a token of a scope, or Slack.

What is guaranteed: every handler that a `Guard` has let through carries its `Access`, and a test fails
on a route without one; tokens are compared in constant time; what shows people's words and what changes
the loop is never open in production. What is not: limits on how often somebody may call.

| scope | token | where that is not set |
|---|---|---|
| `trigger` | `TRIGGER_TOKEN` | open |
| `vote` | `API_TOKEN` | open |
| `read` | `READ_TOKEN`, `API_TOKEN` | figures: open; people's words: open in development only |
| `admin` | `ADMIN_TOKEN`, or else `API_TOKEN` | open in development only |

`ADMIN_TOKEN` opens everything.
"""

from __future__ import annotations

import functools
import hmac
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from aiohttp import web
from pydantic import SecretStr

from shared.http import refuse
from shared.settings import Settings

__all__ = ["Access", "Guard", "Handler", "Scope", "access_of", "declare"]

Scope = Literal["trigger", "vote", "read", "admin"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

VARIABLES: dict[Scope, str] = {
    "trigger": "TRIGGER_TOKEN",
    "vote": "API_TOKEN",
    "read": "READ_TOKEN",
    "admin": "ADMIN_TOKEN",
}


@dataclass(frozen=True, slots=True)
class Access:
    """What a route says about its callers.

    Attributes:
        kind: `open` to everyone, by `token`, or `slack`: signed by Slack.
        scope: which tokens open it; None unless `kind` is `token`.
        personal: it shows what people wrote.
    """

    kind: Literal["open", "token", "slack"]
    scope: Scope | None = None
    personal: bool = False


def declare(access: Access, handler: Handler) -> Handler:
    """The handler, saying who may call it."""

    @functools.wraps(handler)
    async def declared(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    declared.access = access  # type: ignore[attr-defined]
    return declared


def access_of(handler: object) -> Access | None:
    """What a routed handler says about its callers; None where it says nothing."""
    return getattr(handler, "access", None)


class Guard:
    """Lets callers through to handlers, as the settings say."""

    def __init__(self, settings: Settings) -> None:
        self._production = settings.production
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

    def open(self, handler: Handler) -> Handler:
        """The handler, for everyone."""
        return declare(Access("open"), handler)

    def needs(self, scope: Scope, handler: Handler, *, personal: bool = False) -> Handler:
        """The handler, for whoever may do this; others get 401, or 403 where no token would open it.

        Args:
            personal: the answer holds what people wrote.
        """

        async def guarded(request: web.Request) -> web.StreamResponse:
            if self.allows(request, scope, personal=personal):
                return await handler(request)
            if not any(self._tokens[scope]):
                return refuse(403, "authorization", f"closed until {VARIABLES[scope]} is set")
            return refuse(
                401, "authorization", "needs the header 'Authorization: Bearer <token>'",
                **{"WWW-Authenticate": "Bearer"},
            )  # fmt: skip

        return declare(Access("token", scope, personal), functools.wraps(handler)(guarded))

    def allows(self, request: web.Request, scope: Scope, *, personal: bool = False) -> bool:
        """Whether this caller may do this."""
        if not (self._closed[scope] or (personal and self._words_closed)):
            return True
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        matches = [
            hmac.compare_digest(given, f"Bearer {token.get_secret_value()}".encode())
            for token in self._tokens[scope]
            if token is not None
        ]
        return any(matches)
