"""What the analyzer is for others: it has no routes, and sends events."""

from __future__ import annotations

from shared.contracts.contract import Contract
from shared.events import ReportReady, RetrainRequested, RollbackRequested

__all__ = ["CONTRACT"]

CONTRACT = Contract(
    "Judges the votes of an app, and asks for a retrain where that can help.",
    sends=(ReportReady, RetrainRequested, RollbackRequested),
)
