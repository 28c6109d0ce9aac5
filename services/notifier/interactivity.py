"""Slack asks back: the command `/ai-report`, and the buttons of a report.

What is guaranteed: only signed, fresh requests of allowed users do anything (`signed.py`); a button of a
report does what it says at most once, whoever presses it and however often; what it asks for is durable
before Slack hears that it is taken, and Slack hears within three seconds. What is not: that the message
shows it: that is tried once, after the answer.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, get_args
from uuid import UUID

import aiohttp
from aiohttp import web
from asyncpg import Record

from services.notifier import blocks, messages, series, signed, weekly
from services.notifier.blocks import Action, Done
from services.notifier.phrases import NAME, escape, link, time
from services.notifier.wording import WORDS
from shared.bus.envelope import Envelope, from_json
from shared.commands import command
from shared.events import Report
from shared.postgres.database import Connection
from shared.requester import printable
from shared.runtime import Kernel
from shared.web.http import refuse

__all__ = ["Interactivity"]

log = logging.getLogger(__name__)

SOURCE = "/feedback-loop/slack"
IN_TIME = 2.5
"""Seconds; Slack waits for three."""
PRESSED_IN_TIME = 1.5
"""Seconds for what a button does, so that whoever pressed it hears where the database is slow."""
MOST_APPS, MOST_DAYS, DAYS = 5, 90, 7

_REPORT = "select envelope from feedback_loop.report_event where key = $1"
_PRESS = """
insert into feedback_loop.slack_action (run, action, app, user_id, user_name, event_id)
values ($1, $2, $3, $4, $5, $6) on conflict do nothing returning true
"""
_PRESSED = "select action, user_name, done_at from feedback_loop.slack_action where run = $1 order by done_at"


class Interactivity:
    """The two routes that Slack calls. Closed where no signing secret is set."""

    def __init__(self, kernel: Kernel) -> None:
        settings = kernel.settings
        self._kernel = kernel
        self._settings = settings
        self._words = WORDS[settings.report_language]
        self._allowed = {user.strip() for user in settings.slack_allowed_users.split(",") if user.strip()}
        secret = settings.slack_signing_secret
        self._signatures = (
            signed.Signatures(secret.get_secret_value(), kernel.database) if secret is not None else None
        )
        self._later: set[asyncio.Task[None]] = set()

    async def command(self, request: web.Request) -> web.Response:
        """`POST /slack/commands`: `/ai-report [days]`, for whoever asks alone."""
        return await self._answer(request, self._command)

    async def interaction(self, request: web.Request) -> web.Response:
        """`POST /slack/interactions`: a button was pressed."""
        return await self._answer(request, self._interaction)

    async def close(self) -> None:
        """Let what is still to be said be said, shortly."""
        if self._later:
            await asyncio.wait(self._later, timeout=3)
        for task in self._later:
            task.cancel()

    async def _answer(
        self, request: web.Request, answer: Callable[[bytes], Awaitable[web.Response]]
    ) -> web.Response:
        if self._signatures is None:
            return refuse(403, "authorization", "closed until SLACK_SIGNING_SECRET is set")
        self._kernel.require_ready()
        try:
            async with asyncio.timeout(IN_TIME):
                return await answer(await self._signatures.body(request))
        except TimeoutError:
            return _only_for_you(self._words["late"])

    # --- the command --------------------------------------------------------------------

    async def _command(self, body: bytes) -> web.Response:
        asked = signed.asked(body)
        if asked.user_id not in self._allowed:
            return _only_for_you(self._refusal(asked.user_id))
        days = re.fullmatch(r"\s*(\d{1,3})?\s*", asked.text, re.ASCII)
        number = int(days[1] or DAYS) if days else 0
        if not 1 <= number <= MOST_DAYS:
            return _only_for_you(self._words["usage"])
        return _only_for_you(await self._report(number))

    async def _report(self, days: int) -> str:
        settings, texts = self._settings, []
        async with self._kernel.database.connection() as connection:
            last = await series.today(connection, settings.zone)
            first = last - timedelta(days - 1)
            for app in await series.apps(connection, MOST_APPS) or ["default"]:
                now = await series.votes(connection, app, settings.zone, last, days)
                before = await series.votes(connection, app, settings.zone, first - timedelta(1), days)
                state = await series.state_of(connection, app)
                texts.append(weekly.asked(app, first, last, now, before, *state, settings.report_language))
        return "\n\n".join([*texts, link(settings.public_url, self._words["dashboard"], "slack")])

    # --- the buttons --------------------------------------------------------------------

    async def _interaction(self, body: bytes) -> web.Response:
        done = signed.interaction(body)
        for press in done.actions if done.type == "block_actions" else ():
            # Buttons that only open a page are told of too.
            if press.action_id.startswith("do_"):
                reply, envelope = await self._in_time(press, done.user)
                self._soon(self._follow_up(envelope, done.response_url, reply))
        return web.Response()

    async def _in_time(
        self, press: signed.Press, user: signed.User
    ) -> tuple[dict[str, Any], Envelope | None]:
        """As `_pressed`; where that takes too long, the answer says so (of a press Slack shows no other)."""
        try:
            async with asyncio.timeout(PRESSED_IN_TIME):
                return await self._pressed(press, user)
        except TimeoutError:
            return _ephemeral(self._words["late"]), None

    async def _pressed(
        self, press: signed.Press, user: signed.User
    ) -> tuple[dict[str, Any], Envelope | None]:
        """Do what a button stands for: what is answered, and the event that now stands for it."""
        if user.id not in self._allowed:
            return _ephemeral(self._refusal(user.id)), None
        action = next((name for name in get_args(Action) if press.action_id == f"do_{name}"), None)
        run = _run_of(press.value)
        if action is None or run is None:
            return _ephemeral(self._words["done.unknown"]), None
        async with self._kernel.database.transaction() as connection:
            report = await _report_of(connection, run)
            if report is None:
                return _ephemeral(self._words["done.gone"]), None
            who = printable(user.shown, NAME)
            envelope = Envelope.root(command(action, report.app, who), SOURCE)
            new = await connection.fetchval(_PRESS, run, action, report.app, user.id, who, envelope.id)
            if new:
                await self._kernel.outbox.add(connection, [envelope])
            pressed = await connection.fetch(_PRESSED, run)
        if not new:
            return _ephemeral(self._already(action, pressed)), None
        log.info("%s asked for in Slack", action, extra={"app": report.app, "by": who})
        return self._updated(report, pressed), envelope

    def _refusal(self, user: str) -> str:
        return self._words["refused"].format(escape(printable(user, NAME)))

    def _already(self, action: Action, pressed: list[Record]) -> str:
        row = next(row for row in pressed if row["action"] == action)
        at = time(row["done_at"], self._settings.zone)
        return escape(self._words["done.already"].format(self._words[f"do.{action}"], row["user_name"], at))

    def _updated(self, report: Report, pressed: list[Record]) -> dict[str, Any]:
        """The report's message, with who did what, and without the buttons that did it."""
        settings = self._settings
        common = (report, settings.zone, settings.report_language, settings.public_url)
        done = [Done(row["action"], row["user_name"], row["done_at"]) for row in pressed]
        shown = blocks.report(*common, quotes=settings.slack_quotes, buttons=True, done=done)
        return {"replace_original": True, "text": messages.report(*common), "blocks": shown}

    # --- afterwards ---------------------------------------------------------------------

    async def _follow_up(self, envelope: Envelope | None, url: str, reply: dict[str, Any]) -> None:
        """Publish the command, and say so in Slack. Neither fails the other."""
        if envelope is not None:
            await self._kernel.outbox.publish_soon([envelope])
        if not signed.trusted(url, self._settings.slack_api_url):
            log.warning("an address for the answer that is not Slack's")
            return
        try:
            timeout = aiohttp.ClientTimeout(total=10)
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
                session.post(url, json=reply, allow_redirects=False) as answer,
            ):
                if answer.status >= 300:
                    log.warning("Slack did not take an answer: HTTP %d", answer.status)
        except (aiohttp.ClientError, TimeoutError) as error:  # whose text may hold the address, a secret
            log.warning("an answer did not reach Slack: %s", type(error).__name__)

    def _soon(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)


async def _report_of(connection: Connection, run: UUID) -> Report | None:
    stored = await connection.fetchval(_REPORT, f"report/{run}")
    event = from_json(stored).event if stored is not None else None
    return event if isinstance(event, Report) else None


def _run_of(value: str) -> UUID | None:
    """The run that a button's value names."""
    try:
        return UUID(value)
    except ValueError:
        return None


def _ephemeral(text: str) -> dict[str, Any]:
    return {"response_type": "ephemeral", "replace_original": False, "text": text}


def _only_for_you(text: str) -> web.Response:
    return web.json_response({"response_type": "ephemeral", "text": text})
