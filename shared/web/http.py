"""What every HTTP route shares: errors as JSON with a field and a reason, bodies parsed into models.

What is guaranteed: no more of a body is kept than its route takes, unpacked; a body that does not arrive
in time ends its request. What is not: anything about what a handler does with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from shared.bus.port import BusError, Unroutable
from shared.postgres.database import is_unavailable

__all__ = [
    "BODY_LIMIT",
    "MAX_BODY",
    "SMALL_BODY",
    "BadRequest",
    "NotReady",
    "errors",
    "fields_of",
    "read_body",
    "read_json",
    "read_model",
    "refuse",
    "unavailable",
]

log = logging.getLogger(__name__)

SMALL_BODY = 128 * 1024
"""Bytes of a request body, where a route does not say otherwise."""
MAX_BODY = 1024 * 1024
"""Bytes of a body with many items."""
BODY_LIMIT = web.RequestKey("body_limit", int)
"""Most bytes of this request's body, as its route says."""
BODY_TIME = 30.0
"""Seconds for a small body to arrive."""
SLOWEST = 256 * 1024
"""Bytes in each second more that a large one gets."""

_JSON = "application/json"

ModelT = TypeVar("ModelT", bound=BaseModel)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BadRequest(Exception):
    """The request cannot be taken as it is: which field, and why."""

    def __init__(self, field: str, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason
        self.status = status


class BadBody(BadRequest):
    """The body cannot be taken to its end: nothing can follow it on this connection."""


def refuse(status: int, field: str, reason: str, **headers: str) -> web.Response:
    """An error as every route answers it."""
    return web.json_response(
        {"status": "error", "field": field, "reason": reason}, status=status, headers=headers or None
    )


class NotReady(Exception):
    """The process still connects; the text says what it waits for."""


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever goes wrong into JSON; nothing but a bug answers 500. What a database or a broker says
    is for the log: it may name hosts, users and ports."""
    try:
        return await handler(request)
    except BadRequest as error:
        refused = refuse(error.status, error.field, error.reason)
        if isinstance(error, BadBody):
            refused.force_close()  # said aloud, so that a proxy sends nobody else's request into it
        return refused
    except web.HTTPRequestEntityTooLarge:
        return refuse(413, "body", f"larger than {request.client_max_size} bytes")
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return refuse(405, "method", f"{request.method} is not allowed here; use {allowed}", Allow=allowed)
    except web.HTTPNotFound:
        return refuse(404, "path", "there is nothing here")
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return refuse(error.status, "request", error.reason)
    except (NotReady, Unroutable) as error:
        return unavailable(str(error))
    except Exception as error:
        for what, away in (("bus", isinstance(error, BusError)), ("database", is_unavailable(error))):
            if away:
                log.warning("the %s does not answer: %s", what, error)
                return unavailable(f"the {what} does not answer; the log has more")
        log.exception("%s %s failed", request.method, request.path)
        return refuse(500, "server", "an internal error; the log has more")


def unavailable(reason: str) -> web.Response:
    """Not now: what the request asked for may work later."""
    return web.json_response({"status": "unavailable", "reason": reason}, status=503)


async def read_body(request: web.Request) -> bytes:
    """The request's body.

    Raises:
        BadBody: it is larger than its route takes (413), has not arrived in time (408), or cannot be
            unpacked (400).
    """
    limit = request.get(BODY_LIMIT, SMALL_BODY)
    seconds = BODY_TIME + limit / SLOWEST
    try:
        if request.content.is_eof():  # it came with the header, as a small one mostly does
            body = request.content.read_nowait(limit + 1)
        else:
            async with asyncio.timeout(seconds):
                body = await _read(request, limit)
    except TimeoutError:
        raise BadBody("body", f"has not arrived within {seconds:g} s", status=408) from None
    except web.RequestPayloadError:
        raise BadBody("body", "is not what content-encoding or transfer-encoding say") from None
    if len(body) > limit:
        raise _too_large(limit)
    return body


async def _read(request: web.Request, limit: int) -> bytes:
    """The body as it comes; of one that is larger than it says, so much that this can be seen."""
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for part in request.content.iter_any():
        body += part
        if len(body) > limit:
            break
    return bytes(body)


def _too_large(limit: int) -> BadBody:
    return BadBody("body", f"larger than {limit} bytes", status=413)


async def read_json(request: web.Request) -> Any:
    """The request's JSON body.

    Raises:
        BadRequest: another content type (415), too large (413), too slow (408), or no JSON (400).
    """
    # Asked for as it mostly is, before it is taken apart.
    if request.headers.get("Content-Type") != _JSON and request.content_type != _JSON:
        raise BadRequest("content-type", f"must be {_JSON}", status=415)
    body = await read_body(request)
    try:
        return from_json(body, cache_strings="keys")
    except ValueError:
        pass  # the quicker reader refuses some of what is JSON, half an emoji for one, and says less of why
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest("body", f"not JSON: {error}") from None


def read_model(model: type[ModelT], data: object) -> ModelT:
    """Validate `data`.

    Raises:
        BadRequest: the first field that does not fit (422).
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise BadRequest(*fields_of(error), status=422) from None


def fields_of(error: ValidationError) -> tuple[str, str]:
    """The first problem of a validation: field and reason."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "body"
    return field, first["msg"].removeprefix("Value error, ")
