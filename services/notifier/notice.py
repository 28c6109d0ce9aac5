"""What the webhook is sent: a message as JSON, with the figures behind it, and its signature.

The signature is that of Standard Webhooks 1.0.0
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md): HMAC-SHA256 over
`id.timestamp.body` with each key, in base64.

What is guaranteed: every field is there in every notice (null where it does not apply), fields are only
added within a version, `ruleId` stays the same for an app.

Pure.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from services.notifier.blocks import length, report_url
from services.notifier.telling import Telling, Voice
from services.notifier.weekly import Week
from services.notifier.wording import WORDS
from shared.events import NAMESPACE, Event, FeedbackEvaluate, Report, RetrainCompleted, WebhookTest, derived
from shared.policy import wilson

__all__ = ["Notice", "headers", "notice_id", "notice_of", "test_telling"]

Severity = Literal["info", "warning", "critical"]

TYPES: Mapping[str, str] = {
    "start": "run.started",
    "report": "report.ready",
    "aftermath": "promotion.judged",
    "weekly": "report.weekly",
    "retrain": "retrain.started",
    "outcome": "retrain.completed",
    "failed": "loop.failed",
    "paused": "loop.paused",
    "resumed": "loop.resumed",
    "test": "webhook.test",
}
"""Kind of message → `type` of the notice."""

SEVERITIES: Mapping[str, Severity] = {"failed": "critical", "retrain": "warning", "paused": "warning"}
STATES: Mapping[str, Severity] = {
    "ALERT": "critical",
    "act": "critical",
    "WATCH": "warning",
    "watch": "warning",
    "NO_DATA": "warning",
}
"""Alert state, or without one the verdict, of a report."""


class Body(BaseModel):
    title: str
    """Its first line."""
    body: str
    """The whole text, as in Slack but without markup."""


class Payload(BaseModel):
    """What a notice says. Times are ISO 8601 in UTC, ratios between 0 and 1."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    rule_id: str = Field(alias="ruleId")
    """The same for every notice about an app."""
    app: str
    run: UUID | None
    severity: Severity
    message: Body
    permalink: str
    from_timestamp: datetime | None = Field(alias="fromTimestamp")
    to_timestamp: datetime | None = Field(alias="toTimestamp")
    window: str | None
    """Its length: `1d`, `24h`."""
    value: float | None
    """Negative ratio; null where nobody voted."""
    threshold: float | None
    n: int | None
    """Votes that it rests on."""
    ci_low: float | None
    ci_high: float | None
    """95 % Wilson interval of `value`."""


class Notice(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, alias_generator=to_camel)

    id: UUID
    """The header `webhook-id`: the same for every attempt."""
    timestamp: datetime
    """When it happened; the header has when it was sent."""
    type: str
    api_version: Literal["v1"] = "v1"
    payload: Payload

    def json_bytes(self) -> bytes:
        return self.model_dump_json(by_alias=True).encode()


def notice_id(key: str) -> UUID:
    """The id of a message, by its key."""
    return derived(NAMESPACE, "webhook", "notice", key)


def notice_of(telling: Telling, about: Event | Week, at: datetime, correlation: UUID, voice: Voice) -> Notice:
    """The notice of a message.

    Args:
        about: what it tells of; for the weekly summary the week.
        at: when that happened.
        correlation: what it belongs to.
    """
    app = getattr(about, "app", "default")
    payload = Payload(
        rule_id=f"negative_ratio.{app}",
        app=app,
        run=_run(about, correlation),
        severity=_severity(telling.kind, about),
        message=Body(title=telling.text.split("\n", 1)[0], body=telling.text),
        **_figures(telling.kind, about, voice),
    )
    id = notice_id(telling.key)
    return Notice(id=id, timestamp=at.astimezone(UTC), type=TYPES[telling.kind], payload=payload)


def test_telling(event: WebhookTest, id: UUID, voice: Voice) -> Telling:
    """The message of a test."""
    words = WORDS[voice.language]
    return Telling(f"test/{id}", "test", f"{words['webhook.test']}\n{words['webhook.test.said']}")


def headers(id: str, at: int, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """The headers of an attempt.

    Args:
        at: when it is made, in seconds since 1970.
        keys: of which each signs, so that a receiver may take either while they change.
    """
    signed = b".".join((id.encode(), str(at).encode(), body))
    signatures = (b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _run(about: Event | Week, correlation: UUID) -> UUID | None:
    match about:
        case Report():
            return about.run
        case RetrainCompleted():
            return about.run or correlation
        case FeedbackEvaluate():
            return correlation
    return None


def _severity(kind: str, about: Event | Week) -> Severity:
    match about:
        case Report(aftermath=past) if kind == "aftermath" and past is not None:
            return "warning" if past.verdict == "worse" else "info"
        case Report() if kind == "report":
            return STATES.get(about.alert.state if about.alert else about.verdict, "info")
        case RetrainCompleted():
            return "warning" if about.outcome in ("failed", "rejected") else "info"
    return SEVERITIES.get(kind, "info")


def _figures(kind: str, about: Event | Week, voice: Voice) -> dict[str, object]:
    """Where it can be looked at, and the window, ratio, threshold and interval, as far as it has them."""
    found: dict[str, object] = dict.fromkeys(
        ("from_timestamp", "to_timestamp", "window", "value", "threshold", "n", "ci_low", "ci_high")
    )
    found["permalink"] = voice.dashboard_url
    match about:
        case Report(aftermath=past) if kind == "aftermath" and past is not None:
            votes = past.after
            found |= {**_window(votes.start, votes.end), "n": votes.total}
            if votes.total:
                found |= {"value": votes.ratio, "ci_low": votes.low, "ci_high": votes.high}
        case Report():
            low, high = about.interval or wilson(about.dislikes, about.total)
            found |= _window(about.window_start, about.window_end)
            found |= {"n": about.total, "threshold": about.threshold}
            found["permalink"] = report_url(about, voice.zone, voice.dashboard_url)
            if about.total:
                found |= {"value": about.dislikes / about.total, "ci_low": low, "ci_high": high}
        case Week():
            first, end = (
                datetime.combine(day, time(), voice.zone) for day in (about.first, about.last + timedelta(1))
            )
            low, high = about.now.interval
            found |= {**_window(first, end), "n": about.now.total, "value": about.now.ratio}
            if about.now.total:
                found |= {"ci_low": low, "ci_high": high}
        case RetrainCompleted():
            found["value"] = about.ratio
    return found


def _window(start: datetime, end: datetime) -> dict[str, object]:
    # Wall clocks that change in between do not make seven days fewer: compared in UTC, to the hour.
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    return {"from_timestamp": start, "to_timestamp": end, "window": length(end - start)}
