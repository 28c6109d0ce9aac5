"""Events: the models of every type, their registry, and the CloudEvents envelope.

What is guaranteed: a type's fields only ever grow (a breaking change is a new type `….v2`), and
what this module writes it can read back byte for byte. What is not: order. Every consumer takes
its events in any order, and takes each at least once.

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
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

__all__ = [
    "REGISTRY",
    "Comparison",
    "EmbeddingRequested",
    "Envelope",
    "Event",
    "Evidence",
    "FeedbackEvaluate",
    "GenerationBuilt",
    "GenerationCounts",
    "GenerationRequested",
    "Instant",
    "InvalidMessage",
    "LoopFailed",
    "LoopPaused",
    "LoopResumed",
    "Message",
    "Outcome",
    "Report",
    "ReportReady",
    "RetrainCompleted",
    "RetrainRequested",
    "RollbackRequested",
    "Skipped",
    "Verdict",
    "decode",
    "derived",
    "encode",
    "event_id",
    "from_json",
    "to_json",
]

NAMESPACE = uuid.UUID("6f6d1c2e-3c57-5d0a-9a5b-0f5c8b1d7e42")
"""Root of every derived id (RFC 9562 version 5)."""

STRUCTURED = "application/cloudevents+json"
"""Content type of a CloudEvent in structured mode."""

_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""What CloudEvents forbids in an attribute, and PostgreSQL in a text."""


def _within_utc(moment: datetime) -> datetime:
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie between the years 1 and 9999 in UTC") from None
    return moment


Instant = Annotated[AwareDatetime, AfterValidator(_within_utc)]
"""A time with its offset, that a database can hold."""

App = Field("default", min_length=1, max_length=64, pattern=r"^[\w.-]+$")


class InvalidMessage(Exception):
    """The message is no event that this system knows; the text says why."""


class Model(BaseModel):
    # NaN and infinity are no JSON: written, they would turn into null.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Event(Model):
    """The data of one event. `type` is its CloudEvents type and its routing key."""

    type: ClassVar[str]

    def identity(self, cause: uuid.UUID, consumer: str) -> uuid.UUID:
        """The id of this event when `consumer` derives it from the event `cause`."""
        return derived(cause, consumer, self.type, self.instance())

    def instance(self) -> str:
        """Tells apart several events of one type that follow from one cause."""
        return ""


# --- the daily evaluation -------------------------------------------------------------------


class FeedbackEvaluate(Event):
    """Command: judge the votes of `app` as they were at `as_of`."""

    type = "feedback.evaluate"

    app: str = App
    as_of: Instant | None = None
    """Which votes count: those cast up to here. None until the run fixes it on first receipt."""
    window: str | None = Field(None, pattern=r"^(since_last|[1-9]\d{0,4}[mhd])$")
    """What the report counts: `since_last` or a duration (`24h`, `7d`); None: `REPORT_WINDOW`."""
    requested_by: str = Field("", max_length=200)
    scheduled: bool = False
    """A scheduler's run: the next scheduled report counts from here."""


Verdict = Literal["insufficient_data", "ok", "watch", "act", "paused"]


class Evidence(Model):
    """Votes in one window of time `(start, end]`, with the 95 % (or stated) Wilson interval."""

    name: str
    start: Instant
    end: Instant
    likes: int
    dislikes: int
    low: float
    high: float

    @property
    def total(self) -> int:
        return self.likes + self.dislikes

    @property
    def ratio(self) -> float:
        """Negative ratio, 0 where there are no votes (then `total` says so)."""
        return self.dislikes / self.total if self.total else 0.0


class Comparison(Model):
    """The report's counts in the window before."""

    likes: int
    dislikes: int
    ratio: float | None


class Report(Event):
    """What a report says; shared by the two events that end an evaluation."""

    app: str = App
    run: uuid.UUID
    as_of: Instant
    window_start: Instant
    window_end: Instant
    likes: int = Field(ge=0)
    dislikes: int = Field(ge=0)
    total: int = Field(ge=0)
    ratio: float | None
    """Negative ratio in the report window; None where nobody voted."""
    interval: tuple[float, float] | None
    """95 % Wilson interval of `ratio`."""
    verdict: Verdict
    reason: str
    """Code of the rule that decided (`services/analyzer/policy.py` lists them)."""
    explanation: str
    """The reason in an English sentence, with its figures."""
    policy: str
    threshold: float
    evidence: list[Evidence] = []
    """The windows that the decision looked at."""
    previous: Comparison | None = None
    complaint_groups: list[dict[str, Any]] = []
    generation: int | None = None
    """The generation whose answers were judged; None before the first."""
    requested_by: str = ""
    scheduled: bool = False


class ReportReady(Report):
    """The evaluation ended with nothing to do."""

    type = "report.ready"


class RetrainRequested(Report):
    """The evaluation ended with a retrain."""

    type = "retrain.requested"

    retrain: uuid.UUID
    base_generation: int | None = None


# --- building generations -------------------------------------------------------------------


class GenerationRequested(Event):
    """Command: build a generation of today's documents."""

    type = "generation.requested"

    app: str = App
    reason: Literal["documents", "manual"]
    requested_by: str = ""


class EmbeddingRequested(Event):
    """Command: embed one batch of a generation."""

    type = "embedding.requested"

    generation: int
    batch: int

    def instance(self) -> str:
        return f"{self.generation}/{self.batch}"


class GenerationBuilt(Event):
    """The last batch of a generation is embedded."""

    type = "generation.built"

    app: str = App
    generation: int
    chunks: int
    batches: int

    def identity(self, cause: uuid.UUID, consumer: str) -> uuid.UUID:
        # Whichever batch came last, a generation is built once.
        return derived(NAMESPACE, "generation", self.type, str(self.generation))


class Skipped(Model):
    """A document that could not be read."""

    source: str
    reason: str


class GenerationCounts(Model):
    """What a build did, in documents and chunks."""

    documents: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    chunks: int = 0
    embedded: int = 0
    """Chunks that had to be embedded."""
    reused: int = 0
    """Chunks whose vector was there already."""
    skipped: list[Skipped] = []


Outcome = Literal["promoted", "rejected", "unchanged", "superseded", "failed"]


class RetrainCompleted(Event):
    """How a build or a rollback ended."""

    type = "retrain.completed"

    app: str = App
    outcome: Outcome
    reason: Literal["feedback", "documents", "manual", "rollback"]
    detail: str = ""
    """Why, in a sentence."""
    retrain: uuid.UUID | None = None
    """The retrain that the analyzer asked for; None where feedback did not drive it."""
    run: uuid.UUID | None = None
    ratio: float | None = None
    """The negative ratio that led here."""
    requested_by: str = ""
    generation_before: int | None = None
    generation_after: int | None = None
    """The generation that is active now."""
    counts: GenerationCounts = GenerationCounts()
    gate: dict[str, Any] = {}
    """Every figure the gate looked at."""
    seconds: float | None = None

    def instance(self) -> str:
        return f"{self.app}/{self.outcome}"


class RollbackRequested(Event):
    """Command: make an earlier generation the active one again."""

    type = "rollback.requested"

    app: str = App
    to_generation: int | None = None
    """None: the one before the active one."""
    why: str = ""
    requested_by: str = ""


# --- the loop about itself ------------------------------------------------------------------


class LoopPaused(Event):
    """Retraining is paused."""

    type = "loop.paused"

    app: str = App
    why: str = ""
    requested_by: str = ""
    until: Instant | None = None


class LoopResumed(Event):
    """Retraining may go on; also closes the breaker."""

    type = "loop.resumed"

    app: str = App
    why: str = ""
    requested_by: str = ""


class LoopFailed(Event):
    """A consumer gave up on an event."""

    type = "loop.failed"

    failed_event: uuid.UUID
    failed_type: str
    consumer: str
    reason: str
    attempts: int
    dead_letter: str
    """Where the message lies now: the name of the queue."""

    def instance(self) -> str:
        return f"{self.consumer}/{self.failed_event}"


REGISTRY: Mapping[str, type[Event]] = {
    model.type: model
    for model in (
        FeedbackEvaluate,
        ReportReady,
        RetrainRequested,
        GenerationRequested,
        EmbeddingRequested,
        GenerationBuilt,
        RetrainCompleted,
        RollbackRequested,
        LoopPaused,
        LoopResumed,
        LoopFailed,
    )
}


# --- the envelope ---------------------------------------------------------------------------


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

    @property
    def type(self) -> str:
        return self.event.type

    @classmethod
    def root(cls, event: Event, source: str, id: uuid.UUID | None = None) -> Envelope:
        """A new event that follows from no other."""
        id = id or uuid.uuid4()
        return cls(id=id, event=event, source=source, correlation=id)

    def follow(self, event: Event, consumer: str) -> Envelope:
        """The envelope of an event that `consumer` derives from this one."""
        return Envelope(
            id=event.identity(self.id, consumer),
            event=event,
            source=f"/feedback-loop/{consumer}",
            correlation=self.correlation,
            cause=self.id,
            traceparent=self.traceparent,
        )

    def with_event(self, event: Event, id: uuid.UUID) -> Envelope:
        """This envelope, adopted by the run `id`."""
        return replace(self, event=event, id=id, correlation=id, anonymous=False)


def derived(cause: uuid.UUID, consumer: str, type: str, key: str = "") -> uuid.UUID:
    """uuid5 of (cause, consumer, type, key): the same inputs give the same event, always."""
    return uuid.uuid5(cause, f"{consumer}\0{type}\0{key}")


def event_id(source: str, text: str) -> uuid.UUID:
    """The UUID of a CloudEvents (source, id) pair: the id itself where it is a UUID."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return uuid.uuid5(NAMESPACE, f"{source}\0{text}")


def encode(envelope: Envelope) -> Message:
    """The message of an envelope: CloudEvents binary mode."""
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
    return Message(envelope.type, headers, envelope.event.model_dump_json().encode())


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
    for name, value in attributes.items():
        if _UNFIT.search(value):
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


def to_json(envelope: Envelope) -> dict[str, Any]:
    """The structured form (as the outbox stores it)."""
    message = encode(envelope)
    attributes = {name.removeprefix("ce-"): value for name, value in message.headers.items()}
    return {**attributes, "datacontenttype": "application/json", "data": json.loads(message.body)}


def from_json(stored: Mapping[str, Any]) -> Envelope:
    """Read what `to_json` wrote."""
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
        value = json.loads(body or b"{}", parse_constant=_refuse_constant)
        nul = _has_nul(value)
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
