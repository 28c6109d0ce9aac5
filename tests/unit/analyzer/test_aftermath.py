"""What a promotion led to: verdicts at their borders, against an oracle, and over any counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from services.analyzer.aftermath import LONGEST, compare, rollback
from shared.events import Aftermath, Evidence
from shared.policy import Z95, Rules, Situation, decide, evidence

PROMOTED = datetime(2025, 10, 10, tzinfo=UTC)
WEEK = timedelta(days=7)
MOMENT = timedelta(microseconds=1)
RULES = Rules(policy="wilson", threshold=0.3, min_votes=20, cooldown=WEEK)


def votes(dislikes: int, total: int, start: datetime, end: datetime) -> Evidence:
    return evidence("votes", start, end, total - dislikes, dislikes, Z95)


def compared(
    before: tuple[int, int], after: tuple[int, int], span: timedelta = WEEK, min_votes: int = 20
) -> Aftermath | None:
    """The verdict on generation 2, built on 1; (dislikes, total) of either."""
    return compare(
        2,
        1,
        votes(*before, PROMOTED - LONGEST, PROMOTED),
        votes(*after, PROMOTED, PROMOTED + span),
        min_votes,
    )


def verdict(before: tuple[int, int], after: tuple[int, int], span: timedelta = WEEK) -> str | None:
    found = compared(before, after, span)
    return found.verdict if found else None


# --- the verdict ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ((170, 500), (105, 500), "better"),
        ((105, 500), (170, 500), "worse"),
        ((170, 500), (170, 500), "same"),
        ((34, 100), (21, 100), "same"),  # the same ratios, of too few votes to be sure
        ((0, 20), (20, 20), "worse"),
        ((20, 20), (0, 20), "better"),
        ((0, 20), (0, 20), "same"),
    ],
)
def test_generations_differ_where_their_intervals_are_disjoint(
    before: tuple[int, int], after: tuple[int, int], said: str
) -> None:
    assert verdict(before, after) == said


@given(st.integers(20, 2000), st.integers(20, 2000), st.data())
def test_verdict_is_that_of_scipy_s_intervals(n: int, m: int, data: st.DataObject) -> None:
    before, after = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    old = binomtest(before, n).proportion_ci(0.95, "wilson")
    new = binomtest(after, m).proportion_ci(0.95, "wilson")
    gap = max(new.low - old.high, old.low - new.high)
    if abs(gap) > 1e-6:  # nearer, the last digits of the quantile decide
        expected = "same" if gap < 0 else "worse" if new.low > old.high else "better"
        assert verdict((before, n), (after, m)) == expected


@given(st.integers(20, 300), st.integers(20, 300), st.data())
def test_worse_one_way_is_better_the_other_way(n: int, m: int, data: st.DataObject) -> None:
    before, after = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    mirrored = {"worse": "better", "better": "worse", "same": "same"}
    there, back = verdict((before, n), (after, m)), verdict((after, m), (before, n))
    assert there is not None and back == mirrored[there]


# --- too few votes --------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [((0, 19), (500, 500)), ((0, 500), (19, 19)), ((0, 0), (0, 0))])
def test_too_few_votes_on_either_side_wait(before: tuple[int, int], after: tuple[int, int]) -> None:
    assert compared(before, after, LONGEST - MOMENT) is None


@pytest.mark.parametrize(("before", "after"), [((0, 19), (500, 500)), ((0, 500), (19, 19)), ((0, 0), (0, 0))])
def test_after_four_weeks_too_few_votes_leave_it_unknown(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    assert verdict(before, after, span=LONGEST) == "unknown"


def test_after_four_weeks_enough_votes_are_a_verdict() -> None:
    assert verdict((0, 20), (20, 20), span=LONGEST) == "worse"


# --- what is said ---------------------------------------------------------------------------


def test_sentence_gives_both_ratios_with_their_intervals() -> None:
    found = compared((170, 500), (105, 500))
    assert found is not None
    assert found.sentence == (
        "negative votes 34.0% (170 of 500, 30.0% to 38.3%) → 21.0% (105 of 500, 17.7% to 24.8%):"
        " better, intervals disjoint"
    )


def test_sentence_of_an_unknown_says_what_was_missing() -> None:
    found = compared((5, 20), (0, 0), LONGEST)
    assert found is not None
    assert found.sentence.endswith("→ none of 0: a comparison needs 20 votes on either side")


# --- what follows ---------------------------------------------------------------------------


def test_worse_generation_is_rolled_back_to_the_one_it_was_built_on() -> None:
    found = compared((0, 20), (20, 20))
    [asked] = rollback("shop", found)
    assert found is not None
    assert (asked.app, asked.to_generation, asked.why, asked.requested_by) == (
        "shop",
        1,
        found.sentence,
        "verdict",
    )


@pytest.mark.parametrize(
    ("before", "after", "span"),
    [((20, 20), (0, 20), WEEK), ((5, 20), (6, 20), WEEK), ((0, 0), (9, 9), LONGEST), ((0, 0), (9, 9), WEEK)],
)
def test_nothing_else_is_rolled_back(
    before: tuple[int, int], after: tuple[int, int], span: timedelta
) -> None:
    assert rollback("default", compared(before, after, span)) == []


def situation(dislikes: int, total: int) -> Situation:
    return Situation(
        as_of=PROMOTED,
        report=votes(dislikes, total, PROMOTED - WEEK, PROMOTED),
        windows=(votes(dislikes, total, PROMOTED - WEEK, PROMOTED),),
        retrain_running=False,
        cooling_until=None,
        recent=(),
        paused=None,
    )


@pytest.mark.parametrize("rules", [RULES, replace(RULES, policy="ratio")], ids=["wilson", "ratio"])
def test_what_would_act_watches_while_the_generation_is_rolled_back(rules: Rules) -> None:
    acting = situation(60, 100)
    assert decide(acting, rules).act
    decision = decide(replace(acting, rolling_back=True), rules)
    assert (decision.verdict, decision.reason) == ("watch", "rolling_back")


@pytest.mark.parametrize("rules", [RULES, replace(RULES, policy="ratio")], ids=["wilson", "ratio"])
@given(dislikes=st.integers(0, 100))
def test_a_rollback_changes_no_other_decision(rules: Rules, dislikes: int) -> None:
    usual = situation(dislikes, 100)
    if not decide(usual, rules).act:
        assert decide(replace(usual, rolling_back=True), rules) == decide(usual, rules)
