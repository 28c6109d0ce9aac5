"""What services are built on, and what a service is: the two sides of a composition root."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from aiohttp import web

from shared.bus.envelope import Envelope
from shared.bus.port import Bus
from shared.contracts.contract import Contract
from shared.delivery import runs
from shared.delivery.outbox import Outbox
from shared.delivery.router import Registration
from shared.delivery.sight import Sight
from shared.mirror.mirror import Mirror, make_mirror
from shared.postgres.database import Database
from shared.settings import Settings
from shared.telemetry.metrics import Metrics
from shared.web import http
from shared.web.access import Guard

if TYPE_CHECKING:
    from shared.embedding.models import Embedder

__all__ = ["Builder", "Hook", "Kernel", "Service"]

Hook = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Kernel:
    """What a service is built on."""

    settings: Settings
    database: Database
    bus: Bus
    outbox: Outbox
    sight: Sight = field(default_factory=lambda: Sight(Metrics()))
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    waiting_for: str = "starting"
    """Why `ready` is not set."""
    stopping: bool = False
    """It will not become ready again."""
    guard: Guard = field(init=False)
    """Who may call which route."""
    mirror: Mirror = field(init=False)
    """Where votes are shown too, if anywhere."""
    _embedder: Embedder | None = None

    def __post_init__(self) -> None:
        self.guard = Guard(self.settings)
        self.mirror = make_mirror(self.settings, self.database)

    @property
    def metrics(self) -> Metrics:
        return self.sight.metrics

    def embedder(self) -> Embedder:
        """The one embedding model of this process, loaded when it is first used."""
        if self._embedder is None:
            from shared.embedding.models import make_embedder  # numpy is slow to import

            self._embedder = make_embedder(self.settings)
        return self._embedder

    async def close_embedder(self) -> None:
        if self._embedder is not None:
            await self._embedder.close()

    @property
    def trigger_window(self) -> timedelta:
        return timedelta(minutes=self.settings.trigger_window)

    def require_ready(self) -> None:
        """Raises `http.NotReady` while the process still connects: routes answer 503 with the reason."""
        if not self.ready.is_set():
            raise http.NotReady(self.waiting_for)

    async def adopt(self, envelope: Envelope) -> Envelope:
        return await runs.adopt(self.database, self.outbox, envelope, self.trigger_window)


@dataclass(frozen=True, slots=True)
class Service:
    """One service, built and not yet running.

    Attributes:
        name: also the name of its consumer: its queue and its inbox.
        routes: its HTTP routes.
        registrations: the event types it takes; none, and it has no queue.
        deps: the third argument of its handlers.
        on_start: runs once when database and bus are there.
        on_stop: runs at shutdown, before connections close.
        announces: see `Router`.
        contract: what its routes do and which events it sends, for whoever calls it.
        also: services that run wherever this one does, each with a queue of its own.
    """

    name: str
    routes: Sequence[web.AbstractRouteDef] = ()
    registrations: Sequence[Registration] = ()
    deps: object = None
    prefetch: int = 4
    on_start: Hook | None = None
    on_stop: Hook | None = None
    announces: bool = True
    contract: Contract = field(default_factory=lambda: Contract(""))
    also: Sequence[Service] = ()


Builder = Callable[[Kernel], Service]
