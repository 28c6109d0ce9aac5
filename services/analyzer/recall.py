"""What a process that has just started knows of earlier evaluations: the gauges of `metrics.py`.

Read once, at a start, when the database is awake anyway; so a restart makes no alert of a missing report.
"""

from __future__ import annotations

import logging

from shared.postgres.database import Database
from shared.telemetry.metrics import MOST_APPS, Metrics

__all__ = ["recall"]

log = logging.getLogger(__name__)

_LAST = """
select last.*, coalesce(active.generation, last.judged) as generation
from (select distinct on (app) app, extract(epoch from decided_at)::double precision as at, likes, dislikes,
             generation as judged
      from feedback_loop.decision order by app, decided_at desc) last
left join feedback_loop.active_generation active using (app)
order by last.at desc limit $1
"""


async def recall(database: Database, metrics: Metrics) -> None:
    """Take the last evaluation of each app as the gauges' values; failing is not fatal."""
    try:
        async with database.connection() as connection:
            rows = await connection.fetch(_LAST, MOST_APPS)
    except Exception:
        log.exception("the last evaluations could not be read")
        return
    for row in reversed(rows):
        total = row["likes"] + row["dislikes"]
        ratio = row["dislikes"] / total if total else None
        metrics.judged(row["app"], row["at"], ratio, total, row["generation"])
