"""Deliveries whose handlers wrote nothing: what ends at the same time is one commit, and each its own."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from shared.bus.envelope import Envelope
from shared.delivery.arrivals import Arrival, Arrivals, Duplicate
from shared.events import LoopPaused, LoopResumed
from shared.postgres.database import Database


def arrival(why: str = "") -> Arrival:
    """An event that a handler has answered with another."""
    caused = Envelope.root(LoopPaused(why=why), "/test")
    return Arrival("taker", caused, [caused.follow(LoopResumed(why=why), "taker")])


async def rows(database: Database, query: str) -> list[object]:
    async with database.connection() as connection:
        return [row[0] for row in await connection.fetch(query)]


async def test_what_ends_at_the_same_time_is_one_commit(database: Database) -> None:
    some = [arrival() for _ in range(8)]
    arrivals = Arrivals(database)
    await asyncio.gather(*(arrivals.add(one) for one in some))
    assert len(set(await rows(database, "select xid from feedback_loop.inbox"))) == 1
    assert set(await rows(database, "select event_id from feedback_loop.outbox")) == {
        following.id for one in some for following in one.following
    }


@pytest.mark.parametrize(("at_once", "commits"), [(4, [4, 8, 8]), (48, [8, 12])])
async def test_some_are_handled_while_others_are_written(
    database: Database, at_once: int, commits: list[int]
) -> None:
    arrivals = Arrivals(database, at_once)
    await asyncio.gather(*(arrivals.add(arrival()) for _ in range(20)))
    written = Counter(await rows(database, "select xid::text from feedback_loop.inbox"))
    assert sorted(written.values()) == commits


async def test_a_duplicate_is_told_so_and_writes_nothing_beside_others_that_do(database: Database) -> None:
    known, fresh = arrival(), arrival()
    await Arrivals(database).add(known)
    again = Arrival("taker", known.envelope, [known.envelope.follow(LoopResumed(why="otherwise"), "taker")])
    arrivals = Arrivals(database)
    said = await asyncio.gather(arrivals.add(again), arrivals.add(fresh), return_exceptions=True)
    assert isinstance(said[0], Duplicate) and said[1] is None
    stored = await rows(database, "select envelope::text from feedback_loop.outbox")
    assert len(stored) == 2 and not any("otherwise" in str(one) for one in stored)


async def test_of_two_deliveries_of_one_event_at_once_one_is_the_duplicate(database: Database) -> None:
    one = arrival()
    arrivals = Arrivals(database)
    said = await asyncio.gather(*(arrivals.add(one) for _ in range(2)), return_exceptions=True)
    assert [type(each) for each in said] == [type(None), Duplicate]


async def test_what_postgresql_refuses_fails_alone(database: Database) -> None:
    refused, fine = arrival(), arrival()
    bad = Arrival("\0", refused.envelope, refused.following)  # no text of PostgreSQL's
    arrivals = Arrivals(database)
    said = await asyncio.gather(arrivals.add(bad), arrivals.add(fine), return_exceptions=True)
    assert isinstance(said[0], Exception) and not isinstance(said[0], Duplicate) and said[1] is None


async def test_processes_with_the_same_events_all_end(database: Database) -> None:
    some = [arrival() for _ in range(30)]
    one, other = Arrivals(database), Arrivals(database)
    said = await asyncio.gather(
        *(one.add(each) for each in some), *(other.add(each) for each in some[::-1]), return_exceptions=True
    )
    assert sum(each is None for each in said) == len(some)
    assert sum(isinstance(each, Duplicate) for each in said) == len(some)
