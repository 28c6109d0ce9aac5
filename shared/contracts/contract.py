"""What a service says of itself to whoever calls it: what its routes do, and which events it sends.

The tables stand beside the code that they describe, in each service's `operations.py`; `openapi.py` and
`asyncapi.py` make documents of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from shared.events import Event

__all__ = ["JSON", "Answer", "Contract", "Operation", "Operations", "Shape"]

JSON = "application/json"


class Shape(BaseModel):
    """A model that only documents need: pydantic builds it when it is first looked at, not at a start."""

    model_config = ConfigDict(defer_build=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back.

    Attributes:
        model: any type that pydantic knows; None: no body.
        media: content type of the body; not JSON: its text.
        headers: name → what it says.
    """

    description: str
    model: Any = None
    media: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route does.

    Attributes:
        answers: status → what is answered when it works.
        fails: statuses of refusals, besides those that follow from access and bodies.
        query, headers: models whose fields are the parameters; a header is its field's alias.
        path: name of a path's parameter → its type.
        bodies: content type → type; `str` for what is not JSON.
        needs_body: whether it may be left out.
    """

    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    fails: tuple[int, ...] = ()
    query: type[BaseModel] | None = None
    headers: type[BaseModel] | None = None
    path: Mapping[str, Any] = field(default_factory=dict)
    bodies: Mapping[str, Any] = field(default_factory=dict)
    needs_body: bool = True


Operations = Mapping[tuple[str, str], Operation]
"""By method and path."""


@dataclass(frozen=True, slots=True)
class Contract:
    """A service, as others see it.

    Attributes:
        about: what it is for, in a sentence.
        operations: what each of its routes does.
        sends: the types of the events it sends, `loop.failed` left out: whoever gives up sends that.
    """

    about: str
    operations: Operations = field(default_factory=dict)
    sends: Sequence[type[Event]] = ()
