"""The transactional outbox: events are written with the effect that causes them, then published.

Guaranteed: an event whose transaction committed reaches every registered consumer, however often
processes, bus or broker die in between. Not guaranteed: how often. The relay republishes what has
no inbox row yet; racing the direct publish is harmless, because the inbox absorbs it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import Context
from datetime import datetime
from uuid import UUID

from asyncpg import Record

from shared.bus.envelope import Envelope, InvalidMessage, encode, from_json, to_json
from shared.bus.port import RELAYED, Bus, BusError, Unroutable, with_headers
from shared.delivery.sight import Sight
from shared.postgres.database import Connection, Database, is_unavailable, without_nul
from shared.telemetry.metrics import Metrics

__all__ = ["INSERT", "Outbox", "columns"]

log = logging.getLogger(__name__)

GRACE = 30.0
"""Seconds that direct publishing and handling get before the relay looks."""
_LONGEST = 3600.0
_LONGEST_PAUSE = 600.0
_BATCH = 100
_NOTED = 0.05
"""Seconds in which what is published is gathered, to be noted in one commit."""

INSERT = """
insert into feedback_loop.outbox
    (event_id, type, producer, cause, correlation, envelope, published_at, publishes)
select e.event_id::uuid, e.type, e.producer, e.cause::uuid, e.correlation::uuid, e.envelope::jsonb,
       case when $7 then now() end, $7::boolean::integer
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
     as e (event_id, type, producer, cause, correlation, envelope) {only}
on conflict (event_id) do nothing
"""
"""Writes events, given as `columns`, and whether they are published; `only`: a condition. All arrays are of
text: of any other type asyncpg asks each new connection first, in three round trips."""

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
_LEFT = """
select count(*) as open, coalesce(extract(epoch from now() - min(created_at)), 0)::double precision as oldest
from feedback_loop.outbox where done_at is null
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
# Whoever holds a row publishes its event too, and notes it, or has found it done.
_NOTE = """
update feedback_loop.outbox set published_at = now(), publishes = publishes + 1
where event_id in (select event_id from feedback_loop.outbox
                   where event_id = any($1::text[]::uuid[]) for update skip locked)
"""


class Outbox:
    """Writes, publishes and relays events of one process."""

    def __init__(
        self, database: Database, bus: Bus, grace: float = GRACE, sight: Sight | None = None
    ) -> None:
        self._database = database
        self._bus = bus
        self._sight = sight or Sight(Metrics())
        self._grace = grace
        self.while_open: Callable[[], Awaitable[None]] | None = None
        """Called now and then while events are open: there is work that must not fall asleep."""
        self._watch: asyncio.Task[None] | None = None
        self._published: set[UUID] = set()  # and not yet known to the database
        self._to_note: list[UUID] = []
        self._noting: asyncio.Task[None] | None = None
        self._pause = grace

    async def add(
        self, connection: Connection, envelopes: Iterable[Envelope], published: bool = False
    ) -> None:
        """Write events in the caller's transaction. An event that is there already stays as it is."""
        await connection.execute(INSERT.format(only=""), *columns(envelopes), published)

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        """Publish committed events and note it; whatever fails here, the relay makes good.

        Raises:
            BusError: the bus did not take one of them.
        """
        try:
            await self._publish(envelopes)
        finally:
            await self._note()

    async def publish_soon(self, envelopes: Sequence[Envelope]) -> None:
        """Publish committed events now if the bus takes them; else the relay does it later. Noted a moment
        later, many at once: that only delays the relay, so nobody need wait for it."""
        try:
            await self._publish(envelopes)
        except BusError as error:
            log.warning("published later by the relay: %s", error)
        if self._to_note and (self._noting is None or self._noting.done()):
            self._noting = asyncio.create_task(self._note_later(), context=Context())

    async def _publish(self, envelopes: Sequence[Envelope]) -> None:
        if not envelopes:
            return
        self.watch()
        if len(envelopes) == 1:  # mostly; a task for it would cost as much as its publishing
            await self._send(envelopes[0])
            return
        # All at once: one that is unroutable must not hold up the others.
        results = await asyncio.gather(
            *(self._send(envelope) for envelope in envelopes), return_exceptions=True
        )
        for result in results:
            if result is not None:
                raise result

    async def _send(self, envelope: Envelope) -> None:
        with self._sight.publishing(envelope, self._bus) as message:
            await self._bus.publish(message)
        self._published.add(envelope.id)
        self._to_note.append(envelope.id)
        self._sight.metrics.published.add(envelope.type)

    async def _note_later(self) -> None:
        while self._to_note:
            await asyncio.sleep(_NOTED)
            await self._note()

    async def _note(self) -> None:
        """Note what is published. What cannot be noted is relayed once more than it need be."""
        noted, self._to_note = self._to_note, []
        if not noted:
            return
        try:
            async with self._database.connection() as connection:
                await connection.execute(_NOTE, [str(id) for id in noted])
        except Exception as error:
            log.warning("%d published events may be relayed again: %s", len(noted), error)
        finally:
            self._published.difference_update(noted)

    async def unpublished(self, cause: UUID, producer: str) -> list[Envelope]:
        """What `producer` derived from `cause` and nobody could publish yet."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "select event_id, envelope from feedback_loop.outbox"
                " where cause = $1 and producer = $2 and published_at is null order by created_at",
                cause,
                producer,
            )
        return [from_json(row["envelope"]) for row in rows if row["event_id"] not in self._published]

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
            row = await connection.fetchrow(_LEFT)
        assert row is not None
        self._sight.metrics.outbox_open.set(row["open"])
        self._sight.metrics.outbox_oldest.set(row["oldest"])
        return int(row["open"])

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
        envelope = from_json(row["envelope"])
        # To the consumers that miss it, not through the exchange: a lost binding is mended too.
        sent = True
        for consumer in row["missing"]:
            try:
                with self._sight.publishing(envelope, self._bus, consumer) as message:
                    await self._bus.send(consumer, with_headers(message, **{RELAYED: "1"}))
            except Unroutable as error:
                log.warning("cannot relay %s yet: %s", row["event_id"], error)
                sent = False
            else:
                self._sight.metrics.relayed.add(envelope.type)
        return sent

    def watch(self) -> None:
        """Look after open events until there are none; idle, nothing polls the database."""
        self._pause = self._grace
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look_after(), context=Context())

    async def close(self) -> None:
        """Stop looking, and note what is published and not noted yet."""
        for task in (self._watch, self._noting):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._note()

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


def columns(envelopes: Iterable[Envelope]) -> list[list[str | None]]:
    """The first parameters of `INSERT`."""
    rows = []
    for envelope in envelopes:
        said = encode(envelope).headers  # ids as text already
        rows.append(
            (
                said["ce-id"],
                envelope.type,
                envelope.source.rpartition("/")[2],
                said.get("ce-causationid"),
                said["ce-correlationid"],
                without_nul(to_json(envelope)),
            )
        )
    return [list(column) for column in zip(*rows, strict=True)] or [[]] * 6
