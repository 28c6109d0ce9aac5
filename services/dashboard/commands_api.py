"""The dashboard's routes for who is allowed what, and for what a person asks of the loop.

A command is a JSON body, which no other site can make a browser send here; where a token is set, it needs
that too.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from services.dashboard import replies
from services.dashboard.facts import public
from shared.commands import Name, command, issue
from shared.requester import printable
from shared.runtime import Kernel
from shared.web import http

__all__ = ["CommandsApi"]

SOURCE = "/feedback-loop/dashboard"
BY = "dashboard"
LARGEST = 10_000
"""Bytes of a command."""
LONGEST_WHY = 500


def _one_line(text: str) -> str:
    return printable(text, LONGEST_WHY)


class CommandBody(BaseModel):
    """A command.

    Attributes:
        generation: which one a rollback goes back to; None: the one before the active one.
        why: for whoever reads of it later.
        hours: how long a pause lasts; None: until a `resume`.
    """

    model_config = ConfigDict(extra="forbid")

    command: Name
    app: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]
    generation: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    why: Annotated[str, Field(max_length=2000), AfterValidator(lambda text: printable(text, LONGEST_WHY))] = (
        ""
    )
    hours: Annotated[float, Field(gt=0, le=24 * 366, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> CommandBody:
        if self.generation is not None and self.command != "rollback":
            raise ValueError("only a rollback has a generation")
        if self.hours is not None and self.command != "pause":
            raise ValueError("only a pause has hours")
        return self


class CommandsApi:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._guard = kernel.guard

    async def access(self, request: web.Request) -> web.Response:
        """`GET /dashboard/access`: what the caller's token opens, and what a setting keeps closed."""
        settings, allows = self._kernel.settings, self._guard.allows
        words, admin = allows(request, "read", personal=True), allows(request, "admin")
        closed = {}
        if not (words or settings.read_token or settings.api_token or settings.admin_token):
            closed["words"] = "API_TOKEN"
        if not (admin or settings.api_token or settings.admin_token):
            closed["admin"] = "ADMIN_TOKEN"
        return replies.told(
            {"figures": allows(request, "read"), "words": words, "admin": admin, "closed": closed}
        )

    async def webhook(self, request: web.Request) -> web.Response:
        """`GET /dashboard/webhook`: whether there is one, and how it does."""
        self._kernel.require_ready()
        async with self._kernel.database.connection() as connection:
            row = await connection.fetchrow("select * from feedback_loop.webhook_state")
        return replies.told({"webhook": public(row) if row is not None else None})

    async def order(self, request: web.Request) -> web.Response:
        """`POST /dashboard/commands`: accepted once it is durable; what comes of it is told by the runs."""
        body = http.read_model(CommandBody, await http.read_json(request))
        self._kernel.require_ready()
        if body.command == "webhook":
            await self._require_webhook()
        until = await self._later(body.hours) if body.hours else None
        event = command(body.command, body.app, BY, body.why, body.generation, until)
        envelope = await issue(self._kernel, event, SOURCE)
        return replies.told({"status": "accepted", "event": str(envelope.id)}, status=202)

    async def _require_webhook(self) -> None:
        async with self._kernel.database.connection() as connection:
            if await connection.fetchrow("select from feedback_loop.webhook_state") is None:
                raise http.BadRequest("command", "WEBHOOK_URL is not set where the notifier runs", status=422)

    async def _later(self, hours: float) -> datetime:
        async with self._kernel.database.connection() as connection:
            now: datetime = await connection.fetchval("select now()")
        return now + timedelta(hours=hours)
