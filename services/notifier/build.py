"""Composition root of the notifier."""

from __future__ import annotations

from typing import TextIO

from aiohttp import web

from services.notifier import endpoint
from services.notifier.destinations import Destination, Terminal
from services.notifier.handlers import REGISTRATIONS, Notifier
from services.notifier.interactivity import Interactivity
from services.notifier.operations import CONTRACT
from services.notifier.pictures import Pictures
from services.notifier.poster import Poster, Timing
from services.notifier.signed import LIMIT
from services.notifier.slack import TIMEOUT, Bot, Webhook
from services.notifier.telling import Voice
from services.notifier.webhook import retire, webhook
from shared.runtime import Kernel, Service
from shared.settings import Settings

__all__ = ["build"]


def build(
    kernel: Kernel,
    *,
    stream: TextIO | None = None,
    request_timeout: float = TIMEOUT,
    timing: Timing | None = None,
    webhook_timeout: float = endpoint.TIMEOUT,
) -> Service:
    """The notifier: events in, messages out, to a webhook too where there is one; and, with a signing
    secret, what Slack asks back.

    Args:
        stream: where the terminal is (default: standard output).
        request_timeout: seconds for one request to Slack.
        webhook_timeout: the same for the webhook.
    """
    settings = kernel.settings
    destination = _destination(settings, stream, request_timeout)
    poster = Poster(kernel.database, destination, settings.report_language, timing, kernel.metrics)
    slack = Interactivity(kernel)

    also = webhook(kernel, webhook_timeout)

    async def start() -> None:
        if not also:
            await retire(kernel.database)

    async def stop() -> None:
        await slack.close()
        await destination.close()

    return Service(
        name="notifier",
        contract=CONTRACT,
        routes=[
            web.post("/slack/commands", kernel.guard.signed(slack.command, body=LIMIT)),
            web.post("/slack/interactions", kernel.guard.signed(slack.interaction, body=LIMIT)),
        ],
        registrations=REGISTRATIONS,
        deps=_notifier(kernel, poster),
        prefetch=1,  # a channel takes one message a second, and people read them in order
        on_start=start,
        on_stop=stop,
        announces=False,  # the announcement would fail the same way
        also=also,
    )


def _notifier(kernel: Kernel, poster: Poster) -> Notifier:
    settings, zone = kernel.settings, kernel.settings.zone
    return Notifier(
        poster=poster,
        pictures=Pictures(kernel.database, poster, zone, settings.report_language, settings.threshold),
        database=kernel.database,
        voice=Voice.of(settings, poster.destination.markup),
        weekly=settings.weekly_summary,
        buttons=settings.slack_signing_secret is not None,
    )


def _destination(settings: Settings, stream: TextIO | None, timeout: float) -> Destination:
    """Bot and channel, else webhook, else terminal."""
    if settings.slack_bot_token is not None and settings.slack_channel:
        token = settings.slack_bot_token.get_secret_value()
        return Bot(token, settings.slack_channel, settings.slack_api_url, timeout)
    if settings.slack_webhook_url is not None:
        return Webhook(settings.slack_webhook_url.get_secret_value(), timeout)
    return Terminal(stream)
