"""What is told of an event: its messages, in order. Slack and the webhook are told the same.

Keys are derived from the event, so a redelivery tells nothing twice. The report's is its run's.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

from services.notifier import messages, weekly
from services.notifier.phrases import Markup
from services.notifier.wording import Language
from shared.bus.envelope import Envelope
from shared.events import (
    Event,
    FeedbackEvaluate,
    LoopFailed,
    LoopPaused,
    LoopResumed,
    Report,
    RetrainCompleted,
    RetrainRequested,
    WebhookDisabled,
)
from shared.settings import Settings

__all__ = ["Telling", "Voice", "of", "of_week", "worth_telling"]


@dataclass(frozen=True, slots=True)
class Voice:
    """How things are told, and which.

    Attributes:
        start_notice, quotes, on_change: as the settings say.
    """

    zone: ZoneInfo
    language: Language
    dashboard_url: str
    markup: Markup
    start_notice: bool
    quotes: bool
    on_change: bool

    @classmethod
    def of(cls, settings: Settings, markup: Markup) -> Voice:
        """As the settings want it."""
        return cls(
            settings.zone,
            settings.report_language,
            settings.public_url,
            markup,
            settings.slack_start_notice,
            settings.slack_quotes,
            settings.report == "on_change",
        )


@dataclass(frozen=True, slots=True)
class Telling:
    """One message: the same for every try by its key; its kind is shown with the run's steps."""

    key: str
    kind: str
    text: str


def of(event: Event, envelope: Envelope, voice: Voice) -> list[Telling]:
    """The messages that an event is worth, but for the weekly summary."""
    zone, language, markup = voice.zone, voice.language, voice.markup
    match event:
        case FeedbackEvaluate() if voice.start_notice:
            at = event.as_of or envelope.time
            text = messages.start_notice(event.requested_by, at, zone, language, markup)
            return [_one("start", envelope, text)]
        case Report():
            return _of_report(event, envelope, voice)
        case RetrainCompleted() if event.reason != "documents" or event.outcome in ("failed", "rejected"):
            return [_one("outcome", envelope, messages.outcome(event, language, markup))]
        case LoopFailed():
            return [_one("failed", envelope, messages.failed(event, language, markup))]
        case LoopPaused():
            return [_one("paused", envelope, messages.paused(event, zone, language, markup))]
        case LoopResumed():
            return [_one("resumed", envelope, messages.resumed(event, language, markup))]
        case WebhookDisabled():
            return [_one("webhook", envelope, messages.webhook_disabled(event, language, markup))]
    return []


def of_week(week: weekly.Week, key: str, voice: Voice) -> Telling:
    """The weekly summary."""
    text = weekly.summary(week, voice.language, voice.dashboard_url, voice.markup, voice.quotes)
    return Telling(key, "weekly", text)


def worth_telling(event: Report) -> bool:
    """Whether a report says something new: another alert state, an end of one, a retrain, or what an
    earlier one led to. A report without a state says so little that it is told."""
    alert = event.alert
    new = alert is None or alert.changed or alert.recovered
    return new or event.verdict == "act" or event.aftermath is not None


def _of_report(event: Report, envelope: Envelope, voice: Voice) -> list[Telling]:
    """The report, what an earlier promotion led to, where that is known now, and that a retrain starts."""
    zone, language, markup = voice.zone, voice.language, voice.markup
    found = []
    if worth_telling(event) or not voice.on_change:
        text = messages.report(event, zone, language, voice.dashboard_url, markup)
        found.append(replace(_one("report", envelope, text), key=f"report/{event.run}"))
        if event.aftermath is not None:
            text = messages.aftermath(event.aftermath, event.app, language, markup)
            found.append(_one("aftermath", envelope, text))
    if isinstance(event, RetrainRequested):
        text = messages.retrain_started(event, language, markup, voice.quotes)
        found.append(_one("retrain", envelope, text))
    return found


def _one(kind: str, envelope: Envelope, text: str) -> Telling:
    return Telling(f"{kind}/{envelope.id}", kind, text)
