"""What stands beside a report's text in Slack: Block Kit (https://docs.slack.dev/reference/block-kit/).

What is guaranteed: whatever users wrote stands in plain text (`rich_text` and `plain_text` know no
markup, so nothing in it can mention, link or format), on one line, bounded; every message stays under
half of Slack's limits, whatever the report holds. What is not: that Slack takes it; `slack.py` posts the
text alone where it does not.

Pure: an event in, blocks out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from zoneinfo import ZoneInfo

from services.notifier import messages
from services.notifier.phrases import NAME, bounds, percent, time
from services.notifier.wording import WORDS, Language
from shared.events import AlertState, ComplaintGroup, Report
from shared.policy import wilson
from shared.requester import printable

__all__ = [
    "ACTIONS",
    "Action",
    "Block",
    "Done",
    "context",
    "length",
    "linked",
    "report",
    "report_url",
    "section",
]

Block = dict[str, Any]
Action = Literal["reembed", "rollback", "pause", "resume"]
ACTIONS: Sequence[Action] = get_args(Action)

TOP, LABEL, QUOTE, URL = 3, 100, 200, 3000
"""Groups that are shown; characters of a label, of a quote and of a button's address."""


@dataclass(frozen=True, slots=True)
class Done:
    """What somebody asked for by a button of a report."""

    action: Action
    user: str
    at: datetime


def report(
    event: Report,
    zone: ZoneInfo,
    language: Language,
    dashboard_url: str,
    *,
    quotes: bool = True,
    buttons: bool = False,
    done: Sequence[Done] = (),
) -> list[Block]:
    """A report's blocks: its text, then what explains it, then where to go on.

    Args:
        quotes: whether what users wrote may be told.
        buttons: whether those that change the loop are shown.
        done: what they were used for; such a button is not shown again.
    """
    words = WORDS[language]
    facts = [_state(event, zone, language), _fact(event, language), _comparison(event, language)]
    facts += [messages.causes(event, language)]
    if event.coverage_gaps:
        facts.append(words["gaps.count"].format(len(event.coverage_gaps)))
    generation = words["context.none"]
    if event.generation is not None:
        generation = words["context.generation"].format(event.generation)
    blocks = [section(messages.report(event, zone, language, dashboard_url))]
    blocks += [_lines([fact for fact in facts if fact])]
    blocks += _groups(event.complaint_groups, language, quotes)
    blocks += [context(words["context"].format(time(event.as_of, zone), generation, event.policy))]
    blocks += linked(_links(event, zone, language, dashboard_url))
    if buttons:
        blocks += _buttons(event, language, {one.action for one in done})
    for one in done:
        who = printable(one.user, NAME)
        blocks.append(context(words["done"].format(words[f"do.{one.action}"], who, time(one.at, zone))))
    return blocks


def section(mrkdwn: str) -> Block:
    """Text in Slack's markup: what people wrote is escaped already."""
    return {"type": "section", "text": {"type": "mrkdwn", "text": mrkdwn, "verbatim": True}}


def context(text: str) -> Block:
    """A small line of plain text."""
    return {"type": "context", "elements": [_plain(text)]}


def linked(links: Sequence[tuple[str, str, str]]) -> list[Block]:
    """Buttons that open pages: (name, label, address); one whose address Slack would refuse is left out."""
    shown = [
        {"type": "button", "action_id": f"open_{name}", "text": _plain(label), "url": url}
        for name, label, url in links
        if url.startswith(("https://", "http://")) and len(url) <= URL
    ]
    return [{"type": "actions", "block_id": "open", "elements": shown}] if shown else []


def filtered(url: str, **filter: str) -> str:
    """The dashboard's address with a filter; what its query says already stays."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True)) | filter
    return urlunsplit(parts._replace(path=parts.path or "/", query=urlencode(query)))


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text, "emoji": True}


def _lines(lines: Sequence[str]) -> Block:
    """Lines of plain text, the first one bold."""
    head, *rest = lines
    elements = [{"type": "text", "text": head, "style": {"bold": True}}]
    elements += [{"type": "text", "text": f"\n{line}"} for line in rest]
    return {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": elements}]}


def _state(event: Report, zone: ZoneInfo, language: Language) -> str:
    alert, words = event.alert, WORDS[language]
    if alert is None:
        return words["status"].format(words[f"status.{event.verdict}"])
    name: dict[AlertState, str] = {state: words[f"alert.{state}"] for state in get_args(AlertState)}
    before = name[alert.before or "UNKNOWN"]
    if alert.recovered:
        return words["alert.recovered"].format(before, name[alert.state])
    if alert.changed and alert.before is not None:
        return words["alert.changed"].format(before, name[alert.state])
    since = words["alert.since"].format(name[alert.state], time(alert.since, zone))
    return words["alert"].format(since)


def _fact(event: Report, language: Language) -> str:
    """The one line that says it all: ratio, interval, votes, threshold, window."""
    words, limit = WORDS[language], f"{event.threshold * 100:g}%"
    window = length(event.window_end - event.window_start)
    if not event.total:
        return words["fact.none"].format(limit, window)
    ratio = event.dislikes / event.total
    low, high = event.interval or wilson(event.dislikes, event.total)
    sign = "≥" if ratio >= event.threshold else "<"
    return words["fact"].format(percent(ratio), bounds(low, high, event.total), sign, limit, window)


def length(span: timedelta) -> str:
    """A window's length: `7d`, `6h`."""
    hours = round(span.total_seconds() / 3600)
    return f"{round(hours / 24)}d" if _whole_days(hours) else f"{hours}h"


def report_url(event: Report, zone: ZoneInfo, dashboard_url: str) -> str:
    """The dashboard's address with the votes that a report counts."""
    first, last = (time(moment, zone)[:10] for moment in (event.window_start, event.window_end))
    return filtered(dashboard_url, **{"from": first, "to": last, "app": event.app})


def _comparison(event: Report, language: Language) -> str:
    """Against the window before, which is as long."""
    before, words = event.previous, WORDS[language]
    if before is None:
        return ""
    hours = round((event.window_end - event.window_start).total_seconds() / 3600)
    days = round(hours / 24)
    name = words["against.hours"].format(hours)
    if _whole_days(hours):
        name = words.get(f"against.days.{days}") or words["against.days"].format(days)
    total = before.likes + before.dislikes
    if not total or not event.total:
        return words["against.none"].format(name) if not total else ""
    was, now = before.dislikes / total, event.dislikes / event.total
    points = words["points"].format(f"{(now - was) * 100:+.1f}".replace("-", "−"))
    return words["against"].format(name, percent(was), percent(now), points, total, event.total)


def _whole_days(hours: int) -> bool:
    """Whether a window is one of days: schedulers are some minutes early or late."""
    return hours >= 22 and min(hours % 24, -hours % 24) <= 2


def _groups(groups: Sequence[ComplaintGroup], language: Language, quotes: bool) -> list[Block]:
    """The largest complaint groups with a quote each."""
    words, top = WORDS[language], groups[:TOP]
    if not groups:
        return []
    if not quotes:
        return [_lines([words["groups.hidden"].format(len(groups), sum(group.votes for group in groups))])]
    elements: list[Block] = [_rich("rich_text_section", (words["groups"].format(len(top)), True))]
    for number, group in enumerate(top, 1):
        label = printable(group.label, LABEL) or "-"
        counts = words["group"].format(group.votes, group.users)
        elements.append(_rich("rich_text_section", (f"{number}. ", False), (label, True), (counts, False)))
        quote = printable(group.quote, QUOTE)
        if quote:
            elements.append(_rich("rich_text_quote", (quote, False)))
    return [{"type": "rich_text", "elements": elements}]


def _rich(kind: str, *parts: tuple[str, bool]) -> Block:
    """Text that is what it is, in bold or not."""
    texts = [
        {"type": "text", "text": text, **({"style": {"bold": True}} if bold else {})} for text, bold in parts
    ]
    return {"type": kind, "elements": texts}


def _links(
    event: Report, zone: ZoneInfo, language: Language, dashboard_url: str
) -> list[tuple[str, str, str]]:
    words = WORDS[language]
    window = report_url(event, zone, dashboard_url)
    return [
        ("report", words["open.report"], window),
        ("votes", words["open.votes"], filtered(window, rated="down")),
    ]


def _buttons(event: Report, language: Language, done: set[Action]) -> list[Block]:
    """What changes the loop. A button's value is the run, and so the app, whose report it stands under."""
    words = WORDS[language]
    last: Action = "resume" if event.verdict == "paused" else "pause"
    shown = [
        {
            "type": "button",
            "action_id": f"do_{action}",
            "text": _plain(words[f"do.{action}"]),
            "value": str(event.run),
            **({"style": "danger"} if action == "rollback" else {}),
            "confirm": {
                "title": _plain(words[f"do.{action}"]),
                "text": _plain(f"{words[f'sure.{action}']} {words['sure']}"),
                "confirm": _plain(words["sure.yes"]),
                "deny": _plain(words["sure.no"]),
            },
        }
        for action in ("reembed", "rollback", last)
        if action not in done
    ]
    return [{"type": "actions", "block_id": "do", "elements": shown}] if shown else []
