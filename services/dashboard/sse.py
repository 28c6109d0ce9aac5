"""Server-sent events: how a message to an open page is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["RETRY", "Message", "parse_cursor", "tell", "text"]

RETRY = b"retry: 2000\n\n"
"""Milliseconds after which a browser connects again."""


class Message(NamedTuple):
    """One event. With `id`, the browser names that cursor when it connects again."""

    event: str
    data: Any
    id: int | None = None


def text(messages: Sequence[Message]) -> bytes:
    """The messages as they travel."""
    return "".join(_text(message) for message in messages).encode()


def _text(message: Message) -> str:
    id = f"id: {message.id}\n" if message.id is not None else ""
    # JSON has no raw line breaks, so the data is one line.
    data = json.dumps(message.data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {message.event}\n{id}data: {data}\n\n"


def tell(runs: list[Any], builds: list[Any], steps: list[Any], since: int, cursor: int) -> list[Message]:
    """What happened between two cursors: where runs stand now, builds, then the steps.

    Only the last step carries the new cursor: a page that is cut off before it asks for all of them
    again.
    """
    ids = [since] * (len(steps) - 1) + [cursor]
    return [
        *(Message("run", run) for run in runs),
        *([Message("progress", {"builds": builds})] if builds else []),
        *(Message("step", step, id) for step, id in zip(steps, ids, strict=False)),
    ]


def parse_cursor(given: str) -> int | None:
    """The cursor a page names; None where it is none of ours."""
    return int(given) if given.isascii() and given.isdigit() and len(given) < 19 else None
