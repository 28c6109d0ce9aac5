"""What the dashboard's routes do: for its page, and for whoever wants the same figures."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from services.dashboard.commands_api import CommandBody
from services.dashboard.filters import Filter, What
from services.dashboard.shapes import (
    Access,
    Backtest,
    Complaints,
    HasWebhook,
    Ordered,
    RunsAndBuilds,
    Summary,
    Votes,
)
from shared.contracts.contract import Answer, Contract, Operation, Operations, Shape
from shared.events import (
    FeedbackEvaluate,
    GenerationRequested,
    LoopPaused,
    LoopResumed,
    RollbackRequested,
    WebhookTest,
)

__all__ = ["CONTRACT"]


class Languages(Shape):
    lang: Literal["ko", "en"] | None = None
    """Default: what the browser likes best."""


class HowMany(Shape):
    limit: int = Field(20, ge=1, le=100)


class Looks(Filter):
    lang: Literal["ko", "en"] | None = None
    theme: Literal["light", "dark"] = "light"


class Page(Filter):
    limit: int = Field(50, ge=1, le=200)
    before: str | None = Field(None, pattern=r"^\d{1,18}-\d{1,18}$")
    """The `next` of an earlier answer."""


class Since(Shape):
    last_event_id: str | None = None
    """As the header `Last-Event-ID`: where the stream goes on."""


def _file(what: str, media: str, *fails: int) -> Operation:
    return Operation(what, {200: Answer("The file", str, media)}, fails=(304, *fails))


PAGE = Operation(
    "The dashboard's page", {200: Answer("The page", str, "text/html")}, fails=(304,), query=Languages
)
FAILS = (422, 503)

OPERATIONS: Operations = {
    ("GET", "/"): PAGE,
    ("GET", "/dashboard"): PAGE,
    ("GET", "/static/vega.js"): _file("What draws the charts", "text/javascript", 503),
    ("GET", "/static/{name}"): Operation(
        "A file of the page",
        {200: Answer("The file", str, "text/javascript")},
        fails=(304, 404),
        path={"name": str},
    ),
    ("GET", "/dashboard/access"): Operation(
        "What the caller's token opens", {200: Answer("Whether each part is open", Access)}
    ),
    ("GET", "/dashboard/runs"): Operation(
        "The latest runs with their steps, and builds",
        {200: Answer("As of one moment", RunsAndBuilds)},
        fails=FAILS,
        query=HowMany,
    ),
    ("GET", "/dashboard/stream"): Operation(
        "What happens, as it happens",
        {200: Answer("Server-sent events, without an end", str, "text/event-stream")},
        "It goes on from `Last-Event-ID` where that is known, else it begins with a snapshot.",
        (503,),
        query=Since,
    ),
    ("GET", "/dashboard/summary"): Operation(
        "Figures of the votes filtered",
        {200: Answer("As of one moment", Summary)},
        "Days are those of `TIMEZONE`.",
        FAILS,
        query=Filter,
    ),
    ("GET", "/dashboard/trend.json"): Operation(
        "The chart of the votes filtered",
        {200: Answer("A Vega-Lite specification", dict[str, Any])},
        fails=FAILS,
        query=Looks,
    ),
    ("GET", "/dashboard/backtest"): Operation(
        "When either policy would have retrained",
        {200: Answer("The days, by policy", Backtest)},
        fails=FAILS,
        query=What,
    ),
    ("GET", "/dashboard/groups"): Operation(
        "What dislikes have in common, and questions that no document answers",
        {200: Answer("The largest first", Complaints)},
        fails=FAILS,
        query=Filter,
    ),
    ("GET", "/dashboard/votes"): Operation(
        "Votes with question, answer and chunks",
        {200: Answer("Newest first", Votes)},
        fails=FAILS,
        query=Page,
    ),
    ("GET", "/dashboard/votes.csv"): Operation(
        "Every vote of the filter as a file",
        {200: Answer("One vote a row", str, "text/csv")},
        "One at a time; a connection that breaks off means that the file is not whole.",
        FAILS,
        query=Filter,
    ),
    ("GET", "/dashboard/webhook"): Operation(
        "How the webhook does",
        {200: Answer("Its state; null: there is none", HasWebhook)},
        fails=(503,),
    ),
    ("POST", "/dashboard/commands"): Operation(
        "Run, re-embed, roll back, pause, resume or test the webhook",
        {202: Answer("It is durable", Ordered)},
        fails=(503,),
        bodies={"application/json": CommandBody},
    ),
}

CONTRACT = Contract(
    "Shows what happens, and takes commands.",
    OPERATIONS,
    (FeedbackEvaluate, GenerationRequested, RollbackRequested, LoopPaused, LoopResumed, WebhookTest),
)
