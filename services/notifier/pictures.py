"""The picture of the trend, in the thread of a report.

What is guaranteed: a report never waits for its picture nor fails with it; of a run there is at most one
picture. What is not: that there is one. None is drawn while a build is under way (on a small machine
there is no memory for both), then it comes with the build's outcome; nor where nobody voted, nor without
the scope `files:write`.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from services.notifier import series
from services.notifier.destinations import Posted
from services.notifier.failures import Refused
from services.notifier.poster import Poster
from services.notifier.wording import WORDS, Language
from shared.bus.envelope import Envelope
from shared.charts.picture import picture_language, render_png
from shared.charts.vega_lite import trend
from shared.postgres.database import Database

__all__ = ["Pictures"]

log = logging.getLogger(__name__)

DAYS, WIDTH, HEIGHT = 28, 640, 240
RENDER = 30.0
"""Seconds for drawing."""

_DRAWABLE = """
select not exists (select from feedback_loop.build_progress where state = 'building')
   and not exists (select from feedback_loop.notification where key = $1 and state = 'posted')
"""


class Pictures:
    """Draws and shares."""

    def __init__(
        self, database: Database, poster: Poster, zone: ZoneInfo, language: Language, threshold: float
    ) -> None:
        self._database = database
        self._poster = poster
        self._zone = zone
        self._language = language
        self._threshold = threshold
        self._allowed = True
        """Until Slack says that the scope is missing."""

    async def offer(
        self, app: str, run: UUID, envelope: Envelope, thread: Posted | None, as_of: datetime | None = None
    ) -> None:
        """Put the picture of a run into its report's thread, where there is none yet; never raises.

        Args:
            as_of: the last moment that it shows; None: now.
        """
        if thread is None or thread.ts is None or not self._poster.destination.pictures or not self._allowed:
            return
        key = f"picture/{run}"
        try:
            language = await asyncio.to_thread(picture_language, self._language)
            title = WORDS[language]["trend"].format(DAYS)
            spec = await self._spec(app, key, language, title, as_of)
            if spec is not None:
                png = await render_png(spec, timeout=RENDER)
                share = partial(self._poster.destination.share, png, title, thread)
                await self._poster.offer(key, envelope, "picture", share)
        except Exception as error:
            if isinstance(error, Refused) and error.code == "missing_scope":
                self._allowed = False
                log.warning("no pictures: add the scope files:write to the Slack app and install it again")
            else:
                log.warning("%s: no picture: %s", key, error)

    async def _spec(
        self, app: str, key: str, language: Language, title: str, as_of: datetime | None
    ) -> dict[str, Any] | None:
        """What to draw; None: nothing, or not now."""
        async with self._database.connection() as connection:
            if not await connection.fetchval(_DRAWABLE, key):
                return None
            last = await series.today(connection, self._zone, as_of)
            points = await series.points(connection, app, self._zone, last, DAYS)
            markers = await series.markers(connection, app, self._zone, last, DAYS)
        if not any(point.ratio is not None for point in points):
            return None
        heading = f"{title} ({app})" if app != "default" and app.isascii() else title
        return trend(points, markers, self._threshold, language, "light", WIDTH, HEIGHT, heading)
