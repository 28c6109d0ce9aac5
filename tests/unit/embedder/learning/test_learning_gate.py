"""The gate: what it lets pass, and every single way to fail."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from services.embedder.learning.gate import LEAST, Evidence, Paired, judge
from services.embedder.learning.thumbs import Thumbs

N = 300
RNG = np.random.default_rng(0)
BEFORE = RNG.uniform(0.5, 0.9, N)
AGREEMENT = RNG.uniform(0, 1, N)
LIKED = AGREEMENT > 0.5
USERS = [f"user {i % 60}" for i in range(N)]
DOCUMENTS = [f"document {i % 50}" for i in range(N)]


def paired(gain: float, n: int = N) -> Paired:
    after = BEFORE[:n] + gain + RNG.normal(0, 0.02, n)
    return Paired(BEFORE[:n], after, np.ones(n), USERS[:n], DOCUMENTS[:n])


def thumbs(liked: np.ndarray = LIKED) -> Thumbs:
    return Thumbs(AGREEMENT, liked, np.zeros(N, bool), np.ones(N))


def evidence(gain: float = 0.05, n: int = N) -> Evidence:
    return Evidence(paired(gain, n), np.full(n, 0.9), thumbs(), paired(0.0), paired(0.0))


def failed(given: Evidence) -> set[str]:
    return {reason.split(":")[0] for reason in judge(given).reasons}


def test_a_clear_gain_is_promoted() -> None:
    assert judge(evidence()).promote


def test_no_gain_is_not_promoted() -> None:
    assert "held_out" in failed(evidence(0.0))


def test_too_few_questions_are_not_enough() -> None:
    assert failed(evidence(n=LEAST - 1)) == {"held_out"}


def test_questions_without_weight_are_not_counted() -> None:
    given = evidence()
    weights = np.where(np.arange(N) < LEAST - 1, 1.0, 0.0)
    assert "held_out" in failed(replace(given, held_out=replace(given.held_out, weights=weights)))


@pytest.mark.parametrize(
    ("field", "name"), [("users", "without_top_user"), ("documents", "without_top_document")]
)
def test_a_gain_that_one_alone_makes_is_not_promoted(field: str, name: str) -> None:
    before = np.full(N, 0.5)
    gain = np.where(np.arange(N) < 60, 0.3, 0.0)
    labels = ["the one" if i < 60 else f"other {i}" for i in range(N)]
    held = replace(Paired(before, before + gain), **{field: labels})  # type: ignore[arg-type]
    given = Evidence(held, np.ones(N), thumbs())
    assert failed(given) == {name}


@pytest.mark.parametrize("name", ["disjoint", "golden"])
def test_a_loss_elsewhere_is_not_promoted(name: str) -> None:
    assert failed(replace(evidence(), **{name: paired(-0.02)})) == {name}  # type: ignore[arg-type]


def test_few_golden_questions_widen_the_margin_and_say_so() -> None:
    few = Paired(np.ones(6), np.array([1.0, 1, 1, 1, 1, 0.985]))
    decision = judge(replace(evidence(), golden=few))
    assert decision.promote and decision.figures["golden"]["widened"]
    assert decision.figures["golden"]["margin"] == pytest.approx(0.005 * (150 / 6) ** 0.5)


def test_a_set_that_is_not_there_is_not_measured() -> None:
    decision = judge(replace(evidence(), disjoint=None, golden=None))
    assert decision.promote and not decision.figures["golden"]["measured"]


def test_every_mean_has_its_interval() -> None:
    figures = judge(evidence()).figures
    for side in ("liked", "disliked"):
        interval = figures["shuffled"]["agreement"][side]
        assert interval["low"] <= interval["mean"] <= interval["high"]
        assert interval["n"] == (LIKED if side == "liked" else ~LIKED).sum()
        assert interval["mean"] == pytest.approx(figures["shuffled"][f"agreement_{side}"], abs=1e-4)
    assert {"mean", "low", "high", "n"} == set(figures["overlap"]["kept"])
    for name in ("held_out", "disjoint", "golden"):
        for figure in ("before", "after", "delta"):
            assert {"mean", "low", "high", "n"} == set(figures[name][figure])


def test_results_that_change_too_much_are_not_promoted() -> None:
    assert failed(replace(evidence(), overlap=np.full(N, 0.6))) == {"overlap"}


def test_what_random_thumbs_fit_as_well_is_not_promoted() -> None:
    random = thumbs(np.random.default_rng(1).permutation(LIKED))
    assert failed(replace(evidence(), thumbs=random)) == {"shuffled"}


@pytest.mark.parametrize("liked", [True, False])
def test_thumbs_that_all_say_the_same_tell_nothing(liked: bool) -> None:
    assert failed(replace(evidence(), thumbs=thumbs(np.full(N, liked)))) == {"shuffled"}


def test_only_what_may_be_spoilt_calls_for_a_weaker_change() -> None:
    spoils, useless = replace(evidence(), golden=paired(-0.02)), evidence(0.0)
    assert judge(spoils).harms_only
    assert not any(
        judge(each).harms_only for each in (evidence(), useless, replace(spoils, thumbs=thumbs(~LIKED)))
    )


def test_every_figure_goes_into_json() -> None:
    figures = json.loads(json.dumps(judge(evidence()).figures))
    assert figures["held_out"]["delta"].keys() == {"mean", "low", "high", "n"}
