"""The backtest: known histories, and its agreement with the policy it replays."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.backtest import Count, Day, Summary, replay, summarize
from shared.policy import Z_DECISION, Rules, wilson

START = date(2025, 1, 1)
RULES = Rules(policy="wilson", threshold=0.3, min_votes=20, cooldown=timedelta(days=7))


def steady(days: int, likes: int, dislikes: int, start: date = START) -> list[Count]:
    return [(start + timedelta(days=n), likes, dislikes) for n in range(days)]


def acts(days: list[Day]) -> list[int]:
    """Days since the start on which `wilson` acted."""
    return [(day.date - START).days for day in days if day.wilson == "act"]


def test_no_history_gives_no_days() -> None:
    assert replay([], RULES) == []
    assert summarize([]) == Summary(0, 0, 0, None, None)


def test_good_votes_never_lead_to_a_retrain() -> None:
    days = replay(steady(60, 87, 13), RULES)
    assert summarize(days) == Summary(60, 0, 0, None, None)
    assert {(day.wilson, day.ratio_rule, day.ratio) for day in days} == {("ok", "ok", 0.13)}


def test_a_turn_for_the_worse_is_seen_by_both() -> None:
    days = replay(steady(30, 87, 13) + steady(10, 59, 41, START + timedelta(days=30)), RULES)
    summary = summarize(days)
    assert summary.ratio_first == START + timedelta(days=30)
    assert summary.ratio_retrains == 10
    assert summary.wilson_first is not None
    assert START + timedelta(days=30) < summary.wilson_first < START + timedelta(days=37)
    assert summary.wilson_retrains == 1


def test_few_votes_alarm_the_literal_rule_alone() -> None:
    days = replay([(START, 1, 1), (START + timedelta(days=1), 40, 5)], RULES)
    assert [(day.wilson, day.ratio_rule) for day in days] == [("insufficient_data", "act"), ("ok", "ok")]


def test_the_cool_down_spaces_the_retrains() -> None:
    assert acts(replay(steady(30, 50, 50), RULES)) == [0, 7, 14, 21, 28]
    assert acts(replay(steady(30, 50, 50), replace(RULES, cooldown=timedelta(days=10)))) == [0, 10, 20]


def test_windows_start_anew_after_an_act() -> None:
    # One terrible day, then too few votes to say anything more.
    days = replay([(START, 0, 100), *steady(27, 0, 0, START + timedelta(days=1))], RULES)
    assert acts(days) == [0]
    assert {day.wilson for day in days[1:]} == {"insufficient_data"}


def test_the_long_window_gathers_votes_that_the_short_one_lacks() -> None:
    days = replay(steady(40, 0, 1), RULES)
    assert days[18].wilson == "insufficient_data"
    assert acts(days) == [19, 39]


def test_votes_leave_the_windows_after_28_days() -> None:
    days = replay([(START, 80, 20), *steady(30, 0, 0, START + timedelta(days=1))], RULES)
    assert days[27].wilson == "insufficient_data"  # known to be well, but nobody voted that day
    later = replay([(START, 100, 0), (START + timedelta(days=27), 1, 0)], RULES)
    too_late = replay([(START, 100, 0), (START + timedelta(days=28), 1, 0)], RULES)
    assert (later[-1].wilson, too_late[-1].wilson) == ("ok", "insufficient_data")


def test_days_without_counts_are_judged_too() -> None:
    days = replay([(START + timedelta(days=2), 3, 1), (START, 1, 3)], RULES)
    assert [(day.date, day.likes, day.dislikes, day.ratio) for day in days] == [
        (START, 1, 3, 0.75),
        (START + timedelta(days=1), 0, 0, None),
        (START + timedelta(days=2), 3, 1, 0.25),
    ]
    assert days[1].ratio_rule == "insufficient_data"


def test_counts_of_one_day_add_up() -> None:
    assert replay([(START, 1, 2), (START, 3, 4)], RULES) == replay([(START, 4, 6)], RULES)


def test_it_replays_both_policies_whichever_the_rules_name() -> None:
    history = steady(20, 59, 41)
    assert replay(history, RULES) == replay(history, replace(RULES, policy="ratio"))


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="dislikes"):
        replay([(START, 5, -1)], RULES)


def test_ten_years_take_seconds() -> None:
    dice = random.Random(7)
    history = [(START + timedelta(days=n), dice.randrange(1000), dice.randrange(500)) for n in range(3650)]
    began = time.perf_counter()
    assert len(replay(history, RULES)) == 3650
    assert time.perf_counter() - began < 10


def acts_by_definition(history: list[tuple[int, int]], rules: Rules) -> list[int]:
    """The default policy once more, written straight from its definition and without care for speed."""
    found: list[int] = []
    for today in range(len(history)):
        if found and today - found[-1] < rules.cooldown.days:
            continue
        for span in (7, 28):
            since = max(today - span + 1, found[-1] + 1 if found else 0, 0)
            likes = sum(up for up, _ in history[since : today + 1])
            dislikes = sum(down for _, down in history[since : today + 1])
            total = likes + dislikes
            if total >= rules.min_votes and wilson(dislikes, total, Z_DECISION)[0] > rules.threshold:
                found.append(today)
                break
    return found


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=70),
    st.integers(1, 40),
    st.integers(1, 14),
)
def test_it_acts_when_the_definition_does(
    history: list[tuple[int, int]], min_votes: int, cooldown: int
) -> None:
    rules = replace(RULES, min_votes=min_votes, cooldown=timedelta(days=cooldown))
    days = replay([(START + timedelta(days=n), *counts) for n, counts in enumerate(history)], rules)
    assert acts(days) == acts_by_definition(history, rules)
    assert [day.ratio_rule == "act" for day in days] == [
        down > 0 and down / (up + down) > rules.threshold for up, down in history
    ]
