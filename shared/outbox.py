"""The transactional outbox: events are written with the effect that causes them, then published.

Guaranteed: an event whose transaction committed reaches every registered consumer, however often
processes, bus or broker die in between. Not guaranteed: how often. The relay republishes what has
no inbox row yet; racing the direct publish is harmless, because the inbox absorbs it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from uuid import UUID

from asyncpg import Record

from shared.bus import RELAYED, Bus, BusError, Unroutable
from shared.database import Connection, Database, is_unavailable
from shared.envelope import Envelope, InvalidMessage, Message, encode, from_json, to_json

__all__ = ["Outbox"]

log = logging.getLogger(__name__)

GRACE = 30.0
"""Seconds that direct publishing and handling get before the relay looks."""
_LONGEST = 3600.0
_LONGEST_PAUSE = 600.0
_BATCH = 100

_OPEN = """
select o.event_id, o.envelope, m.missing
from feedback_loop.outbox o
cross join lateral (
  select array(select c.consumer from feedback_loop.consumer c
               where c.type = o.type
                 and not exists (select from feedback_loop.inbox i
                                 where i.consumer = c.consumer and i.event_id = o.event_id)
                 and not exists (select from feedback_loop.attempt a
                                 where a.consumer = c.consumer and a.event_id = o.event_id
                                   and a.next_at > now() - make_interval(secs => $2))) as missing) m
where o.done_at is null
  and m.missing <> '{}' -- else what nobody can take now would crowd out what somebody can
  and case when $1::timestamptz is null
      then coalesce(o.published_at, o.created_at)
             < now() - make_interval(secs => least($2 * 2 ^ least(o.publishes, 10), $3))
      else o.published_at is null or o.published_at < $1 end
order by o.created_at
limit $4
for update of o skip locked
"""
_DONE = """
update feedback_loop.outbox o set done_at = now()
where o.done_at is null
  and exists (select from feedback_loop.consumer c where c.type = o.type)
  and not exists (select from feedback_loop.consumer c
                  where c.type = o.type
                    and not exists (select from feedback_loop.inbox i
                                    where i.consumer = c.consumer and i.event_id = o.event_id))
"""
_MARK = """
update feedback_loop.outbox
set published_at = case when $2 then now() else published_at end, publishes = publishes + 1
where event_id = any($1::uuid[])
"""


class Outbox:
    """Writes, publishes and relays events of one process."""

    def __init__(self, database: Database, bus: Bus, grace: float = GRACE) -> None:
        self._database = database
        self._bus = bus
        self._grace = grace
        self.while_open: Callable[[], Awaitable[None]] | None = None
        """Called now and then while events are open: there is work that must not fall asleep."""
        self._watch: asyncio.Task[None] | None = None
        self._pause = grace

    async def add(
        self, connection: Connection, envelopes: Iterable[Envelope], published: bool = False
    ) -> None:
        """Write events in the caller's transaction. An event that is there already stays as it is."""
        await connection.executemany(
            "insert into feedback_loop.outbox"
            " (event_id, type, producer, cause, correlation, envelope, published_at, publishes)"
            " values ($1, $2, $3, $4, $5, $6, case when $7 then now() end, $7::boolean::integer)"
            " on conflict (event_id) do nothing",
            [
                (
                    envelope.id,
                    envelope.type,
                    envelope.source.rpartition("/")[2],
                    envelope.cause,
                    envelope.correlation,
                    to_json(envelope),
                    published,
                )
                for envelope in envelopes
            ],
        )

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        """Publish committed events and note it; whatever fails here, the relay makes good.

        Raises:
            BusError: the bus did not take one of them.
        """
        if not envelopes:
            return
        self.watch()
        # All at once: one that is unroutable must not hold up the others.
        results = await asyncio.gather(
            *(self._bus.publish(encode(envelope)) for envelope in envelopes), return_exceptions=True
        )
        taken = [envelope.id for envelope, result in zip(envelopes, results, strict=True) if result is None]
        async with self._database.connection() as connection:
            await connection.execute(_MARK, taken, True)
        for result in results:
            if result is not None:
                raise result

    async def publish_soon(self, envelopes: Sequence[Envelope]) -> None:
        """Publish committed events now if the bus takes them; else the relay does it later."""
        try:
            await self.publish(envelopes)
        except BusError as error:
            log.warning("published later by the relay: %s", error)

    async def unpublished(self, cause: UUID, producer: str) -> list[Envelope]:
        """What `producer` derived from `cause` and nobody could publish yet."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "select envelope from feedback_loop.outbox"
                " where cause = $1 and producer = $2 and published_at is null order by created_at",
                cause,
                producer,
            )
        return [from_json(row["envelope"]) for row in rows]

    async def relay(self, everything: bool = False) -> int:
        """Send what is open again, to the consumers that miss it; `everything`: however fresh.

        Returns:
            How many events are still open.
        """
        async with self._database.connection() as connection:
            start = await connection.fetchval("select now()") if everything else None
        while await self._relay_batch(start) == _BATCH:
            pass
        async with self._database.connection() as connection:
            return int(
                await connection.fetchval("select count(*) from feedback_loop.outbox where done_at is null")
            )

    async def _relay_batch(self, before: datetime | None) -> int:
        """Send up to a hundred open events again. Returns how many."""
        async with self._database.transaction() as connection:
            await connection.execute(_DONE)
            rows = await connection.fetch(_OPEN, before, self._grace, _LONGEST, _BATCH)
            tried: dict[UUID, bool] = {}
            for row in rows:
                try:
                    tried[row["event_id"]] = await self._resend(row)
                except InvalidMessage as error:
                    log.error("cannot read %s from the outbox: %s", row["event_id"], error)
                    tried[row["event_id"]] = False
                except BusError as error:
                    log.warning("cannot relay now: %s", error)
                    break
            for sent in (True, False):
                await connection.execute(_MARK, [id for id, all in tried.items() if all is sent], sent)
        if any(tried.values()):
            log.info("relayed %d events", sum(tried.values()))
        return sum(tried.values())

    async def prune(self, days: int = 90) -> None:
        """Forget events, and what was done with them, after `days`; 30 at least."""
        async with self._database.connection() as connection:
            await connection.execute("select feedback_loop.forget_events($1)", days)

    async def _resend(self, row: Record) -> bool:
        """Whether every consumer that misses it has a queue."""
        message = encode(from_json(row["envelope"]))
        message = Message(message.routing_key, {**message.headers, RELAYED: "1"}, message.body)
        # To the consumers that miss it, not through the exchange: a lost binding is mended too.
        sent = True
        for consumer in row["missing"]:
            try:
                await self._bus.send(consumer, message)
            except Unroutable as error:
                log.warning("cannot relay %s yet: %s", row["event_id"], error)
                sent = False
        return sent

    def watch(self) -> None:
        """Look after open events until there are none; idle, nothing polls the database."""
        self._pause = self._grace
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look_after())

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def _look_after(self) -> None:
        while True:
            slept = 0.0
            while slept < self._pause:  # in slices: what is new does not wait for what is stuck
                await asyncio.sleep(self._grace)
                slept += self._grace
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            try:
                if not await self.relay() and self._pause > self._grace:  # nothing came meanwhile
                    return
                if self.while_open is not None:
                    await self.while_open()
            except Exception as error:
                if not is_unavailable(error):
                    log.exception("the relay failed")
