"""The routes of every process that say how it does: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aiohttp import web

from shared.kernel import Kernel
from shared.web import http

if TYPE_CHECKING:
    from shared.telemetry.exposition import Exposition

__all__ = ["Health"]


class Health:
    """How a process does.

    Args:
        services: what it runs.
        trouble: why it takes nothing, as far as it knows without asking the database; None: it does.
    """

    def __init__(self, kernel: Kernel, services: Sequence[str], trouble: Callable[[], str | None]) -> None:
        self._kernel = kernel
        self._services = services
        self._trouble = trouble
        self._exposition: Exposition | None = None

    def routes(self) -> list[web.AbstractRouteDef]:
        guard = self._kernel.guard
        return [
            # Not limited: an answer costs no more than a refusal, and a platform kills what refuses it.
            web.get("/healthz", guard.open(self.live, rate="none")),
            web.get("/readyz", guard.open(self.ready, rate="ample")),
            web.get("/metrics", guard.needs("read", self.metrics)),
        ]

    async def live(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:
        trouble = self._trouble()
        if trouble is not None:
            return http.unavailable(trouble)
        await self._kernel.database.ping()
        return web.json_response({"status": "ready", "services": [*self._services]})

    async def metrics(self, request: web.Request) -> web.Response:
        """`GET /metrics`: what this process knows; nobody is asked, so that no idle database wakes up."""
        if self._exposition is None:
            # The first scrape brings the library along, elsewhere: it takes a moment.
            made = await asyncio.to_thread(_exposition, self._kernel)
            self._exposition = self._exposition or made
        self._kernel.metrics.ready.set(self._trouble() is None)
        body, content_type = self._exposition.answer(request.headers.get("Accept", ""))
        return web.Response(
            body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store", "Vary": "Accept"}
        )


def _exposition(kernel: Kernel) -> Exposition:
    from shared.telemetry.exposition import Exposition

    return Exposition(kernel.metrics.all)
