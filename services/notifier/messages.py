"""What the team reads: the text of every message, in Korean and in English.

What is guaranteed: the report has the agreed lines and wording and nothing else; whatever people
wrote (names, reasons, documents) stands on one line, bounded, and cannot mention anyone or forge a
link in Slack, nor move the cursor of a terminal; no text reaches 10,000 characters. What is not:
translation of such text, or of what failures say of themselves.

Pure: an event in, a text out. `markup` is `slack` (mrkdwn) or `plain` (a terminal).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from services.notifier.phrases import NAME, SENTENCE, Markup, link, listed, percent, person, time, title
from services.notifier.wording import WORDS, Language
from shared.events import (
    Aftermath,
    Evidence,
    LoopFailed,
    LoopPaused,
    LoopResumed,
    Report,
    RetrainCompleted,
    RetrainRequested,
    Skipped,
    WebhookDisabled,
)
from shared.reasons import say

__all__ = [
    "Language",
    "Markup",
    "aftermath",
    "causes",
    "failed",
    "learned",
    "outcome",
    "paused",
    "report",
    "resumed",
    "retrain_started",
    "start_notice",
    "webhook_disabled",
]

NAMED = 5
"""Skipped documents that are named; the others are counted."""


def report(
    event: Report, zone: ZoneInfo, language: Language, dashboard_url: str, markup: Markup = "slack"
) -> str:
    """The report: eight lines, the first its title, the last the link to the dashboard."""
    words = WORDS[language]
    ratio = event.dislikes / event.total if event.total else None
    facts = [
        words["likes"].format(event.likes),
        words["dislikes"].format(event.dislikes),
        words["total"].format(event.total),
        words["ratio"].format(percent(ratio)),
        words["status"].format(words[f"status.{event.verdict}"]),
        words["at"].format(time(event.as_of, zone)),
    ]
    text = listed(title("🧠 AI Feedback Loop Report", event.app), facts)
    return f"{text}\n{link(dashboard_url, words['dashboard'], markup)}"


def start_notice(
    requested_by: str, at: datetime, zone: ZoneInfo, language: Language, markup: Markup = "slack"
) -> str:
    """The notice that a run has started: the owner's wording, the same in either language."""
    who = person(requested_by, NAME, markup) or "unknown"
    return f"🕒 Feedback Loop started by {who} ({time(at, zone)})"


def retrain_started(
    event: RetrainRequested, language: Language, markup: Markup = "slack", quotes: bool = True
) -> str:
    """Why a retrain starts: the report's figures, those of the decision's windows, the threshold, and
    the causes of dislikes, as far as they are known.

    Args:
        quotes: whether users' questions may be told.
    """
    words = WORDS[language]
    figures = f"{percent(event.ratio)} (👎 {event.dislikes} / {event.total})"
    return listed(
        title(words["started"], event.app),
        [
            words["ratio"].format(figures),
            *(_window(window, markup) for window in event.evidence[:NAMED]),
            words["threshold"].format(f"{event.threshold * 100:g}%"),
            causes(event, language),
            _gaps(event, words, markup, quotes),
        ],
    )


def aftermath(event: Aftermath, app: str, language: Language, markup: Markup = "slack") -> str:
    """What a promotion led to: the ratios before and after it, and the votes they rest on."""
    words, sides = WORDS[language], {"before": event.before, "after": event.after}
    days = (event.after.end - event.after.start).days
    ratios = (percent(side.ratio if side.total else None) for side in sides.values())
    return listed(
        title(words[f"aftermath.{event.verdict}"].format(days, *ratios), app),
        [_window(side.model_copy(update={"name": words[name]}), markup) for name, side in sides.items()],
    )


def outcome(event: RetrainCompleted, language: Language, markup: Markup = "slack") -> str:
    """How a build or a rollback ended, with what it did and which documents it had to skip."""
    words = WORDS[language]
    rolled_back = event.reason == "rollback"
    key = f"outcome.{event.outcome}"
    if rolled_back:
        key = "rollback.done" if event.outcome == "promoted" else "rollback.not_done"
    counts, facts = event.counts, [_generations(event, words)]
    if not rolled_back and event.outcome in ("promoted", "rejected"):
        facts.append(words["documents"].format(counts.added, counts.changed, counts.removed))
        facts.append(words["chunks"].format(counts.embedded, counts.reused))
        facts.append(learned(event, language))
    if event.seconds is not None:
        facts.append(words["seconds"].format(f"{event.seconds:.1f}"))
    facts += [
        words["cause"].format(_cause(event, words, markup)),
        _line(words["detail"], say(event.because, language) or event.detail, markup),
        _skipped(counts.skipped, language, markup),
    ]
    return listed(title(words[key], event.app), facts)


def failed(event: LoopFailed, language: Language, markup: Markup = "slack") -> str:
    """Which consumer gave up on which event, why, and where the event lies now."""
    words = WORDS[language]
    return listed(
        words["failed"],
        [
            _line(words["service"], event.consumer, markup),
            words["event"].format(person(event.failed_type, NAME, markup), event.failed_event),
            words["attempts"].format(event.attempts),
            _line(words["why"], event.reason, markup),
            _line(words["dead_letter"], event.dead_letter, markup),
        ],
    )


def paused(event: LoopPaused, zone: ZoneInfo, language: Language, markup: Markup = "slack") -> str:
    """That retraining is paused: why, by whom, until when."""
    words = WORDS[language]
    until = words["until"].format(time(event.until, zone)) if event.until else ""
    return listed(
        title(words["paused"], event.app),
        [_line(words["why"], event.why, markup), _line(words["by"], event.requested_by, markup), until],
    )


def resumed(event: LoopResumed, language: Language, markup: Markup = "slack") -> str:
    """That retraining may go on: why, by whom."""
    words = WORDS[language]
    return listed(
        title(words["resumed"], event.app),
        [_line(words["why"], event.why, markup), _line(words["by"], event.requested_by, markup)],
    )


def webhook_disabled(event: WebhookDisabled, language: Language, markup: Markup = "slack") -> str:
    """That the webhook is used no more: its host, why, and what to do."""
    words = WORDS[language]
    return listed(
        words["webhook.off"],
        [
            _line(words["webhook.host"], event.host, markup),
            words["webhook.failures"].format(event.failures),
            _line(words["why"], event.reason, markup),
            words["webhook.on"],
        ],
    )


def _generations(event: RetrainCompleted, words: Mapping[str, str]) -> str:
    before, after = event.generation_before, event.generation_after
    if after is None:
        return ""
    if before is None or before == after:
        return words["active"].format(after)
    return words["moved"].format(before, after)


def _cause(event: RetrainCompleted, words: Mapping[str, str], markup: Markup) -> str:
    ratio = f" {percent(event.ratio)}" if event.ratio is not None else ""
    who = person(event.requested_by, NAME, markup)
    return words[f"cause.{event.reason}"] + ratio + (f" ({who})" if who else "")


def learned(event: RetrainCompleted, language: Language) -> str:
    """What votes changed in search, by how much; empty where nobody tried to learn."""
    words = WORDS[language]
    learning = event.gate.get("learning")
    if learning is None:
        return ""
    if not learning.get("promoted"):
        return words["learned.nothing"]
    kinds = learning.get("by_kind", {})
    again = kinds.get("asked again", {}).get("ndcg@10")
    asked_again = again is not None and again["delta"]["n"] > 0
    shown = again if asked_again else learning["held_out"]
    what = words["learned.again" if asked_again else "learned.all"]
    quality = f"{shown['before']['mean']:.3f} → {shown['after']['mean']:.3f}"
    new = kinds.get("new", {}).get("ndcg@10", {}).get("delta")
    rest = ""
    if asked_again and new and new["n"]:
        same = new["low"] <= 0 <= new["high"]
        rest = words["learned.new"].format(words["learned.same"] if same else _change(new))
    return words["learned"].format(quality, _change(shown["delta"]), what, rest)


def _change(delta: Mapping[str, float]) -> str:
    low, high = (f"{delta[end]:+.3f}".replace("-", "−") for end in ("low", "high"))
    return f"{delta['mean']:+.3f}, 95% CI {low}…{high}".replace("-", "−")


def causes(event: Report, language: Language) -> str:
    """Why answers were disliked; empty where nothing is known of it."""
    words = WORDS[language]
    known = {f"causes.{cause}": number for cause, number in event.causes.items() if number}
    if not known.keys() - {"causes.unknown"}:
        return ""
    counts = (words[cause].format(known[cause]) for cause in words if cause in known)
    return words["causes"].format(" · ".join(counts))


def _gaps(event: Report, words: Mapping[str, str], markup: Markup, quotes: bool) -> str:
    if not event.coverage_gaps:
        return ""
    if not quotes:
        return words["gaps.count"].format(len(event.coverage_gaps))
    asked = (f"“{person(question, NAME, markup)}”" for question in event.coverage_gaps[:NAMED])
    return words["gaps"].format(" · ".join(asked))


def _skipped(skipped: list[Skipped], language: Language, markup: Markup) -> str:
    if not skipped:
        return ""
    words = WORDS[language]
    named = ", ".join(
        f"{person(one.source, NAME, markup)}"
        f" ({person(say(one.because, language) or one.reason, NAME, markup)})"
        for one in skipped[:NAMED]
    )
    if len(skipped) > NAMED:
        named += " " + words["more"].format(len(skipped) - NAMED)
    return words["skipped"].format(len(skipped), named)


def _window(window: Evidence, markup: Markup) -> str:
    interval = f"{percent(window.low)} – {percent(window.high)}"
    votes = f"👎 {window.dislikes} / {window.total}"
    return f"{person(window.name, NAME, markup)}: {percent(window.ratio)} [{interval}] ({votes})"


def _line(wording: str, text: str, markup: Markup) -> str:
    shown = person(text, SENTENCE, markup)
    return wording.format(shown) if shown else ""
