"""The owner's own tables, read into the ledger: shapes, order of commits, changes; and left untouched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from services.collector.build import build
from services.collector.votes import REASONS, VOTES
from shared.postgres.database import Database
from shared.postgres.owner_tables import OwnerTables, read_owner_tables

FEEDBACK_LOG = """
create table public.feedback_log (id serial primary key, conversation_id integer,
    feedback varchar(10) check (feedback in ('like', 'dislike')), reason varchar(255),
    created_at timestamptz default now())
"""
CONVERSATION_LOG = """
create table public.conversation_log (id serial primary key, user_id text, question text, answer text,
    model text default 'gpt', created_at timestamptz default now())
"""
HUNDRED = """
insert into public.feedback_log (conversation_id, feedback, reason)
select 1, case when n <= 87 then 'like' else 'dislike' end, case when n = 100 then 'wrong' end
from generate_series(1, 100) n
"""
LONG_AGO = "'2020-01-01T00:00:00Z'"


@pytest.fixture
async def owner(dsn: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A session of the owner's bot."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def _read(database: Database) -> OwnerTables:
    async with database.transaction() as connection:
        return await read_owner_tables(connection)


async def _votes(database: Database) -> list[dict[str, Any]]:
    async with database.connection() as connection:
        rows = await connection.fetch("select * from feedback_loop.vote order by source, source_id")
        return [dict(row) for row in rows]


async def _values(database: Database) -> dict[str | None, int]:
    """What the ledger says: id in the owner's table → value."""
    return {vote["source_id"]: vote["value"] for vote in await _votes(database)}


async def _a_week_later(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "update feedback_loop.source_cursor set reconciled_at = reconciled_at - interval '7 days'"
        )


async def test_a_database_without_these_tables_is_fine(database: Database) -> None:
    assert await _read(database) == OwnerTables(0, 0, 0)


async def test_the_owners_hundred_are_a_hundred(database: Database, owner: Any) -> None:
    await owner.execute(FEEDBACK_LOG + ";" + HUNDRED)
    assert await _read(database) == OwnerTables(100, 0, 0)
    assert sum((await _values(database)).values()) == 87


async def test_reading_again_changes_nothing(database: Database, owner: Any) -> None:
    await owner.execute(FEEDBACK_LOG + ";" + CONVERSATION_LOG + ";" + HUNDRED)
    await owner.execute("insert into public.conversation_log (question) values ('q')")
    await _read(database)
    before = await _votes(database)
    assert await _read(database) == OwnerTables(0, 0, 0)
    assert await _votes(database) == before


async def test_the_weekly_reading_of_unchanged_tables_changes_nothing(database: Database, owner: Any) -> None:
    await owner.execute(FEEDBACK_LOG + ";" + CONVERSATION_LOG + ";" + HUNDRED)
    await owner.execute("insert into public.conversation_log (question) values ('q')")
    await _read(database)
    await _a_week_later(database)
    before = await _votes(database)
    assert await _read(database) == OwnerTables(0, 0, 0)
    assert await _votes(database) == before


async def test_two_readers_at_once_agree(database: Database, owner: Any) -> None:
    await owner.execute(FEEDBACK_LOG + ";" + HUNDRED)
    read = await asyncio.gather(_read(database), _read(database))
    assert sorted(one.votes for one in read) == [0, 100]


async def test_a_vote_arrives_with_its_reason_and_time(database: Database, owner: Any) -> None:
    await owner.execute(FEEDBACK_LOG)
    await owner.execute(
        "insert into public.feedback_log (conversation_id, feedback, reason, created_at)"
        " values (7, 'dislike', 'Out of date.', '2025-10-17T00:00:00Z'), (8, 'dislike', '값이 달라요', now())"
    )
    await _read(database)
    coded, free = await _votes(database)
    assert (coded["conversation_id"], coded["reason_code"], coded["comment"]) == ("7", "outdated", None)
    assert coded["created_at"].isoformat() == "2025-10-17T00:00:00+00:00"
    assert (coded["app"], coded["source"], coded["generation"]) == ("default", "feedback_log", None)
    assert (free["reason_code"], free["comment"]) == (None, "값이 달라요")


async def test_a_conversation_arrives(database: Database, owner: Any) -> None:
    await owner.execute(CONVERSATION_LOG)
    await owner.execute("insert into public.conversation_log (user_id, question) values ('u', '환불?')")
    assert await _read(database) == OwnerTables(0, 1, 0)
    async with database.connection() as connection:
        row = await connection.fetchrow("select * from feedback_loop.conversation")
    assert row is not None
    assert (row["conversation_id"], row["user_id"], row["question"], row["answer"]) == ("1", "u", "환불?", "")


async def test_a_conversation_changes_and_goes(database: Database, owner: Any) -> None:
    await owner.execute(CONVERSATION_LOG)
    await owner.execute("insert into public.conversation_log (question) values ('a'), ('b')")
    await _read(database)
    await owner.execute("update public.conversation_log set answer = 'x' where id = 1")
    await owner.execute("delete from public.conversation_log where id = 2")
    assert (await _read(database)).conversations == 2
    async with database.connection() as connection:
        assert await connection.fetchval("select array_agg(answer) from feedback_loop.conversation") == ["x"]


async def test_what_the_bot_said_about_a_conversation_is_kept(database: Database, owner: Any) -> None:
    await owner.execute(CONVERSATION_LOG)
    await owner.execute(
        "insert into feedback_loop.conversation (conversation_id, answer, generation) values ('1', 'said', 4)"
    )
    await owner.execute("insert into public.conversation_log (answer) values ('logged')")
    await _read(database)
    async with database.connection() as connection:
        assert await connection.fetchval("select answer from feedback_loop.conversation") == "said"


# --- order of commits -------------------------------------------------------------------


@pytest.mark.parametrize("created_at", ["now()", LONG_AGO])
async def test_a_lower_id_that_commits_later_is_not_lost(
    database: Database, owner: Any, dsn: str, created_at: str
) -> None:
    insert = f"insert into public.feedback_log (feedback, created_at) values ('like', {created_at})"
    await owner.execute(FEEDBACK_LOG)
    slow = await asyncpg.connect(dsn)
    await _read(database)
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute(insert)  # takes id 1
    await owner.execute(insert)  # takes id 2, and commits first
    for _ in range(2):
        await _read(database)
        assert await _values(database) == {"2": 1}
    await transaction.commit()
    await slow.close()
    await _read(database)
    assert await _values(database) == {"1": 1, "2": 1}


async def test_the_cursor_moves_on_once_nobody_can_commit_a_lower_id(
    database: Database, owner: Any, dsn: str
) -> None:
    async def cursor() -> int:
        return int(await owner.fetchval("select safe_id from feedback_loop.source_cursor"))

    await owner.execute(FEEDBACK_LOG)
    slow = await asyncpg.connect(dsn)
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute("select pg_current_xact_id()")
    await owner.execute(HUNDRED)
    await _read(database)
    await _read(database)
    assert await cursor() == 0
    await transaction.rollback()
    await slow.close()
    await _read(database)
    assert await cursor() == 100


async def test_a_row_below_a_far_id_is_read(database: Database, owner: Any) -> None:
    await owner.execute(FEEDBACK_LOG + ";" + HUNDRED)
    await owner.execute("insert into public.feedback_log (id, feedback) values (2000000000, 'like')")
    await _read(database)
    await owner.execute("insert into public.feedback_log (id, feedback) values (5000, 'like')")
    assert (await _read(database)).votes == 1


async def test_ids_that_begin_anew_are_read(database: Database, owner: Any) -> None:
    await owner.execute(FEEDBACK_LOG + ";" + HUNDRED)
    await _read(database)
    await owner.execute("truncate public.feedback_log restart identity")
    await owner.execute("insert into public.feedback_log (feedback) values ('dislike')")
    await _read(database)
    assert await _values(database) == {"1": 0}


async def test_a_cursor_restored_on_another_server_moves_on(database: Database, owner: Any) -> None:
    await owner.execute(FEEDBACK_LOG + ";" + HUNDRED)
    await owner.execute(
        "insert into feedback_loop.source_cursor (source, pending_id, pending_xmax)"
        " values ('feedback_log', 5, '9999999999')"
    )
    await _read(database)
    assert await owner.fetchval("select safe_id from feedback_loop.source_cursor") == 100


# --- changes ----------------------------------------------------------------------------


async def test_an_update_follows(database: Database, owner: Any) -> None:
    await owner.execute(
        FEEDBACK_LOG + "; insert into public.feedback_log (feedback) values ('like'), ('like')"
    )
    await _read(database)
    await owner.execute("update public.feedback_log set feedback = 'dislike', reason = 'tone' where id = 2")
    assert (await _read(database)).votes == 1
    assert await _values(database) == {"1": 1, "2": 0}


async def test_a_delete_follows(database: Database, owner: Any) -> None:
    await owner.execute(
        FEEDBACK_LOG + "; insert into public.feedback_log (feedback) values ('like'), ('like')"
    )
    await _read(database)
    await owner.execute("delete from public.feedback_log where id = 1")
    await _read(database)
    assert await _values(database) == {"2": 1}


async def test_a_row_that_is_no_vote_any_more_leaves_the_ledger(database: Database, owner: Any) -> None:
    await owner.execute(
        FEEDBACK_LOG + "; insert into public.feedback_log (feedback) values ('like'), ('like')"
    )
    await _read(database)
    await owner.execute("update public.feedback_log set feedback = null where id = 1")
    await _read(database)
    assert await _values(database) == {"2": 1}


async def test_changes_to_old_rows_follow_weekly(database: Database, owner: Any) -> None:
    await owner.execute(FEEDBACK_LOG)
    await owner.execute(
        "insert into public.feedback_log (feedback, created_at)"
        f" select 'like', {LONG_AGO} from generate_series(1, 3)"
    )
    await _read(database)
    await owner.execute("update public.feedback_log set feedback = 'dislike' where id = 1")
    await owner.execute("delete from public.feedback_log where id = 2")
    await _read(database)
    assert await _values(database) == {"1": 1, "2": 1, "3": 1}
    await _a_week_later(database)
    await _read(database)
    assert await _values(database) == {"1": 0, "3": 1}


async def test_a_moved_time_follows(database: Database, owner: Any) -> None:
    await owner.execute(FEEDBACK_LOG + "; insert into public.feedback_log (feedback) values ('like')")
    await _read(database)
    await owner.execute(f"update public.feedback_log set created_at = {LONG_AGO}")
    await _read(database)
    (vote,) = await _votes(database)
    assert vote["created_at"].year == 2020


async def test_votes_from_elsewhere_are_left_alone(database: Database, owner: Any) -> None:
    await owner.execute(FEEDBACK_LOG)
    await owner.execute(
        "insert into feedback_loop.vote (conversation_id, value, source)"
        " values ('1', 1, 'api'), ('2', 1, 'feedback_log')"
    )
    await _read(database)
    assert len(await _votes(database)) == 2


async def test_the_owners_tables_stay_as_they_were(database: Database, owner: Any) -> None:
    async def state() -> list[Any]:
        return [
            await owner.fetch(query)
            for query in (
                "select oid, relfilenode, relname, relowner, relacl, reltriggers, relhasindex, reloptions"
                " from (select *, relhastriggers as reltriggers from pg_class) c"
                " where relnamespace = 'public'::regnamespace order by oid",
                "select attrelid, attname, atttypid, attnotnull, attoptions from pg_attribute"
                " where attrelid in ('public.feedback_log'::regclass, 'public.conversation_log'::regclass)"
                " order by attrelid, attnum",
                # xmin and ctid would betray even a rewrite with the same content, xmax a row's lock.
                "select ctid, xmin, xmax, * from public.feedback_log order by id",
                "select ctid, xmin, xmax, * from public.conversation_log order by id",
                "select last_value, is_called from public.feedback_log_id_seq",
            )
        ]

    await owner.execute(FEEDBACK_LOG + ";" + CONVERSATION_LOG + ";" + HUNDRED)
    await owner.execute("insert into public.conversation_log (question) values ('q')")
    before = await state()
    await _read(database)
    await _a_week_later(database)
    await _read(database)
    assert await state() == before


# --- shapes -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["smallint", "integer", "bigint", "uuid", "text", "numeric"])
async def test_ids_of_any_kind_are_read_incrementally(database: Database, owner: Any, kind: str) -> None:
    first, second = (
        ("1", "2") if kind != "uuid" else (f"00000000-0000-0000-0000-00000000000{n}" for n in (1, 2))
    )
    await owner.execute(
        f"create table public.feedback_log (id {kind} primary key, conversation_id {kind}, feedback text,"
        " created_at timestamptz default now())"
    )
    await owner.execute(f"insert into public.feedback_log values ('{first}', '{first}', 'like')")
    await _read(database)
    await owner.execute(f"insert into public.feedback_log values ('{second}', '{second}', 'dislike')")
    await _read(database)
    assert await _values(database) == {first: 1, second: 0}
    await owner.execute(f"delete from public.feedback_log where id = '{first}'")
    await _read(database)
    assert await _values(database) == {second: 0}


@pytest.mark.parametrize("kind", ["integer", "text"])
async def test_a_table_of_id_and_feedback_alone_will_do(database: Database, owner: Any, kind: str) -> None:
    await owner.execute(f"create table public.feedback_log (id {kind}, feedback text)")
    await owner.execute("insert into public.feedback_log values ('1', 'like'), ('2', 'dislike')")
    await _read(database)
    before = await _votes(database)
    assert await _read(database) == OwnerTables(0, 0, 0)
    assert await _votes(database) == before


@pytest.mark.parametrize("column", ["id", "feedback"])
async def test_a_table_that_lacks_the_essential_is_not_read(
    database: Database, owner: Any, column: str
) -> None:
    await owner.execute(FEEDBACK_LOG + ";" + HUNDRED)
    await owner.execute(f"alter table public.feedback_log drop column {column}")
    assert await _read(database) == OwnerTables(0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("timestamp", "2025-10-17 09:00", "2025-10-17T09:00:00+00:00"),
        ("date", "2025-10-17", "2025-10-17T00:00:00+00:00"),
        ("text", "2025-10-17T09:00:00+09:00", "2025-10-17T00:00:00+00:00"),
    ],
)
async def test_times_of_any_kind_are_read(
    database: Database, owner: Any, kind: str, given: str, expected: str
) -> None:
    await owner.execute(f"create table public.feedback_log (id serial, feedback text, created_at {kind})")
    await owner.execute(f"insert into public.feedback_log (feedback, created_at) values ('up', '{given}')")
    async with database.transaction() as connection:
        await connection.execute("set local timezone = 'UTC'")
        await read_owner_tables(connection)
    (vote,) = await _votes(database)
    assert vote["created_at"].isoformat() == expected


@pytest.mark.parametrize("given", ["null", "'infinity'", "'-infinity'", "'0044-03-15 BC'"])
async def test_a_vote_without_a_time_was_cast_when_first_seen(
    database: Database, owner: Any, given: str
) -> None:
    await owner.execute(FEEDBACK_LOG)
    await owner.execute(f"insert into public.feedback_log (feedback, created_at) values ('like', {given})")
    await _read(database)
    before = await _votes(database)
    await _read(database)
    await _a_week_later(database)
    await _read(database)
    assert await _votes(database) == before


async def test_unknown_votes_are_skipped_and_counted(database: Database, owner: Any) -> None:
    await owner.execute("create table public.feedback_log (id serial primary key, feedback text)")
    await owner.execute("insert into public.feedback_log (feedback) values ('meh'), (' Like '), (null)")
    assert await _read(database) == OwnerTables(1, 0, 2)


async def test_ids_that_no_index_holds_are_skipped_and_counted(database: Database, owner: Any) -> None:
    await owner.execute(
        "create table public.feedback_log (id serial primary key, conversation_id text, feedback text)"
    )
    await owner.execute(
        "insert into public.feedback_log (conversation_id, feedback)"
        " select string_agg(md5(n::text), ''), 'like' from generate_series(1, 200) n"
    )
    assert await _read(database) == OwnerTables(0, 0, 1)


async def test_votes_kept_as_truth_values_are_read(database: Database, owner: Any) -> None:
    await owner.execute("create table public.feedback_log (id serial primary key, feedback boolean)")
    await owner.execute("insert into public.feedback_log (feedback) values (true), (false)")
    await _read(database)
    assert await _values(database) == {"1": 1, "2": 0}


async def test_ids_that_are_not_unique_do_no_harm(database: Database, owner: Any) -> None:
    await owner.execute("create table public.feedback_log (id integer, feedback text)")
    await owner.execute("insert into public.feedback_log values (1, 'like'), (1, 'like'), (null, 'like')")
    await _read(database)
    assert await _values(database) == {"1": 1}


# --- one vote per user and message, where both are known ---------------------------------

KEYED = """
create table public.feedback_log (id serial primary key, conversation_id text, message_id text,
    user_id text, feedback text, created_at timestamptz default now())
"""
SAY = "insert into public.feedback_log (conversation_id, message_id, user_id, feedback) values "


async def test_the_last_vote_of_a_user_on_a_message_counts(database: Database, owner: Any) -> None:
    await owner.execute(KEYED + ";" + SAY + "('c', 'm', 'u', 'like'), ('c', 'm', 'v', 'like')")
    await _read(database)
    await owner.execute(SAY + "('c', 'm', 'u', 'dislike')")
    await _read(database)
    assert await _values(database) == {"2": 1, "3": 0}


@pytest.mark.parametrize("who", ["('c', 'm', null, 'like')", "('c', null, 'u', 'like')"])
async def test_votes_of_unknown_users_or_messages_do_not_collapse(
    database: Database, owner: Any, who: str
) -> None:
    await owner.execute(KEYED + ";" + SAY + f"{who}, {who}, {who}")
    assert (await _read(database)).votes == 3


async def test_the_earlier_vote_returns_when_the_later_is_deleted(database: Database, owner: Any) -> None:
    await owner.execute(KEYED + ";" + SAY + "('c', 'm', 'u', 'like'), ('c', 'm', 'u', 'dislike')")
    await _read(database)
    await owner.execute("delete from public.feedback_log where id = 2")
    await _read(database)
    assert await _values(database) == {"1": 1}


async def test_votes_that_change_places_are_followed(database: Database, owner: Any) -> None:
    await owner.execute(KEYED + ";" + SAY + "('c', 'm1', 'u', 'like'), ('c', 'm2', 'u', 'dislike')")
    await _read(database)
    await owner.execute("update public.feedback_log set message_id = 'm' || (3 - id)")
    await _read(database)
    assert {vote["message_id"]: vote["value"] for vote in await _votes(database)} == {"m1": 0, "m2": 1}


async def test_a_later_vote_over_http_stands(database: Database, owner: Any) -> None:
    await owner.execute(KEYED + ";" + SAY + "('c', 'm', 'u', 'like')")
    await _read(database)
    await owner.execute(
        "update feedback_loop.vote set value = 0, source = 'api', source_id = null,"
        " created_at = now() + interval '1 second'"
    )
    await _read(database)
    await _a_week_later(database)
    await _read(database)
    assert await _values(database) == {None: 0}


# --- around it --------------------------------------------------------------------------


async def test_the_words_in_the_database_are_those_of_the_collector(owner: Any) -> None:
    votes = await owner.fetch("select word, value from feedback_loop.vote_word")
    reasons = await owner.fetch("select word, code from feedback_loop.reason_word")
    assert dict(map(tuple, votes)) == VOTES
    assert dict(map(tuple, reasons)) == {word: code for code, words in REASONS.items() for word in words}


async def test_a_role_without_rights_reads_through_a_security_definer(owner: Any) -> None:
    await owner.execute(FEEDBACK_LOG + ";" + HUNDRED)
    await owner.execute(
        "alter function feedback_loop.read_owner_tables() security definer;"
        "do $$ begin create role fl_reader; exception when duplicate_object then null; end $$;"
        "grant usage on schema feedback_loop to fl_reader;"
        "grant execute on function feedback_loop.read_owner_tables() to fl_reader"
    )
    await owner.execute("set role fl_reader")
    rows = await owner.fetch("select changed from feedback_loop.read_owner_tables()")
    assert [row["changed"] for row in rows] == [100]


async def test_the_collector_reads_the_owners_tables_at_its_start(
    start: Callable[..., Any], database: Database, owner: Any
) -> None:
    await owner.execute(FEEDBACK_LOG + ";" + HUNDRED)
    await start([build])
    async with asyncio.timeout(10):
        while len(await _votes(database)) < 100:
            await asyncio.sleep(0.02)
