"""Processes forked from a warm parent: a start costs milliseconds, and a death is a real one.

The parent (multiprocessing's fork server) has imported the services and nothing else: it has no event
loop, no connection and no thread of the tests.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
from collections.abc import Callable
from typing import Any

from tests.support.events import wait_until

__all__ = ["Forked", "quiet"]

_PRELOAD = [
    "services.analyzer.build",
    "services.collector.build",
    "services.embedder.build",
    "services.notifier.build",
    "services.trigger.build",
    "shared.bus.rabbit",
    "tests.support.loop",
]


class Forked:
    """`main(*arguments)` in a process of its own; both must be picklable."""

    def __init__(self, main: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
        process = context.Process(target=main, args=arguments, daemon=True)
        process.start()
        self.process = process

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.join()

    async def ended(self, within: float = 60) -> int:
        """Its exit code. After `within` seconds it is killed.

        Raises:
            AssertionError: it had to be.
        """
        try:
            await wait_until(lambda: not self.process.is_alive(), within)
        except AssertionError:
            self.kill()
            raise
        await asyncio.to_thread(self.process.join)
        assert self.process.exitcode is not None
        return self.process.exitcode


def quiet() -> None:
    """No logs: they would mix with the tests' output."""
    logging.disable(logging.CRITICAL)
