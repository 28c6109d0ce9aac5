"""Calling a trigger that runs elsewhere: what a scheduler does, as a command."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import timedelta

import aiohttp
import click

from shared.requester import printable
from shared.settings import Settings

__all__ = ["hit"]

LONGEST = 1000
"""Characters of an answer that are shown."""
PAUSE = 15.0
"""Seconds between two tries."""

_USER = re.compile(r"//[^/]*@")
"""User and password of an address."""

NOT_NOW = {429, 502, 503, 504}
"""Answers after which the same request may succeed."""


async def hit(
    settings: Settings,
    url: str | None,
    app: str | None,
    scheduled: bool = False,
    retry_for: timedelta = timedelta(),
    pause: float = PAUSE,
) -> None:
    """Call `/run-feedback-loop` of a running trigger, and say what it answers.

    An address without a scheme, such as a platform's `host:port`, is an `http://` one. Hits that follow
    each other within `TRIGGER_WINDOW` are one run, so to try again is safe.

    Raises:
        click.ClickException: it cannot be reached, or answers anything but 200, to the end.
    """
    address = url or settings.trigger_url or f"http://localhost:{settings.port}"
    address = (address if "://" in address else f"http://{address}").rstrip("/") + "/run-feedback-loop"
    headers = {"User-Agent": "feedback-loop-cli"}
    if settings.trigger_token:
        headers["Authorization"] = f"Bearer {settings.trigger_token.get_secret_value()}"
    body = {**({"app": app} if app else {}), **({"scheduled": True} if scheduled else {})}
    deadline = time.monotonic() + retry_for.total_seconds()
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=30)) as session:
        while True:
            failure, again = await _once(session, address, body)
            if failure is None:
                return
            if not again or time.monotonic() + pause > deadline:
                raise click.ClickException(failure)
            click.echo(f"{failure}; trying again in {pause:g} s", err=True)
            await asyncio.sleep(pause)


async def _once(
    session: aiohttp.ClientSession, address: str, body: dict[str, object]
) -> tuple[str | None, bool]:
    """What went wrong, if anything did, and whether it may go right a moment later."""
    shown = _USER.sub("//", address)
    try:
        async with session.post(address, json=body, allow_redirects=False) as response:
            # Whatever stands in front answers in whatever letters it likes.
            text = printable((await response.read()).decode(errors="replace"), LONGEST)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        why = str(error).replace(address, shown) or "no answer"
        return f"cannot reach {shown}: {why}; is `feedback-loop up` running?", True
    if 300 <= response.status < 400:
        return f"{shown} redirects ({response.status}): give --url where it leads", False
    if response.status != 200:
        return f"{shown} answered {response.status}: {text}", response.status in NOT_NOW
    click.echo(text)
    return None, False
