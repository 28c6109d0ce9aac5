"""Publishing events as a service would, and waiting for what follows."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from shared.bus.envelope import Envelope
from shared.events import Event
from shared.runtime import Kernel

__all__ = ["publish", "publish_envelopes", "wait_until"]


async def publish(kernel: Kernel, *events: Event, cause: Envelope | None = None) -> list[Envelope]:
    """Write events to the outbox and publish them.

    Args:
        cause: the event they follow from (they join its run); None: each is a root.
    """
    envelopes = [
        cause.follow(event, "test") if cause else Envelope.root(event, "/feedback-loop/test")
        for event in events
    ]
    await publish_envelopes(kernel, *envelopes)
    return envelopes


async def publish_envelopes(kernel: Kernel, *envelopes: Envelope) -> None:
    async with kernel.database.transaction() as connection:
        await kernel.outbox.add(connection, envelopes)
    await kernel.outbox.publish(envelopes)


async def wait_until(condition: Callable[[], Any], timeout: float = 15) -> Any:
    """What `condition` returns (or what its coroutine gives), once that is true.

    Raises:
        AssertionError: it was not within `timeout` seconds.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {timeout:g} s; last: {value!r}")
        await asyncio.sleep(0.02)
