"""Alert states: what each decision stands for, and what follows upon what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.analyzer.alerts import STATES, Standing, follow, state_of
from shared.events import Alert, AlertState
from shared.policy import REASONS

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def course(*states: AlertState) -> tuple[Standing, Alert]:
    """Where an app stands after these states, one a day."""
    standing: Standing | None = None
    for day, state in enumerate(states):
        standing, alert = follow(standing, state, NOON + day * DAY, NOON + day * DAY)
    assert standing is not None
    return standing, alert


def test_every_reason_of_a_decision_has_a_state() -> None:
    assert STATES.keys() == REASONS.keys()


def test_only_judged_votes_are_ok() -> None:
    assert [reason for reason, state in STATES.items() if state == "OK"] == ["within_threshold"]


def test_every_act_is_an_alert() -> None:
    assert {STATES[code] for code, verdict in REASONS.items() if verdict == "act"} == {"ALERT"}


@pytest.mark.parametrize("reason", ["retrain_running", "cooling_down", "rolling_back", "breaker_open"])
def test_what_only_an_obstacle_keeps_from_acting_is_an_alert(reason: str) -> None:
    assert state_of(reason, votes=True) == "ALERT"


def test_no_votes_in_any_window_are_no_data() -> None:
    assert state_of("no_votes", votes=False) == "NO_DATA"


def test_a_report_without_votes_is_unknown_where_a_window_has_some() -> None:
    assert state_of("no_votes", votes=True) == "UNKNOWN"


@pytest.mark.parametrize("reason", ["too_few_votes", "no_new_votes"])
def test_too_little_to_judge_is_unknown(reason: str) -> None:
    assert state_of(reason, votes=True) == "UNKNOWN"


# --- one after another ----------------------------------------------------------------------


def test_the_first_state_is_news() -> None:
    _, alert = course("ALERT")
    assert (alert.before, alert.changed, alert.recovered) == (None, True, False)


def test_a_first_ok_is_no_recovery() -> None:
    assert not course("UNKNOWN", "OK")[1].recovered


def test_the_same_state_again_is_no_news() -> None:
    assert not course("WATCH", "WATCH")[1].changed


def test_a_state_keeps_its_beginning() -> None:
    assert course("OK", "ALERT", "ALERT", "ALERT")[1].since == NOON + DAY


def test_another_state_begins_now() -> None:
    _, alert = course("OK", "WATCH")
    assert (alert.before, alert.since, alert.changed) == ("OK", NOON + DAY, True)


def test_unknown_is_no_news() -> None:
    assert not course("OK", "UNKNOWN")[1].changed


def test_back_from_unknown_to_the_same_is_no_news() -> None:
    assert not course("OK", "UNKNOWN", "OK")[1].changed


def test_another_state_after_unknown_is_news() -> None:
    assert course("OK", "UNKNOWN", "WATCH")[1].changed


def test_no_data_is_news() -> None:
    assert course("OK", "NO_DATA")[1].changed


@pytest.mark.parametrize("trouble", ["WATCH", "ALERT"])
@pytest.mark.parametrize("between", [(), ("UNKNOWN",), ("NO_DATA", "UNKNOWN"), ("PAUSED",)])
def test_ok_after_trouble_is_a_recovery_whatever_lies_between(
    trouble: AlertState, between: tuple[AlertState, ...]
) -> None:
    _, alert = course("OK", trouble, *between, "OK")
    assert (alert.recovered, alert.changed) == (True, True)


def test_a_recovery_is_told_once() -> None:
    assert not course("ALERT", "OK", "OK")[1].recovered


def test_less_trouble_is_no_recovery() -> None:
    assert not course("ALERT", "WATCH")[1].recovered


def test_the_end_of_a_pause_alone_is_no_recovery() -> None:
    assert not course("OK", "PAUSED", "OK")[1].recovered


# --- out of order ---------------------------------------------------------------------------


def test_an_evaluation_of_earlier_votes_changes_nothing() -> None:
    standing, _ = course("OK", "ALERT")
    after, alert = follow(standing, "OK", NOON, NOON + 2 * DAY)
    assert after is standing
    assert alert == Alert(state="ALERT", since=NOON + DAY, before="ALERT")


def test_of_two_evaluations_of_the_same_votes_the_later_counts() -> None:
    standing, _ = course("OK", "ALERT")
    assert follow(standing, "OK", standing.as_of, NOON + 2 * DAY)[1].recovered
