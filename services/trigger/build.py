"""Composition root of the trigger."""

from __future__ import annotations

import logging

from aiohttp import web

from services.trigger.app import Trigger
from shared.http import require
from shared.runtime import Kernel, Service

__all__ = ["build"]


def build(kernel: Kernel) -> Service:
    """The trigger: HTTP in, `feedback.evaluate` out; it consumes nothing."""
    token = kernel.settings.trigger_token
    if token is None and kernel.settings.production:
        logging.getLogger(__name__).warning(
            "TRIGGER_TOKEN is not set: anyone who knows the URL can start a run"
        )
    trigger = Trigger(kernel)
    return Service(
        name="trigger",
        routes=[
            # No HEAD: a link checker must not start a run.
            web.get("/run-feedback-loop", require(token, trigger.hit), allow_head=False),
            web.post("/run-feedback-loop", require(token, trigger.hit)),
            web.post("/events", require(token, trigger.take_event)),
            web.get("/runs", trigger.list_runs),
            web.get("/runs/{id}", trigger.show_run),
        ],
    )
