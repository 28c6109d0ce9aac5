"""The dashboard's routes for figures: nothing in them was written by a user, so they may be open."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from aiohttp import web

from services.dashboard import figures, history, replies
from services.dashboard.assets import LANGUAGES
from services.dashboard.filters import Filter, What
from services.dashboard.selection import Chosen, Reader
from shared.backtest import replay
from shared.charts.vega_lite import Marker, Point, Theme, trend
from shared.policy import Rules
from shared.postgres.database import Connection
from shared.runtime import Kernel

__all__ = ["FiguresApi"]

HEIGHT = 260
"""Pixels of the chart."""
THEMES: dict[str, Theme] = {"light": "light", "dark": "dark"}


class FiguresApi:
    def __init__(self, kernel: Kernel, reader: Reader) -> None:
        self._kernel = kernel
        self._reader = reader
        settings = kernel.settings
        self._zone = settings.zone
        self._rules = Rules(
            policy=settings.policy,
            threshold=settings.threshold,
            min_votes=settings.min_votes,
            cooldown=timedelta(days=settings.cooldown_days),
        )

    async def summary(self, request: web.Request) -> web.Response:
        """`GET /dashboard/summary`: everything but words, of what is filtered."""
        asked = replies.read(Filter, request)
        self._kernel.require_ready()
        async with self._reader.open() as (connection, now):
            chosen = await replies.chosen(connection, asked, now, self._zone)
            found = await self._summary(connection, chosen)
        return replies.told({"now": now.isoformat(), **found})

    async def _summary(self, connection: Connection, chosen: Chosen) -> dict[str, Any]:
        settings, days, apps = self._kernel.settings, chosen.span.days, chosen.apps
        daily = await figures.daily(connection, chosen)
        likes, dislikes = sum(day.likes for day in daily), sum(day.dislikes for day in daily)
        return {
            "timezone": settings.timezone,
            "threshold": settings.threshold,
            "from": days[0].isoformat(),
            "to": days[-1].isoformat(),
            "days": len(days),
            "apps": list(chosen.every),
            "reasons": await figures.reasons(connection, chosen),
            "documents": await figures.documents(connection, chosen),
            "generations": await history.generations(connection, apps),
            "tiles": {
                "rated": likes + dislikes,
                "likes": likes,
                "dislikes": dislikes,
                **figures.rate(likes, dislikes),
                **await figures.answers(connection, apps, chosen.span),
                "generation": await history.active(connection, apps),
            },
            "series": figures.public(daily),
            "markers": [
                {"at": row["promoted_at"].isoformat(), "generation": row["generation"], "kind": row["kind"]}
                for row in await history.promotions(connection, apps, chosen.span)
            ],
            "alerts": await history.alerts(connection, apps),
            "causes": await figures.causes(connection, chosen),
            "quality": await history.quality(connection, apps),
        }

    async def trend(self, request: web.Request) -> web.Response:
        """`GET /dashboard/trend.json`: the chart of what is filtered, as a Vega-Lite specification."""
        asked = replies.read(Filter, request)
        settings = self._kernel.settings
        language = replies.one_of(request, "lang", LANGUAGES, settings.report_language)
        theme = replies.one_of(request, "theme", THEMES, "light")
        self._kernel.require_ready()
        async with self._reader.open() as (connection, now):
            chosen = await replies.chosen(connection, asked, now, self._zone)
            daily = await figures.daily(connection, chosen)
            promoted = await history.promotions(connection, chosen.apps, chosen.span)
        markers = [
            Marker(row["promoted_at"].astimezone(self._zone), row["generation"], row["kind"])
            for row in promoted
        ]
        points = [_point(day) for day in daily]
        chart = trend(points, markers, settings.threshold, language, theme, "container", HEIGHT)
        return replies.told(chart)

    async def backtest(self, request: web.Request) -> web.Response:
        """`GET /dashboard/backtest`: when either policy would have retrained, with another threshold.

        Each app by itself; what was before the first day counts for nothing.
        """
        what = replies.read(What, request)
        threshold = what.threshold or self._kernel.settings.threshold
        self._kernel.require_ready()
        async with self._reader.open() as (connection, now):
            today = now.astimezone(self._zone).date()
            asked = Filter(app=what.app, first=today - timedelta(days=what.days - 1), last=today)
            chosen = await replies.chosen(connection, asked, now, self._zone)
            acted = await self._acted(connection, chosen, threshold)
        found = {
            policy: {"retrains": len(days), "days": [day.isoformat() for day in sorted(set(days))]}
            for policy, days in acted.items()
        }
        return replies.told({"threshold": threshold, "days": what.days, **found})

    async def _acted(self, connection: Connection, chosen: Chosen, threshold: float) -> dict[str, list[date]]:
        """Policy → the days on which it would have retrained an app."""
        acted: dict[str, list[date]] = defaultdict(list, wilson=[], ratio=[])
        for app in chosen.apps:
            daily = await figures.daily(connection, replace(chosen, apps=(app,)))
            counts = [(day.at, day.likes, day.dislikes) for day in daily]
            for day in replay(counts, replace(self._rules, threshold=threshold)):
                for policy, verdict in (("wilson", day.wilson), ("ratio", day.ratio_rule)):
                    if verdict == "act":
                        acted[policy].append(day.date)
        return acted


def _point(day: figures.Day) -> Point:
    rate = figures.rate(day.likes, day.dislikes)
    return Point(day.at, day.likes, day.dislikes, rate["ratio"], rate["low"] or 0.0, rate["high"] or 0.0)
