"""What the team reads: the text of every message, in Korean and in English.

What is guaranteed: the report has the agreed lines and wording and nothing else; whatever people
wrote (names, reasons, documents) stands on one line, bounded, and cannot mention anyone or forge a
link in Slack, nor move the cursor of a terminal; no text reaches 10,000 characters. What is not:
translation of such text, or of the sentences (`detail`, `reason`) that services give along.

Pure: an event in, a text out. `markup` is `slack` (mrkdwn) or `plain` (a terminal).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal
from zoneinfo import ZoneInfo

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
)
from shared.requester import printable

__all__ = [
    "Language",
    "Markup",
    "aftermath",
    "failed",
    "outcome",
    "paused",
    "report",
    "resumed",
    "retrain_started",
    "start_notice",
]

Markup = Literal["slack", "plain"]

NAME, SENTENCE = 80, 300
"""Longest name and longest sentence of a person's, in characters before escaping."""

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
        words["ratio"].format(_percent(ratio)),
        words["status"].format(words[f"status.{event.verdict}"]),
        words["at"].format(_time(event.as_of, zone)),
    ]
    link = _link(dashboard_url, words["dashboard"], markup)
    return "\n".join([_message(_title("🧠 AI Feedback Loop Report", event.app), facts), link])


def start_notice(
    requested_by: str, at: datetime, zone: ZoneInfo, language: Language, markup: Markup = "slack"
) -> str:
    """The notice that a run has started: the owner's wording, the same in either language."""
    who = _person(requested_by, NAME, markup) or "unknown"
    return f"🕒 Feedback Loop started by {who} ({_time(at, zone)})"


def retrain_started(event: RetrainRequested, language: Language, markup: Markup = "slack") -> str:
    """Why a retrain starts: the report's figures, those of the decision's windows, the threshold, and
    the causes of dislikes, as far as they are known."""
    words = WORDS[language]
    figures = f"{_percent(event.ratio)} (👎 {event.dislikes} / {event.total})"
    return _message(
        _title(words["started"], event.app),
        [
            words["ratio"].format(figures),
            *(_window(window, markup) for window in event.evidence[:NAMED]),
            words["threshold"].format(f"{event.threshold * 100:g}%"),
            _causes(event, words),
            words["gaps"].format(_gaps(event, markup)) if event.coverage_gaps else "",
        ],
    )


def aftermath(event: Aftermath, app: str, language: Language, markup: Markup = "slack") -> str:
    """What a promotion led to: the ratios before and after it, and the votes they rest on."""
    words, sides = WORDS[language], {"before": event.before, "after": event.after}
    days = (event.after.end - event.after.start).days
    ratios = (_percent(side.ratio if side.total else None) for side in sides.values())
    return _message(
        _title(words[f"aftermath.{event.verdict}"].format(days, *ratios), app),
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
        facts.append(_learned(event, words))
    if event.seconds is not None:
        facts.append(words["seconds"].format(f"{event.seconds:.1f}"))
    facts += [
        words["cause"].format(_cause(event, words, markup)),
        _line(words["detail"], event.detail, markup),
        _skipped(counts.skipped, words, markup),
    ]
    return _message(_title(words[key], event.app), facts)


def failed(event: LoopFailed, language: Language, markup: Markup = "slack") -> str:
    """Which consumer gave up on which event, why, and where the event lies now."""
    words = WORDS[language]
    return _message(
        words["failed"],
        [
            _line(words["service"], event.consumer, markup),
            words["event"].format(_person(event.failed_type, NAME, markup), event.failed_event),
            words["attempts"].format(event.attempts),
            _line(words["why"], event.reason, markup),
            _line(words["dead_letter"], event.dead_letter, markup),
        ],
    )


def paused(event: LoopPaused, zone: ZoneInfo, language: Language, markup: Markup = "slack") -> str:
    """That retraining is paused: why, by whom, until when."""
    words = WORDS[language]
    until = words["until"].format(_time(event.until, zone)) if event.until else ""
    return _message(
        _title(words["paused"], event.app),
        [_line(words["why"], event.why, markup), _line(words["by"], event.requested_by, markup), until],
    )


def resumed(event: LoopResumed, language: Language, markup: Markup = "slack") -> str:
    """That retraining may go on: why, by whom."""
    words = WORDS[language]
    return _message(
        _title(words["resumed"], event.app),
        [_line(words["why"], event.why, markup), _line(words["by"], event.requested_by, markup)],
    )


def _message(title: str, facts: Iterable[str]) -> str:
    """A title and a line for each fact; an empty fact has no line."""
    return "\n".join([title, *(f"- {fact}" for fact in facts if fact)])


def _title(text: str, app: str) -> str:
    # Only where several apps share a channel must a message say whose it is.
    return text if app == "default" else f"{text} ({app})"


def _generations(event: RetrainCompleted, words: Mapping[str, str]) -> str:
    before, after = event.generation_before, event.generation_after
    if after is None:
        return ""
    if before is None or before == after:
        return words["active"].format(after)
    return words["moved"].format(before, after)


def _cause(event: RetrainCompleted, words: Mapping[str, str], markup: Markup) -> str:
    ratio = f" {_percent(event.ratio)}" if event.ratio is not None else ""
    who = _person(event.requested_by, NAME, markup)
    return words[f"cause.{event.reason}"] + ratio + (f" ({who})" if who else "")


def _learned(event: RetrainCompleted, words: Mapping[str, str]) -> str:
    """What votes changed in search, by how much; empty where nobody tried to learn."""
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


def _causes(event: Report, words: Mapping[str, str]) -> str:
    """Why answers were disliked; empty where nothing is known of it."""
    known = {f"causes.{cause}": number for cause, number in event.causes.items() if number}
    if not known.keys() - {"causes.unknown"}:
        return ""
    counts = (words[cause].format(known[cause]) for cause in words if cause in known)
    return words["causes"].format(" · ".join(counts))


def _gaps(event: Report, markup: Markup) -> str:
    return " · ".join(f"“{_person(question, NAME, markup)}”" for question in event.coverage_gaps[:NAMED])


def _skipped(skipped: list[Skipped], words: Mapping[str, str], markup: Markup) -> str:
    if not skipped:
        return ""
    named = ", ".join(
        f"{_person(one.source, NAME, markup)} ({_person(one.reason, NAME, markup)})"
        for one in skipped[:NAMED]
    )
    if len(skipped) > NAMED:
        named += " " + words["more"].format(len(skipped) - NAMED)
    return words["skipped"].format(len(skipped), named)


def _window(window: Evidence, markup: Markup) -> str:
    interval = f"{_percent(window.low)} – {_percent(window.high)}"
    votes = f"👎 {window.dislikes} / {window.total}"
    return f"{_person(window.name, NAME, markup)}: {_percent(window.ratio)} [{interval}] ({votes})"


def _line(wording: str, text: str, markup: Markup) -> str:
    shown = _person(text, SENTENCE, markup)
    return wording.format(shown) if shown else ""


def _person(text: str, limit: int, markup: Markup) -> str:
    """Text that may come from a person: one line, bounded, escaped where the markup needs it."""
    flat = printable(text, limit)
    return _escape(flat) if markup == "slack" else flat


def _escape(text: str) -> str:
    # Slack's three control characters; `&` first, or it would escape the others' escapes.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _link(url: str, label: str, markup: Markup) -> str:
    # `|` parts a Slack link's address from its label.
    return f"<{_escape(url.replace('|', '%7C'))}|{label}>" if markup == "slack" else f"{label}: {url}"


def _time(moment: datetime, zone: ZoneInfo) -> str:
    try:
        local = moment.astimezone(zone)
    except OverflowError:  # some say "for ever" as the last minute of 9999, which Seoul does not have
        local = moment
    return f"{local:%Y-%m-%d %H:%M}"


def _percent(ratio: float | None) -> str:
    """One decimal, half up, as people round: 1 of 16 is 6.3%, where `:.1%` says 6.2%."""
    if ratio is None or not 0 <= ratio <= 1:
        return "-"
    return f"{(Decimal(str(ratio)) * 100).quantize(Decimal('0.1'), ROUND_HALF_UP)}%"
