from __future__ import annotations

import asyncio
from collections.abc import Callable

from shared.runtime import Kernel, Runtime, Service
from shared.settings import Settings


async def test_stopping_ends_a_start_that_lost_a_cancellation(make_settings: Callable[..., Settings]) -> None:
    starting = asyncio.Event()

    async def start() -> None:
        starting.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)

    def build(kernel: Kernel) -> Service:
        return Service(name="slow", on_start=start)

    runtime = Runtime(make_settings(), [build])
    await runtime.start(http_server=False)
    await starting.wait()
    async with asyncio.timeout(5):
        await runtime.stop()
