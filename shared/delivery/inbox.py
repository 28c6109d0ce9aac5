"""The inbox of one consumer: what it has dealt with, and how often it failed at what it has not.

Attempts are counted in Postgres rather than in a message header: the count survives a broker that
loses its disk, and copies of one event share it.
"""

from __future__ import annotations

from uuid import UUID

from shared.bus.envelope import Envelope
from shared.postgres.database import Database

__all__ = ["Inbox"]


class Inbox:
    """The rows of `consumer` in `inbox`, `attempt` and `consumer`."""

    def __init__(self, database: Database, consumer: str) -> None:
        self._database = database
        self._consumer = consumer

    async def register(self, types: list[str]) -> None:
        """Say which event types this consumer takes, so that outbox rows wait for it."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "delete from feedback_loop.consumer where consumer = $1 and type <> all($2::text[])",
                self._consumer,
                types,
            )
            await connection.execute(
                "insert into feedback_loop.consumer (consumer, type)"
                " select $1, unnest($2::text[]) on conflict do nothing",
                self._consumer,
                types,
            )

    async def count_delivery(self, envelope: Envelope) -> int:
        """Count a redelivery before the handler runs, so that an event that kills the process ends.

        Returns:
            The redeliveries so far; 0 where the event is dealt with already.
        """
        async with self._database.connection() as connection:
            deliveries = await connection.fetchval(
                "insert into feedback_loop.attempt as a (consumer, event_id, deliveries)"
                " select $1, $2, 1 where not exists (select from feedback_loop.inbox"
                "   where consumer = $1 and event_id = $2)"
                " on conflict (consumer, event_id)"
                " do update set deliveries = a.deliveries + 1, changed_at = now()"
                " returning deliveries",
                self._consumer,
                envelope.id,
            )
        return deliveries or 0

    async def count_failure(self, envelope: Envelope, reason: str) -> int:
        """Count a failure of the handler. Returns the failures so far."""
        async with self._database.connection() as connection:
            failures: int = await connection.fetchval(
                "insert into feedback_loop.attempt as a (consumer, event_id, failures, reason)"
                " values ($1, $2, 1, $3) on conflict (consumer, event_id)"
                " do update set failures = a.failures + 1, reason = excluded.reason, changed_at = now()"
                " returning failures",
                self._consumer,
                envelope.id,
                reason,
            )
        return failures

    async def failures(self, id: UUID) -> int:
        async with self._database.connection() as connection:
            return (
                await connection.fetchval(
                    "select failures from feedback_loop.attempt where consumer = $1 and event_id = $2",
                    self._consumer,
                    id,
                )
                or 0
            )

    async def postpone(self, envelope: Envelope, delay: float) -> None:
        """Note that the event waits on a retry queue for `delay` seconds: the relay leaves it alone."""
        async with self._database.connection() as connection:
            await connection.execute(
                "update feedback_loop.attempt set next_at = now() + make_interval(secs => $3)"
                " where consumer = $1 and event_id = $2",
                self._consumer,
                envelope.id,
                delay,
            )

    async def unburied(self, id: UUID) -> str | None:
        """Why the event was given up, where its dead letter may not have reached its queue."""
        async with self._database.connection() as connection:
            reason: str | None = await connection.fetchval(
                "select reason from feedback_loop.inbox where consumer = $1 and event_id = $2"
                " and state = 'dead' and buried_at is null",
                self._consumer,
                id,
            )
        return reason

    async def mark_buried(self, id: UUID) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "update feedback_loop.inbox set buried_at = now() where consumer = $1 and event_id = $2",
                self._consumer,
                id,
            )
