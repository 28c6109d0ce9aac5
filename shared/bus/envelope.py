"""The envelope: an event with its CloudEvents attributes, and how it travels.

What is guaranteed: what this module writes it can read back byte for byte.

The wire form is CloudEvents 1.0 in binary mode (RabbitMQ binding): the body is the JSON data, the
attributes are `ce-…` headers. Structured mode is read too, and so is a bare JSON body from a
foreign publisher: its envelope is filled in from the routing key (adapters hand over an AMQP
`message_id` as `ce-id` where there is none, and the content type as `content-type`).
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pydantic_core
from pydantic import ValidationError

from shared.events import NAMESPACE, REGISTRY, Event, FeedbackEvaluate
from shared.telemetry.tracing import here

__all__ = [
    "STRUCTURED",
    "Envelope",
    "InvalidMessage",
    "Message",
    "decode",
    "encode",
    "event_id",
    "from_json",
    "to_json",
]

STRUCTURED = "application/cloudevents+json"
"""Content type of a CloudEvent in structured mode."""

_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""What CloudEvents forbids in an attribute, and PostgreSQL in a text."""


# Made once: for anything but its own defaults `json` makes one for each call.
# Sorted, as PostgreSQL keeps no order of keys: an event read from the outbox is the same bytes again.
_DATA = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)


class InvalidMessage(Exception):
    """The message is no event that this system knows; the text says why."""


@dataclass(frozen=True, slots=True)
class Message:
    """What travels on a bus: headers (text), a JSON body, a routing key."""

    routing_key: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event with its CloudEvents attributes.

    Attributes:
        id: the event's id; a CloudEvents id that is no UUID is folded into one with its source.
        correlation: the run (or other root event) that this event descends from.
        cause: the event this one follows from; None for a root.
        traceparent: what it descends from in a trace: the step that wrote it, or, on the wire, that sent it.
        anonymous: the sender gave no id; `id` is a placeholder until the event's run is known.
    """

    id: uuid.UUID
    event: Event
    source: str
    correlation: uuid.UUID
    cause: uuid.UUID | None = None
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    traceparent: str | None = None
    anonymous: bool = False
    _encoded: Message | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def type(self) -> str:
        return self.event.type

    @classmethod
    def root(cls, event: Event, source: str, id: uuid.UUID | None = None) -> Envelope:
        """A new event that follows from no other."""
        id = id or uuid.uuid4()
        return cls(id=id, event=event, source=source, correlation=id, traceparent=here().traceparent)

    def follow(self, event: Event, consumer: str) -> Envelope:
        """The envelope of an event that `consumer` derives from this one."""
        return Envelope(
            id=event.identity(self.id, consumer),
            event=event,
            source=f"/feedback-loop/{consumer}",
            correlation=self.correlation,
            cause=self.id,
            traceparent=here().traceparent or self.traceparent,
        )

    def with_event(self, event: Event, id: uuid.UUID) -> Envelope:
        """This envelope, adopted by the run `id`."""
        return replace(self, event=event, id=id, correlation=id, anonymous=False)


def event_id(source: str, text: str) -> uuid.UUID:
    """The UUID of a CloudEvents (source, id) pair: the id itself where it is a UUID."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return uuid.uuid5(NAMESPACE, f"{source}\0{text}")


def encode(envelope: Envelope) -> Message:
    """The message of an envelope: CloudEvents binary mode."""
    if envelope._encoded is None:
        object.__setattr__(envelope, "_encoded", _encode(envelope))  # it is written, then published
        assert envelope._encoded is not None
    return envelope._encoded


def _encode(envelope: Envelope) -> Message:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": str(envelope.id),
        "ce-type": envelope.type,
        "ce-source": envelope.source,
        "ce-time": _instant(envelope.time),
        "ce-correlationid": str(envelope.correlation),
    }
    if envelope.cause:
        headers["ce-causationid"] = str(envelope.cause)
    if envelope.traceparent:
        headers["traceparent"] = envelope.traceparent
    return Message(envelope.type, headers, _DATA.encode(envelope.event.model_dump(mode="json")).encode())


def decode(message: Message) -> Envelope:
    """Read a message in binary or structured mode, or a foreign publisher's bare JSON body.

    Raises:
        InvalidMessage: no JSON, no such type, or data that does not fit the type.
    """
    headers = {name.lower(): value for name, value in message.headers.items()}
    if headers.get("content-type", "").lower().startswith(STRUCTURED):
        attributes, data = _structured(message.body)
    else:
        attributes, data = _binary(headers), _json(message.body)
    if _UNFIT.search("".join(attributes.values())):
        name = next(name for name, value in attributes.items() if _UNFIT.search(value))
        raise InvalidMessage(f"the attribute {name[:80]!r} holds control characters")
    kind = attributes.get("type") or message.routing_key
    model = REGISTRY.get(kind)
    if model is None:
        raise InvalidMessage(f"unknown event type {kind[:80]!r}")
    try:
        event = model.model_validate(data)
        event.model_dump_json()  # what is taken in can be written again
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "data"
        raise InvalidMessage(f"{kind}: {where}: {first['msg']}") from None
    except ValueError as error:
        raise InvalidMessage(f"{kind}: data: {error}") from None
    source = attributes.get("source") or "/foreign"
    given = attributes.get("id")
    if not given and model is not FeedbackEvaluate:
        raise InvalidMessage(f"{kind}: has neither ce-id nor message_id")
    id = event_id(source, given) if given else uuid.uuid4()
    return Envelope(
        id=id,
        event=event,
        source=source,
        correlation=_uuid(attributes.get("correlationid")) or id,
        cause=_uuid(attributes.get("causationid")),
        time=_moment(attributes.get("time")),
        traceparent=attributes.get("traceparent"),
        anonymous=not given,
    )


def to_json(envelope: Envelope) -> str:
    """The structured form as text (as the outbox stores it)."""
    message = encode(envelope)
    attributes = {name.removeprefix("ce-"): value for name, value in message.headers.items()}
    head = pydantic_core.to_json({**attributes, "datacontenttype": "application/json"})  # all of them text
    return (head[:-1] + b',"data":' + message.body + b"}").decode()


def from_json(stored: Mapping[str, Any]) -> Envelope:
    """Read what `to_json` wrote, as PostgreSQL gives it back."""
    return decode(Message("", {"content-type": STRUCTURED}, json.dumps(stored).encode()))


def _binary(headers: Mapping[str, str]) -> dict[str, str]:
    attributes = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
    if "traceparent" in headers:
        attributes["traceparent"] = headers["traceparent"]
    return attributes


def _structured(body: bytes) -> tuple[dict[str, str], Any]:
    whole = _json(body)
    if not isinstance(whole, dict):
        raise InvalidMessage("a structured CloudEvent is a JSON object")
    attributes = {name: str(value) for name, value in whole.items() if name != "data" and value is not None}
    for required in ("id", "source", "type", "specversion"):
        if not attributes.get(required):
            raise InvalidMessage(f"a CloudEvent needs the attribute {required!r}")
    if "data_base64" in whole:
        try:
            return attributes, _json(base64.b64decode(whole["data_base64"], validate=True))
        except (TypeError, ValueError) as error:
            raise InvalidMessage(f"data_base64: {error}") from None
    return attributes, whole.get("data", {})


def _json(body: bytes) -> Any:
    try:
        try:
            value = pydantic_core.from_json(body or b"{}", allow_inf_nan=False, cache_strings="keys")
        except ValueError:  # the quicker reader refuses some of what is JSON, and says less of why
            value = json.loads(body, parse_constant=_refuse_constant)
        nul = (b"\\u0000" in body or b"\0" in body) and _has_nul(value)  # a zero: in UTF-16 or UTF-32
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(f"the body is not JSON: {error}") from None
    if nul:
        raise InvalidMessage("the body holds U+0000, which no database stores")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_nul(name) or _has_nul(entry) for name, entry in value.items())
    if isinstance(value, list):
        return any(_has_nul(entry) for entry in value)
    return isinstance(value, str) and "\0" in value


def _uuid(text: str | None) -> uuid.UUID | None:
    try:
        return uuid.UUID(text) if text else None
    except ValueError:
        return None


def _moment(text: str | None) -> datetime:
    if not text:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidMessage(f"time: {error}") from None


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
