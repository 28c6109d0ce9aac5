"""What the trigger's routes do, for whoever calls them."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from services.trigger.app import HitBody, RunsQuery
from shared.bus.envelope import STRUCTURED
from shared.contracts.answers import Run
from shared.contracts.contract import JSON, Answer, Contract, Operation, Operations, Shape
from shared.events import FeedbackEvaluate

__all__ = ["CONTRACT"]


class Started(Shape):
    status: Literal["Feedback loop started"]


class Accepted(Shape):
    status: Literal["accepted"]
    run: UUID
    """The run that it starts, or joins."""


class Runs(Shape):
    runs: list[Run]


class Idempotent(Shape):
    key: str | None = Field(None, alias="Idempotency-Key", min_length=1, max_length=200, pattern="^[!-~]+$")
    """Two requests with one key are one run."""


class Attributes(Shape):
    """The attributes of a CloudEvent in binary mode, percent-encoded."""

    specversion: Literal["1.0"] | None = Field(None, alias="ce-specversion")
    type: Literal["feedback.evaluate"] | None = Field(None, alias="ce-type")
    """Needed in binary mode."""
    id: str | None = Field(None, alias="ce-id", max_length=200)
    """Without one the event joins the run of its app that is under way."""
    source: str | None = Field(None, alias="ce-source", max_length=200)
    time: AwareDatetime | None = Field(None, alias="ce-time")


class CloudEvent(Shape):
    """A `feedback.evaluate` as a CloudEvent in structured mode."""

    specversion: Literal["1.0"]
    type: Literal["feedback.evaluate"]
    id: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]
    time: AwareDatetime | None = None
    datacontenttype: Literal["application/json"] = "application/json"
    data: FeedbackEvaluate = FeedbackEvaluate()


STARTED = Answer(
    "The runs are durable and published; the work happens behind it",
    Started,
    headers={"Feedback-Loop-Run": "The ids of the runs, one for each app, with commas between"},
)
START = "Start a run for each app that has votes, or join the one under way"

OPERATIONS: Operations = {
    ("GET", "/run-feedback-loop"): Operation(
        START,
        {200: STARTED},
        "For schedulers that can only GET. Parameters of other names are ignored.",
        (422, 503),
        query=HitBody,
    ),
    ("POST", "/run-feedback-loop"): Operation(
        START,
        {200: STARTED},
        "What is said in a body is not read from the query too.",
        (400, 422, 503),
        query=HitBody,
        headers=Idempotent,
        bodies={JSON: HitBody},
        needs_body=False,
    ),
    ("POST", "/events"): Operation(
        "Publish a `feedback.evaluate` as a CloudEvent, without a broker",
        {202: Answer("It is durable and published", Accepted)},
        "In binary mode the attributes are headers and the body is the data; in structured mode the body is"
        " all of it.",
        (503,),
        headers=Attributes,
        bodies={JSON: FeedbackEvaluate, STRUCTURED: CloudEvent},
        needs_body=False,
    ),
    ("GET", "/runs"): Operation(
        "The latest runs, and where each stands",
        {200: Answer("Newest first", Runs)},
        fails=(422, 503),
        query=RunsQuery,
    ),
    ("GET", "/runs/{id}"): Operation(
        "One run", {200: Answer("Where it stands", Run)}, fails=(404, 422, 503), path={"id": UUID}
    ),
}

CONTRACT = Contract(
    "Starts runs: a hit, or an event of others, becomes `feedback.evaluate`.",
    OPERATIONS,
    (FeedbackEvaluate,),
)
