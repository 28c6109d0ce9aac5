"""Every service in one process: the map of the system."""

from __future__ import annotations

from collections.abc import Mapping

from services.analyzer.build import build as analyzer
from services.collector.build import build as collector
from services.dashboard.build import build as dashboard
from services.embedder.build import build as embedder
from services.notifier.build import build as notifier
from services.trigger.build import build as trigger
from shared.runtime import Builder, Runtime
from shared.settings import Settings

__all__ = ["SERVICES", "compose"]

SERVICES: Mapping[str, Builder] = {
    "trigger": trigger,  # HTTP hit -> feedback.evaluate
    "collector": collector,  # votes and conversations -> the ledger
    "analyzer": analyzer,  # feedback.evaluate -> report.ready | retrain.requested
    "embedder": embedder,  # retrain.requested -> ... -> retrain.completed
    "notifier": notifier,  # report.ready, retrain.* -> Slack
    "dashboard": dashboard,  # what happened -> the browser
}


def compose(settings: Settings) -> Runtime:
    """All services on one port, one pool and one bus."""
    return Runtime(settings, list(SERVICES.values()))
