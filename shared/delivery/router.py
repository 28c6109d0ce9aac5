"""The router: takes deliveries from the bus to handlers, and what they return back to the bus.

For each event: the handler's effect, the inbox row and the events that follow are one transaction;
then the events are published with confirms; the acknowledgement comes last. A duplicate publishes
again whatever of the *stored* outcome is unpublished, so two deliveries of one event can never
decide differently. Failures climb a ladder of delays and end in the dead-letter queue.

Not guaranteed: order. A handler sees its events in any order, and its slow steps more than once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from shared.bus.envelope import Envelope, InvalidMessage, Message, decode, encode, event_id
from shared.bus.port import RELAYED, Bus, BusError, Delivery, Subscription
from shared.delivery.arrivals import Arrivals
from shared.delivery.inbox import Inbox
from shared.delivery.outbox import Outbox
from shared.delivery.parking import Parking
from shared.delivery.sight import Sight
from shared.delivery.work import Duplicate, UnitOfWork
from shared.events import Event, LoopFailed
from shared.failures import Reject, Retry, Unavailable
from shared.postgres.database import Database, despite_conflicts, is_unavailable
from shared.requester import printable
from shared.telemetry.metrics import INVALID, Metrics, Outcome

__all__ = ["Adopt", "Registration", "Router"]

log = logging.getLogger(__name__)

Handler = Callable[[Any, UnitOfWork, Any], Awaitable[list[Event]]]
GiveUp = Callable[[Any, str, UnitOfWork], Awaitable[list[Event]]]
Adopt = Callable[[Envelope], Awaitable[Envelope]]

MOST_DELIVERIES = 20
"""Deliveries without an acknowledgement before an event counts as one that kills its process."""
_LONGEST_REASON = 1000
_PARKED = 5.0


@dataclass(frozen=True, slots=True)
class Registration:
    """Which handler takes an event type.

    Attributes:
        on_give_up: what else happens, in the transaction that gives the event up.
    """

    event: type[Event]
    handle: Handler
    on_give_up: GiveUp | None = None


class Router:
    """One consumer: its queue, its handlers, its inbox.

    Args:
        consumer: the name of queue and inbox.
        deps: what the handlers get as their third argument.
        announces: whether giving up is announced as `loop.failed`; the notifier's own failures are
            not (the announcement would fail the same way).
    """

    def __init__(
        self,
        consumer: str,
        registrations: Sequence[Registration],
        deps: object,
        *,
        database: Database,
        bus: Bus,
        outbox: Outbox,
        adopt: Adopt,
        prefetch: int = 4,
        announces: bool = True,
        sight: Sight | None = None,
    ) -> None:
        self.consumer = consumer
        self._handlers = {registration.event.type: registration for registration in registrations}
        self._deps = deps
        self._database = database
        self._inbox = Inbox(database, consumer)
        self._arrivals = Arrivals(database, prefetch)
        self._bus = bus
        self._outbox = outbox
        self._adopt = adopt
        self._prefetch = prefetch
        self._announces = announces
        self._subscription: Subscription | None = None
        self._in_flight: set[asyncio.Task[None]] = set()
        self._sight = sight or Sight(Metrics())
        self._sight.metrics.consumes(consumer, list(self._handlers))
        self._parking = Parking(consumer, lambda: self._subscription, self._sight.metrics)

    # --- life ---------------------------------------------------------------------------

    async def register(self) -> None:
        """Make outbox rows wait for this consumer."""
        await self._inbox.register(list(self._handlers))

    async def start(self) -> None:
        self._subscription = await self._bus.subscribe(
            self.consumer, list(self._handlers), self.on_delivery, self._prefetch
        )

    async def drain(self, deadline: float) -> None:
        """Take nothing new, and give what is in flight `deadline` seconds to end; what does not is
        cancelled, rolls back and comes again elsewhere."""
        self._parking.close()
        # Nothing can resume it from here on, not even a dependency that comes back meanwhile.
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            try:
                await subscription.pause()
            except BusError as error:
                log.warning("%s: cannot stop consuming: %s", self.consumer, error)
        if self._in_flight:
            _, late = await asyncio.wait(set(self._in_flight), timeout=deadline)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def trouble(self) -> str | None:
        """Why this consumer takes nothing, or None when it does."""
        if self._subscription is None:
            return f"{self.consumer} is not consuming yet"
        if waiting := self._parking.dependencies:
            return f"{self.consumer} waits for {', '.join(waiting)}"
        return None

    # --- one delivery -------------------------------------------------------------------

    async def on_delivery(self, delivery: Delivery) -> None:
        """Deal with one delivery; returns with it acknowledged, or leaves it to come again."""
        task = asyncio.current_task()
        assert task is not None
        self._in_flight.add(task)
        try:
            await self._deal_with(delivery)
        except BusError as error:
            log.warning("%s: left for redelivery: %s", self.consumer, error)
        finally:
            self._in_flight.discard(task)

    async def _deal_with(self, delivery: Delivery) -> None:
        try:
            envelope = decode(delivery.message)
            if envelope.type not in self._handlers:
                raise InvalidMessage(f"{self.consumer} does not take {envelope.type}")
        except InvalidMessage as error:
            await self._bury_invalid(delivery, printable(str(error), _LONGEST_REASON))
            return
        with self._sight.handling(envelope, self._bus, self.consumer) as seen:
            seen.outcome = await self._end_of(envelope, delivery)
            await delivery.ack()

    async def _end_of(self, envelope: Envelope, delivery: Delivery) -> Outcome:
        """Deal with an event; afterwards its delivery may be acknowledged."""
        try:
            envelope = await self._adopt(envelope)
            suspicious = delivery.redelivered or RELAYED in delivery.message.headers
            deliveries = await self._inbox.count_delivery(envelope) if suspicious else 0
            if deliveries > MOST_DELIVERIES:
                # A hook that raises, or kills, must not keep the event for ever either.
                hook = deliveries <= 2 * MOST_DELIVERIES
                return await self._give_up(
                    envelope, "it was delivered again and again, and never finished", hook
                )
            return await self._attempt(envelope)
        except Unavailable as error:
            return await self._park(encode(envelope), error)
        except Exception as error:
            if not is_unavailable(error):
                raise
            # An anonymous event has no id to write yet: it waits as it came.
            parked = delivery.message if envelope.anonymous else encode(envelope)
            reason = f"{type(error).__name__}: {error}"
            return await self._park(parked, Unavailable("the database", reason, self._database.ping))

    async def _attempt(self, envelope: Envelope) -> Outcome:
        """Handle the event once; afterwards it is done, on a retry queue, or given up."""
        try:
            produced = await self._handle(envelope)
        except Duplicate:
            return await self._finish_earlier(envelope)
        except Unavailable:
            raise
        except Reject as error:
            return await self._give_up(envelope, printable(str(error), _LONGEST_REASON))
        except Exception as error:
            if is_unavailable(error):
                raise
            return await self._fail(envelope, error)
        self._sight.metrics.consumed(envelope.event)
        await self._follow(produced)
        return "processed"

    async def _follow(self, produced: Sequence[Envelope]) -> None:
        """Publish what has been committed."""
        for envelope in produced:
            self._sight.metrics.produced(envelope.event, time.time())
        await self._outbox.publish_soon(produced)

    async def _handle(self, envelope: Envelope) -> list[Envelope]:
        registration = self._handlers[envelope.type]

        async def once() -> list[Envelope]:
            async with UnitOfWork(self._database, envelope, self.consumer, self._arrivals) as work:
                following = await registration.handle(envelope.event, work, self._deps)
                produced = [envelope.follow(event, self.consumer) for event in following]
                work.emit(produced)
            return produced

        return await despite_conflicts(once)

    async def _finish_earlier(self, envelope: Envelope) -> Outcome:
        """Do what the delivery that committed may not have come to: publish, or bury."""
        await self._outbox.publish_soon(await self._outbox.unpublished(envelope.id, self.consumer))
        reason = await self._inbox.unburied(envelope.id)
        if reason is not None:
            await self._bury(envelope, reason)
        return "duplicate"

    # --- failures -----------------------------------------------------------------------

    async def _fail(self, envelope: Envelope, error: Exception) -> Outcome:
        """Count the failure; then the next rung of the ladder, or the end."""
        reason = printable(f"{type(error).__name__}: {error}", _LONGEST_REASON)
        ladder = self._bus.topology.ladder
        failures = await self._inbox.count_failure(envelope, reason)
        if failures > len(ladder):
            return await self._give_up(envelope, reason)
        delay = self._bus.topology.rung(error.after) if isinstance(error, Retry) else ladder[failures - 1]
        await self._inbox.postpone(envelope, delay)
        if isinstance(error, Retry):
            log.info("%s: %s again in %g s: %s", self.consumer, envelope.type, delay, error)
        else:
            log.error("%s: %s failed, again in %g s", self.consumer, envelope.type, delay, exc_info=error)
        await self._bus.send(self.consumer, encode(envelope), delay)
        return "retried"

    async def _give_up(self, envelope: Envelope, reason: str, hook: bool = True) -> Outcome:
        registration = self._handlers[envelope.type]
        failures = await self._inbox.failures(envelope.id)
        try:
            async with UnitOfWork(self._database, envelope, self.consumer) as work:
                await work.begin_dead(reason)
                following: list[Event] = []
                if hook and registration.on_give_up is not None:
                    following += await registration.on_give_up(envelope.event, reason, work)
                if self._announces:
                    following.append(self._failed(envelope.id, envelope.type, reason, failures))
                produced = [envelope.follow(event, self.consumer) for event in following]
                work.emit(produced)
        except Duplicate:
            return await self._finish_earlier(envelope)
        log.error("%s: gave up on %s %s: %s", self.consumer, envelope.type, envelope.id, reason)
        await self._follow(produced)
        await self._bury(envelope, reason)
        return "dead"

    async def _bury(self, envelope: Envelope, reason: str) -> None:
        await self._bus.bury(self.consumer, encode(envelope), reason)
        await self._inbox.mark_buried(envelope.id)

    def _failed(self, id: UUID, type: str, reason: str, attempts: int) -> LoopFailed:
        return LoopFailed(
            failed_event=id,
            failed_type=type[:80],
            consumer=self.consumer,
            reason=reason,
            attempts=max(1, attempts),
            dead_letter=self._bus.topology.dead,
        )

    async def _bury_invalid(self, delivery: Delivery, reason: str) -> None:
        """What is no event has no inbox row: it goes to the dead-letter queue as it came."""
        log.error("%s: invalid message: %s", self.consumer, reason)
        await self._bus.bury(self.consumer, delivery.message, reason)
        await delivery.ack()
        self._sight.metrics.handled.add(self.consumer, INVALID, "dead")
        if self._announces:
            await self._announce_invalid(delivery, reason)

    async def _announce_invalid(self, delivery: Delivery, reason: str) -> None:
        key = f"{delivery.message.routing_key}\0{delivery.message.headers}\0{delivery.message.body!r}"
        id = event_id("/invalid", key)
        failed = self._failed(id, delivery.message.routing_key, reason, 1)
        source = f"/feedback-loop/{self.consumer}"
        envelope = Envelope.root(failed, source, failed.identity(id, self.consumer))
        try:
            async with self._database.connection() as connection:
                await self._outbox.add(connection, [envelope])
        except Exception as error:
            # The message itself is safe; only its announcement is not.
            log.warning("%s: cannot announce a dead letter: %s", self.consumer, error)
            return
        await self._outbox.publish_soon([envelope])

    # --- dependencies that are down -----------------------------------------------------

    async def _park(self, message: Message, error: Unavailable) -> Outcome:
        """Put the event aside with no attempt burnt, and consume nothing until the probe succeeds."""
        await self._bus.send(self.consumer, message, _PARKED)
        self._parking.wait_for(error)
        return "parked"
