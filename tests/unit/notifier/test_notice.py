"""What the webhook is sent: the figures, how grave it is, the signature."""

from __future__ import annotations

import uuid
from base64 import b64decode
from datetime import UTC, date, datetime
from typing import Any

import pytest

from services.notifier.notice import TYPES, Notice, headers, notice_id, notice_of
from services.notifier.telling import Telling, Voice
from services.notifier.weekly import Votes, Week
from shared.events import Event, LoopFailed, LoopResumed
from shared.policy import wilson
from tests.support.notifying import NINE, SEOUL, URL, outcome, report

VOICE = Voice(SEOUL, "en", URL, "plain", start_notice=False, quotes=True, on_change=False)


def notice(kind: str, about: Event | Week) -> dict[str, Any]:
    made = notice_of(Telling("key", kind, "title\n- fact"), about, NINE, uuid.uuid4(), VOICE)
    payload: dict[str, Any] = made.model_dump(by_alias=True, mode="json")["payload"]
    return payload


def test_signature_is_that_of_the_specification_s_own_libraries() -> None:
    # The case of https://github.com/standard-webhooks/standard-webhooks/blob/main/libraries/go/webhook_test.go
    key = b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    id, at, body = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    assert headers(id, at, body, [key]) == {
        "webhook-id": id,
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_id_is_the_key_s() -> None:
    assert notice_id("report/1") == notice_id("report/1") != notice_id("report/2")


@pytest.mark.parametrize(
    ("state", "severity"),
    [("ALERT", "critical"), ("WATCH", "warning"), ("NO_DATA", "warning"), ("OK", "info"), ("PAUSED", "info")],
)
def test_report_is_as_grave_as_its_alert_state(state: str, severity: str) -> None:
    assert notice("report", report(alert={"state": state, "since": NINE}))["severity"] == severity


def test_report_without_a_state_is_as_grave_as_its_verdict() -> None:
    assert notice("report", report(verdict="act"))["severity"] == "critical"


def test_report_without_votes_has_no_ratio() -> None:
    found = notice("report", report(likes=0, dislikes=0))
    assert (found["value"], found["n"], found["ci_low"], found["ci_high"]) == (None, 0, None, None)


def test_week_has_its_days_and_its_interval() -> None:
    week = Week("shop", date(2025, 10, 6), date(2025, 10, 12), Votes(30, 10), Votes(0, 0))
    found, (low, high) = notice("weekly", week), wilson(10, 40)
    assert (found["fromTimestamp"], found["toTimestamp"], found["window"]) == (
        "2025-10-05T15:00:00Z",
        "2025-10-12T15:00:00Z",
        "7d",
    )
    assert (found["ruleId"], found["value"], found["n"]) == ("negative_ratio.shop", 0.25, 40)
    assert (found["ci_low"], found["ci_high"]) == (low, high)


def test_every_notice_has_every_field() -> None:
    failed = LoopFailed(
        failed_event=uuid.uuid4(), failed_type="x", consumer="x", reason="x", attempts=1, dead_letter="x"
    )
    fields = notice("report", report()).keys()
    for kind, about in (("outcome", outcome()), ("failed", failed), ("resumed", LoopResumed())):
        assert notice(kind, about).keys() == fields


def test_body_reads_as_it_was_written() -> None:
    made = notice_of(
        Telling("k", "resumed", "말"), LoopResumed(), datetime(2025, 1, 1, tzinfo=UTC), uuid.uuid4(), VOICE
    )
    assert Notice.model_validate_json(made.json_bytes()) == made
    assert made.type == TYPES["resumed"]
