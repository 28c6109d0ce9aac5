"""Where the process is in a trace: the W3C trace context of what is being done now.

An HTTP request, or an event, opens a *place*; whatever event is written there descends from it, and so does
a call to another host. That holds without tracing too: a `traceparent` that comes in goes out with every
event that follows. With a tracer (`otel.py`) each place is a span as well.

Pure bookkeeping in a context variable. Tasks that serve many start in an empty context, though one request or
event was the first to need them. Not carried: `tracestate`.

Source: W3C Trace Context, https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["OFF", "Attributes", "Kind", "Place", "Span", "Tracer", "here", "span", "well_formed"]

Kind = Literal["server", "consumer", "producer", "client"]
Attributes = Mapping[str, str | int]

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class Span(Protocol):
    """A step of a trace."""

    @property
    def traceparent(self) -> str | None: ...
    def note(self, attributes: Attributes) -> None: ...
    def fail(self, kind: str) -> None:
        """It did not succeed; `kind` is a word of few, such as a class of exceptions or a status."""
        ...


class Tracer(Protocol):
    """Makes spans and sends them somewhere."""

    def span(
        self, kind: Kind, name: str, parent: str | None, attributes: Attributes
    ) -> AbstractContextManager[Span]:
        """A span that ends with the block; what the block raises fails it. `parent`: a traceparent."""
        ...

    async def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """What is being done.

    Attributes:
        traceparent: what follows from it names this one as its parent.
        run: the correlation id of the event that is being handled.
        event: that event's own id.
    """

    traceparent: str | None = None
    tracer: Tracer | None = None
    run: str | None = None
    event: str | None = None


class _Nothing:
    traceparent = None

    def note(self, attributes: Attributes) -> None:
        pass

    def fail(self, kind: str) -> None:
        pass


OFF: Span = _Nothing()
"""The span where nothing is traced."""
_NOWHERE = Place()
_place: ContextVar[Place] = ContextVar("feedback_loop_place", default=_NOWHERE)


def here() -> Place:
    return _place.get()


def well_formed(traceparent: str | None) -> str | None:
    """The traceparent, if it is one."""
    return traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None


class _At(AbstractContextManager[Span]):
    """Where the process is, for the time of the block. A class: every event and request has one."""

    __slots__ = ("_place", "_span", "_token")

    def __init__(self, place: Place, span: Span) -> None:
        self._place = place
        self._span = span

    def __enter__(self) -> Span:
        self._token = _place.set(self._place)
        return self._span

    def __exit__(self, *_: object) -> None:
        _place.reset(self._token)


def span(
    tracer: Tracer | None,
    kind: Kind,
    name: str,
    parent: str | None,
    attributes: Attributes,
    run: str | None = None,
    event: str | None = None,
) -> AbstractContextManager[Span]:
    """A place for the time of the block, and a span where there is a tracer."""
    parent = well_formed(parent)
    if tracer is None:
        return _At(Place(parent, None, run, event), OFF)
    return _traced(tracer, tracer.span(kind, name, parent, attributes), run, event)


@contextmanager
def _traced(
    tracer: Tracer, begun: AbstractContextManager[Span], run: str | None, event: str | None
) -> Iterator[Span]:
    with begun as made, _At(Place(made.traceparent, tracer, run, event), made):
        yield made
