"""The routes of every process that are about itself: whether it lives, and what its HTTP interface is.

`/openapi.json` describes the routes of this process, so all of them where it runs every service; `/docs`
shows that to people. The page loads nothing from elsewhere, and runs nothing that is not its own file.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from aiohttp import web

from shared.contracts.answers import Live, Ready
from shared.contracts.contract import Answer, Operation, Operations
from shared.web.access import Guard, Handler

__all__ = ["ABOUT", "OPERATIONS", "SECURITY", "routes"]

ABOUT = "Every process answers these, whichever services it runs."

SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

FILES = {
    "/docs": ("reference.html", "text/html"),
    "/docs/reference.js": ("reference.js", "text/javascript"),
    "/docs/reference.css": ("reference.css", "text/css"),
}
"""Path → file and its type."""

OPERATIONS: Operations = {
    ("GET", "/healthz"): Operation("Whether the process lives", {200: Answer("It does", Live)}),
    ("GET", "/readyz"): Operation(
        "Whether everything is connected and consuming", {200: Answer("It is", Ready)}, fails=(503,)
    ),
    ("GET", "/metrics"): Operation(
        "What this process counts, for Prometheus",
        {200: Answer("Its text format, or OpenMetrics as `Accept` says", str, "text/plain")},
    ),
    ("GET", "/openapi.json"): Operation("This document", {200: Answer("OpenAPI 3.1", dict[str, Any])}),
    **{
        ("GET", path): Operation("This document, for people", {200: Answer("A file of the page", str, media)})
        for path, (_, media) in FILES.items()
    },
}


def routes(guard: Guard, document: Callable[[], Mapping[str, Any]]) -> list[web.AbstractRouteDef]:
    """The routes of the reference.

    Args:
        document: makes the OpenAPI document; called once, when it is first asked for.
    """
    lock, made = asyncio.Lock(), list[bytes]()

    async def openapi(request: web.Request) -> web.Response:
        async with lock:
            if not made:  # elsewhere: it takes a moment
                made.append(await asyncio.to_thread(lambda: json.dumps(document()).encode()))
        return web.Response(body=made[0], content_type="application/json", headers=SECURITY)

    return [
        web.get("/openapi.json", guard.open(openapi)),
        *(web.get(path, guard.open(_file(name, media))) for path, (name, media) in FILES.items()),
    ]


def _file(name: str, media: str) -> Handler:
    body = resources.files("shared.web").joinpath("static", name).read_bytes()

    async def file(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=media, charset="utf-8", headers=SECURITY)

    return file
