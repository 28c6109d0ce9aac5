"""Commands: what a person asks of the loop, from the dashboard, Slack or the terminal, as events.

What is guaranteed: a command that is accepted is durable, and published or left to the relay. What is
not: that it changes anything; its consumer decides that, and says so.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from shared.bus.envelope import Envelope
from shared.events import (
    Event,
    FeedbackEvaluate,
    GenerationRequested,
    LoopPaused,
    LoopResumed,
    RollbackRequested,
    WebhookTest,
)
from shared.runtime import Kernel

__all__ = ["Name", "command", "issue"]

Name = Literal["run", "reembed", "rollback", "pause", "resume", "webhook"]


def command(
    name: Name,
    app: str,
    requested_by: str,
    why: str = "",
    generation: int | None = None,
    until: datetime | None = None,
) -> Event:
    """The event that stands for a command.

    Args:
        generation: which one a rollback goes back to; None: the one before the active one.
        until: when a pause ends by itself; None: at a `resume`.
    """
    match name:
        case "run":
            return FeedbackEvaluate(app=app, requested_by=requested_by)
        case "reembed":
            return GenerationRequested(app=app, reason="manual", requested_by=requested_by)
        case "rollback":
            return RollbackRequested(app=app, to_generation=generation, why=why, requested_by=requested_by)
        case "pause":
            return LoopPaused(app=app, why=why, requested_by=requested_by, until=until)
        case "resume":
            return LoopResumed(app=app, why=why, requested_by=requested_by)
        case "webhook":
            return WebhookTest(requested_by=requested_by)


async def issue(kernel: Kernel, event: Event, source: str) -> Envelope:
    """Make a command durable and publish it.

    Args:
        source: who writes it, such as `/feedback-loop/dashboard`.
    """
    envelope = Envelope.root(event, source)
    async with kernel.database.transaction() as connection:
        await kernel.outbox.add(connection, [envelope])
    await kernel.outbox.publish_soon([envelope])
    return envelope
