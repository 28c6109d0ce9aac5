"""Post once: Slack has no idempotency key, so every message is a row in `notification` first.

Two short transactions around the post: *claim* writes the intent and a lease (database time), *record*
writes where the message is. Between them nothing is held.

Guaranteed: a message is never lost (what is not recorded is tried again), and of one key at most one
message is known to be posted. Not guaranteed: exactly once. An attempt whose answer never came, or
whose process died, leaves a doubt. A bot then looks for the key in the channel's history; where it is
not found, or nobody may look, the message is posted again and says so: "(재전송)". Doubt is shown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic
from typing import Any
from uuid import UUID

from services.notifier.blocks import context
from services.notifier.destinations import Destination, Message, Posted
from services.notifier.failures import Busy, Down, NotPosted, TooEarly, Unclear
from services.notifier.wording import Language
from shared.bus.envelope import Envelope
from shared.failures import Retry, Unavailable
from shared.postgres.database import Database
from shared.telemetry.metrics import Metrics

__all__ = ["RESENT", "Poster", "Timing"]

log = logging.getLogger(__name__)

RESENT: Mapping[Language, str] = {"ko": "(재전송)", "en": "(resent)"}
"""Last line of a message that may be there already."""

PATIENCE = 30
"""Attempts after which an outage counts as the message's own failure: it must not go round for ever."""

OFFERS = 3
"""Attempts at what may be missing."""

_CLAIM = """
insert into feedback_loop.notification as n
    (key, event_id, correlation, kind, destination, state, attempts, lease_until)
values ($1, $2, $3, $4, $5, 'claimed', 1, now() + make_interval(secs => $6))
on conflict (key) do update
set attempts = n.attempts + 1, destination = excluded.destination, lease_until = excluded.lease_until,
    -- A lease that ran out was never given back: its holder died, maybe after posting.
    uncertain_since = case when n.lease_until is null then n.uncertain_since
                           else n.lease_until - make_interval(secs => $6) end
where n.state = 'claimed' and (n.lease_until is null or n.lease_until <= now())
returning attempts, claimed_at, extract(epoch from now() - uncertain_since)::double precision as doubt,
    -- The channel's id, which a history asks for, as earlier answers told it.
    (select p.channel from feedback_loop.notification p
     where p.destination = n.destination and p.channel is not null
     order by p.posted_at desc limit 1) as channel
"""
_HELD = """
select state, channel, ts, extract(epoch from lease_until - now())::double precision as remaining
from feedback_loop.notification where key = $1
"""
_RELEASE = """
update feedback_loop.notification
set lease_until = null, uncertain_since = case when $3 then now() else uncertain_since end
where key = $1 and attempts = $2 and state = 'claimed'
"""
_RECORD = """
update feedback_loop.notification
set state = 'posted', channel = $2, ts = $3, posted_at = now(), lease_until = null,
    uncertain_since = case when $4 then null else uncertain_since end, xid = pg_current_xact_id()
where key = $1 and state = 'claimed'
"""
_REPORT = """
select channel, ts from feedback_loop.notification
where correlation = $1 and kind = 'report' and state = 'posted' order by posted_at limit 1
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds.

    Attributes:
        attempt: the longest that searching and posting may take together.
        lease: how long others keep away; longer than `attempt`.
        settle: how late Slack's history may be.
    """

    attempt: float = 25
    lease: float = 30
    settle: float = 15


@dataclass(frozen=True, slots=True)
class _Claim:
    attempts: int
    claimed_at: datetime
    doubt: float | None
    """Seconds since an attempt that may have posted; None without one."""
    channel: str | None


class Poster:
    """Posts to one destination; any number of replicas may."""

    def __init__(
        self,
        database: Database,
        destination: Destination,
        language: Language,
        timing: Timing | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.destination = destination
        self._database = database
        self._language = language
        self._timing = timing or Timing()
        self._metrics = metrics or Metrics()

    async def post_once(
        self,
        key: str,
        envelope: Envelope,
        kind: str,
        text: str,
        thread: Posted | None = None,
        blocks: Sequence[Mapping[str, Any]] = (),
    ) -> Posted:
        """Post `text` unless the message `key` is posted already; returns where it is.

        Args:
            key: the same for every try at the same message.
            envelope: the event that it tells of.
            kind: `report` and so on; shown with the run's steps.
            thread: the message to answer, where the destination has threads.
            blocks: shown in the text's stead, where the destination has them.

        Raises:
            Retry: another replica is at it, or it is in doubt whether it is posted.
            Unavailable: Slack is down, or asks to be left alone.
            Refused: a person must mend something first.
        """
        claim = await self._claim(key, envelope, kind)
        if isinstance(claim, Posted):
            return claim
        message = Message(key, envelope.id, text, thread if self.destination.threads else None, blocks)
        try:
            async with asyncio.timeout(self._timing.attempt):
                posted, certain = await self._deliver(message, claim)
        except (NotPosted, TimeoutError) as error:
            failure = error if isinstance(error, NotPosted) else Unclear("no answer in time")
            self._failed(failure)
            async with self._database.connection() as connection:
                await connection.execute(_RELEASE, key, claim.attempts, failure.maybe)
            if failure.maybe:
                log.warning("%s: whether it is posted is in doubt: %s", key, failure)
            raise self._verdict(failure, claim) from None
        async with self._database.connection() as connection:
            await connection.execute(_RECORD, key, posted.channel, posted.ts, certain)
        self._metrics.posts.add(kind)
        return posted

    async def offer(
        self, key: str, envelope: Envelope, kind: str, post: Callable[[], Awaitable[None]]
    ) -> None:
        """Post what may be missing but not be there twice: whatever is in doubt is not tried again.

        Raises:
            NotPosted: it is not posted, or that is not known.
            Retry: another replica is at it.
        """
        claim = await self._claim(key, envelope, kind)
        if isinstance(claim, Posted) or claim.doubt is not None or claim.attempts > OFFERS:
            return
        try:
            async with asyncio.timeout(self._timing.attempt):
                await post()
        except NotPosted as error:
            self._failed(error)
            if not error.maybe:  # else the lease stays, and runs out into doubt
                async with self._database.connection() as connection:
                    await connection.execute(_RELEASE, key, claim.attempts, False)
            raise
        async with self._database.connection() as connection:
            await connection.execute(_RECORD, key, None, None, True)
        self._metrics.posts.add(kind)

    async def report_of(self, run: UUID) -> Posted | None:
        """Where a run's report is; None while it is not posted."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_REPORT, run)
        return Posted(row["channel"], row["ts"], earlier=True) if row else None

    async def _claim(self, key: str, envelope: Envelope, kind: str) -> _Claim | Posted:
        lease = self._timing.lease
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                _CLAIM, key, envelope.id, envelope.correlation, kind, self.destination.name, lease
            )
            if row is not None:
                return _Claim(**row)
            held = await connection.fetchrow(_HELD, key)
        if held is not None and held["state"] == "posted":
            return Posted(held["channel"], held["ts"], earlier=True)
        remaining = held["remaining"] if held is not None else None
        raise Retry(max(remaining or 0.0, 0.0), f"{key}: another replica is posting it")

    async def _deliver(self, message: Message, claim: _Claim) -> tuple[Posted, bool]:
        """Post, or find what an earlier attempt posted. Returns where, and whether it is there once."""
        if claim.doubt is None:
            return await self.destination.send(message), True
        found = await self.destination.find(message, claim.claimed_at, claim.channel)
        if found is not None:
            log.info("%s: an earlier attempt had posted it", message.key)
            return found, True
        if claim.doubt < self._timing.settle:
            raise TooEarly(self._timing.settle - claim.doubt)
        log.warning("%s: posted again, marked: an earlier attempt may have posted it", message.key)
        mark = RESENT[self._language]
        blocks = [*message.blocks, context(mark)] if message.blocks else ()
        marked = replace(message, text=f"{message.text}\n{mark}", blocks=blocks)
        return await self.destination.send(marked), False

    def _failed(self, failure: NotPosted) -> None:
        if not isinstance(failure, TooEarly):  # else nothing was tried
            self._metrics.post_failures.add(type(failure).__name__.lower())

    def _verdict(self, failure: NotPosted, claim: _Claim) -> Exception:
        """What the router is told. Only an outage burns no attempt, so that its length does not matter."""
        if isinstance(failure, TooEarly):
            return Retry(failure.after, str(failure))
        if isinstance(failure, Unclear):
            return Retry(self._timing.settle, f"it may be posted: {failure}")
        if claim.attempts > PATIENCE:
            return failure
        if isinstance(failure, Busy):
            return Unavailable("Slack", str(failure), _after(failure))
        if isinstance(failure, Down):
            return Unavailable("Slack", str(failure), self.destination.probe)
        return failure


def _after(busy: Busy) -> Callable[[], Awaitable[None]]:
    """A probe that raises until the time has come."""
    end = monotonic() + busy.after

    async def probe() -> None:
        if monotonic() < end:
            raise busy

    return probe
