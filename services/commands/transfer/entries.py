"""What a row of a file comes to: a vote, and the answer that it is on. Pure.

What is guaranteed: a vote of a file obeys the rules of a vote over HTTP, because it is checked by the same
model (`FeedbackBody`); so do the words for 👍 and 👎.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, ValidationError

from services.collector.bodies import Conversation, FeedbackBody, Id
from services.collector.votes import Key, Vote, vote_of

__all__ = ["NEGATIVE", "POSITIVE", "Entry", "Unfit", "entry", "vote_word"]

POSITIVE, NEGATIVE = "user_feedback", "negative_user_feedback"
"""What a vote is called where 1 = 👍, and where 1 = 👎."""

_SHORT_OFFSET = re.compile(r"(?<=:\d\d)(\.\d+)?[+-]\d\d$")


class Unfit(Exception):
    """A row that is no vote; `field` as the file calls it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field, self.reason = field, reason


class _Row(FeedbackBody):
    """A vote as files have it.

    Attributes:
        row_key: tells apart votes of one key, as the owner's table may have them.
    """

    row_key: Annotated[Id, Field(max_length=200)] = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """Attributes:
    answer: None where the file says nothing of it.
    """

    vote: Vote
    row_key: str
    answer: Conversation | None

    @property
    def key(self) -> tuple[Key, str]:
        return self.vote.key, self.row_key


def entry(given: Mapping[str, Any], app: str | None = None, names: Mapping[str, str] | None = None) -> Entry:
    """What fields named as those of `POST /feedback` (and `row_key`, `question`, `answer`, `cited`,
    `answered_at`) come to; None and "" are absent.

    Args:
        app: which app it is for, whatever the row says.
        names: what the file calls the fields, for errors.

    Raises:
        Unfit: it is no vote.
    """
    known = {name: value for name, value in given.items() if value is not None and value != ""}
    if app is not None:
        known["app"] = app
    try:
        value = vote_word(known.pop("value", known.pop("feedback", None)))
        if value is None:
            raise Unfit(
                (names or {}).get("feedback", "value"), "is missing: a vote is needed, such as 'like'"
            )
        if known.get("name") == NEGATIVE:
            known["name"], value = POSITIVE, 1 - value
        if isinstance(at := known.get("created_at"), str) and _SHORT_OFFSET.search(at):
            known["created_at"] = f"{at}:00"  # as psql writes it
        row = _Row.model_validate({**known, "feedback": value})
        vote = row.change()
        assert isinstance(vote, Vote)
        return Entry(vote, row.row_key, _answer(known, row))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise Unfit((names or {}).get(field, field), reason) from None
    except ValueError as error:
        raise Unfit((names or {}).get("feedback", "value"), str(error)) from None


def vote_word(given: Any) -> int | None:
    """The value of a vote, also where other systems write it as `1.0`, `thumbs-up` or `True`.

    Raises:
        ValueError: it is none.
    """
    if isinstance(given, str):
        given = given.strip().replace("-", "_") if not given.strip().startswith("-") else given.strip()
        given = given.removesuffix(".0")
    return vote_of(None if given == "" else given)


def _answer(known: Mapping[str, Any], row: _Row) -> Conversation | None:
    if not (known.get("question") or known.get("answer")):
        return None
    return Conversation.model_validate(
        {
            "app": row.app,
            "conversation_id": row.conversation_id,
            "message_id": row.message_id,
            "user_id": row.user_id,
            "question": known.get("question"),
            "answer": known.get("answer"),
            "citations": known.get("cited"),
            "answered_at": known.get("answered_at", known.get("created_at")),
        }
    )
