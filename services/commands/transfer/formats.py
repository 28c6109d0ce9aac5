"""The forms that votes have elsewhere, read and written. Pure.

What is guaranteed: what is written is read back as the same votes; what a form has no field for travels in
its metadata, as `feedback_loop`. Sources:

- Langfuse, the export of its table of scores: `worker/src/features/database-read-stream/
  getDatabaseReadStream.ts` and `packages/shared/src/domain/scores.ts` (github.com/langfuse/langfuse). A line
  is the body of `POST /api/public/scores` too: one of `traceId` and `sessionId`, not both
  (`packages/shared/src/utils/scores.ts`).
- Phoenix, annotations of spans, traces and sessions as its REST API has them, and as its client's
  `get_span_annotations_dataframe` does: `src/phoenix/server/api/routers/v1/annotations.py` and
  `packages/phoenix-client` (github.com/Arize-ai/phoenix).
- Open WebUI, the export of its feedback, a list of `FeedbackModel` with the chat that was rated
  (`backend/open_webui/models/feedbacks.py`, `backend/open_webui/routers/evaluations.py`; the reasons are
  those of `src/lib/components/chat/Messages/RateComment.svelte`; github.com/open-webui/open-webui).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from services.commands.transfer.entries import NEGATIVE, POSITIVE, Entry, Unfit, entry
from services.commands.transfer.rows import parsed

__all__ = ["COLUMNS", "FORMATS", "Format", "Wanted"]

Row = Mapping[str, Any]

_SPAN, _TRACE = re.compile(r"[0-9a-f]{16}"), re.compile(r"[0-9a-f]{32}")
"""Ids of OpenTelemetry (https://www.w3.org/TR/trace-context/)."""

COLUMNS = (
    *("app", "conversation_id", "message_id", "user_id", "name", "value", "reason_code", "comment"),
    *("citations", "generation", "source", "metadata", "created_at", "row_key"),
    *("question", "answer", "cited", "answered_at"),
)
"""The fields of our own form: a vote as `POST /feedback` takes it, and the answer that it is on."""

_CARRIED = (
    *("app", "conversation_id", "message_id", "user_id", "reason_code", "citations", "generation"),
    *("metadata", "row_key", "created_at"),
)
"""What no other form has a field for, or one that means something else."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Attributes:
    app: which app the votes are for, whatever the file says; None: as it says, else `default`.
    score: the name of the scores or annotations that are votes, beside our own.
    """

    app: str | None = None
    score: str = POSITIVE


@dataclass(frozen=True, slots=True)
class Format:
    """Attributes:
    read: the vote of a row; None where the row is something else, such as another score.
    write: a row of the ledger, as the export reads it, in this form.
    """

    read: Callable[[Row, Wanted], Entry | None]
    write: Callable[[Row, bool], dict[str, Any]]


def _named(vote: Row, negative: bool) -> tuple[str, int]:
    """Name and value of a vote; `negative`: 1 = 👎, so that an average is the negative ratio."""
    if negative and vote["name"] == POSITIVE:
        return NEGATIVE, 1 - vote["value"]
    return vote["name"], vote["value"]


def _carried(vote: Row) -> dict[str, Any]:
    """What the form has no field for."""
    kept = {name: vote[name] for name in _CARRIED if vote[name] not in (None, "", {}, [])}
    return kept | {"created_at": _iso(vote["created_at"])}


def _own(metadata: Any) -> dict[str, Any] | None:
    """What we carried; Langfuse keeps what is in metadata as text."""
    found = metadata.get("feedback_loop") if isinstance(metadata, Mapping) else None
    found = parsed("metadata.feedback_loop", found)
    return found if isinstance(found, dict) else None


def _iso(at: datetime | None) -> str | None:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z") if at else None


def _id(vote: Row) -> str:
    """The same for the same vote, wherever it is written."""
    key = [vote[name] for name in ("app", "conversation_id", "message_id", "user_id", "name", "row_key")]
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"feedback-loop/{key!r}"))


# --- our own: CSV and JSON lines -------------------------------------------------------------


def _read_own(row: Row, wanted: Wanted) -> Entry:
    given = dict(row)
    for name in ("citations", "metadata", "cited"):
        given[name] = parsed(name, row.get(name))
    if given.get("value") in (None, ""):  # as the dashboard's file calls it
        given["value"] = row.get("feedback", row.get(POSITIVE))
    return entry(given, wanted.app)


def _write_own(vote: Row, negative: bool) -> dict[str, Any]:
    name, value = _named(vote, negative)
    times = {field: _iso(vote[field]) for field in ("created_at", "answered_at")}
    return {column: vote[column] for column in COLUMNS} | {"name": name, "value": value} | times


# --- Langfuse --------------------------------------------------------------------------------

_LANGFUSE = {"conversation_id": "traceId or sessionId", "feedback": "value", "created_at": "timestamp"}


def _read_langfuse(row: Row, wanted: Wanted) -> Entry | None:
    name = row.get("name")
    if not name:
        raise Unfit("name", "is missing: is this an export of Langfuse's scores?")
    metadata = parsed("metadata", row.get("metadata"))
    own = _own(metadata)
    if (called := _vote_name(name, own, wanted)) is None:
        return None
    conversation, trace = row.get("sessionId"), row.get("traceId")
    given = {
        "conversation_id": conversation or trace,
        "message_id": row.get("observationId") or (trace if conversation else None),
        "user_id": row.get("userId"),
        "name": called,
        "value": row.get("stringValue") if row.get("dataType") == "CATEGORICAL" else row.get("value"),
        "comment": row.get("comment"),
        "metadata": metadata,
        "created_at": row.get("timestamp"),
    }
    return _foreign(given, own, "langfuse", wanted, _LANGFUSE)


def _write_langfuse(vote: Row, negative: bool) -> dict[str, Any]:
    name, value = _named(vote, negative)
    on_trace = _TRACE.fullmatch(vote["message_id"])
    return {
        "id": _id({**vote, "name": name}),
        "traceId": vote["message_id"] if on_trace else None,
        "sessionId": None if on_trace else vote["conversation_id"],
        "timestamp": _iso(vote["created_at"]),
        "source": "API",
        "name": name,
        "dataType": "BOOLEAN",
        "value": value,
        "comment": vote["comment"],
        "metadata": {"feedback_loop": _carried(vote)},
    }


# --- Phoenix ---------------------------------------------------------------------------------

_PHOENIX = {"conversation_id": "session_id, trace_id or span_id", "feedback": "result.score"}


def _read_phoenix(row: Row, wanted: Wanted) -> Entry | None:
    name = row.get("name") or row.get("annotation_name")
    if not name:
        raise Unfit("name", "is missing: is this an export of Phoenix's annotations?")
    metadata = parsed("metadata", row.get("metadata"))
    own = _own(metadata)
    if (called := _vote_name(name, own, wanted)) is None:
        return None
    result = parsed("result", row.get("result")) or {
        part: row.get(f"result.{part}") for part in ("score", "label", "explanation")
    }
    if not isinstance(result, dict):
        raise Unfit("result", "must be an object")
    ids = [found for key in ("session_id", "trace_id", "span_id") if (found := row.get(key))]
    score = result.get("score")
    given = {
        "conversation_id": ids[0] if ids else None,
        "message_id": ids[-1] if len(ids) > 1 else None,
        "user_id": row.get("identifier") or row.get("user_id"),
        "name": called,
        "value": result.get("label") if score in (None, "") else score,
        "comment": result.get("explanation"),
        "metadata": metadata,
        "created_at": row.get("created_at"),
    }
    return _foreign(given, own, "phoenix", wanted, _PHOENIX)


def _write_phoenix(vote: Row, negative: bool) -> dict[str, Any]:
    name, value = _named(vote, negative)
    kind = {16: "span_id", 32: "trace_id"}.get(len(vote["message_id"]))
    given = bool(kind and (_SPAN.fullmatch(vote["message_id"]) or _TRACE.fullmatch(vote["message_id"])))
    on = {str(kind): vote["message_id"]} if given else {"session_id": vote["conversation_id"]}
    return {
        **on,
        "name": name,
        "annotator_kind": "HUMAN",
        "result": {
            "label": "like" if vote["value"] else "dislike",
            "score": value,
            "explanation": vote["comment"],
        },
        "metadata": {"feedback_loop": _carried(vote)},
        "identifier": _id({**vote, "name": name}),
    }


# --- Open WebUI ------------------------------------------------------------------------------

_WEBUI = {"conversation_id": "meta.chat_id", "feedback": "data.rating", "message_id": "meta.message_id"}

_WEBUI_REASONS = {
    "not_factually_correct": "wrong",
    "not_accurate": "wrong",
    "not_relevant": "irrelevant",
    "not_helpful": "irrelevant",
    "didnt_fully_follow_instructions": "incomplete",
    "incomplete_response": "incomplete",
    "being_lazy": "incomplete",
    "too_verbose": "unclear",
    "dont_like_the_style": "tone",
    "harmful_or_offensive": "unsafe",
}
"""Its reasons that mean one of ours; others are kept as they are."""


def _read_webui(row: Row, wanted: Wanted) -> Entry | None:
    data, meta = row.get("data") or {}, row.get("meta") or {}
    if not isinstance(data, dict) or not isinstance(meta, dict) or "type" not in row:
        raise Unfit("data", "must be an object: is this an export of Open WebUI's feedback?")
    if row["type"] != "rating" or data.get("rating") in (None, ""):
        return None
    reason = data.get("reason")
    question, answer = _snapshot(row.get("snapshot"), meta.get("message_id"))
    given = {
        "conversation_id": meta.get("chat_id"),
        "message_id": meta.get("message_id"),
        "user_id": row.get("user_id"),
        "value": data["rating"],
        "reason_code": _WEBUI_REASONS.get(str(reason), reason),
        "comment": data.get("comment"),
        "metadata": {"model_id": data["model_id"]} if data.get("model_id") else None,
        "created_at": row.get("created_at"),  # seconds since 1970
        "question": question,
        "answer": answer,
    }
    return _foreign(given, _own(meta), "openwebui", wanted, _WEBUI)


def _snapshot(snapshot: Any, message: Any) -> tuple[str | None, str | None]:
    """Question and answer of a message, out of the chat that is kept with the rating."""
    try:
        messages = snapshot["chat"]["chat"]["history"]["messages"]
        answer = messages[message]
        question = messages.get(answer.get("parentId")) or {}
        texts = (question.get("content"), answer.get("content"))
    except (KeyError, TypeError, AttributeError):
        return None, None
    first, second = (text if isinstance(text, str) else None for text in texts)
    return first and first[:20_000], second and second[:200_000]


def _write_webui(vote: Row, negative: bool) -> dict[str, Any]:
    """It has no score to turn around: `negative` says nothing here."""
    at = int(vote["created_at"].timestamp())
    return {
        "id": _id(vote),
        "user_id": vote["user_id"],
        "version": 0,
        "type": "rating",
        "data": {
            "rating": 1 if vote["value"] else -1,
            "reason": vote["reason_code"],
            "comment": vote["comment"],
        },
        "meta": {
            "chat_id": vote["conversation_id"],
            "message_id": vote["message_id"],
            "feedback_loop": _carried(vote) | {"name": vote["name"]},
        },
        "snapshot": None,
        "created_at": at,
        "updated_at": at,
    }


# --- what they have in common ----------------------------------------------------------------


def _vote_name(name: Any, own: object, wanted: Wanted) -> str | None:
    """What a score or an annotation of this name is called here; None where it is no vote."""
    if own is not None or name == NEGATIVE:
        return str(name)
    return POSITIVE if name in (wanted.score, POSITIVE) else None


def _foreign(
    given: Mapping[str, Any],
    own: Mapping[str, Any] | None,
    source: str,
    wanted: Wanted,
    names: Mapping[str, str],
) -> Entry:
    """A vote of another system: what it says itself, and where it is one of ours, what we carried."""
    carried = {**dict.fromkeys(_CARRIED), **own} if own is not None else {}
    metadata = {**given, **carried}.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise Unfit("metadata", "must be an object")
    return entry({**given, **carried, "source": source}, wanted.app, names)


FORMATS: Mapping[str, Format] = {
    "csv": Format(_read_own, _write_own),
    "jsonl": Format(_read_own, _write_own),
    "langfuse": Format(_read_langfuse, _write_langfuse),
    "phoenix": Format(_read_phoenix, _write_phoenix),
    "openwebui": Format(_read_webui, _write_webui),
}
