"""The collector's HTTP routes: votes and conversations in.

200 means committed. A batch is taken as a whole or not at all. A vote need not name a conversation that
is known. Sending the same thing again changes nothing, so a sender that is in doubt may simply repeat.
"""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from services.collector.bodies import Conversation, ConversationBatch, FeedbackBatch, FeedbackBody, KeyBody
from services.collector.intake import FromTheFuture, Intake, NoVote
from services.collector.votes import Retraction
from shared.web import http
from shared.web.access import voter_of

__all__ = ["Collector"]

# Bytes, made once: most requests are answered with one of these.
RECORDED = b'{"status": "ok", "message": "Feedback recorded."}'
RETRACTED = b'{"status": "ok", "message": "Feedback retracted."}'
NOTHING_THERE = b'{"status": "ok", "message": "There was no feedback to retract."}'

JSON = {"Content-Type": "application/json; charset=utf-8"}

NDJSON = {"application/x-ndjson", "application/ndjson", "application/jsonl"}


class Collector:
    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def put_feedback(self, request: web.Request) -> web.Response:
        """`POST|PUT /feedback`: cast a vote, add a reason to it, or retract it with null."""
        body = http.read_model(FeedbackBody, await http.read_json(request))
        _covered(request, body)
        change = body.change()
        try:
            retracted = await self._intake.take(change)
        except (FromTheFuture, NoVote) as error:
            raise _refusal(error) from None
        return _retracted(retracted) if isinstance(change, Retraction) else _said(RECORDED)

    async def delete_feedback(self, request: web.Request) -> web.Response:
        """`DELETE /feedback`: retract; the key as JSON or in the query."""
        given = await http.read_json(request) if request.can_read_body else dict(request.query)
        body = http.read_model(KeyBody, given)
        _covered(request, body)
        return _retracted(await self._intake.take(Retraction(body.key)))

    async def post_batch(self, request: web.Request) -> web.Response:
        """`POST /feedback/batch`: an array, `{"items": [...]}` or NDJSON."""
        bodies = http.read_model(FeedbackBatch, {"items": _items(await _read(request))}).items
        try:
            await self._intake.take_all([body.change() for body in bodies])
        except (FromTheFuture, NoVote) as error:
            raise _refusal(error, "items.{}.") from None
        return web.json_response({"status": "ok", "recorded": len(bodies)})

    async def post_conversations(self, request: web.Request) -> web.Response:
        """`POST /conversations`: one answer, or several in any of the forms of a batch."""
        given = await _read(request)
        if isinstance(given, dict) and "items" not in given:
            answers, prefix = [http.read_model(Conversation, given)], ""
        else:
            answers, prefix = http.read_model(ConversationBatch, {"items": _items(given)}).items, "items.{}."
        try:
            await self._intake.record(answers)
        except FromTheFuture as error:
            raise _refusal(error, prefix, "answered_at") from None
        done = {"status": "ok", "message": "Conversation recorded.", "recorded": len(answers)}
        return web.json_response(done)


def _covered(request: web.Request, body: KeyBody) -> None:
    """Raises BadRequest (403) where the caller's vote token is for another vote.

    When a vote was cast and what it is counted for is the server's to say, not a browser's.
    """
    voter = voter_of(request)
    if voter is None:
        return
    field = voter.refusal(body.app, body.conversation_id, body.message_id, body.user_id)
    if field is not None:
        raise http.BadRequest(field, "is not the one of the vote token", status=403)
    for field in ("created_at", "generation", "source"):
        if getattr(body, field, None) is not None:
            raise http.BadRequest(field, "cannot be said with a vote token", status=403)


def _refusal(error: FromTheFuture | NoVote, prefix: str = "", time: str = "created_at") -> http.BadRequest:
    """The answer about an item; `prefix` says where items are, `time` what their time is called."""
    place = prefix.format(error.position)
    if isinstance(error, NoVote):
        return http.BadRequest(place + "feedback", "is missing, and there is no vote to add this to", 422)
    return http.BadRequest(place + time, "is more than 5 minutes in the future", 422)


async def _read(request: web.Request) -> Any:
    """The JSON body; NDJSON becomes an array."""
    if request.content_type not in NDJSON:
        return await http.read_json(request)
    items = []
    for line in (await http.read_body(request)).splitlines():
        if line.strip():
            try:
                items.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise http.BadRequest(f"items.{len(items)}", f"not JSON: {error}") from None
    return items


def _items(body: Any) -> list[Any]:
    items = body.get("items") if isinstance(body, dict) else body
    if not isinstance(items, list):
        raise http.BadRequest("items", "must be an array", status=422)
    return items


def _said(message: bytes) -> web.Response:
    return web.Response(body=message, headers=JSON)


def _retracted(any: bool) -> web.Response:
    return _said(RETRACTED if any else NOTHING_THERE)
