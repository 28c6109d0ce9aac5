"""Composition root of the dashboard."""

from __future__ import annotations

from aiohttp import web

from services.dashboard.app import Dashboard
from services.dashboard.commands_api import LARGEST, CommandsApi
from services.dashboard.figures_api import FiguresApi
from services.dashboard.operations import CONTRACT
from services.dashboard.selection import Reader
from services.dashboard.stream import Feed
from services.dashboard.votes_api import VotesApi
from shared.runtime import Kernel, Service

__all__ = ["build"]


def build(kernel: Kernel, feed: Feed | None = None) -> Service:
    """The dashboard: it consumes nothing, and writes nothing but the commands that people give."""
    feed, reader = feed or Feed(kernel.database), Reader(kernel.database)
    dashboard, figures, votes = Dashboard(kernel, feed), FiguresApi(kernel, reader), VotesApi(kernel, reader)
    commands, guard = CommandsApi(kernel), kernel.guard
    return Service(
        name="dashboard",
        contract=CONTRACT,
        routes=[
            web.get("/", guard.open(dashboard.page)),
            web.get("/dashboard", guard.open(dashboard.page)),
            web.get("/static/vega.js", guard.open(dashboard.vega)),
            web.get("/static/{name}", guard.open(dashboard.asset)),
            web.get("/dashboard/access", guard.open(commands.access)),
            web.get("/dashboard/runs", guard.needs("read", dashboard.runs)),
            web.get("/dashboard/stream", guard.needs("read", dashboard.stream), allow_head=False),
            web.get("/dashboard/summary", guard.needs("read", figures.summary)),
            web.get("/dashboard/trend.json", guard.needs("read", figures.trend)),
            web.get("/dashboard/backtest", guard.needs("read", figures.backtest)),
            web.get("/dashboard/groups", guard.needs("read", votes.groups, personal=True)),
            web.get("/dashboard/votes", guard.needs("read", votes.votes, personal=True)),
            web.get("/dashboard/votes.csv", guard.needs("read", votes.csv, personal=True), allow_head=False),
            web.get("/dashboard/webhook", guard.needs("admin", commands.webhook)),
            web.post("/dashboard/commands", guard.needs("admin", commands.order, body=LARGEST)),
        ],
        on_stop=feed.close,
    )
