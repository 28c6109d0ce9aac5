"""The decision: its interval against scipy's, its rules one by one, its invariants over anything."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from shared.events import Evidence
from shared.policy import (
    REASONS,
    WINDOWS,
    Z95,
    Z_DECISION,
    Decision,
    Retrain,
    Rules,
    Situation,
    decide,
    evidence,
    wilson,
)

AS_OF = datetime(2025, 10, 17, 0, 0, tzinfo=UTC)
WILSON = Rules(policy="wilson", threshold=0.3, min_votes=20, cooldown=timedelta(days=7))
RATIO = replace(WILSON, policy="ratio")
IN_VAIN = Retrain(AS_OF - timedelta(days=9), 0.41, 0.41)
HELPED = Retrain(AS_OF - timedelta(days=9), 0.41, 0.4)


def votes(name: str, dislikes: int, total: int) -> Evidence:
    span = WINDOWS.get(name, timedelta(days=1))
    z = Z_DECISION if name in WINDOWS else Z95
    return evidence(name, AS_OF - span, AS_OF, total - dislikes, dislikes, z)


def situation(week: tuple[int, int], month: tuple[int, int] | None = None, **changes: Any) -> Situation:
    """(dislikes, total) of 7 and 28 days; the report counts the week unless told otherwise."""
    report = changes.pop("report", week)
    usual = Situation(
        as_of=AS_OF,
        report=votes("1d", *report),
        windows=(votes("7d", *week), votes("28d", *(month or week))),
        retrain_running=False,
        cooling_until=None,
        recent=(),
        paused=None,
    )
    return replace(usual, **changes)


def judged(situation: Situation, rules: Rules = WILSON) -> tuple[str, str]:
    decision = decide(situation, rules)
    return decision.verdict, decision.reason


# --- the interval ---------------------------------------------------------------------------


@pytest.mark.parametrize("z", [1.0, Z95, Z_DECISION, 3.5])
@pytest.mark.parametrize("total", [1, 2, 3, 7, 19, 20, 100, 999, 100_000])
def test_interval_is_the_one_of_scipy(total: int, z: float) -> None:
    confidence = 2 * NormalDist().cdf(z) - 1
    for dislikes in {0, 1, total // 7, total // 3, total // 2, max(total - 1, 0), total}:
        oracle = binomtest(dislikes, total).proportion_ci(confidence_level=confidence, method="wilson")
        assert wilson(dislikes, total, z) == pytest.approx((oracle.low, oracle.high), abs=1e-9)


@given(total=st.integers(1, 5000), data=st.data())
def test_interval_is_the_one_of_scipy_for_any_count(total: int, data: st.DataObject) -> None:
    dislikes = data.draw(st.integers(0, total))
    oracle = binomtest(dislikes, total).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson(dislikes, total) == pytest.approx((oracle.low, oracle.high), abs=1e-6)


def test_z95_is_the_normal_quantile() -> None:
    assert NormalDist().inv_cdf(0.975) == pytest.approx(Z95, abs=1e-6)


def test_z_decision_shares_five_percent_between_two_windows() -> None:
    assert NormalDist().inv_cdf(1 - 0.05 / 2 / len(WINDOWS)) == pytest.approx(Z_DECISION, abs=0.002)


def test_without_votes_anything_is_possible() -> None:
    assert wilson(0, 0) == (0, 1)


@pytest.mark.parametrize(("dislikes", "total"), [(-1, 3), (4, 3), (1, 0), (0, -1)])
def test_impossible_counts_are_refused(dislikes: int, total: int) -> None:
    with pytest.raises(ValueError, match=f"{dislikes} dislikes of {total} votes"):
        wilson(dislikes, total)


counts = st.integers(1, 10**6).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@given(counts, st.floats(0.1, 6))
def test_interval_lies_within_zero_and_one_and_holds_the_ratio(count: tuple[int, int], z: float) -> None:
    low, high = wilson(*count, z)
    assert 0 <= low <= count[0] / count[1] <= high <= 1


@given(counts)
def test_interval_rises_with_every_dislike(count: tuple[int, int]) -> None:
    dislikes, total = count
    assume(dislikes < total)
    low, high = wilson(dislikes, total)
    next_low, next_high = wilson(dislikes + 1, total)
    assert next_low > low
    assert next_high > high


@given(counts, st.integers(2, 50))
def test_more_votes_at_the_same_ratio_narrow_the_interval(count: tuple[int, int], times: int) -> None:
    low, high = wilson(*count)
    closer_low, closer_high = wilson(count[0] * times, count[1] * times)
    assert closer_high - closer_low < high - low


def test_evidence_carries_counts_and_interval() -> None:
    window = evidence("7d", AS_OF - WINDOWS["7d"], AS_OF, 59, 41, Z_DECISION)
    assert (window.likes, window.dislikes, window.total, window.ratio) == (59, 41, 100, 0.41)
    assert (window.low, window.high) == wilson(41, 100, Z_DECISION)


# --- the default policy ---------------------------------------------------------------------


def test_41_of_100_acts_under_both_policies() -> None:
    bad = situation((41, 100))
    assert judged(bad) == ("act", "lower_bound_over_threshold")
    assert judged(bad, RATIO) == ("act", "ratio_over_threshold")


def test_13_of_100_is_ok_under_both_policies() -> None:
    good = situation((13, 100))
    assert judged(good) == judged(good, RATIO) == ("ok", "within_threshold")


def test_nobody_voted() -> None:
    assert judged(situation((0, 0))) == ("insufficient_data", "no_votes")


@pytest.mark.parametrize(("total", "verdict"), [(19, "insufficient_data"), (20, "act")])
def test_min_votes_is_the_first_count_that_suffices(total: int, verdict: str) -> None:
    assert decide(situation((total, total)), WILSON).verdict == verdict


def test_votes_of_the_report_alone_are_too_few() -> None:
    assert judged(situation((0, 0), report=(41, 100))) == ("insufficient_data", "too_few_votes")


def test_a_situation_without_windows_has_too_few_votes() -> None:
    assert judged(situation((1, 2), windows=())) == ("insufficient_data", "too_few_votes")


def test_the_long_window_decides_where_the_short_one_has_too_few_votes() -> None:
    assert judged(situation((5, 5), (50, 100))) == ("act", "lower_bound_over_threshold")


def test_the_short_window_decides_before_the_long_one_notices() -> None:
    assert judged(situation((41, 100), (60, 400))) == ("act", "lower_bound_over_threshold")


def test_the_surer_window_decides_where_both_have_enough_votes() -> None:
    decision = decide(situation((10, 30), (41, 100)), WILSON)
    assert decision.act
    assert decision.explanation.startswith("41 of 100 votes in 28d")


def test_a_bound_of_exactly_the_threshold_is_not_over_it() -> None:
    bound, _ = wilson(41, 100, Z_DECISION)
    assert judged(situation((41, 100)), replace(WILSON, threshold=bound)) == ("watch", "uncertain")


def test_over_the_threshold_but_uncertain_is_watched() -> None:
    assert judged(situation((10, 30))) == ("watch", "uncertain")


def test_exactly_the_threshold_is_within_it() -> None:
    at = situation((30, 100))
    assert judged(at) == judged(at, RATIO) == ("ok", "within_threshold")


def test_a_report_of_no_votes_never_says_ok() -> None:
    silent = situation((13, 100), report=(0, 0))
    assert judged(silent) == ("insufficient_data", "no_new_votes")


def test_a_report_of_no_votes_does_not_hide_what_the_windows_know() -> None:
    assert judged(situation((41, 100), report=(0, 0)))[0] == "act"
    assert judged(situation((10, 30), report=(0, 0)))[0] == "watch"


def test_the_caller_s_interval_does_not_decide() -> None:
    lax = votes("7d", 9, 20).model_copy(update={"low": 0.99})
    assert judged(situation((9, 20), windows=(lax,))) == ("watch", "uncertain")


# --- what keeps it from acting --------------------------------------------------------------


def test_a_running_retrain_is_watched() -> None:
    assert judged(situation((41, 100), retrain_running=True)) == ("watch", "retrain_running")


@pytest.mark.parametrize(("left", "verdict"), [(1, "watch"), (0, "act"), (-1, "act")])
def test_the_cool_down_ends_on_the_second(left: int, verdict: str) -> None:
    resting = situation((41, 100), cooling_until=AS_OF + timedelta(seconds=left))
    assert decide(resting, WILSON).verdict == verdict


def test_the_cool_down_ends_by_the_database_s_time_not_by_as_of() -> None:
    until = AS_OF - timedelta(days=1)
    early = situation((41, 100), cooling_until=until, now=until - timedelta(days=30))
    assert judged(early) == ("watch", "cooling_down")


def test_two_retrains_in_vain_open_the_breaker() -> None:
    assert judged(situation((41, 100), recent=(IN_VAIN, IN_VAIN))) == ("paused", "breaker_open")


@pytest.mark.parametrize(
    "recent",
    [
        (),
        (IN_VAIN,),
        (HELPED, IN_VAIN, IN_VAIN),
        (IN_VAIN, HELPED, IN_VAIN),
        (IN_VAIN, Retrain(AS_OF, 0.41, None)),
        (IN_VAIN, Retrain(AS_OF, None, 0.41)),
    ],
)
def test_the_breaker_stays_closed_unless_the_last_two_are_known_to_be_in_vain(
    recent: tuple[Retrain, ...],
) -> None:
    assert decide(situation((41, 100), recent=recent), WILSON).act


def test_the_breaker_does_not_show_while_the_votes_are_good() -> None:
    assert judged(situation((13, 100), recent=(IN_VAIN, IN_VAIN)))[0] == "ok"


def test_obstacles_rank_pause_breaker_retrain_cool_down() -> None:
    everything: dict[str, Any] = {
        "paused": "release week",
        "recent": (IN_VAIN, IN_VAIN),
        "retrain_running": True,
        "cooling_until": AS_OF + timedelta(days=1),
    }
    seen = []
    while True:
        reason = decide(situation((41, 100), **everything), WILSON).reason
        seen.append(reason)
        if not everything:
            break
        everything.pop(next(iter(everything)))
    assert seen == ["paused", "breaker_open", "retrain_running", "cooling_down", "lower_bound_over_threshold"]


# --- the literal policy ---------------------------------------------------------------------


def test_ratio_judges_the_report_alone() -> None:
    assert judged(situation((90, 100), report=(1, 10)), RATIO) == ("ok", "within_threshold")
    assert judged(situation((0, 100), report=(1, 3)), RATIO) == ("act", "ratio_over_threshold")


def test_ratio_needs_a_vote() -> None:
    assert judged(situation((41, 100), report=(0, 0)), RATIO) == ("insufficient_data", "no_votes")


def test_ratio_heeds_a_running_retrain_and_a_pause_but_neither_cool_down_nor_breaker() -> None:
    assert judged(situation((1, 1), retrain_running=True), RATIO) == ("watch", "retrain_running")
    assert judged(situation((1, 1), paused=""), RATIO) == ("paused", "paused")
    assert decide(situation((1, 1), cooling_until=AS_OF + timedelta(days=1)), RATIO).act
    assert decide(situation((1, 1), recent=(IN_VAIN, IN_VAIN)), RATIO).act


# --- the explanation ------------------------------------------------------------------------

SENTENCES = {
    "no_votes": (situation((0, 0)), "0 votes in 1d: there is nothing to judge"),
    "too_few_votes": (
        situation((1, 2), (4, 12)),
        "4 of 12 votes in 28d are negative (33.3%, interval 12.2% to 64.3% at z=2.24):"
        " a decision needs 20 votes (threshold 30%)",
    ),
    "no_new_votes": (
        situation((13, 100), report=(0, 0)),
        "13 of 100 votes in 7d are negative (13.0%, interval 7.2% to 22.3% at z=2.24):"
        " within the threshold of 30%, but nobody voted in 1d",
    ),
    "within_threshold": (
        situation((13, 100)),
        "13 of 100 votes in 7d are negative (13.0%, interval 7.2% to 22.3% at z=2.24):"
        " within the threshold of 30%",
    ),
    "uncertain": (
        situation((10, 30)),
        "10 of 30 votes in 7d are negative (33.3%, interval 17.7% to 53.7% at z=2.24):"
        " over the threshold of 30%, but the lower bound is not",
    ),
    "lower_bound_over_threshold": (
        situation((41, 100)),
        "41 of 100 votes in 7d are negative (41.0%, interval 30.7% to 52.2% at z=2.24):"
        " lower bound over the threshold of 30%",
    ),
    "retrain_running": (
        situation((41, 100), retrain_running=True),
        "41 of 100 votes in 7d are negative (41.0%, interval 30.7% to 52.2% at z=2.24):"
        " over the threshold of 30%, but a retrain is running",
    ),
    "cooling_down": (
        situation((41, 100), cooling_until=AS_OF + timedelta(days=2)),
        "41 of 100 votes in 7d are negative (41.0%, interval 30.7% to 52.2% at z=2.24):"
        " lower bound over the threshold of 30%, but resting until 2025-10-19 00:00 UTC",
    ),
    "rolling_back": (
        situation((41, 100), rolling_back=True),
        "41 of 100 votes in 7d are negative (41.0%, interval 30.7% to 52.2% at z=2.24):"
        " over the threshold of 30%, but the generation before it is being brought back",
    ),
    "breaker_open": (
        situation((41, 100), recent=(IN_VAIN, IN_VAIN)),
        "41 of 100 votes in 7d are negative (41.0%, interval 30.7% to 52.2% at z=2.24):"
        " lower bound over the threshold of 30%, but the last retrains did not lower the ratio"
        " (41.0% → 41.0%, 41.0% → 41.0%), so a person must look",
    ),
    "paused": (
        situation((13, 100), paused="release {week}"),
        "13 of 100 votes in 7d are negative (13.0%, interval 7.2% to 22.3% at z=2.24):"
        " retraining is paused, release {week} (threshold 30%)",
    ),
}


@pytest.mark.parametrize("reason", SENTENCES)
def test_explanation_gives_the_figures_and_the_rule(reason: str) -> None:
    given_situation, sentence = SENTENCES[reason]
    assert decide(given_situation, WILSON) == Decision(REASONS[reason], reason, sentence)


def test_explanation_of_the_literal_rule_gives_the_95_percent_interval() -> None:
    assert decide(situation((41, 100)), RATIO).explanation == (
        "41 of 100 votes in 1d are negative (41.0%, interval 31.9% to 50.8% at z=1.96):"
        " over the threshold of 30%"
    )


def test_explanation_rounds_half_up_as_the_report_does() -> None:
    assert "(6.3%" in decide(situation((2, 32)), WILSON).explanation


def test_every_reason_can_be_reached() -> None:
    assert {*SENTENCES, "ratio_over_threshold"} == set(REASONS)


# --- invariants -----------------------------------------------------------------------------

few = st.integers(0, 120)
tally = st.tuples(few, few).map(lambda pair: (min(pair), max(pair)))
maybe_ratio = st.none() | st.floats(0, 1)
retrains = st.builds(Retrain, st.just(AS_OF), maybe_ratio, maybe_ratio)
situations = st.builds(
    situation,
    tally,
    tally,
    report=tally,
    retrain_running=st.booleans(),
    cooling_until=st.none() | st.datetimes(timezones=st.just(UTC)),
    recent=st.lists(retrains, max_size=4).map(tuple),
    paused=st.none() | st.text(max_size=20),
)
rulebooks = st.builds(
    Rules,
    st.sampled_from(["wilson", "ratio"]),
    st.floats(0.01, 0.99),
    st.integers(1, 60),
    st.just(timedelta(days=7)),
)


def one_more_like(window: Evidence) -> Evidence:
    return evidence(window.name, window.start, window.end, window.likes + 1, window.dislikes, Z_DECISION)


@given(situations, rulebooks)
def test_the_same_situation_gives_the_same_decision(situation: Situation, rules: Rules) -> None:
    assert decide(situation, rules) == decide(replace(situation), replace(rules))


@given(situations, rulebooks)
def test_every_decision_has_a_listed_reason_and_its_verdict(situation: Situation, rules: Rules) -> None:
    decision = decide(situation, rules)
    assert decision.verdict == REASONS[decision.reason]
    assert decision.act == (decision.verdict == "act")
    assert "votes in" in decision.explanation


@given(situations, rulebooks, st.text(max_size=20))
def test_a_pause_always_shows(situation: Situation, rules: Rules, why: str) -> None:
    assert judged(replace(situation, paused=why), rules) == ("paused", "paused")


@given(situations, rulebooks)
def test_wilson_acts_only_on_enough_votes_and_a_bound_over_the_threshold(
    situation: Situation, rules: Rules
) -> None:
    rules = replace(rules, policy="wilson")
    if decide(situation, rules).act:
        assert any(
            window.total >= rules.min_votes and window.low > rules.threshold for window in situation.windows
        )


@given(situations, rulebooks)
def test_ratio_acts_exactly_when_the_ratio_is_over_and_nothing_is_in_the_way(
    situation: Situation, rules: Rules
) -> None:
    free = situation.paused is None and not situation.retrain_running
    over = situation.report.total > 0 and situation.report.ratio > rules.threshold
    assert decide(situation, replace(rules, policy="ratio")).act == (free and over)


@given(situations, rulebooks)
def test_a_like_never_makes_it_act(situation: Situation, rules: Rules) -> None:
    # A like may complete `min_votes`, and so make certain what was too early to say.
    assume(all(window.total != rules.min_votes - 1 for window in situation.windows))
    assume(not decide(situation, rules).act)
    happier = replace(
        situation,
        report=one_more_like(situation.report),
        windows=tuple(one_more_like(window) for window in situation.windows),
    )
    assert not decide(happier, rules).act


@given(situations, rulebooks)
def test_nothing_acts_while_a_retrain_runs(situation: Situation, rules: Rules) -> None:
    assert not decide(replace(situation, retrain_running=True), rules).act


@given(situations, rulebooks)
def test_ok_is_only_said_of_votes_that_were_cast(situation: Situation, rules: Rules) -> None:
    assert decide(situation, rules).verdict != "ok" or situation.report.total
