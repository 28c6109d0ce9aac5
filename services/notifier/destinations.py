"""Where messages go: the port, and its simplest adapter, the terminal (`slack.py` has the others).

One call is at most one post: repeating is the poster's business.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TextIO
from uuid import UUID

from services.notifier.failures import Unclear
from services.notifier.phrases import Markup

__all__ = ["Destination", "Message", "Posted", "Terminal"]


@dataclass(frozen=True, slots=True)
class Posted:
    """Where a message is: Slack's ids of the channel and of the message in it, where they are known.
    `earlier`: it was recorded before this try."""

    channel: str | None = None
    ts: str | None = None
    earlier: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A text, whose it is (`key`, `event_id`), the message it answers in a thread, and the blocks that are
    shown in its stead where they can be (the text then is what notifications show)."""

    key: str
    event_id: UUID
    text: str
    thread: Posted | None = None
    blocks: Sequence[Mapping[str, Any]] = ()


class Destination(Protocol):
    """Attributes:
    name: the kind and which one, for people.
    markup: what the text is written in.
    threads: whether a message can answer another.
    pictures: whether a thread can hold pictures.
    """

    @property
    def name(self) -> str: ...
    @property
    def markup(self) -> Markup: ...
    @property
    def threads(self) -> bool: ...
    @property
    def pictures(self) -> bool: ...

    async def send(self, message: Message) -> Posted:
        """Post, once.

        Raises:
            NotPosted: it is not posted; or, where `maybe` says so, that is not known.
        """
        ...

    async def share(self, png: bytes, title: str, thread: Posted) -> None:
        """Put a picture into a thread, once.

        Raises:
            NotPosted: as `send`.
        """
        ...

    async def find(self, message: Message, since: datetime, channel: str | None) -> Posted | None:
        """Look for a message of this key, posted at `since` or later; None also where looking is not
        possible.

        Raises:
            NotPosted: there was no answer.
        """
        ...

    async def probe(self) -> None:
        """Harmless; raises while nothing can be posted."""
        ...

    async def close(self) -> None: ...


class Terminal:
    """Standard output (logs go to standard error)."""

    markup: Markup = "plain"
    threads = False
    pictures = False
    name = "terminal"

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    async def send(self, message: Message) -> Posted:
        stream = self._stream or sys.stdout
        encoding = stream.encoding or "utf-8"
        text = message.text.encode(encoding, "backslashreplace").decode(encoding)
        try:
            stream.write(f"{text}\n\n")
            stream.flush()
        except (OSError, ValueError) as error:
            raise Unclear(f"standard output: {type(error).__name__}") from None
        return Posted()

    async def share(self, png: bytes, title: str, thread: Posted) -> None:
        raise NotImplementedError("a terminal shows no pictures")

    async def find(self, message: Message, since: datetime, channel: str | None) -> Posted | None:
        return None

    async def probe(self) -> None:
        pass

    async def close(self) -> None:
        pass
