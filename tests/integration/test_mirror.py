"""Votes mirrored to Langfuse: all of them, once each, whatever befalls either side."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from services.analyzer.build import build as analyzer
from services.collector.build import build as collector
from services.commands.doctor import _mirror as examine
from services.commands.privacy import forget_person
from services.commands.rights import make_database_roles
from shared.events import FeedbackEvaluate
from shared.mirror.langfuse import Langfuse, Score, SinkError, event
from shared.mirror.mirror import Mirror, Timing
from shared.postgres.database import Database
from shared.runtime import Runtime
from tests.support.events import publish, wait_until
from tests.support.langfuse import KEYS, FakeLangfuse, Fault
from tests.support.roles import PASSWORDS, as_service

AT_ONCE = Timing(gather=0.01, settle=0, pauses=(0.01, 0.01, 0.01))
TRACE = "9f" * 16

Start = Callable[..., Awaitable[Runtime]]


@pytest.fixture
async def langfuse() -> AsyncIterator[FakeLangfuse]:
    async with FakeLangfuse() as server:
        yield server


@pytest.fixture
async def mirror(database: Database, langfuse: FakeLangfuse) -> AsyncIterator[Mirror]:
    """One that is turned on, and sends when it is asked to."""
    made = Mirror(database, Langfuse(langfuse.url, *KEYS), timing=AT_ONCE)
    await started(made)
    yield made
    await made.close()


async def started(mirror: Mirror) -> None:
    """Turn it on, and let what it does by itself at a start end."""
    await mirror.start()
    await wait_until(lambda: mirror._task is None or mirror._task.done())


async def sql(database: Database, statement: str, *given: object) -> Any:
    async with database.connection() as connection:
        return await connection.fetchval(statement, *given)


async def cast(database: Database, conversation: str, value: int = 0, **said: Any) -> None:
    columns = {"conversation_id": conversation, "value": value, **said}
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    statement = f"insert into feedback_loop.vote ({', '.join(columns)}) values ({places})"
    await sql(database, statement, *columns.values())


def shown(langfuse: FakeLangfuse, *names: str) -> list[Any]:
    names = names or ("sessionId", "value")
    found = sorted((tuple(score.get(name) for name in names) for score in langfuse.scores), key=repr)
    return found if len(names) > 1 else [one[0] for one in found]


# --- what arrives ------------------------------------------------------------------------------


async def test_a_vote_over_http_becomes_a_score_its_change_too_and_its_retraction(
    start: Start, langfuse: FakeLangfuse
) -> None:
    runtime = await start([collector], **langfuse.settings)
    runtime.kernel.mirror._timing = AT_ONCE
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runtime.port}", raise_for_status=True) as http:
        vote = {"conversation_id": "c1", "user_id": "kim", "feedback": "dislike", "comment": "열 시예요"}
        await http.post("/feedback", json=vote)
        await wait_until(lambda: shown(langfuse, "sessionId", "value", "comment", "dataType"))
        assert shown(langfuse, "name", "value", "comment") == [("user_feedback", 0, "열 시예요")]
        await http.post("/feedback", json={**vote, "feedback": "like", "comment": None})
        await wait_until(lambda: shown(langfuse, "value", "comment") == [(1, None)])
        await http.post("/feedback", json={**vote, "feedback": None, "comment": None})
        await wait_until(lambda: not langfuse.scores)
    assert "kim" not in str(langfuse.bodies)


async def test_a_message_that_is_a_trace_gets_the_score(
    mirror: Mirror, database: Database, langfuse: FakeLangfuse
) -> None:
    await cast(database, "c1", message_id=TRACE, reason_code="wrong")
    await mirror.drain()
    (score,) = langfuse.scores
    assert (score["traceId"], score["sessionId"]) == (TRACE, None)
    assert score["metadata"]["reason_code"] == "wrong"


async def test_votes_from_before_are_not_mirrored_unless_they_change(
    database: Database, langfuse: FakeLangfuse
) -> None:
    for name in ("before", "stripped", "changed"):
        await cast(database, name, comment="old", created_at=datetime(2020, 1, 1, tzinfo=UTC))
    mirror = Mirror(database, Langfuse(langfuse.url, *KEYS), timing=AT_ONCE)
    await started(mirror)
    await cast(database, "after")
    change = "update feedback_loop.vote set {} where conversation_id = $1"
    await sql(database, change.format("comment = null"), "stripped")
    await sql(database, change.format("value = 1"), "changed")
    await mirror.drain()
    await mirror.close()
    assert shown(langfuse) == [("after", 0), ("changed", 1)]


async def test_what_is_stripped_here_is_stripped_there(
    mirror: Mirror, database: Database, langfuse: FakeLangfuse
) -> None:
    await cast(database, "c", comment="qz", created_at=datetime(2020, 1, 1, tzinfo=UTC))
    await mirror.drain()
    await sql(database, "select feedback_loop.retain(1)")
    await mirror.drain()
    assert shown(langfuse, "sessionId", "comment") == [("c", None)]


async def test_votes_that_come_from_langfuse_do_not_go_back(
    mirror: Mirror, database: Database, langfuse: FakeLangfuse
) -> None:
    await cast(database, "imported", source="langfuse")
    await mirror.drain()
    assert langfuse.requests == []


async def test_comments_stay_here_where_that_is_wanted(database: Database, langfuse: FakeLangfuse) -> None:
    mirror = Mirror(database, Langfuse(langfuse.url, *KEYS), comments=False, timing=AT_ONCE)
    await started(mirror)
    await cast(database, "c", comment="qzcomment")
    await mirror.drain()
    await mirror.close()
    assert shown(langfuse) == [("c", 0)] and "qzcomment" not in str(langfuse.bodies)


async def test_a_vote_changed_on_another_day_is_still_one_score(
    mirror: Mirror, database: Database, langfuse: FakeLangfuse
) -> None:
    await cast(database, "c", created_at=datetime(2026, 1, 1, 23, 59, 59, 999_000, tzinfo=UTC))
    await mirror.drain()
    for value in (1, 0, 1):
        await sql(database, "update feedback_loop.vote set value = $1, created_at = now()", value)
        await mirror.drain()
    assert shown(langfuse) == [("c", 1)]


async def test_votes_of_the_owners_table_are_mirrored_with_an_evaluation(
    start: Start, database: Database, langfuse: FakeLangfuse
) -> None:
    runtime = await start([analyzer], **langfuse.settings)
    runtime.kernel.mirror._timing = AT_ONCE
    await sql(
        database,
        "create table public.feedback_log as select 1 as id, 'c' as conversation_id, 'like' as feedback,"
        " now() as created_at",
    )
    await publish(runtime.kernel, FeedbackEvaluate(as_of=datetime.now(UTC), requested_by="t"))
    await wait_until(lambda: shown(langfuse) == [("c", 1)])


# --- what goes wrong ---------------------------------------------------------------------------


FAULTS = {
    "429": Fault(429, retry_after=0),
    "500": Fault(500),
    "dropped": Fault(0),
    "dropped after it was taken": Fault(0, does=True),
    "500 after it was taken": Fault(500, does=True),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_what_fails_is_sent_again_and_nothing_is_doubled(
    mirror: Mirror, database: Database, langfuse: FakeLangfuse, fault: Fault
) -> None:
    langfuse.next(fault, fault)
    await cast(database, "a", 1)
    await cast(database, "b", 0)
    mirror.soon()
    await wait_until(lambda: shown(langfuse) == [("a", 1), ("b", 0)])
    langfuse.next(fault)
    await sql(database, "delete from feedback_loop.vote where conversation_id = 'a'")
    mirror.soon()
    await wait_until(lambda: shown(langfuse) == [("b", 0)])
    await wait_until(lambda: _nothing_due(database))


async def _nothing_due(database: Database) -> bool:
    return not await sql(database, "select count(*) from feedback_loop.mirror_due")


async def test_what_is_noted_of_its_question_is_no_news_of_a_vote(mirror: Mirror, database: Database) -> None:
    await cast(database, "c", 1, citations={"chunk": 1})
    await mirror.drain()
    await sql(
        database, "insert into feedback_loop.conversation (conversation_id, question) values ('c', 'why')"
    )
    assert await sql(database, "select asked from feedback_loop.vote") is not None
    assert await _nothing_due(database)


async def test_it_rests_after_some_attempts_and_goes_on_when_asked(
    mirror: Mirror, database: Database, langfuse: FakeLangfuse
) -> None:
    langfuse.next(*[Fault(503)] * 4)
    await cast(database, "c")
    mirror.soon()
    await wait_until(lambda: mirror._task is not None and mirror._task.done())
    assert len(langfuse.requests) == 4
    assert await sql(database, "select trouble from feedback_loop.mirror") == "it fails (HTTP 503)"
    await asyncio.sleep(AT_ONCE.pauses[-1])
    mirror.soon()
    await wait_until(lambda: shown(langfuse) == [("c", 0)])
    await wait_until(lambda: _no_trouble(database))


async def _no_trouble(database: Database) -> bool:
    return await sql(database, "select trouble is null from feedback_loop.mirror") is True


async def test_a_vote_that_is_refused_for_good_holds_up_no_other(
    mirror: Mirror, database: Database, langfuse: FakeLangfuse, caplog: pytest.LogCaptureFixture
) -> None:
    langfuse.refuses.add("bad")
    await cast(database, "a", name="bad", comment="as it was said")
    await cast(database, "b")
    assert await mirror.drain() is None
    assert shown(langfuse) == [("b", 0)]
    assert "is refused" in caplog.text
    assert "as it was said" not in caplog.text


@pytest.mark.parametrize(
    "says",
    [
        *(b"", b"null", b"[" * 100_000, b'{"successes": 5, "data": null}', b"{" + b" " * 2 * 1024**2 + b"}"),
        *(b'{"successes": [{"id": []}], "data": [1]}', b'{"successes": [], "errors": ["x"], "data": "x"}'),
    ],
    ids=["nothing", "null", "deep", "numbers", "large", "ids", "texts"],
)
async def test_an_answer_that_is_not_langfuses_loses_nothing_and_is_told_by_the_doctor(
    says: bytes, mirror: Mirror, database: Database, langfuse: FakeLangfuse, make_settings: Callable[..., Any]
) -> None:
    langfuse.next(Fault(207, says=says))
    await cast(database, "c")
    with pytest.raises(SinkError):
        await mirror.drain()
    assert await mirror.drain() is None
    assert shown(langfuse) == [("c", 0)]
    langfuse.next(Fault(200, says=says))
    (found,) = await examine(make_settings(**langfuse.settings))
    assert found.state == "bad"


async def test_wrong_keys_are_told_without_the_keys(database: Database, langfuse: FakeLangfuse) -> None:
    mirror = Mirror(database, Langfuse(langfuse.url, "pk-lf-2", "sk-lf-other"), timing=AT_ONCE)
    await started(mirror)
    await cast(database, "c")
    with pytest.raises(SinkError, match="MIRROR_SECRET_KEY") as refused:
        await mirror.drain()
    await mirror.close()
    assert not refused.value.passing and "sk-lf-other" not in str(refused.value)


async def test_a_process_that_died_after_sending_leaves_nothing_that_cannot_be_deleted(
    mirror: Mirror, database: Database, langfuse: FakeLangfuse
) -> None:
    langfuse.next(Fault(0, does=True))  # it arrives, and nobody here knows
    await cast(database, "c")
    with pytest.raises(SinkError):
        await mirror.drain()
    await sql(database, "delete from feedback_loop.vote")
    another = Mirror(database, Langfuse(langfuse.url, *KEYS), timing=AT_ONCE)
    await another.start()
    await wait_until(lambda: not langfuse.scores)
    await another.close()


async def test_a_score_is_not_deleted_before_it_has_settled(
    database: Database, langfuse: FakeLangfuse
) -> None:
    mirror = Mirror(database, Langfuse(langfuse.url, *KEYS), timing=replace(AT_ONCE, settle=3600))
    await started(mirror)
    await cast(database, "c")
    await mirror.drain()
    await sql(database, "delete from feedback_loop.vote")
    assert await mirror.drain() == 3600
    assert shown(langfuse) == [("c", 0)]
    await sql(database, "update feedback_loop.mirrored set sent_at = now() - interval '2 hours'")
    assert await mirror.drain() is None
    await mirror.close()
    assert langfuse.scores == []


async def test_only_one_process_sends_at_a_time(
    mirror: Mirror, database: Database, langfuse: FakeLangfuse
) -> None:
    await cast(database, "c")
    held = "update feedback_loop.mirror set lease = $1, leased_until = now() + interval '1 hour'"
    await sql(database, held, uuid.uuid4())
    assert await mirror.drain() == AT_ONCE.gather
    assert langfuse.requests == []
    await sql(database, "update feedback_loop.mirror set leased_until = now() - interval '1 second'")
    await mirror.drain()
    assert shown(langfuse) == [("c", 0)]


async def test_what_changed_while_it_was_off_is_caught_up_with(
    mirror: Mirror, database: Database, langfuse: FakeLangfuse
) -> None:
    await cast(database, "kept")
    await cast(database, "gone")
    await mirror.drain()
    await started(Mirror(database, None))
    await sql(database, "delete from feedback_loop.vote where conversation_id = 'gone'")
    await sql(database, "update feedback_loop.vote set value = 1, updated_at = now()")
    assert await sql(database, "select count(*) from feedback_loop.mirror_due") == 0
    await mirror.start()
    await wait_until(lambda: shown(langfuse) == [("kept", 1)])


# --- people, rights, doctor --------------------------------------------------------------------


async def test_who_is_forgotten_here_is_forgotten_there(
    mirror: Mirror, database: Database, langfuse: FakeLangfuse, make_settings: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    await cast(database, "c", user_id="kim", comment="qz")
    await cast(database, "d", user_id="lee")
    await mirror.drain()
    await sql(database, "update feedback_loop.mirrored set sent_at = now() - interval '2 hours'")
    await forget_person(make_settings(**langfuse.settings), "kim", None, False)
    assert shown(langfuse) == [("d", 0)]
    assert "deleted in Langfuse too" in capsys.readouterr().out


async def test_forgetting_says_so_where_langfuse_cannot_be_reached(
    mirror: Mirror, database: Database, langfuse: FakeLangfuse, make_settings: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    await cast(database, "c", user_id="kim")
    await mirror.drain()
    await sql(database, "update feedback_loop.mirrored set sent_at = now() - interval '2 hours'")
    langfuse.next(Fault(503))
    await forget_person(make_settings(**langfuse.settings), "kim", None, False)
    assert "not deleted in Langfuse yet" in capsys.readouterr().out


@pytest.mark.parametrize("service", ["collector", "analyzer"])
async def test_a_service_as_its_own_user_mirrors(
    dsn: str, database: Database, langfuse: FakeLangfuse, service: str
) -> None:
    async with database.transaction() as owner:
        await make_database_roles(owner, PASSWORDS)
    own = Database(as_service(dsn, service))
    await own.connect()
    mirror = Mirror(own, Langfuse(langfuse.url, *KEYS), timing=AT_ONCE)
    await started(mirror)
    await cast(database, "c")
    await mirror.drain()
    await sql(database, "delete from feedback_loop.vote")
    await mirror.drain()
    await mirror.close()
    await own.close()
    assert langfuse.scores == [] and any(request.startswith("DELETE") for request in langfuse.requests)


async def test_doctor_names_the_project_and_what_waits(
    database: Database, langfuse: FakeLangfuse, make_settings: Any
) -> None:
    (found,) = await examine(make_settings(**langfuse.settings))
    assert (found.state, "shop-bot" in found.says) == ("ok", True)
    (wrong,) = await examine(make_settings(**{**langfuse.settings, "mirror_secret_key": "sk-lf-no"}))
    assert wrong.state == "bad" and "MIRROR_SECRET_KEY" in wrong.says and "sk-lf-no" not in wrong.says
    assert await examine(make_settings()) == []


def test_all_events_of_a_score_lie_within_a_second() -> None:
    first = datetime(2026, 1, 1, 23, 59, 59, tzinfo=UTC)
    told = [
        event(Score(uuid.UUID(int=1), first, revision, "user_feedback", 1, None, "c"))
        for revision in (0, 1, 5000)
    ]
    assert [one["timestamp"] for one in told] == [
        "2026-01-01T23:59:59.000Z", "2026-01-01T23:59:59.001Z", "2026-01-01T23:59:59.999Z",
    ]  # fmt: skip
    assert len({one["id"] for one in told}) == 3 and len({one["body"]["id"] for one in told}) == 1
