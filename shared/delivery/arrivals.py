"""Group commit of deliveries whose handlers wrote nothing: inbox rows and following events together.

What is guaranteed: `add` returns when inbox row and events are committed, both or neither, as if each
delivery had written its own. What is not: that two deliveries which are written at once are independent of
each other's wait for the disk; that is what is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.bus.envelope import Envelope
from shared.delivery.outbox import INSERT, columns
from shared.postgres.database import Database
from shared.postgres.gathering import Gathering

__all__ = ["Arrival", "Arrivals", "Duplicate"]

TOGETHER = 8
"""Deliveries in one commit; a quarter of those that there may be, if that is more."""

# In one order everywhere, so that two processes with the same duplicates never wait for each other.
_OF_NEW = "where (e.producer, e.cause::uuid) in (select consumer, event_id from arrived) order by e.event_id"
_WRITE = f"""
with arrived as (
  insert into feedback_loop.inbox (consumer, event_id, type, correlation, state)
  select n.consumer, n.event_id::uuid, n.type, n.correlation::uuid, 'processed'
  from unnest($8::text[], $9::text[], $10::text[], $11::text[]) as n (consumer, event_id, type, correlation)
  order by n.consumer, n.event_id
  on conflict do nothing returning consumer, event_id
), following as ({INSERT.format(only=_OF_NEW)})
select consumer, event_id from arrived
"""


class Duplicate(Exception):
    """This consumer has dealt with the event already."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event that `consumer` has dealt with, and what follows from it."""

    consumer: str
    envelope: Envelope
    following: Sequence[Envelope]


class Arrivals:
    """Writes what is dealt with at the same time in one commit.

    Args:
        at_once: deliveries that there may be at the same time.
    """

    def __init__(self, database: Database, at_once: int = 1) -> None:
        self._database = database
        # Two deliveries of one event are never in one write, so the second finds the first's row. Not all of
        # them are in one: while some are written, others are handled and published.
        self._gathering = Gathering[Arrival, None](
            self._write, lambda one: (one.consumer, one.envelope.id), most=max(TOGETHER, at_once // 4)
        )

    async def add(self, arrival: Arrival) -> None:
        """Write it.

        Raises:
            Duplicate: another delivery of this event has committed. Nothing was written.
        """
        await self._gathering.add(arrival)

    async def _write(self, some: Sequence[Arrival]) -> list[Exception | None]:
        of = [one.envelope for one in some]
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                _WRITE,
                *columns(following for one in some for following in one.following),
                False,
                [one.consumer for one in some],
                [str(each.id) for each in of],
                [each.type for each in of],
                [str(each.correlation) for each in of],
            )
        new = {(row["consumer"], row["event_id"]) for row in rows}
        return [None if (one.consumer, one.envelope.id) in new else Duplicate() for one in some]
