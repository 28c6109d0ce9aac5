"""Dependencies that are down: while a consumer waits for one it takes nothing, until a probe succeeds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context

from shared.bus.port import Subscription
from shared.failures import Unavailable
from shared.telemetry.metrics import Metrics

__all__ = ["Parking"]

log = logging.getLogger(__name__)

_LONGEST_PROBE = 30.0


class Parking:
    """What one consumer waits for.

    Args:
        flow: its subscription; None: it takes nothing any more, whatever comes back.
    """

    def __init__(self, consumer: str, flow: Callable[[], Subscription | None], metrics: Metrics) -> None:
        self._consumer = consumer
        self._flow = flow
        self._metrics = metrics
        self._probes: dict[str, asyncio.Task[None]] = {}

    @property
    def dependencies(self) -> list[str]:
        return list(self._probes)

    def wait_for(self, error: Unavailable) -> None:
        """Pause, and resume once all that is waited for is back."""
        if error.dependency not in self._probes:
            log.warning("%s: paused: %s", self._consumer, error)
            self._metrics.parked.set(1, self._consumer)
            self._probes[error.dependency] = asyncio.create_task(self._probe(error), context=Context())

    def close(self) -> None:
        for probe in self._probes.values():
            probe.cancel()

    async def _probe(self, error: Unavailable) -> None:
        pause = 1.0
        while True:
            try:
                if (flow := self._flow()) is not None:
                    await flow.pause()
                await asyncio.sleep(pause)
                await error.probe()
                if len(self._probes) == 1 and (flow := self._flow()) is not None:
                    await flow.resume()
                break
            except Exception as still:
                log.debug("%s: still waiting for %s: %s", self._consumer, error.dependency, still)
            pause = min(pause * 2, _LONGEST_PROBE)
        del self._probes[error.dependency]
        self._metrics.parked.set(bool(self._probes), self._consumer)
        log.info("%s: resumed: %s is back", self._consumer, error.dependency)
