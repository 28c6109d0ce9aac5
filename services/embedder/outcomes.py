"""How a build ended, as an event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncpg import Record

from services.embedder import generations
from shared.events import (
    Because,
    GenerationCounts,
    GenerationRequested,
    Outcome,
    RetrainCompleted,
    RetrainRequested,
)
from shared.postgres.database import Connection
from shared.reasons import say

__all__ = ["Request", "at_once", "completed", "origin", "told"]

Request = RetrainRequested | GenerationRequested


def origin(event: Request) -> dict[str, Any]:
    """Where a build comes from: what its generation remembers and its outcome says."""
    feedback = event if isinstance(event, RetrainRequested) else None
    return {
        "reason": "feedback" if isinstance(event, RetrainRequested) else event.reason,
        "retrain": feedback.retrain if feedback else None,
        "run": feedback.run if feedback else None,
        "ratio": feedback.ratio if feedback else None,
        "requested_by": event.requested_by,
    }


def at_once(
    event: Request,
    outcome: Outcome,
    why: Sequence[Because] | str,
    base: Record | None,
    counts: GenerationCounts,
) -> RetrainCompleted:
    """The end of a request that leads to no generation; `why`: reasons, or what a failure said."""
    before = base["id"] if base else None
    return RetrainCompleted(
        app=event.app,
        outcome=outcome,
        **told(why),
        generation_before=before,
        generation_after=before,
        counts=counts,
        **origin(event),
    )


def told(why: Sequence[Because] | str) -> dict[str, Any]:
    """What an outcome says of why: `detail` and `because`."""
    if isinstance(why, str):
        return {"detail": why}
    return {"detail": say(why, "en"), "because": list(why)}


async def completed(
    connection: Connection,
    row: Record,
    outcome: Outcome,
    why: Sequence[Because] | str,
    figures: dict[str, Any],
) -> RetrainCompleted:
    now = await generations.active(connection, row["app"])
    counts = GenerationCounts.model_validate(row["counts"])
    # Planned and done differ where another build embedded the same content, or this one ended early.
    done = {"embedded": row["embedded"]}
    if row["remaining"] == 0:
        done["reused"] = counts.chunks - row["embedded"]
    return RetrainCompleted(
        app=row["app"],
        outcome=outcome,
        reason=row["reason"],
        **told(why),
        retrain=row["retrain"],
        run=row["run"],
        ratio=row["ratio"],
        requested_by=row["requested_by"],
        generation_before=row["base"],
        generation_after=now["id"] if now else None,
        counts=counts.model_copy(update=done),
        gate=figures,
        seconds=round(row["age"].total_seconds(), 1),
    )
