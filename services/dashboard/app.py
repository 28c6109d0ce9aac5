"""The dashboard's HTTP routes for the page, its files, the runs and the live stream.

The page and its files depend on nothing: they are served also while the process still connects, and
say so themselves. What they show comes as JSON, 503 until there is a database to read. All text in
it is data: the page inserts it as text.
"""

from __future__ import annotations

import asyncio

from aiohttp import ETag, web

from services.dashboard import facts, sse
from services.dashboard.assets import Asset, language_of, load_assets, load_pages
from services.dashboard.replies import NEVER_KEPT, SECURITY, told
from services.dashboard.stream import RUNS, Feed, Page
from shared.charts.picture import Bundle, PictureError
from shared.runtime import Kernel
from shared.web import http

__all__ = ["Dashboard"]

WRITE = 20.0
"""Seconds a page may take to read one message."""
MOST_RUNS = 100

STREAMED = {
    **NEVER_KEPT,
    "Content-Type": "text/event-stream; charset=utf-8",
    "X-Accel-Buffering": "no",  # nginx would wait for its buffer to fill
}


class Dashboard:
    def __init__(self, kernel: Kernel, feed: Feed) -> None:
        self._kernel = kernel
        self._feed = feed
        self._assets = load_assets()
        self._pages = load_pages(kernel.settings)
        self._bundle = Bundle(kernel.settings.data_dir)
        self._vega: Asset | None = None

    async def page(self, request: web.Request) -> web.Response:
        """`GET /` and `/dashboard`: the page, in the reader's language."""
        language = language_of(
            request.query.get("lang"),
            request.headers.get("Accept-Language", ""),
            self._kernel.settings.report_language,
        )
        response = _served(request, self._pages[language])
        response.headers["Vary"] = "Accept-Encoding, Accept-Language"
        return response

    async def asset(self, request: web.Request) -> web.Response:
        """`GET /static/{name}`."""
        asset = self._assets.get(request.match_info["name"])
        if asset is None:
            raise http.BadRequest("path", "there is no such file", status=404)
        return _served(request, asset)

    async def vega(self, request: web.Request) -> web.Response:
        """`GET /static/vega.js`: what draws the charts; made when it is first asked for."""
        if self._vega is None:
            try:
                self._vega = Asset.of("vega.js", await self._bundle.script())
            except PictureError as error:
                return http.unavailable(f"charts cannot be drawn: {error}")
        return _served(request, self._vega)

    async def runs(self, request: web.Request) -> web.Response:
        """`GET /dashboard/runs?limit=`: the latest runs with their steps and builds."""
        limit = request.query.get("limit", str(RUNS))
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:4]) <= MOST_RUNS):
            raise http.BadRequest("limit", f"must be a number from 1 to {MOST_RUNS}", status=422)
        self._kernel.require_ready()
        async with self._kernel.database.transaction("repeatable_read") as connection:
            seen = await facts.horizon(connection)
            found = await facts.snapshot(connection, seen, int(limit))
        return told(found)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """`GET /dashboard/stream`: what happens, as server-sent events.

        It goes on from `Last-Event-ID` (or `?last_event_id=`) where that is known, else it begins
        with a snapshot.
        """
        self._kernel.require_ready()
        given = request.headers.get("Last-Event-ID") or request.query.get("last_event_id", "")
        page = Page(sse.parse_cursor(given), request.transport, self._kernel.guard.caller(request))
        if not self._feed.join(page):
            return http.unavailable("too many pages are open")
        response = web.StreamResponse(headers=STREAMED)
        try:
            await response.prepare(request)
            await response.write(sse.RETRY)
            async for chunk in page.chunks():
                async with asyncio.timeout(WRITE):
                    await response.write(chunk)
        except (ConnectionError, TimeoutError):
            page.cut()
        finally:
            self._feed.leave(page)
        return response


def _served(request: web.Request, asset: Asset) -> web.Response:
    headers = {**SECURITY, "Cache-Control": "no-cache"}
    known = request.if_none_match or ()
    if any(tag.value in (asset.etag, "*") for tag in known):
        response = web.Response(status=304, headers=headers)
    else:
        packed = "gzip" in request.headers.get("Accept-Encoding", "").lower()
        body = asset.gzipped if packed else asset.body
        response = web.Response(body=body, content_type=asset.content_type, charset="utf-8", headers=headers)
        if packed:
            response.headers["Content-Encoding"] = "gzip"
    response.headers.add("Vary", "Accept-Encoding")
    # The same text however it is packed: a weak tag.
    response.etag = ETag(asset.etag, is_weak=True)
    return response
