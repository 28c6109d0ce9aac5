"""Composition root of the trigger."""

from __future__ import annotations

import logging
from functools import partial

from aiohttp import web

from services.trigger.app import Trigger
from services.trigger.operations import CONTRACT
from shared.runtime import Kernel, Service

__all__ = ["build"]


def build(kernel: Kernel) -> Service:
    """The trigger: HTTP in, `feedback.evaluate` out; it consumes nothing."""
    if kernel.settings.trigger_token is None and kernel.settings.production:
        logging.getLogger(__name__).warning(
            "TRIGGER_TOKEN is not set: anyone who knows the URL can start a run"
        )
    trigger, guard = Trigger(kernel), kernel.guard
    start = partial(guard.needs, "trigger", rate="ample")
    return Service(
        name="trigger",
        contract=CONTRACT,
        routes=[
            # No HEAD: a link checker must not start a run.
            web.get("/run-feedback-loop", start(trigger.hit), allow_head=False),
            web.post("/run-feedback-loop", start(trigger.hit)),
            web.post("/events", start(trigger.take_event)),
            web.get("/runs", guard.needs("read", trigger.list_runs)),
            web.get("/runs/{id}", guard.needs("read", trigger.show_run)),
        ],
    )
