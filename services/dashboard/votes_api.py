"""The dashboard's routes for what people wrote: their votes, one by one, and what these have in common."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from services.dashboard import complaints, replies, votes
from services.dashboard.filters import Filter, Listing
from services.dashboard.selection import Chosen, Reader
from services.dashboard.text import BOM, rows
from shared.postgres.database import Connection
from shared.runtime import Kernel
from shared.web import http

__all__ = ["VotesApi"]

log = logging.getLogger(__name__)

WRITE = 20.0
"""Seconds a reader may take for one batch of a file."""
LONGEST_EXPORT = 600.0
"""Seconds a file may take as a whole: meanwhile it holds a connection, and the database cleans up
nothing."""


class VotesApi:
    def __init__(self, kernel: Kernel, reader: Reader) -> None:
        self._kernel = kernel
        self._reader = reader
        self._zone = kernel.settings.zone
        self._exporting = asyncio.Lock()

    async def groups(self, request: web.Request) -> web.Response:
        """`GET /dashboard/groups`: complaint groups, and questions that no document answers."""
        asked = replies.read(Filter, request)
        self._kernel.require_ready()
        async with self._reader.open() as (connection, now):
            chosen = await replies.chosen(connection, asked, now, self._zone)
            groups = await complaints.groups(connection, chosen)
            gaps = await complaints.gaps(connection, chosen)
        return replies.told({"groups": groups, "gaps": gaps})

    async def votes(self, request: web.Request) -> web.Response:
        """`GET /dashboard/votes?limit=&before=`: votes, newest first."""
        asked, listing = replies.read(Filter, request), replies.read(Listing, request)
        self._kernel.require_ready()
        async with self._reader.open() as (connection, now):
            chosen = await replies.chosen(connection, asked, now, self._zone)
            found = await votes.page(connection, chosen, listing)
        return replies.told(found)

    async def csv(self, request: web.Request) -> web.StreamResponse:
        """`GET /dashboard/votes.csv`: every vote of the filter, as a file; one at a time.

        A file that ends early (the database went away, or it took longer than `LONGEST_EXPORT`) breaks
        off the connection, so that it cannot be taken for a whole one.
        """
        asked = replies.read(Filter, request)
        self._kernel.require_ready()
        if self._exporting.locked():
            return http.unavailable("another file is being written: try again when it is done")
        async with self._exporting, self._reader.export() as (connection, now):
            chosen = await replies.chosen(connection, asked, now, self._zone)
            response = web.StreamResponse(headers=_headers(chosen))
            try:
                async with asyncio.timeout(LONGEST_EXPORT):
                    await response.prepare(request)
                    await self._write(response, connection, chosen)
            except Exception as error:
                log.warning("a file of votes was broken off: %s: %s", type(error).__name__, error)
                if request.transport is not None:
                    request.transport.abort()
        return response

    async def _write(self, response: web.StreamResponse, connection: Connection, chosen: Chosen) -> None:
        await response.write((BOM + rows([votes.HEAD])).encode())
        async for batch in votes.export(connection, chosen):
            text = rows(votes.cells(vote) for vote in batch)
            async with asyncio.timeout(WRITE):
                await response.write(text.encode())
        await response.write_eof()


def _headers(chosen: Chosen) -> dict[str, str]:
    days = chosen.span.days
    return {
        **replies.NEVER_KEPT,
        "Content-Type": "text/csv; charset=utf-8",
        "Content-Disposition": f'attachment; filename="votes-{days[0]}-{days[-1]}.csv"',
    }
