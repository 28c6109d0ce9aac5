"""What the notifier's routes do, for Slack."""

from __future__ import annotations

from typing import Literal

from services.notifier.signed import Asked
from shared.contracts.contract import Answer, Contract, Operation, Operations, Shape
from shared.events import GenerationRequested, LoopPaused, LoopResumed, RollbackRequested

__all__ = ["CONTRACT"]

FORM = "application/x-www-form-urlencoded"


class OnlyForYou(Shape):
    response_type: Literal["ephemeral"]
    text: str


class Form(Shape):
    payload: str
    """JSON: https://docs.slack.dev/reference/interaction-payloads/block_actions-payload"""


OPERATIONS: Operations = {
    ("POST", "/slack/commands"): Operation(
        "The slash command `/ai-report [days]`",
        {200: Answer("What is shown to whoever asked", OnlyForYou)},
        "Closed until `SLACK_SIGNING_SECRET` is set.",
        (503,),
        bodies={FORM: Asked},
    ),
    ("POST", "/slack/interactions"): Operation(
        "A button was pressed",
        {200: Answer("Heard; what comes of it is said in Slack")},
        "Closed until `SLACK_SIGNING_SECRET` is set.",
        (503,),
        bodies={FORM: Form},
    ),
}

CONTRACT = Contract(
    "Reports to Slack, and does what is asked for there.",
    OPERATIONS,
    (GenerationRequested, RollbackRequested, LoopPaused, LoopResumed),
)
