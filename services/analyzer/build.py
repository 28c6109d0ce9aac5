"""Composition root of the analyzer."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from services.analyzer import handlers
from services.analyzer.comments import Listener
from services.analyzer.operations import CONTRACT
from services.analyzer.recall import recall
from shared import policy
from shared.delivery.router import Registration
from shared.events import FeedbackEvaluate, LoopPaused, LoopResumed, RetrainCompleted
from shared.postgres.retention import look_after
from shared.runtime import Kernel, Service

if TYPE_CHECKING:
    from shared.embedding.models import Embedder

__all__ = ["build"]


def build(kernel: Kernel, embedder: Embedder | None = None) -> Service:
    """The analyzer: `feedback.evaluate` in, `report.ready` or `retrain.requested` out.

    Args:
        embedder: what compares comments, where it is not the process's own.
    """
    settings = kernel.settings
    rules = policy.Rules(
        policy=settings.policy,
        threshold=settings.threshold,
        min_votes=settings.min_votes,
        cooldown=timedelta(days=settings.cooldown_days),
    )

    async def start() -> None:
        await look_after(kernel.database, settings.retention_days)
        await recall(kernel.database, kernel.metrics)
        await kernel.mirror.start()

    listener = Listener(kernel.database, (lambda: embedder) if embedder else kernel.embedder)

    return Service(
        name="analyzer",
        contract=CONTRACT,
        registrations=[
            Registration(FeedbackEvaluate, handlers.evaluate),
            Registration(RetrainCompleted, handlers.finish_retrain),
            Registration(LoopPaused, handlers.pause),
            Registration(LoopResumed, handlers.resume),
        ],
        deps=handlers.Deps(
            kernel.database, rules, settings.report_window, listener, settings.retention_days, kernel.mirror
        ),
        on_start=start,
    )
