"""Composition root of the dashboard."""

from __future__ import annotations

from aiohttp import web

from services.dashboard.app import Dashboard
from services.dashboard.stream import Feed
from shared.runtime import Kernel, Service

__all__ = ["build"]


def build(kernel: Kernel, feed: Feed | None = None) -> Service:
    """The dashboard: it consumes nothing and writes nothing."""
    feed = feed or Feed(kernel.database)
    dashboard, guard = Dashboard(kernel, feed), kernel.guard
    return Service(
        name="dashboard",
        routes=[
            web.get("/", guard.open(dashboard.page)),
            web.get("/dashboard", guard.open(dashboard.page)),
            web.get("/static/{name}", guard.open(dashboard.asset)),
            web.get("/dashboard/runs", guard.needs("read", dashboard.runs)),
            web.get("/dashboard/stream", guard.needs("read", dashboard.stream), allow_head=False),
        ],
        on_stop=feed.close,
    )
