"""The gate: a generation is promoted only when it is whole, and what feedback taught it only when it
proves better (`learning.gate`). "No change" always competes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from asyncpg import Record

from shared.events import Because
from shared.postgres.database import Connection

if TYPE_CHECKING:
    from services.embedder.learning.gate import Paired
    from services.embedder.learning.trial import Outcome as Study

__all__ = ["Verdict", "judge"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a generation passes, with every figure that was looked at."""

    outcome: Literal["promoted", "rejected", "unchanged"]
    because: list[Because]
    figures: dict[str, Any]


async def judge(
    connection: Connection, generation: Record, study: Study | None, golden: Paired | None
) -> Verdict:
    """Completeness first; then the golden set; then whether there is anything new in it, from
    documents or from votes."""
    whole = await _is_whole(connection, generation)
    if whole.outcome != "promoted":
        return whole
    figures = whole.figures
    if golden is not None:
        from services.embedder.learning import told  # with it comes numpy
        from services.embedder.learning.gate import no_loss

        figures["golden"] = no_loss(golden)
        if not figures["golden"]["passed"]:
            worse = [Because(code="golden_worse"), told.failed("golden", figures["golden"])]
            return Verdict("rejected", worse, figures)
    if study is None:
        return Verdict("promoted", [], figures)
    from services.embedder.learning import told

    decision = study.decision
    because = told.reasons(decision)
    figures["learning"] = {
        "promoted": study.learned is not None,
        "why": decision.reasons,
        "because": [one.model_dump() for one in because],
        **decision.figures,
    }
    if study.learned is not None:
        return Verdict("promoted", [], figures)
    if _changes_nothing(generation):
        nothing = [Because(code="no_document_changed"), Because(code="nothing_learned")]
        return Verdict("unchanged", [*nothing, *because], figures)
    return Verdict("promoted", [], figures)


def _changes_nothing(generation: Record) -> bool:
    counts = generation["counts"]
    same = generation["base"] is not None and generation["same_recipe"]
    return same and not (counts["added"] or counts["changed"] or counts["removed"])


async def _is_whole(connection: Connection, generation: Record) -> Verdict:
    """As many chunks as planned, every one with a vector."""
    row = await connection.fetchrow(
        "select count(*) as shown, count(v.chunk_hash) as embedded"
        " from feedback_loop.generation_chunk m"
        f" left join feedback_loop.{generation['table_name']} v on v.chunk_hash = m.chunk_hash"
        " where m.generation = $1",
        generation["id"],
    )
    assert row is not None
    planned, shown, embedded = generation["chunks"], row["shown"], row["embedded"]
    figures: dict[str, Any] = {"planned": planned, "shown": shown, "embedded": embedded}
    if planned == shown == embedded:
        return Verdict("promoted", [], figures)
    return Verdict("rejected", [Because(code="not_whole", figures=figures)], figures)
