"""Events: the models of every type, and their registry.

What is guaranteed: a type's fields only ever grow (a breaking change is a new type `….v2`). What is
not: order. Every consumer takes its events in any order, and takes each at least once.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

__all__ = [
    "REGISTRY",
    "Aftermath",
    "Alert",
    "AlertState",
    "Because",
    "Comparison",
    "ComplaintGroup",
    "EmbeddingRequested",
    "Event",
    "Evidence",
    "FeedbackEvaluate",
    "GenerationBuilt",
    "GenerationCounts",
    "GenerationRequested",
    "Instant",
    "LoopFailed",
    "LoopPaused",
    "LoopResumed",
    "Outcome",
    "Report",
    "ReportReady",
    "RetrainCompleted",
    "RetrainRequested",
    "RollbackRequested",
    "Skipped",
    "Verdict",
    "WebhookDisabled",
    "WebhookTest",
    "derived",
]

NAMESPACE = uuid.UUID("6f6d1c2e-3c57-5d0a-9a5b-0f5c8b1d7e42")
"""Root of every derived id (RFC 9562 version 5)."""


def derived(cause: uuid.UUID, consumer: str, type: str, key: str = "") -> uuid.UUID:
    """uuid5 of (cause, consumer, type, key): the same inputs give the same event, always."""
    return uuid.uuid5(cause, f"{consumer}\0{type}\0{key}")


def _within_utc(moment: datetime) -> datetime:
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie between the years 1 and 9999 in UTC") from None
    return moment


Instant = Annotated[AwareDatetime, AfterValidator(_within_utc)]
"""A time with its offset, that a database can hold."""

Generation = Annotated[int, Field(ge=0, lt=2**63)]
"""The id of a generation, as its column holds it: what fails could not be given up by any other number."""

App = Field("default", min_length=1, max_length=64, pattern=r"^[\w.-]+$")


class Model(BaseModel):
    # NaN and infinity are no JSON: written, they would turn into null.
    # Its validator is made when it is first needed: making all of them takes a tenth of a cold start.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, defer_build=True)


class Event(Model):
    """The data of one event. `type` is its CloudEvents type and its routing key."""

    type: ClassVar[str]

    def identity(self, cause: uuid.UUID, consumer: str) -> uuid.UUID:
        """The id of this event when `consumer` derives it from the event `cause`."""
        return derived(cause, consumer, self.type, self.instance())

    def instance(self) -> str:
        """Tells apart several events of one type that follow from one cause."""
        return ""


class Because(Model):
    """A reason for people of any language: `shared/reasons.py` has the words for its code."""

    code: str
    figures: dict[str, str | int | float] = {}


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


class Aftermath(Model):
    """What a promotion led to: the votes of the generation before it and of its own."""

    generation: int
    """The one that was promoted, and is active or inherited from."""
    previous: int
    """The one that it was built on."""
    before: Evidence
    after: Evidence
    """Their intervals are of 95 %; `start` is the promotion."""
    verdict: Literal["better", "worse", "same", "unknown"]
    """`same`: no difference beyond doubt; `worse`: it is rolled back; `unknown`: too few votes."""
    sentence: str
    """The verdict in English, with its figures."""


class ComplaintGroup(Model):
    """Dislikes that say the same: three votes of two users, at least."""

    label: str
    """Words of the comments themselves."""
    votes: int
    quote: str
    """One comment, word for word, at most 200 characters."""
    id: str = ""
    """Stays the same from day to day."""
    users: int = 0


AlertState = Literal["UNKNOWN", "OK", "WATCH", "ALERT", "NO_DATA", "PAUSED"]


class Alert(Model):
    """The state that an app is in, after an evaluation."""

    state: AlertState
    since: Instant
    before: AlertState | None = None
    """The state before this evaluation; None at the first."""
    changed: bool = False
    recovered: bool = False
    """Back to OK from a state that was told about."""


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
    """Code of the rule that decided (`shared/policy.py` lists them)."""
    explanation: str
    """The reason in an English sentence, with its figures."""
    because: list[Because] = []
    """The same, to be worded in any language."""
    policy: str
    threshold: float
    evidence: list[Evidence] = []
    """The windows that the decision looked at."""
    previous: Comparison | None = None
    complaint_groups: list[ComplaintGroup] = []
    """What dislikes have in common, the largest first; at most 10."""
    causes: dict[str, int] = {}
    """Dislikes of the report window by cause (`services/analyzer/causes.py`); {} where there are none."""
    coverage_gaps: list[str] = []
    """Questions that no document answers: at most 5, of 200 characters each, asked most first."""
    generation: int | None = None
    """The generation whose answers were judged; None before the first."""
    alert: Alert | None = None
    """The app's state; None from a version that had none."""
    aftermath: Aftermath | None = None
    """The verdict on an earlier promotion, where this evaluation reached one."""
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

    generation: Generation
    batch: int = Field(ge=0, lt=2**31)

    def instance(self) -> str:
        return f"{self.generation}/{self.batch}"


class GenerationBuilt(Event):
    """The last batch of a generation is embedded."""

    type = "generation.built"

    app: str = App
    generation: Generation
    chunks: int
    batches: int

    def identity(self, cause: uuid.UUID, consumer: str) -> uuid.UUID:
        # Whichever batch came last, a generation is built once.
        return derived(NAMESPACE, "generation", self.type, str(self.generation))


class Skipped(Model):
    """A document that could not be read."""

    source: str
    reason: str
    because: list[Because] = []
    """The same for people of any language."""


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
    because: list[Because] = []
    """The same, to be worded in any language; empty where a person or a failure gave the reason."""
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
    to_generation: Generation | None = None
    """None: the one before the active one."""
    why: str = ""
    because: list[Because] = []
    """`why`, to be worded in any language; empty where a person gave it."""
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


class WebhookTest(Event):
    """Command: send a test message to the webhook, and use it again if it takes that."""

    type = "webhook.test"

    requested_by: str = ""


class WebhookDisabled(Event):
    """The webhook is used no more, until a person has looked at it."""

    type = "webhook.disabled"

    host: str
    reason: str
    """What its last answer was."""
    failures: int = Field(ge=1)
    """Messages in a row that it has not taken."""


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
        WebhookTest,
        WebhookDisabled,
    )
}
