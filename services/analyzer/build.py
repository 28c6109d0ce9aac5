"""Composition root of the analyzer."""

from __future__ import annotations

from datetime import timedelta

from services.analyzer import handlers
from shared import policy
from shared.events import FeedbackEvaluate, LoopPaused, LoopResumed, RetrainCompleted
from shared.router import Registration
from shared.runtime import Kernel, Service

__all__ = ["build"]


def build(kernel: Kernel) -> Service:
    """The analyzer: `feedback.evaluate` in, `report.ready` or `retrain.requested` out."""
    settings = kernel.settings
    rules = policy.Rules(
        policy=settings.policy,
        threshold=settings.threshold,
        min_votes=settings.min_votes,
        cooldown=timedelta(days=settings.cooldown_days),
    )
    return Service(
        name="analyzer",
        registrations=[
            Registration(FeedbackEvaluate, handlers.evaluate),
            Registration(RetrainCompleted, handlers.finish_retrain),
            Registration(LoopPaused, handlers.pause),
            Registration(LoopResumed, handlers.resume),
        ],
        deps=handlers.Deps(kernel.database, rules, settings.report_window),
    )
