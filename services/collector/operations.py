"""What the collector's routes do, for whoever calls them."""

from __future__ import annotations

from typing import Literal

from services.collector.bodies import Conversation, ConversationBatch, FeedbackBatch, FeedbackBody, KeyBody
from services.collector.tokens_api import TokenBody
from shared.contracts.answers import Done
from shared.contracts.contract import JSON, Answer, Contract, Operation, Operations, Shape

__all__ = ["CONTRACT"]

NDJSON = "application/x-ndjson"


class Recorded(Shape):
    status: Literal["ok"]
    recorded: int
    """Items of the batch."""


class ConversationsRecorded(Recorded):
    message: str


class Issued(Shape):
    token: str
    expires: int
    """Seconds since 1970."""


VOTE = Operation(
    "Cast a vote, add a reason to it, or take it back",
    {200: Answer("It is recorded", Done)},
    "There is one vote of each user on each message (and `name`): a second one replaces the first, `null`"
    " takes it back. Sending the same again changes nothing.",
    (503,),
    bodies={JSON: FeedbackBody},
)

OPERATIONS: Operations = {
    ("POST", "/feedback"): VOTE,
    ("PUT", "/feedback"): VOTE,
    ("DELETE", "/feedback"): Operation(
        "Take a vote back",
        {200: Answer("There is no such vote any more", Done)},
        "Which vote is said in the body or in the query.",
        (503,),
        query=KeyBody,
        bodies={JSON: KeyBody},
        needs_body=False,
    ),
    ("OPTIONS", "/feedback"): Operation(
        "Whether a page of another site may vote",
        {204: Answer("Pages of this origin may")},
        "What browsers ask before they send a vote (CORS).",
        (403,),
    ),
    ("POST", "/feedback/batch"): Operation(
        "Record many votes: all of them or none",
        {200: Answer("They are recorded", Recorded)},
        "An array, an object with `items`, or a vote on each line.",
        (503,),
        bodies={JSON: FeedbackBatch | list[FeedbackBody], NDJSON: str},
    ),
    ("POST", "/conversations"): Operation(
        "Record answers: what was asked, answered, and cited",
        {200: Answer("They are recorded", ConversationsRecorded)},
        "One, or many as in a batch of votes. What is absent is left as it is recorded already.",
        (503,),
        bodies={JSON: Conversation | ConversationBatch | list[Conversation], NDJSON: str},
    ),
    ("POST", "/vote-tokens"): Operation(
        "Make a token with which a browser can vote in one conversation",
        {201: Answer("Give it to the page", Issued)},
        "Closed until `VOTE_TOKEN_SECRET` is set.",
        bodies={JSON: TokenBody},
    ),
}

CONTRACT = Contract(
    "Keeps votes, and the answers that they are about.",
    OPERATIONS,
)
