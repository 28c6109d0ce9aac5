"""Composition root of the collector."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from aiohttp import web

from services.collector.app import Collector
from services.collector.intake import Intake
from services.collector.operations import CONTRACT
from services.collector.tokens_api import TokensApi
from shared.postgres.owner_tables import read_owner_tables
from shared.runtime import Kernel, Service
from shared.web.cors import preflight
from shared.web.http import MAX_BODY

__all__ = ["build"]

log = logging.getLogger(__name__)

LARGEST_VOTE = 256 * 1024
"""Bytes of a vote: 200 citations, comment and metadata."""


def build(kernel: Kernel) -> Service:
    """The collector: HTTP in, rows out. At start it begins to read the owner's tables."""
    if kernel.settings.api_token is None and kernel.settings.production:
        log.warning("API_TOKEN is not set: anyone who knows the URL can vote")
    intake, tokens, guard = Intake(kernel), TokensApi(kernel.settings), kernel.guard
    collector = Collector(intake)
    vote = partial(guard.needs, "vote", browser=True, body=LARGEST_VOTE)
    asked_before = preflight(kernel.settings, "POST, PUT, DELETE")
    reading: list[asyncio.Task[None]] = []

    async def start() -> None:
        # Beside the start, not in it: the first reading of a long history takes a while.
        reading.append(asyncio.create_task(_read_owner_tables(kernel)))
        await kernel.mirror.start()

    async def stop() -> None:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await intake.close()

    return Service(
        name="collector",
        contract=CONTRACT,
        routes=[
            web.post("/feedback", vote(collector.put_feedback)),
            web.put("/feedback", vote(collector.put_feedback)),
            web.delete("/feedback", vote(collector.delete_feedback)),
            web.options("/feedback", guard.open(asked_before, browser=True)),
            web.post("/vote-tokens", guard.needs("vote", tokens.issue)),
            web.post("/feedback/batch", guard.needs("vote", collector.post_batch, body=MAX_BODY)),
            web.post("/conversations", guard.needs("vote", collector.post_conversations, body=MAX_BODY)),
        ],
        on_start=start,
        on_stop=stop,
    )


async def _read_owner_tables(kernel: Kernel) -> None:
    """Failing is not fatal: the analyzer reads again before it counts, and tells."""
    try:
        async with kernel.database.transaction() as connection:
            read = await read_owner_tables(connection)
    except Exception:
        log.exception("the owner's tables could not be read")
    else:
        kernel.mirror.soon()
        if any((read.votes, read.conversations, read.skipped)):
            log.info(
                "read from the owner's tables: %d votes and %d conversations new or changed, %d rows skipped",
                read.votes, read.conversations, read.skipped,
            )  # fmt: skip
