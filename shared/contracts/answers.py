"""Answers that several services give, as models: for the contract, not to build them."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime

from shared.contracts.contract import Shape
from shared.events import Because, Outcome, Verdict

__all__ = ["Done", "Problem", "Ready", "Run", "Unavailable"]


class Problem(Shape):
    """The request cannot be taken."""

    status: Literal["error"]
    field: str
    """What to mend: a field of body or query, a header, `authorization`, `rate`, …"""
    reason: str


class Unavailable(Shape):
    """Not now: the same request may work later."""

    status: Literal["unavailable"]
    reason: str


class Done(Shape):
    status: Literal["ok"]
    message: str


class Live(Shape):
    status: Literal["ok"]


class Ready(Shape):
    status: Literal["ready"]
    services: list[str]


class Run(Shape):
    """Where a run stands."""

    id: UUID
    app: str
    started_at: AwareDatetime
    as_of: AwareDatetime
    """Votes up to here count."""
    requested_by: str
    scheduled: bool
    hits: int
    """How many requests asked for it."""
    state: Literal["waiting", "started", "retraining", "decided", "done", "failed"]
    decided_at: AwareDatetime | None
    verdict: Verdict | None
    reason: str | None
    """Code of the rule that decided."""
    explanation: str | None
    because: list[Because] | None
    """The explanation as codes with their figures."""
    likes: int | None
    dislikes: int | None
    total: int | None
    ratio: float | None
    """Negative ratio; null where nobody voted."""
    generation: int | None
    """The generation whose answers were judged."""
    reported_at: AwareDatetime | None
    retrain: UUID | None
    retrain_outcome: Outcome | None
    retrain_detail: str | None
    retrain_because: list[Because] | None
    """The detail likewise; empty where a failure says it in its own words."""
    retrain_generation: int | None
    retrain_finished_at: AwareDatetime | None
