"""What kept something learned from being promoted, for people of any language. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from services.embedder.learning.gate import LEAST, Decision
from shared.events import Because

__all__ = ["failed", "reasons"]


def reasons(decision: Decision) -> list[Because]:
    """The conditions that failed, each with its figures; none of them where it is promoted."""
    if decision.promote:
        return []
    checks = {name: figures for name, figures in decision.figures.items() if _is_check(figures)}
    if not checks:
        return [Because(code="nothing_judged")]
    return [failed(name, figures) for name, figures in checks.items() if not figures["passed"]]


def failed(name: str, figures: Mapping[str, Any]) -> Because:
    """One condition of the gate that does not hold."""
    return Because(code=_code(name, figures), figures=dict(_figures(figures)))


def _is_check(figures: object) -> bool:
    return isinstance(figures, Mapping) and "passed" in figures


def _code(name: str, figures: Mapping[str, Any]) -> str:
    if name == "held_out":
        return "held_out_few" if figures["delta"]["n"] < LEAST else "held_out_unsure"
    if name == "shuffled" and "p" not in figures:
        return "shuffled_one_sided"
    return name


def _figures(figures: Mapping[str, Any]) -> Iterator[tuple[str, str | int | float]]:
    """What the wordings mention, of whatever the condition looked at."""
    if delta := figures.get("delta"):
        yield "n", delta["n"]
        yield "least", LEAST
        if delta["mean"] is not None:
            yield "delta", f"{delta['mean']:+.4f} [{delta['low']:+.4f}, {delta['high']:+.4f}]"
    if kept := figures.get("kept"):
        yield "kept", kept["mean"]
    for name in ("margin", "likes", "dislikes", "agreement_liked", "agreement_disliked", "p"):
        if name in figures:
            yield name, figures[name]
