"""What each of Slack's answers means, and how long an outcome waits for its report."""

from __future__ import annotations

import pytest

from services.notifier.failures import Busy, Down, NotPosted, Refused, Unclear, from_answer
from services.notifier.handlers import PATIENCE, wait_for_report
from shared.bus.port import Topology


@pytest.mark.parametrize(
    ("status", "code", "expected", "maybe"),
    [
        (200, "not_in_channel", Refused, False),
        (403, "invalid_token", Refused, False),
        (404, "", Refused, False),
        (429, "", Busy, False),
        (200, "ratelimited", Busy, False),
        (503, "", Down, False),
        (200, "service_unavailable", Down, False),
        (500, "", Down, True),
        (502, "", Down, True),
        (200, "internal_error", Down, True),
        (200, "fatal_error", Down, True),
        (200, "", Unclear, True),
        (408, "", Unclear, True),
    ],
)
def test_answer_says_whether_the_message_may_be_posted(
    status: int, code: str, expected: type[NotPosted], maybe: bool
) -> None:
    failure = from_answer(status, code)
    assert (type(failure), failure.maybe) == (expected, maybe)


@pytest.mark.parametrize(
    ("header", "seconds"), [("3", 3.0), (None, 30.0), ("", 30.0), ("soon", 30.0), ("86400", 600.0)]
)
def test_rate_limit_says_how_long_to_wait(header: str | None, seconds: float) -> None:
    failure = from_answer(429, "", header)
    assert isinstance(failure, Busy)
    assert failure.after == seconds


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("not_in_channel", "/invite"),
        ("invalid_auth", "SLACK_BOT_TOKEN"),
        ("channel_not_found", "SLACK_CHANNEL"),
        ("no_service", "SLACK_WEBHOOK_URL"),
        ("something_new", "feedback-loop doctor"),
    ],
)
def test_refusal_says_what_to_do(code: str, advice: str) -> None:
    assert advice in str(from_answer(200, code))


def test_outcome_waits_two_minutes_for_its_report_and_keeps_attempts_to_post_with() -> None:
    topology, age, tries = Topology(), 0.0, 0
    while (after := wait_for_report(age)) is not None:
        age, tries = age + topology.rung(after), tries + 1
    assert PATIENCE <= age <= 1.5 * PATIENCE
    assert tries <= len(topology.ladder) - 2
