"""Votes as they are counted by quarter of an hour: always what counting the ledger gives, in every snapshot,
whatever happens at the same time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp
import asyncpg
import pytest

from services.analyzer.build import build
from services.collector.build import build as collector
from services.dashboard import figures
from services.dashboard.filters import Filter
from services.dashboard.selection import choose
from shared.postgres.database import Database
from shared.postgres.folding import fold
from tests.support.events import wait_until
from tests.support.judging import Loop

QUARTER, HOUR, DAY = timedelta(minutes=15), timedelta(hours=1), timedelta(days=1)
MOMENT = timedelta(microseconds=1)
NOON = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)
EVER = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
APPS = ["default", "shop"]

Counts = dict[tuple[str, int | None], tuple[int, int]]
"""App and generation → likes and dislikes."""


class Ledger:
    """One connection, and what there is to do to the ledger."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self.connection = connection
        self.execute = connection.execute

    async def cast(self, conversation: str = "c", value: int = 0, at: datetime = NOON, **given: Any) -> None:
        await self.execute(
            "insert into feedback_loop.vote"
            " (app, conversation_id, user_id, name, value, created_at, generation)"
            " values ($1, $2, gen_random_uuid()::text, $3, $4, $5, $6)",
            given.get("app", "default"),
            conversation,
            given.get("name", "user_feedback"),
            value,
            at,
            given.get("generation"),
        )

    async def answer(
        self,
        conversation: str = "c",
        generation: int | None = None,
        at: datetime = NOON,
        app: str = "default",
    ) -> None:
        await self.execute(
            "insert into feedback_loop.conversation as c (app, conversation_id, generation, answered_at)"
            " values ($1, $2, $3, $4) on conflict (app, conversation_id, message_id) do update set"
            " generation = excluded.generation, answered_at = excluded.answered_at",
            app,
            conversation,
            generation,
            at,
        )

    async def promote(self, generation: int, at: datetime = NOON, app: str = "default") -> None:
        await self.execute(
            "insert into feedback_loop.promotion (app, generation, kind, promoted_at)"
            " values ($1, $2, 'promotion', $3)",
            app,
            generation,
            at,
        )

    async def fold(self, app: str = "default", most: int = 10_000) -> int:
        folded: int = await self.connection.fetchval("select feedback_loop.fold_votes($1, $2)", app, most)
        return folded

    async def counted(self, since: datetime = EVER[0], until: datetime = EVER[1]) -> Counts:
        """As the dashboard counts, and as an evaluation does, which are the same."""
        counts = await self._counts(
            "select app, generation, sum(likes)::int, sum(dislikes)::int"
            " from feedback_loop.votes_counted($1, $2, $3) group by 1, 2",
            since,
            until,
        )
        # A window of an evaluation has its end and not its start.
        [between] = await self.between(since - MOMENT, until - MOMENT)
        assert between == counts
        return counts

    async def between(self, *moments: datetime) -> list[Counts]:
        """The votes after each moment until the next."""
        rows = await self.connection.fetch(
            "select app, slot, generation, sum(likes)::int as likes, sum(dislikes)::int as dislikes"
            " from unnest($1::text[]) app cross join lateral feedback_loop.votes_between(app, $2)"
            " group by 1, 2, 3",
            APPS,
            moments,
        )
        found: list[Counts] = [{} for _ in moments[1:]]
        for app, slot, generation, up, down in rows:
            if up or down:
                found[slot - 1][app, generation] = (up, down)
        return found

    async def true(self, since: datetime = EVER[0], until: datetime = EVER[1]) -> Counts:
        return await self._counts(
            "select app, generation, (count(*) filter (where value = 1))::int,"
            " (count(*) filter (where value = 0))::int from feedback_loop.dashboard_vote"
            " where app = any($1) and created_at >= $2 and created_at < $3 group by 1, 2",
            since,
            until,
        )

    async def marks(self) -> int:
        found: int = await self.connection.fetchval("select count(*) from feedback_loop.vote_dirty")
        return found

    async def _counts(self, query: str, since: datetime, until: datetime) -> Counts:
        rows = await self.connection.fetch(query, APPS, since, until)
        return {(app, generation): (up, down) for app, generation, up, down in rows if up or down}


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Ledger]:
    connection = await asyncpg.connect(dsn)
    try:
        yield Ledger(connection)
    finally:
        await connection.close()


@pytest.fixture
async def ledger(dsn: str) -> AsyncIterator[Ledger]:
    async with opened(dsn) as ledger:
        yield ledger


@pytest.fixture
async def other(dsn: str) -> AsyncIterator[Ledger]:
    async with opened(dsn) as ledger:
        yield ledger


async def folded(ledger: Ledger) -> Counts:
    """What is counted when everything has been folded, and nothing is left to the ledger."""

    async def done() -> bool:
        # Somebody else on this server may be at work, at which nothing is folded.
        for app in APPS:
            await ledger.fold(app)
        return await ledger.marks() == 0

    await wait_until(done)
    return await ledger.counted()


# --- what is folded ---------------------------------------------------------------------------


async def test_votes_are_counted_before_they_are_folded(ledger: Ledger) -> None:
    await ledger.cast()
    assert await ledger.counted() == {("default", None): (0, 1)}


async def test_votes_are_counted_once_when_they_are_folded(ledger: Ledger) -> None:
    await ledger.cast(value=1)
    await ledger.cast(value=0, generation=7)
    assert await folded(ledger) == {("default", None): (1, 0), ("default", 7): (0, 1)}


async def test_folding_ends_with_the_newest_where_it_is_bounded(ledger: Ledger) -> None:
    for ago in range(4):
        await ledger.cast(at=NOON - ago * QUARTER)
    assert await ledger.fold(most=3) == 3
    left = await ledger.connection.fetchval("select at from feedback_loop.vote_dirty")
    assert left == NOON - 3 * QUARTER


@pytest.mark.parametrize(
    "change",
    [
        "update feedback_loop.vote set value = 1",
        "update feedback_loop.vote set created_at = created_at + interval '3 hours'",
        "update feedback_loop.vote set app = 'shop'",
        "update feedback_loop.vote set name = 'another score'",
        "update feedback_loop.vote set generation = 5",
        "update feedback_loop.vote set conversation_id = 'another'",
        "delete from feedback_loop.vote",
        "truncate feedback_loop.vote cascade",
        "update feedback_loop.conversation set generation = 4",
        "update feedback_loop.conversation set answered_at = answered_at - interval '3 days'",
        "update feedback_loop.conversation set conversation_id = 'another'",
        "delete from feedback_loop.conversation",
        "truncate feedback_loop.conversation",
        "delete from feedback_loop.promotion where generation = 2",
        "update feedback_loop.promotion set promoted_at = promoted_at + interval '5 d' where generation = 2",
        "update feedback_loop.promotion set promoted_at = promoted_at - interval '5 d' where generation = 2",
    ],
)
async def test_what_is_folded_changes_with_the_ledger(ledger: Ledger, change: str) -> None:
    await ledger.promote(1, NOON - 2 * DAY)
    await ledger.promote(2, NOON - DAY)
    await ledger.answer(at=NOON - HOUR)
    await ledger.cast()
    await folded(ledger)
    await ledger.execute(change)
    assert await ledger.counted() == await ledger.true()
    assert await folded(ledger) == await ledger.true()


async def test_answer_that_is_recorded_later_moves_its_votes(ledger: Ledger) -> None:
    await ledger.cast()
    await folded(ledger)
    await ledger.answer(generation=3)
    assert await ledger.counted() == {("default", 3): (0, 1)}


async def test_promotion_moves_the_votes_on_answers_dated_in_the_future(ledger: Ledger) -> None:
    await ledger.answer(at=NOON + DAY)
    await ledger.cast(at=NOON - DAY)
    await folded(ledger)
    await ledger.promote(1, NOON)
    assert await ledger.counted() == {("default", 1): (0, 1)}


@pytest.mark.parametrize(
    "change",
    [
        "update feedback_loop.vote set comment = 'so', reason_code = 'wrong', updated_at = now()",
        "update feedback_loop.conversation set answer = 'so', updated_at = now()",
        "insert into feedback_loop.vote (conversation_id, name, value) values ('d', 'another score', 1)",
        "insert into feedback_loop.conversation (conversation_id) values ('d')",
        "insert into feedback_loop.promotion (app, generation, kind) values ('default', 3, 'promotion')",
    ],
)
async def test_what_changes_no_count_leaves_no_mark(ledger: Ledger, change: str) -> None:
    await ledger.answer()
    await ledger.cast()
    await folded(ledger)
    await ledger.execute(change)
    assert await ledger.marks() == 0


async def test_many_votes_change_in_time_after_a_few_have(ledger: Ledger) -> None:
    """Whatever was planned for the few: all pairs of old and new would be four hundred million."""
    await ledger.execute(
        "insert into feedback_loop.vote (conversation_id, value)"
        " select n::text, 0 from generate_series(1, 20000) n"
    )
    began = time.monotonic()
    for last in (0, 1, 20_000):
        await ledger.execute("update feedback_loop.vote set value = 1 where conversation_id::int <= $1", last)
    assert time.monotonic() - began < 10
    assert await ledger.counted() == {("default", None): (20_000, 0)}


async def test_migration_marks_the_votes_that_are_there(ledger: Ledger, dsn: str) -> None:
    await ledger.cast()
    await ledger.execute("drop table feedback_loop.vote_count, feedback_loop.vote_dirty")
    await ledger.execute("drop index feedback_loop.vote_comment, feedback_loop.vote_reason")
    names = "mark_votes", "mark_answers", "mark_promotions", "mark_everything", "fold_votes", "votes_counted"
    for name in (*names, "quarter"):
        await ledger.execute(f"drop function feedback_loop.{name} cascade")
    await ledger.execute("delete from feedback_loop.migration where name = '017_rollup.sql'")
    database = Database(dsn)
    await database.connect()
    await database.migrate()
    await database.close()
    assert await ledger.marks() == 1
    assert await folded(ledger) == {("default", None): (0, 1)}


# --- at the same time -------------------------------------------------------------------------


async def test_vote_that_commits_after_its_quarter_was_folded_counts(ledger: Ledger, other: Ledger) -> None:
    await ledger.cast()
    async with other.connection.transaction():
        await other.cast()
        await ledger.fold()
    assert await ledger.counted() == {("default", None): (0, 2)}
    assert await folded(ledger) == {("default", None): (0, 2)}


@pytest.mark.parametrize("what", ["answer", "promote"])
async def test_what_began_before_a_vote_and_ends_after_its_folding_moves_it(
    ledger: Ledger, other: Ledger, what: str
) -> None:
    async with other.connection.transaction():
        if what == "answer":
            await other.answer(generation=1)
        else:
            await other.promote(1)
        await ledger.cast()
        assert await ledger.fold() == 0  # it cannot know what the other is about
        assert await ledger.counted() == {("default", None): (0, 1)}
    assert await ledger.counted() == {("default", 1): (0, 1)}
    assert await folded(ledger) == {("default", 1): (0, 1)}


@pytest.mark.parametrize("what", ["answer", "promote"])
async def test_what_began_after_a_vote_that_it_did_not_see_and_ends_after_its_folding_moves_it(
    ledger: Ledger, other: Ledger, dsn: str, what: str
) -> None:
    """It is the youngest of all transactions: none that is younger has ended."""
    async with opened(dsn) as third:
        vote, change = ledger.connection.transaction(), other.connection.transaction()
        await vote.start()
        await ledger.cast()
        await change.start()
        await (other.answer(generation=1) if what == "answer" else other.promote(1))
        await vote.commit()
        assert await third.fold() == 0  # it cannot know what the other is about
        assert await third.counted() == {("default", None): (0, 1)}
        await change.commit()
        assert await third.counted() == {("default", 1): (0, 1)}
        assert await folded(third) == {("default", 1): (0, 1)}


async def test_what_begins_to_write_after_a_folding_moves_what_was_folded(
    ledger: Ledger, other: Ledger
) -> None:
    async with other.connection.transaction():
        await other.connection.fetchval("select count(*) from feedback_loop.vote")
        await ledger.cast()
        await folded(ledger)
        await other.answer(generation=1)
    assert await ledger.counted() == {("default", 1): (0, 1)}


@pytest.mark.parametrize("what", ["answer", "promote"])
async def test_writer_whose_snapshot_is_older_than_its_write_is_refused(ledger: Ledger, what: str) -> None:
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="READ COMMITTED"):
        async with ledger.connection.transaction(isolation="repeatable_read"):
            await (ledger.answer() if what == "answer" else ledger.promote(1))


async def test_old_snapshot_sees_the_votes_of_its_moment(ledger: Ledger, other: Ledger) -> None:
    await ledger.cast()
    async with other.connection.transaction(isolation="repeatable_read"):
        assert await other.counted() == {("default", None): (0, 1)}
        await ledger.cast()
        await folded(ledger)
        assert await other.counted() == {("default", None): (0, 1)}


async def test_two_foldings_at_once_count_nothing_twice(ledger: Ledger, other: Ledger) -> None:
    for n in range(300):
        await ledger.cast(at=NOON - n * QUARTER)
    await asyncio.gather(ledger.fold(), other.fold())
    assert await ledger.counted() == {("default", None): (0, 300)}


async def _meddle(ledger: Ledger, chance: random.Random, moment: datetime) -> None:
    """One thing that happens to a ledger, at random."""
    conversation, app = f"c{chance.randrange(30)}", chance.choice(APPS)
    near = moment + chance.choice([-1, 1]) * chance.random() * 3 * HOUR
    generation = chance.choice([None, None, 1, 2])
    match chance.randrange(10):
        case 0 | 1 | 2 | 3:
            await ledger.cast(conversation, chance.randrange(2), near, app=app, generation=generation)
        case 4 | 5:
            await ledger.answer(conversation, generation, near, app)
        case 6:
            await ledger.promote(chance.randrange(1, 5), near, app)
        case 7:
            await ledger.execute(
                "update feedback_loop.vote set value = 1 - value, created_at = $3"
                " where (app, conversation_id) = ($1, $2)",
                app,
                conversation,
                near,
            )
        case 8:
            table = chance.choice(["vote", "conversation"])
            await ledger.execute(
                f"delete from feedback_loop.{table} where (app, conversation_id) = ($1, $2)",
                app,
                conversation,
            )
        case _:
            await ledger.fold(app, chance.choice([1, 5, 1000]))


@pytest.mark.parametrize("seed", range(3))
async def test_counts_are_those_of_the_ledger_whatever_happens_to_it(ledger: Ledger, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(40):
        for _ in range(5):
            await _meddle(ledger, chance, NOON)
        since = NOON + chance.uniform(-4, 4) * HOUR
        window = since, since + chance.choice([timedelta(minutes=7), chance.random() * 5 * HOUR])
        assert await ledger.counted(*window) == await ledger.true(*window)
    assert await folded(ledger) == await ledger.true()


@pytest.mark.parametrize("seed", range(3))
async def test_windows_are_counted_together_as_each_alone(ledger: Ledger, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(20):
        for _ in range(5):
            await _meddle(ledger, chance, NOON)
        # Some lie in one quarter, some on its ends, some are the same.
        some = [NOON + chance.uniform(-4, 4) * HOUR for _ in range(3)]
        moments = sorted([*some, some[0] + MOMENT, some[0] + QUARTER / 3, some[1], NOON, NOON - MOMENT])
        each = [await ledger.true(start + MOMENT, end + MOMENT) for start, end in pairwise(moments)]
        assert await ledger.between(*moments) == each


async def test_every_snapshot_counts_what_its_ledger_has_while_many_write(ledger: Ledger, dsn: str) -> None:
    """In transactions that end late, some of them not at all."""
    ended = asyncio.Event()

    async def write(seed: int) -> None:
        chance = random.Random(seed)
        async with opened(dsn) as writer:
            for _ in range(60):
                transaction = writer.connection.transaction()
                await transaction.start()
                try:
                    await _meddle(writer, chance, NOON)
                    await asyncio.sleep(chance.random() / 100)
                    await (transaction.commit() if chance.random() < 0.9 else transaction.rollback())
                except asyncpg.DeadlockDetectedError:
                    await transaction.rollback()

    async def keep_folding() -> None:
        async with opened(dsn) as folder:
            while not ended.is_set():
                for app in APPS:
                    await folder.fold(app)

    async def look() -> None:
        while not ended.is_set():
            async with ledger.connection.transaction(isolation="repeatable_read"):
                assert await ledger.counted() == await ledger.true()

    async def write_all() -> None:
        try:
            await asyncio.gather(*(write(seed) for seed in range(4)))
        finally:
            ended.set()

    await asyncio.gather(write_all(), keep_folding(), look())
    assert await folded(ledger) == await ledger.true()


# --- who reads it -----------------------------------------------------------------------------


async def test_evaluation_folds(start: Callable[..., Any], ledger: Ledger) -> None:
    loop = Loop((await start([build])).kernel)
    await loop.cast(87, 13)
    said = await loop.evaluate()
    assert (said.likes, said.dislikes, await ledger.marks()) == (87, 13, 0)


@pytest.fixture
async def vote(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Any]]:
    """Casts a vote in a collector whose quarters of an hour take a quarter of a second."""
    monkeypatch.setattr("services.collector.counting.QUARTER", 0.25)
    runtime = await start([collector])
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runtime.port}") as session:

        async def vote(conversation: str) -> None:
            body = {"conversation_id": conversation, "feedback": "like"}
            async with session.post("/feedback", json=body) as answer:
                assert answer.status == 200, await answer.text()

        yield vote


async def test_first_vote_of_a_quarter_has_the_quarters_before_counted(
    vote: Callable[..., Any], ledger: Ledger
) -> None:
    await vote("c1")
    await asyncio.sleep(0.3)
    await vote("c2")

    async def counted() -> bool:
        return await ledger.marks() == 0

    await wait_until(counted)
    assert await ledger.connection.fetchval("select sum(likes) from feedback_loop.vote_count") == 2


async def test_votes_are_taken_where_they_cannot_be_counted(
    vote: Callable[..., Any], ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    await ledger.execute("alter function feedback_loop.fold_votes(text, integer) rename to no_longer")
    await vote("c1")
    await asyncio.sleep(0.3)
    await vote("c2")
    await wait_until(lambda: "votes are counted later" in caplog.text)
    await vote("c3")
    assert await ledger.connection.fetchval("select count(*) from feedback_loop.vote") == 3


async def test_evaluation_counts_what_was_cast_after_the_folding(
    start: Callable[..., Any], ledger: Ledger
) -> None:
    loop = Loop((await start([build])).kernel)
    await loop.cast(87, 13)
    await fold(loop.kernel.database, "default")
    await loop.cast(0, 2)
    said = await loop.evaluate()
    assert (said.likes, said.dislikes) == (87, 15)


@pytest.mark.parametrize(
    ("zone", "first"),
    [
        ("Asia/Seoul", date(2026, 11, 10)),
        ("Asia/Kolkata", date(2026, 11, 10)),
        ("Asia/Kathmandu", date(2026, 11, 10)),
        ("America/New_York", date(2026, 10, 30)),
        ("Africa/Monrovia", date(1971, 12, 30)),
    ],
    ids=["whole hours", "half hours", "three quarters", "a day of 25 hours", "44 minutes and 30 seconds"],
)
async def test_days_begin_where_the_time_zone_says(
    database: Database, ledger: Ledger, zone: str, first: date
) -> None:
    asked, last = ZoneInfo(zone), first + 12 * DAY
    midnights = [
        datetime(day.year, day.month, day.day, tzinfo=asked) for day in (first, first + 5 * DAY, last)
    ]
    for midnight in midnights:
        for value, off in ((1, timedelta(0)), (0, -timedelta(microseconds=1))):
            await ledger.cast(value=value, at=midnight + off)
    await folded(ledger)
    async with database.transaction("repeatable_read") as connection:
        chosen = await choose(connection, Filter.model_validate({"from": first, "to": last}), NOON, asked)
        days = await figures.daily(connection, chosen)
    voted = {(day.at, day.likes, day.dislikes) for day in days if day.likes or day.dislikes}
    assert voted == {
        (first, 1, 0),
        (first + 4 * DAY, 0, 1),
        (first + 5 * DAY, 1, 0),
        (last - DAY, 0, 1),
        (last, 1, 0),
    }


@pytest.mark.parametrize(
    ("asked", "likes", "dislikes"),
    [({"rated": "up"}, 2, 0), ({"rated": "down"}, 0, 2), ({"generation": 7}, 1, 1), ({"app": "shop"}, 0, 0)],
)
async def test_filter_chooses_among_what_is_folded(
    database: Database, ledger: Ledger, asked: dict[str, Any], likes: int, dislikes: int
) -> None:
    for generation in (7, None):
        for value in (0, 1):
            await ledger.cast(value=value, generation=generation)
    await folded(ledger)
    async with database.transaction("repeatable_read") as connection:
        chosen = await choose(connection, Filter.model_validate(asked), NOON, ZoneInfo("UTC"))
        days = await figures.daily(connection, chosen)
    assert (sum(day.likes for day in days), sum(day.dislikes for day in days)) == (likes, dislikes)
