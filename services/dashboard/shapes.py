"""The shapes of what the dashboard answers, as models: for the contract, not to build them."""

from __future__ import annotations

from datetime import date
from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from services.dashboard.filters import Cause
from shared.contracts.answers import Run
from shared.contracts.contract import Shape
from shared.events import AlertState

__all__ = ["Access", "Backtest", "Complaints", "Ordered", "RunsAndBuilds", "Summary", "Votes"]

GenerationState = Literal["building", "built", "promoted", "rejected", "superseded", "failed", "unchanged"]


class Access(Shape):
    figures: bool
    words: bool
    admin: bool
    closed: dict[Literal["words", "admin"], str]
    """What no token opens → the setting that would change it."""


class WebhookState(Shape):
    """How the webhook does."""

    host: str
    failures: int
    """Messages in a row that it has not taken."""
    disabled_at: AwareDatetime | None
    disabled_reason: str | None
    delivered_at: AwareDatetime | None
    tested_at: AwareDatetime | None
    test_failure: str | None
    """Of the latest test; null: it took the message."""


class HasWebhook(Shape):
    webhook: WebhookState | None


class Step(Shape):
    """Something that happened in a run. It never changes."""

    run: UUID
    id: str
    type: str
    service: str
    what: str
    detail: str | None
    at: AwareDatetime
    xid: int


Sentences = dict[Literal["ko", "en"], str]
"""A sentence in the languages that it is known in."""


class ExplainedRun(Run):
    explained: Sentences
    """The explanation."""
    retrain_explained: Sentences
    """The detail of how its retrain ended."""


class RunWithSteps(ExplainedRun):
    steps: list[Step]


class Build(Shape):
    """How far a generation is, in batches."""

    generation: int
    app: str
    run: UUID | None
    reason: str
    state: GenerationState
    chunks: int | None
    batches: int | None
    done: int | None
    created_at: AwareDatetime
    finished_at: AwareDatetime | None
    running: bool


class RunsAndBuilds(Shape):
    cursor: str
    """Where the stream goes on from here."""
    now: AwareDatetime
    latest: ExplainedRun | None
    """The latest run with a verdict."""
    runs: list[RunWithSteps]
    builds: list[Build]


class Count(Shape):
    votes: int


class Reason(Count):
    code: str


class Source(Count):
    source: str


class CauseCount(Count):
    cause: Cause


class Rate(Shape):
    """Negative ratio with its 95 % interval; null where nobody voted."""

    ratio: float | None
    low: float | None
    high: float | None


class Tiles(Rate):
    rated: int
    likes: int
    dislikes: int
    answers: int
    response_rate: float | None
    generation: int | None


class Day(Rate):
    at: date
    likes: int
    dislikes: int


class Generation(Shape):
    id: int
    state: GenerationState
    promoted_at: AwareDatetime | None


class Marker(Shape):
    """When a generation became the active one."""

    at: AwareDatetime
    generation: int
    kind: str


class AlertOf(Shape):
    app: str
    state: AlertState
    since: AwareDatetime


class Change(Shape):
    """A measure before and after, with the 95 % interval of the change; null where it was not measured."""

    before: float | None
    after: float | None
    delta: float | None
    low: float | None
    high: float | None
    n: int


class Quality(Change):
    generation: int
    at: AwareDatetime
    outcome: str
    reason: str
    explained: Sentences
    """The reason."""
    metric: str
    kinds: dict[str, Change]


class Summary(Shape):
    now: AwareDatetime
    timezone: str
    threshold: float
    first: date = Field(alias="from")
    last: date = Field(alias="to")
    days: int
    apps: list[str]
    reasons: list[Reason]
    documents: list[Source]
    causes: list[CauseCount]
    generations: list[Generation]
    tiles: Tiles
    series: list[Day]
    markers: list[Marker]
    alerts: list[AlertOf]
    quality: list[Quality]


class Retrains(Shape):
    retrains: int
    days: list[date]


class Backtest(Shape):
    threshold: float
    days: int
    wilson: Retrains
    ratio: Retrains


class Complaint(Count):
    """Dislikes that say the same."""

    id: str
    label: str
    users: int
    quote: str


class Complaints(Shape):
    groups: list[Complaint]
    gaps: list[str]


class Chunk(Shape):
    source: str
    heading: str
    text: str
    vote: Literal[0, 1] | None
    rank: int | None


class Vote(Shape):
    id: int
    app: str
    at: AwareDatetime
    value: Literal[0, 1]
    user: str
    conversation: str
    message: str
    question: str
    answer: str
    comment: str | None
    reason: str | None
    generation: int | None
    cause: Cause | None
    group: str | None
    chunks: list[Chunk]


class Votes(Shape):
    votes: list[Vote]
    next: str | None
    """Where the list goes on, as `before`."""


class Ordered(Shape):
    status: Literal["accepted"]
    event: UUID
