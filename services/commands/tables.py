"""How the commands show what they read: tables of 80 columns, or JSON.

What is guaranteed: whatever people wrote comes out as plain text of one line, without control
characters, direction overrides or markup, and no line is wider than the terminal (80 columns where
there is none). JSON keeps every character and escapes those that a terminal would obey. What is not:
that a terminal draws every script as wide as its fonts should.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.commands.overview import Row
from shared.policy import percent
from shared.requester import printable

__all__ = ["WIDTH", "console", "plain", "print_json", "show_runs", "show_status", "show_votes"]

WIDTH = 80
"""Columns where the output is no terminal."""

LONGEST = 300
"""Characters of one text."""

# Parts of a joined emoji, its skin tone and its variant are drawn in as many ways as there are
# terminals; without them, every emoji is two columns wide.
_JOINED = re.compile("[\u200c\u200d\ufe00-\ufe0f\U0001f3fb-\U0001f3ff\U000e0000-\U000e007f]")


def plain(text: str, limit: int = LONGEST) -> Text:
    """A text that people wrote, on one line; what is longer than `limit` characters ends in `…`."""
    # Composed: a terminal may count the letters of a decomposed Hangul syllable one by one.
    return Text(printable(_JOINED.sub("", unicodedata.normalize("NFC", text[: 4 * limit])), limit))


def print_json(value: object) -> None:
    """One line of JSON: times in ISO 8601, ids as text."""
    text = json.dumps(value, ensure_ascii=False, default=_json)
    click.echo("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text))


def show_status(found: Row, zone: ZoneInfo) -> None:
    screen = console()
    if not found["apps"]:
        screen.print("There are no votes and no runs yet.")
    for app in found["apps"]:
        screen.print(plain(app["app"], 64), style="bold cyan")
        screen.print(_facts(_app_facts(app, zone)))
        screen.print()
    screen.print(_facts([("events", _events(found["events"], zone))]))


def show_runs(found: Sequence[Row], zone: ZoneInfo) -> None:
    screen = console()
    if not found:
        screen.print("There are no such runs.")
        return
    apps = len({run["app"] for run in found}) > 1
    table = _table()
    for name in ("started", "state", "verdict"):
        table.add_column(name, no_wrap=True)
    for name in ("👍", "👎", "ratio"):
        table.add_column(name, no_wrap=True, justify="right")
    for name in ("app", "by") if apps else ("by",):
        table.add_column(name, overflow="ellipsis")  # what gives way where there is no room
    for run in found:
        decided = run["verdict"] is not None
        table.add_row(
            _time(run["started_at"], zone),
            run["state"],
            _verdict(run),
            str(run["likes"]) if decided else "",
            str(run["dislikes"]) if decided else "",
            percent(run["ratio"]) if run["ratio"] is not None else "",
            *([plain(run["app"], 64)] if apps else []),
            plain(run["requested_by"], 64),
        )
    screen.print(table)


def show_votes(found: Sequence[Row], zone: ZoneInfo) -> None:
    screen = console()
    if not found:
        screen.print("There are no such votes.")
        return
    table = _table(expand=True)
    for name, width in (("cast", 16), ("", 2), ("reason, cause", 16)):
        table.add_column(name, width=width, overflow="fold")
    table.add_column("question, and what the user says", ratio=1, overflow="fold")
    apps = len({vote["app"] for vote in found}) > 1
    for vote in found:
        lines = [plain(vote["question"], 160) if vote["question"] else Text("(not recorded)", "dim")]
        if vote["comment"]:
            lines.append(Text("→ ").append_text(plain(vote["comment"])))
        if apps:
            lines[0] = Text(f"{plain(vote['app'], 20)}: ", "cyan").append_text(lines[0])
        table.add_row(
            _time(vote["at"], zone),
            "👍" if vote["rated"] == "up" else "👎",
            Text("\n").join(plain(said, 64) for said in (vote["reason"], vote["cause"]) if said),
            Text("\n").join(lines),
        )
    screen.print(table)


# --- the parts of a status ------------------------------------------------------------------


def _app_facts(app: Row, zone: ZoneInfo) -> list[tuple[str, Text]]:
    facts = []
    if alert := app["alert"]:
        facts.append(("alert", Text(f"{alert['state']} since {_time(alert['since'], zone)}")))
    facts += [
        ("last run", _last_run(app["last_run"], zone)),
        *([("verdict", _judged(app["last_verdict"], zone))] if app["last_verdict"] else []),
        (f"{app['votes']['days']} days", _votes(app["votes"])),
        ("generation", _generation(app["generation"], zone)),
    ]
    facts += [("building", _build(build, zone)) for build in app["builds"]]
    if app["retraining"] and not app["builds"]:
        facts.append(("building", Text("a retrain is under way")))
    if app["cooling_until"]:
        facts.append(("resting", Text(f"no retrain before {_time(app['cooling_until'], zone)} (cool-down)")))
    if app["paused"] is not None:
        why = Text(": ").append_text(plain(app["paused"])) if app["paused"] else Text()
        facts.append(("paused", Text("by a person").append_text(why)))
    return facts


def _last_run(run: Row | None, zone: ZoneInfo) -> Text:
    if run is None:
        return Text("none yet", "dim")
    said = Text(f"{_time(run['started_at'], zone)}, {run['state']}, by ")
    return said.append_text(plain(run["requested_by"] or "unknown", 64))


def _judged(run: Row, zone: ZoneInfo) -> Text:
    said = Text(f"{_verdict(run)} ({_time(run['decided_at'], zone)})\n")
    return said.append_text(plain(run["explanation"], 600))


def _votes(votes: Row) -> Text:
    if votes["ratio"] is None:
        return Text("no votes", "dim")
    return Text(
        f"👍 {votes['likes']}  👎 {votes['dislikes']}  negative {percent(votes['ratio'])}"
        f" (95 % interval {percent(votes['low'])} to {percent(votes['high'])})"
    )


def _generation(generation: Row | None, zone: ZoneInfo) -> Text:
    if generation is None:
        return Text("none yet: `feedback-loop ingest PATH` builds one", "dim")
    return Text(f"{generation['id']}, active since {_time(generation['promoted_at'], zone)}")


def _build(build: Row, zone: ZoneInfo) -> Text:
    done = f"{build['done']} of {build['batches']} batches since {_time(build['created_at'], zone)}"
    return Text(f"generation {build['generation']} ({build['reason']}), {done}")


def _events(events: Row, zone: ZoneInfo) -> Text:
    said = f"{events['open']} open"
    if events["oldest"]:
        said += f" (the oldest since {_time(events['oldest'], zone)})"
    dead = f", {events['dead']} given up"
    return Text(said).append(dead, "bold red" if events["dead"] else "")


def _verdict(run: Row) -> str:
    verdict = str(run["verdict"] or "").replace("insufficient_data", "too few votes")
    return f"{verdict} → {run['retrain_outcome']}" if run["retrain_outcome"] else verdict


# --- tables ---------------------------------------------------------------------------------


def console() -> Console:
    """Standard output, 80 columns wide where it is no terminal; markup is text like any other."""
    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False, emoji=False)


def _table(expand: bool = False) -> Table:
    return Table(box=None, expand=expand, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")


def _facts(facts: Sequence[tuple[str, Text]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(width=12, style="bold")
    table.add_column(ratio=1, overflow="fold")
    for name, text in facts:
        table.add_row(f"  {name}", text)
    return table


def _time(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M}"


def _json(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(type(value).__name__)
