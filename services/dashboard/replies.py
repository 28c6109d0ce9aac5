"""What the dashboard's routes share: reading a query string, and answering."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel

from services.dashboard.filters import BadRange, Filter, gathered
from services.dashboard.selection import Chosen, choose
from shared.postgres.database import Connection
from shared.web import http

__all__ = ["NEVER_KEPT", "SECURITY", "chosen", "one_of", "read", "told"]

SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
NEVER_KEPT = {**SECURITY, "Cache-Control": "no-store"}

ModelT = TypeVar("ModelT", bound=BaseModel)
T = TypeVar("T")


def told(found: Any, status: int = 200) -> web.Response:
    return web.json_response(found, status=status, headers=NEVER_KEPT)


def read(model: type[ModelT], request: web.Request) -> ModelT:
    """The query string as a model.

    Raises:
        BadRequest: a value that does not fit (422).
    """
    return http.read_model(model, gathered(request.query.items()))


def one_of(request: web.Request, name: str, known: Mapping[str, T], default: str) -> T:
    """Raises BadRequest where the parameter is none of the names known (422)."""
    given = request.query.get(name) or default
    if given not in known:
        raise http.BadRequest(name, f"must be {' or '.join(known)}", status=422)
    return known[given]


async def chosen(connection: Connection, asked: Filter, now: datetime, zone: tzinfo) -> Chosen:
    """What a filter means now.

    Raises:
        BadRequest: its days are no range (422).
    """
    try:
        return await choose(connection, asked, now, zone)
    except BadRange as error:
        raise http.BadRequest(error.field, str(error), status=422) from None
