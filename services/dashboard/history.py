"""What became of the apps: generations, promotions, how good search was found to be, alert states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncpg import Record

from services.dashboard.facts import explained
from services.dashboard.filters import Span
from shared.postgres.database import Connection
from shared.requester import printable

__all__ = ["active", "alerts", "generations", "measured", "promotions", "quality"]

METRIC = "ndcg@10"
MOST_GENERATIONS = 50
MOST_MARKERS = 200
MOST_RETRAINS = 20
_NOT_MEASURED = {"before": None, "after": None, "delta": None, "low": None, "high": None, "n": 0}

Row = dict[str, Any]


async def generations(connection: Connection, apps: Sequence[str]) -> list[Row]:
    """The latest generations, newest first, with when each was last made the active one."""
    rows = await connection.fetch(
        "select id, state, promoted_at from feedback_loop.dashboard_generation where app = any($1)"
        f" order by id desc limit {MOST_GENERATIONS}",
        list(apps),
    )
    return [{**row, "promoted_at": row["promoted_at"] and row["promoted_at"].isoformat()} for row in rows]


async def active(connection: Connection, apps: Sequence[str]) -> int | None:
    """The active generation; None where there is none, or there are several apps."""
    rows = await connection.fetch(
        "select id from feedback_loop.dashboard_generation where app = any($1) and active limit 2", list(apps)
    )
    return rows[0]["id"] if len(rows) == 1 else None


async def promotions(connection: Connection, apps: Sequence[str], span: Span) -> list[Record]:
    """When which generation became the active one, oldest first: `promoted_at`, `generation`, `kind`."""
    rows = await connection.fetch(
        "select promoted_at, generation, kind from feedback_loop.dashboard_promotion"
        " where app = any($1) and promoted_at >= $2 and promoted_at < $3"
        f" order by promoted_at desc, id desc limit {MOST_MARKERS}",
        list(apps),
        span.start,
        span.end,
    )
    return list(reversed(rows))


async def alerts(connection: Connection, apps: Sequence[str]) -> list[Row]:
    rows = await connection.fetch(
        "select app, state, since from feedback_loop.alert_state where app = any($1) order by app", list(apps)
    )
    return [{**row, "since": row["since"].isoformat()} for row in rows]


async def quality(connection: Connection, apps: Sequence[str]) -> list[Row]:
    """What the gate measured of the latest generations that learned or had a golden set, newest first."""
    rows = await connection.fetch(
        "select id, finished_at, state, detail, because, gate from feedback_loop.dashboard_generation"
        " where app = any($1) and finished_at is not null and gate ?| array['learning', 'golden']"
        f" order by id desc limit {MOST_RETRAINS}",
        list(apps),
    )
    return [
        {
            "generation": row["id"],
            "at": row["finished_at"].isoformat(),
            "outcome": row["state"],
            **_why(row),
            **measured(row["gate"]),
        }
        for row in rows
    ]


def _why(row: Record) -> Row:
    """Why it ended as it did, else why nothing was learned."""
    learning = _learning(row["gate"])
    reason = printable(row["detail"] or "; ".join(learning.get("why", ())), 500)
    because = row["because"] if row["detail"] else learning.get("because")
    return {"reason": reason, "explained": explained(because, reason)}


def measured(gate: Mapping[str, Any]) -> Row:
    """nDCG@10 before and after, its change with the 95 % interval, and the same by kind of question.

    On held-out votes; on the golden set where these were too few to be judged by. None where it was not
    measured: that nothing is known is not a zero.
    """
    learning = _learning(gate)
    kinds = learning.get("by_kind") or {}
    figures = _change(learning.get("held_out"))
    if not figures["n"]:
        figures = _change(gate.get("golden"))
    return {
        "metric": METRIC,
        **figures,
        "kinds": {kind: _change(measures.get(METRIC)) for kind, measures in kinds.items()},
    }


def _learning(gate: Mapping[str, Any]) -> Mapping[str, Any]:
    return gate.get("learning") or {}


def _change(figures: Mapping[str, Any] | None) -> Row:
    delta = (figures or {}).get("delta")
    if figures is None or not delta or not delta["n"]:
        return dict(_NOT_MEASURED)
    return {
        "before": figures["before"]["mean"],
        "after": figures["after"]["mean"],
        "delta": delta["mean"],
        "low": delta["low"],
        "high": delta["high"],
        "n": delta["n"],
    }
