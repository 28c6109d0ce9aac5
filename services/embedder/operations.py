"""What the embedder's routes do, for whoever calls them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from services.embedder.documents_api import NewDocument
from services.embedder.found import Found
from services.embedder.search_api import SearchBody
from shared.contracts.contract import JSON, Answer, Contract, Operation, Operations, Shape
from shared.events import EmbeddingRequested, GenerationBuilt, GenerationRequested, RetrainCompleted

__all__ = ["CONTRACT"]

App = Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]


class Which(Shape):
    app: App = "default"


class WhichDocument(Which):
    source: Annotated[str, Field(max_length=500)]
    """Its name, as it was posted."""


class Document(Shape):
    source: str
    title: str
    media_type: str
    origin: Literal["folder", "api"]
    updated_at: str
    chunks: int


class Documents(Shape):
    documents: list[Document]


class Taken(Shape):
    status: Literal["ok"]
    documents: int


class Deleted(Shape):
    status: Literal["ok"]


FOUND = {200: Answer("The chunks that fit best, the best first", Found)}
SEARCH = "Search the active generation of an app's documents"
REMEMBERED = "With a `conversation_id`, what is shown is remembered for a later vote."

OPERATIONS: Operations = {
    ("GET", "/documents"): Operation(
        "The documents there are", {200: Answer("By name", Documents)}, fails=(422, 503), query=Which
    ),
    ("POST", "/documents"): Operation(
        "Add or replace documents: all of them or none",
        {202: Answer("They are kept; a generation with them is built behind it", Taken)},
        "Text, or the bytes of a file in base64; the suffix of `source` says of what kind it is.",
        (503,),
        bodies={JSON: NewDocument | list[NewDocument]},
    ),
    ("DELETE", "/documents"): Operation(
        "Delete a document",
        {200: Answer("Searches do not show it any more", Deleted)},
        fails=(404, 422, 503),
        query=WhichDocument,
    ),
    ("GET", "/search"): Operation(
        SEARCH,
        FOUND,
        f"{REMEMBERED} A URL has at most 8,190 bytes: what is longer goes by POST.",
        (422, 503),
        query=SearchBody,
    ),
    ("POST", "/search"): Operation(SEARCH, FOUND, REMEMBERED, (503,), bodies={JSON: SearchBody}),
}

CONTRACT = Contract(
    "Keeps documents, builds generations of them, and searches.",
    OPERATIONS,
    (GenerationRequested, EmbeddingRequested, GenerationBuilt, RetrainCompleted),
)
