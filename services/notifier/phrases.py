"""What messages are put together from: lines, names, times, ratios.

What is guaranteed: text that may come from a person stands on one line, bounded, and, in Slack's markup,
cannot mention anyone or forge a link.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal
from zoneinfo import ZoneInfo

from shared.requester import printable

__all__ = [
    "NAME",
    "SENTENCE",
    "Markup",
    "bounds",
    "escape",
    "link",
    "listed",
    "percent",
    "person",
    "time",
    "title",
]

Markup = Literal["slack", "plain"]

NAME, SENTENCE = 80, 300
"""Longest name and longest sentence of a person's, in characters before escaping."""


def listed(title: str, facts: Iterable[str]) -> str:
    """A title and a line for each fact; an empty fact has no line."""
    return "\n".join([title, *(f"- {fact}" for fact in facts if fact)])


def title(text: str, app: str) -> str:
    """A title; only where several apps share a channel must a message say whose it is."""
    return text if app == "default" else f"{text} ({app})"


def person(text: str, limit: int, markup: Markup) -> str:
    """Text that may come from a person: one line, bounded, escaped where the markup needs it."""
    flat = printable(text, limit)
    return escape(flat) if markup == "slack" else flat


def escape(text: str) -> str:
    """Slack's three control characters; `&` first, or it would escape the others' escapes."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def link(url: str, label: str, markup: Markup) -> str:
    """A link. `|` parts a Slack link's address from its label."""
    return f"<{escape(url.replace('|', '%7C'))}|{label}>" if markup == "slack" else f"{label}: {url}"


def time(moment: datetime, zone: ZoneInfo) -> str:
    """Minutes, in the zone; as it is where the zone does not have it."""
    try:
        local = moment.astimezone(zone)
    except OverflowError:  # some say "for ever" as the last minute of 9999, which Seoul does not have
        local = moment
    return f"{local:%Y-%m-%d %H:%M}"


def percent(ratio: float | None) -> str:
    """One decimal, half up, as people round: 1 of 16 is 6.3%, where `:.1%` says 6.2%."""
    if ratio is None or not 0 <= ratio <= 1:
        return "-"
    return f"{(Decimal(str(ratio)) * 100).quantize(Decimal('0.1'), ROUND_HALF_UP)}%"


def bounds(low: float, high: float, total: int) -> str:
    """An interval of a ratio, in whole percent, and the votes it rests on: `95% CI 32–45, n=212`."""
    ends = (Decimal(str(end * 100)).quantize(Decimal(1), ROUND_HALF_UP) for end in (low, high))
    return "95% CI {}–{}, n={}".format(*ends, total)
