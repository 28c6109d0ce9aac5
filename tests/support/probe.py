"""A service that stands for any: it does what a test tells it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from shared.delivery.router import GiveUp, Registration
from shared.delivery.work import UnitOfWork
from shared.events import Event, LoopPaused
from shared.runtime import Kernel, Service

__all__ = ["Probe", "nothing"]

Work = Callable[[Event, UnitOfWork], Awaitable[list[Event]]]


async def nothing(event: Event, work: UnitOfWork) -> list[Event]:
    return []


@dataclass
class Probe:
    """A service with one handler, which keeps what it was called with."""

    name: str = "probe"
    work: Work = nothing
    event: type[Event] = LoopPaused
    on_give_up: GiveUp | None = None
    announces: bool = True
    prefetch: int = 4
    calls: list[Event] = field(default_factory=list)

    async def handle(self, event: Event, work: UnitOfWork, deps: object) -> list[Event]:
        self.calls.append(event)
        return await self.work(event, work)

    def __call__(self, kernel: Kernel) -> Service:
        registration = Registration(self.event, self.handle, self.on_give_up)
        return Service(
            self.name, registrations=[registration], prefetch=self.prefetch, announces=self.announces
        )
