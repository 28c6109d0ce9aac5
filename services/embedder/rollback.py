"""Rollback: the pointer goes back to an earlier generation, at once.

What was deleted stays deleted: searches show no chunk whose document is gone. What was added or
edited since comes back with the next build (see docs/adr/0003-rollback.md).
"""

from __future__ import annotations

import logging

from services.embedder import generations, learned, store
from services.embedder.building import Deps
from services.embedder.outcomes import told
from shared.delivery.work import UnitOfWork
from shared.events import Because, Event, GenerationRequested, RetrainCompleted, RollbackRequested
from shared.postgres.database import Connection

__all__ = ["fail_rollback", "roll_back"]

log = logging.getLogger(__name__)

VERDICT = "verdict"
"""Who asks for a rollback when votes show that a promotion made it worse."""


async def roll_back(event: RollbackRequested, work: UnitOfWork, deps: Deps) -> list[Event]:
    """Make an earlier generation the active one again, or say why that cannot be."""
    connection = await work.begin()
    await store.lock(connection)
    now = await generations.active(connection, event.app)
    current = now["id"] if now else None
    target = event.to_generation
    if target is None and current is not None:
        target = await generations.previous_of(connection, event.app, current)
    problem = await _problem(connection, event.app, current, target)
    following: list[Event] = []
    if problem is None:
        assert target is not None and current is not None
        if event.requested_by == VERDICT and await learned.differ(connection, current, target):
            # What was learned is taken back, and today's documents stay. Where nothing was learned,
            # the documents are what made it worse: then those of before stay, until somebody acts.
            following = [GenerationRequested(app=event.app, reason="documents", requested_by=VERDICT)]
        why = event.why or "asked for"
        await generations.move_pointer(connection, event.app, current, target, "rollback", why)
        log.info("rolled back from generation %s to %s", current, target)
    return [
        *following,
        RetrainCompleted(
            app=event.app,
            outcome="rejected" if problem else "promoted",
            reason="rollback",
            **(told([problem]) if problem else {"detail": event.why, "because": event.because}),
            run=work.envelope.correlation,
            requested_by=event.requested_by,
            generation_before=current,
            generation_after=current if problem else target,
        ),
    ]


async def fail_rollback(event: RollbackRequested, reason: str, work: UnitOfWork) -> list[Event]:
    """Say that a rollback was given up."""
    connection = await work.begin()
    now = await generations.active(connection, event.app)
    current = now["id"] if now else None
    return [
        RetrainCompleted(
            app=event.app,
            outcome="failed",
            reason="rollback",
            detail=reason,
            run=work.envelope.correlation,
            requested_by=event.requested_by,
            generation_before=current,
            generation_after=current,
        )
    ]


async def _problem(
    connection: Connection, app: str, current: int | None, target: int | None
) -> Because | None:
    """Why `target` cannot become the active generation; None where it can."""
    if current is None:
        return Because(code="no_generation")
    if target is None:
        return Because(code="none_before", figures={"generation": current})
    if target == current:
        return Because(code="active_already", figures={"generation": target})
    row = await generations.read(connection, target)
    if row is None or row["app"] != app:
        return Because(code="unknown_generation", figures={"generation": target})
    if row["state"] != "promoted":
        return Because(code="never_promoted", figures={"generation": target, "state": row["state"]})
    kept = await connection.fetchval(
        "select exists (select from feedback_loop.generation_chunk where generation = $1)", target
    )
    if not kept:
        return Because(code="not_kept", figures={"generation": target, "kept": generations.KEPT})
    return None
