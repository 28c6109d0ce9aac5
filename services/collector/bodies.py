"""The bodies that the collector takes, as models. Unknown fields are ignored: people send extras."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    AliasChoices,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from services.collector.votes import VOTES, Key, Retraction, Vote, reason_code_of, vote_of

__all__ = [
    "MOST_ITEMS",
    "Conversation",
    "ConversationBatch",
    "FeedbackBatch",
    "FeedbackBody",
    "GivenId",
    "KeyBody",
]

MOST_ITEMS = 10_000
_METADATA_BYTES = 8192
_ABSENT: Final = object()
_CHUNK_HASH = re.compile(r"[0-9a-f]{64}")
_HALF = re.compile("[\ud800-\udfff]")
"""A lone surrogate: no database takes it."""
_DETAILS = ("reason", "reason_code", "comment", "citations", "metadata")


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    return text


def _text(text: str) -> str:
    if not text.isascii() and _HALF.search(text):
        raise ValueError("must not contain half a character (a lone surrogate)")
    return _no_nul(text)


def _mended(given: object) -> object:
    """What people wrote, with U+FFFD for half a character: a page that cuts a text cuts emoji too."""
    return _HALF.sub("\ufffd", given) if isinstance(given, str) and not given.isascii() else given


def _id(given: object) -> object:
    """An id, a string or a whole number, as a string."""
    if given is None:
        return ""
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    if not isinstance(given, str):
        raise ValueError("must be a string or a whole number")
    return given


def _fits_index(text: str) -> str:
    # All parts of a key stand in one index row, which PostgreSQL limits to about 2,700 bytes.
    if not text.isascii() and len(text.encode()) > 600:  # characters are bounded already
        raise ValueError("must have at most 600 bytes")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _storable(value: dict[str, Any]) -> dict[str, Any]:
    """Metadata that PostgreSQL's jsonb can hold: no NUL, no NaN, no half characters."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (ValueError, RecursionError):
        raise ValueError("must be plain JSON") from None
    if size > _METADATA_BYTES:
        raise ValueError(f"must have at most {_METADATA_BYTES} bytes as JSON")
    if "\\u0000" in text and any("\0" in string for string in _strings(value)):
        raise ValueError("must not contain NUL characters")
    return value


def _strings(value: object) -> list[str]:
    found, open_values = [], [value]
    while open_values:
        match open_values.pop():
            case str() as text:
                found.append(text)
            case dict() as members:
                open_values += [*members.keys(), *members.values()]
            case list() as members:
                open_values += members
    return found


Text = Annotated[str, AfterValidator(_text)]
Words = Annotated[str, BeforeValidator(_mended), AfterValidator(_no_nul)]
Id = Annotated[Text, BeforeValidator(_id), Field(max_length=200), AfterValidator(_fits_index)]
GivenId = Annotated[
    Id, AfterValidator(_not_blank), Field(json_schema_extra={"minLength": 1, "pattern": r"\S"})
]
Name = Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]
Generation = Annotated[int, Field(ge=1, lt=2**63)]
Moment = Annotated[
    AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(9999, 1, 1, tzinfo=UTC))
]
Chunk = Annotated[Text, Field(min_length=1, max_length=500)]


class KeyBody(BaseModel):
    """Which vote. `conversation_id` need not be known."""

    conversation_id: GivenId
    message_id: Id = ""
    user_id: Id = ""
    app: Name = "default"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "user_feedback"

    @property
    def key(self) -> Key:
        return Key(self.app, self.conversation_id, self.message_id, self.user_id, self.name)


class FeedbackBody(KeyBody):
    """One vote, retraction, or addition to a vote.

    Attributes:
        reason: the owner's field: a known word becomes `reason_code`, anything else the comment.
        feedback: the vote, also under the name `value`; null retracts; absent, the rest is added to the
            vote that is there.
    """

    reason: Annotated[Words, Field(max_length=255)] | None = None
    reason_code: Name | None = None
    comment: Annotated[Words, Field(max_length=4000)] | None = None
    citations: Annotated[dict[Chunk, Any], Field(max_length=200)] | None = None
    source: Annotated[Text, Field(min_length=1, max_length=64)] | None = None
    metadata: Annotated[dict[str, Any], AfterValidator(_storable)] | None = None
    created_at: Moment | None = None
    generation: Generation | None = None
    # Last, because its validator looks at the others.
    feedback: Annotated[Any, WithJsonSchema({"enum": [*VOTES, 1, 0, -1, True, False, None]})] = Field(
        _ABSENT, validate_default=True, validation_alias=AliasChoices("feedback", "value")
    )

    @field_validator("reason", "reason_code", "comment", mode="before")
    @classmethod
    def _blank_is_none(cls, given: Any) -> Any:
        return None if isinstance(given, str) and not given.strip() else given

    @field_validator("citations")
    @classmethod
    def _votes_on_citations(cls, given: dict[str, Any] | None) -> dict[str, int | None] | None:
        return given and {chunk: vote_of(vote) for chunk, vote in given.items()}

    @field_validator("feedback")
    @classmethod
    def _known_vote(cls, given: Any, info: ValidationInfo) -> Any:
        if given is not _ABSENT:
            return vote_of(given)
        if not any(info.data.get(name) for name in _DETAILS):
            raise ValueError("is missing: send 'like' or 'dislike', or null to retract")
        return given

    def change(self) -> Vote | Retraction:
        if self.feedback is None:
            return Retraction(self.key, self.created_at)
        code, comment = self._why()
        return Vote(
            self.key,
            None if self.feedback is _ABSENT else self.feedback,
            code,
            comment,
            self.citations or {},
            self.generation,
            self.source,
            self.metadata or {},
            self.created_at,
        )

    def _why(self) -> tuple[str | None, str | None]:
        """Reason code and comment. What is said outright is kept; `reason` adds to it."""
        code = self.reason_code and (reason_code_of(self.reason_code) or self.reason_code)
        if self.reason is None:
            return code, self.comment
        known = reason_code_of(self.reason)
        if known and code in (None, known):
            return known, self.comment
        return code, "\n".join(text for text in (self.reason, self.comment) if text)


class FeedbackBatch(BaseModel):
    items: list[FeedbackBody] = Field(max_length=MOST_ITEMS)


class Citation(BaseModel):
    """What an answer cites: a document's path, a chunk's hash, or both.

    Attributes:
        rank: its place in the answer, from 1.
    """

    source: Chunk | None = None
    chunk: Chunk | None = None
    rank: Annotated[int, Field(ge=1, le=10_000)] | None = None
    score: Annotated[float, Field(allow_inf_nan=False)] | None = None


def _citation(given: object) -> object:
    if isinstance(given, str):
        return {"chunk" if _CHUNK_HASH.fullmatch(given) else "source": given}
    if isinstance(given, dict) and given.get("source") is None and given.get("chunk") is None:
        raise ValueError("needs a source or a chunk")
    return given


class Conversation(BaseModel):
    """One answer. What is absent or null is left as it is recorded already."""

    conversation_id: GivenId
    message_id: Id = ""
    user_id: Id = ""
    app: Name = "default"
    question: Annotated[Words, Field(max_length=20_000)] | None = None
    answer: Annotated[Words, Field(max_length=200_000)] | None = None
    citations: (
        Annotated[list[Annotated[Citation, BeforeValidator(_citation)]], Field(max_length=200)] | None
    ) = None
    generation: Generation | None = None
    answered_at: Moment | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.app, self.conversation_id, self.message_id

    def ranked(self) -> list[dict[str, Any]] | None:
        """The citations as objects with a rank: the given one, else the place in the list."""
        if self.citations is None:
            return None
        return [
            citation.model_dump(exclude_none=True) | {"rank": citation.rank or place}
            for place, citation in enumerate(self.citations, 1)
        ]


class ConversationBatch(BaseModel):
    items: list[Conversation] = Field(max_length=MOST_ITEMS)
