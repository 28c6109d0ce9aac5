"""`feedback-loop webhook`: how the webhook does, a test of it, and switching it on again."""

from __future__ import annotations

from typing import Any

import click

from services.commands.console import errand, request, until_handled
from services.commands.glance import connect
from services.commands.tables import plain
from shared.events import WebhookTest
from shared.postgres.database import Connection
from shared.settings import Settings

__all__ = ["enable_webhook", "read_webhook", "show_webhook", "summary", "test_webhook"]

WITHIN = 60.0
"""Seconds for a test."""
NONE = "there is no webhook: set WEBHOOK_URL and WEBHOOK_SECRET where the notifier runs, and restart it"

_ENABLE = """
update feedback_loop.webhook set failures = 0, disabled_at = null, disabled_reason = null
where seen_at = (select max(seen_at) from feedback_loop.webhook)
"""


async def read_webhook(connection: Connection) -> dict[str, Any] | None:
    """The webhook's state; None where there is none."""
    row = await connection.fetchrow("select * from feedback_loop.webhook_state")
    return dict(row) if row is not None else None


async def test_webhook(settings: Settings) -> None:
    """Send a test message, once, and say what came of it.

    Raises:
        ClickException: there is no webhook, or it has not taken the message.
        TimeoutError: the notifier does not run.
    """
    async with errand(settings) as runtime:
        kernel = runtime.kernel
        async with kernel.database.connection() as connection:
            if await read_webhook(connection) is None:
                raise click.ClickException(NONE)
        envelope = await request(kernel, WebhookTest(requested_by="cli"))
        await until_handled(kernel, envelope.id, WITHIN)
        async with kernel.database.connection() as connection:
            state = await read_webhook(connection)
    if state is None or state["test_failure"] is not None:
        why = plain(state["test_failure"]).plain if state is not None else "it is gone"
        raise click.ClickException(f"the webhook has not taken the test message: {why}")
    click.echo(f"{state['host']} has taken the test message; the webhook is on")


async def enable_webhook(settings: Settings) -> None:
    """Switch the webhook on, and say so.

    Raises:
        ClickException: there is none.
    """
    database = await connect(settings)
    try:
        async with database.transaction() as connection:
            if await read_webhook(connection) is None:
                raise click.ClickException(NONE)
            await connection.execute(_ENABLE)
    finally:
        await database.close()
    click.echo("the webhook is on; what was told while it was off is not sent")


async def show_webhook(settings: Settings) -> None:
    """Print how the webhook does."""
    database = await connect(settings)
    try:
        async with database.connection() as connection:
            state = await read_webhook(connection)
    finally:
        await database.close()
    click.echo(NONE if state is None else summary(state))


def summary(state: dict[str, Any]) -> str:
    """A webhook's state in a line."""
    if state["disabled_at"] is not None:
        said = f"switched off since {state['disabled_at']:%Y-%m-%d %H:%M} UTC: {state['disabled_reason']}"
        return f"{state['host']}: {said}; `feedback-loop webhook test` switches it on"
    failures = f", {state['failures']} failures in a row" if state["failures"] else ""
    last = state["delivered_at"]
    return f"{state['host']}: {f'last delivered {last:%Y-%m-%d %H:%M} UTC' if last else 'on'}{failures}"
