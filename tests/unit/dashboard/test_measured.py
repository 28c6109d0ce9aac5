"""What the gate's figures say of the quality of search."""

from __future__ import annotations

from typing import Any

from services.dashboard.history import measured


def figures(before: float, after: float, n: int) -> dict[str, Any]:
    interval = {"low": 0.01, "high": 0.05, "n": n}
    return {
        "before": {"mean": before, **interval},
        "after": {"mean": after, **interval},
        "delta": {"mean": round(after - before, 5), **interval},
    }


NOTHING = {"before": None, "after": None, "delta": None, "low": None, "high": None, "n": 0}


def test_held_out_votes_speak_first() -> None:
    gate = {"learning": {"held_out": figures(0.8, 0.84, 200)}, "golden": figures(0.9, 0.9, 10)}
    found = measured(gate)
    assert {name: found[name] for name in ("metric", "before", "after", "delta", "low", "high", "n")} == {
        "metric": "ndcg@10",
        "before": 0.8,
        "after": 0.84,
        "delta": 0.04,
        "low": 0.01,
        "high": 0.05,
        "n": 200,
    }


def test_golden_set_speaks_where_there_were_no_votes() -> None:
    assert measured({"learning": {"why": ["nobody voted"]}, "golden": figures(0.9, 0.92, 10)})["n"] == 10


def test_each_kind_of_question_is_apart() -> None:
    kinds = {"asked again": {"ndcg@10": figures(0.7, 0.75, 30)}, "new": {"ndcg@10": figures(0, 0, 0)}}
    found = measured({"learning": {"held_out": figures(0.8, 0.84, 30), "by_kind": kinds}})["kinds"]
    assert (found["asked again"]["delta"], found["new"]) == (0.05, NOTHING)


def test_what_was_not_measured_is_no_zero() -> None:
    assert measured({"learning": {"promoted": False}}) == {"metric": "ndcg@10", **NOTHING, "kinds": {}}


def test_golden_set_without_a_question_is_not_measured() -> None:
    assert measured({"golden": {"measured": False, "passed": True}})["delta"] is None
