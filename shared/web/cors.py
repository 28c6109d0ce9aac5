"""Cross-origin requests: which pages of other sites may call a route (https://fetch.spec.whatwg.org/#http-cors-protocol).

What is guaranteed: pages of the origins named in `CORS_ORIGINS`, and of no others, may call the routes
that say `browser`, and read the answers, errors too; no cookie is ever asked for. What is not: that it
keeps anything but browsers away; tokens do that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from shared.settings import Settings
from shared.web.access import access_of
from shared.web.http import refuse

__all__ = ["marker", "preflight"]

REMEMBERED = 600
"""Seconds for which a browser need not ask again."""


def preflight(settings: Settings, methods: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """What answers a browser that asks, by `OPTIONS`, whether it may send a request."""

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("Origin") not in settings.origins:
            return refuse(403, "origin", "closed to pages of an origin that CORS_ORIGINS does not name")
        allowed = {
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": "Authorization, Content-Type",
            "Access-Control-Max-Age": str(REMEMBERED),
        }
        return web.Response(status=204, headers=allowed)

    return answer


def marker(settings: Settings) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """What marks answers (`on_response_prepare`), so that a page of a known origin may read them."""
    origins = settings.origins

    async def mark(request: web.Request, response: web.StreamResponse) -> None:
        access = access_of(request.match_info.handler)
        if access is None or not access.browser:
            return
        response.headers["Vary"] = "Origin"
        origin = request.headers.get("Origin")
        if origin in origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = "Retry-After"

    return mark
