"""The collector's HTTP routes: votes and conversations in.

200 means committed. A batch is taken as a whole or not at all. A vote need not name a conversation that
is known. Sending the same thing again changes nothing, so a sender that is in doubt may simply repeat.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from aiohttp import web

from services.collector import ledger
from services.collector.bodies import Conversation, ConversationBatch, FeedbackBatch, FeedbackBody, KeyBody
from services.collector.votes import Retraction, Vote, fold
from shared import http
from shared.access import voter_of
from shared.database import Connection, is_conflict
from shared.runtime import Kernel

__all__ = ["Collector"]

WAIT = 0.5
"""Seconds a request waits while the process still connects; its sender can repeat it."""
ATTEMPTS = 4
NDJSON = {"application/x-ndjson", "application/ndjson", "application/jsonl"}

T = TypeVar("T")


class Collector:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def put_feedback(self, request: web.Request) -> web.Response:
        """`POST|PUT /feedback`: cast a vote, add a reason to it, or retract it with null."""
        body = http.read_model(FeedbackBody, await http.read_json(request))
        _covered(request, body)
        change = body.change()
        retracted = await self._take([change], [body.created_at], "")
        return _retracted(retracted) if isinstance(change, Retraction) else _ok("Feedback recorded.")

    async def delete_feedback(self, request: web.Request) -> web.Response:
        """`DELETE /feedback`: retract; the key as JSON or in the query."""
        given = await http.read_json(request) if request.can_read_body else dict(request.query)
        body = http.read_model(KeyBody, given)
        _covered(request, body)
        key = body.key
        return _retracted(await self._take([Retraction(key)], [], ""))

    async def post_batch(self, request: web.Request) -> web.Response:
        """`POST /feedback/batch`: an array, `{"items": [...]}` or NDJSON."""
        bodies = http.read_model(FeedbackBatch, {"items": _items(await _read(request))}).items
        await self._take(
            [body.change() for body in bodies], [body.created_at for body in bodies], "items.{}."
        )
        return web.json_response({"status": "ok", "recorded": len(bodies)})

    async def post_conversations(self, request: web.Request) -> web.Response:
        """`POST /conversations`: one answer, or several in any of the forms of a batch."""
        given = await _read(request)
        if isinstance(given, dict) and "items" not in given:
            answers, field = [http.read_model(Conversation, given)], "answered_at"
        else:
            answers = http.read_model(ConversationBatch, {"items": _items(given)}).items
            field = "items.{}.answered_at"

        async def record(connection: Connection) -> None:
            await _not_from_the_future(connection, [answer.answered_at for answer in answers], field)
            await ledger.record_conversations(connection, answers)

        await self._in_transaction(record)
        done = {"status": "ok", "message": "Conversation recorded.", "recorded": len(answers)}
        return web.json_response(done)

    async def _take(
        self, items: Sequence[Vote | Retraction], times: Sequence[datetime | None], prefix: str
    ) -> int:
        """Write the items in one transaction; returns how many votes were retracted."""

        async def write(connection: Connection) -> int:
            await _not_from_the_future(connection, times, prefix + "created_at")
            return await ledger.apply(connection, fold(items))

        try:
            return await self._in_transaction(write)
        except ledger.NoVote as error:
            field = (prefix + "feedback").format(error.position)
            raise http.BadRequest(field, "is missing, and there is no vote to add this to", 422) from None

    async def _in_transaction(self, write: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(WAIT):
                await self._kernel.ready.wait()
        except TimeoutError:
            raise http.NotReady(self._kernel.waiting_for) from None
        for attempt in range(ATTEMPTS):
            try:
                async with self._kernel.database.transaction() as connection:
                    return await write(connection)
            except Exception as error:
                if not is_conflict(error) or attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError  # the last attempt returns or raises


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


async def _not_from_the_future(connection: Connection, times: Sequence[datetime | None], field: str) -> None:
    position = await ledger.first_from_the_future(connection, times)
    if position is not None:
        raise http.BadRequest(field.format(position), "is more than 5 minutes in the future", 422)


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


def _ok(message: str) -> web.Response:
    return web.json_response({"status": "ok", "message": message})


def _retracted(count: int) -> web.Response:
    return _ok("Feedback retracted." if count else "There was no feedback to retract.")
