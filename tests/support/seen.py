"""Which replica was given which event, and how often: a wrapper around a service's handlers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from shared.delivery.router import Handler
from shared.delivery.work import UnitOfWork
from shared.events import Event
from shared.runtime import Builder, Kernel, Service

__all__ = ["Seen"]


@dataclass
class Seen:
    """Counts calls of handlers, by replica and event."""

    calls: Counter[tuple[str, UUID]] = field(default_factory=Counter)

    def by(self, replica: str, build: Builder) -> Builder:
        """The service, with its handlers counted under the replica's name."""

        def built(kernel: Kernel) -> Service:
            service = build(kernel)
            counted = [
                replace(registration, handle=self._counted(replica, registration.handle))
                for registration in service.registrations
            ]
            return replace(service, registrations=counted)

        return built

    def times(self, replica: str, id: UUID) -> int:
        return self.calls[replica, id]

    def by_several(self) -> int:
        """How many events were given to more than one replica."""
        return sum(count > 1 for count in Counter(id for _, id in self.calls).values())

    def _counted(self, replica: str, handle: Handler) -> Callable[..., Awaitable[list[Event]]]:
        async def counted(event: Any, work: UnitOfWork, deps: Any) -> list[Event]:
            self.calls[replica, work.envelope.id] += 1
            return await handle(event, work, deps)

        return counted
