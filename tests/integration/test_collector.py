"""The collector through its HTTP routes, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.collector.build import build
from shared.postgres.database import Database
from shared.runtime import Runtime
from shared.settings import Settings

RECORDED = {"status": "ok", "message": "Feedback recorded."}
RETRACTED = {"status": "ok", "message": "Feedback retracted."}
LIKE = {"conversation_id": "c-1", "feedback": "like"}
DISLIKE = {"conversation_id": "c-1", "feedback": "dislike"}
JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
BEARER = {"Authorization": "Bearer secret"}

Send = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
async def send(start: Callable[..., Any]) -> AsyncIterator[Send]:
    """`status, body = await send("POST", "/feedback", {...})` to a collector that is ready."""
    runtime = await start([build])
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runtime.port}") as session:
        yield _sender(session)


def _sender(session: aiohttp.ClientSession) -> Send:
    async def send(method: str, path: str, body: object = None, **given: Any) -> tuple[int, Any]:
        if body is not None:
            given["json"] = body
        async with session.request(method, path, **given) as answer:
            return answer.status, await answer.json()

    return send


async def _votes(database: Database) -> list[dict[str, Any]]:
    async with database.connection() as connection:
        return [dict(row) for row in await connection.fetch("select * from feedback_loop.vote order by id")]


async def _vote(database: Database) -> dict[str, Any]:
    (vote,) = await _votes(database)
    return vote


async def _conversation(database: Database) -> dict[str, Any]:
    async with database.connection() as connection:
        (row,) = await connection.fetch("select * from feedback_loop.conversation")
    return dict(row)


# --- one vote ---------------------------------------------------------------------------


async def test_a_vote_is_answered_as_agreed(send: Send) -> None:
    assert await send("POST", "/feedback", {**LIKE, "reason": "good"}) == (200, RECORDED)


async def test_a_vote_for_an_unknown_conversation_is_kept(send: Send, database: Database) -> None:
    await send("POST", "/feedback", DISLIKE)
    vote = await _vote(database)
    assert (vote["app"], vote["conversation_id"], vote["value"]) == ("default", "c-1", 0)


async def test_a_vote_may_be_called_value(send: Send, database: Database) -> None:
    await send("POST", "/feedback", {"conversation_id": "c-1", "value": -1})
    assert (await _vote(database))["value"] == 0


async def test_an_id_may_be_a_number(send: Send, database: Database) -> None:
    await send("POST", "/feedback", {"conversation_id": 17, "message_id": 2, "user_id": 3, "feedback": "up"})
    vote = await _vote(database)
    assert (vote["conversation_id"], vote["message_id"], vote["user_id"]) == ("17", "2", "3")


async def test_unknown_fields_are_ignored(send: Send) -> None:
    assert await send("POST", "/feedback", {**LIKE, "page": "/help"}) == (200, RECORDED)


async def test_everything_a_vote_may_say_is_stored(send: Send, database: Database) -> None:
    said = {
        "reason_code": "wrong", "comment": "배송비가 달라요", "source": "widget", "generation": 4,
        "metadata": {"page": "/help", "n": [1, 2.5, None]},
    }  # fmt: skip
    await send("POST", "/feedback", {**DISLIKE, **said, "citations": {"a.md": "like", "b.md": "down"}})
    vote = await _vote(database)
    assert {name: vote[name] for name in said} == said
    assert vote["citations"] == {"a.md": 1, "b.md": 0}


async def test_half_a_character_is_no_reason_to_lose_what_people_wrote(
    send: Send, database: Database
) -> None:
    """A page that cuts a text at so many characters cuts emoji in two."""
    vote = {**DISLIKE, "reason": "late \ud83d", "comment": "cut \ud83d"}
    answer = {"conversation_id": "c-1", "question": "how \ud83d", "answer": "so \udc4d"}
    assert (await send("POST", "/feedback", vote))[0] == 200
    assert (await send("POST", "/conversations", answer))[0] == 200
    assert (await _vote(database))["comment"] == "late \ufffd\ncut \ufffd"
    recorded = await _conversation(database)
    assert (recorded["question"], recorded["answer"]) == ("how \ufffd", "so \ufffd")


async def test_metadata_that_looks_like_an_escape_is_stored(send: Send, database: Database) -> None:
    metadata = {"path": "C:\\u0000"}
    assert (await send("POST", "/feedback", {**LIKE, "metadata": metadata}))[0] == 200
    assert (await _vote(database))["metadata"] == metadata


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_second_vote_replaces_the_first(send: Send, database: Database, method: str) -> None:
    await send("POST", "/feedback", LIKE)
    await send(method, "/feedback", DISLIKE)
    assert (await _vote(database))["value"] == 0


@pytest.mark.parametrize(
    "other", [{"conversation_id": "c-2"}, {"message_id": "m"}, {"user_id": "u"}, {"app": "b"}, {"name": "n"}]
)
async def test_a_vote_with_another_key_stands_beside_it(
    send: Send, database: Database, other: dict[str, str]
) -> None:
    await send("POST", "/feedback", LIKE)
    await send("POST", "/feedback", {**LIKE, **other})
    assert len(await _votes(database)) == 2


@pytest.mark.parametrize("vote", [{"feedback": "dislike"}, {}], ids=["with the vote", "alone"])
async def test_a_later_reason_joins_the_same_vote(
    send: Send, database: Database, vote: dict[str, str]
) -> None:
    await send("POST", "/feedback", DISLIKE)
    before = await _vote(database)
    assert await send("POST", "/feedback", {"conversation_id": "c-1", **vote, "reason": "outdated"}) == (
        200,
        RECORDED,
    )
    after = await _vote(database)
    assert after == before | {"reason_code": "outdated", "updated_at": after["updated_at"]}


async def test_a_reason_without_any_vote_is_refused(send: Send) -> None:
    status, body = await send("POST", "/feedback", {"conversation_id": "c-1", "reason": "wrong"})
    assert (status, body["field"]) == (422, "feedback")


async def test_a_changed_vote_drops_the_reason_of_the_old_one(send: Send, database: Database) -> None:
    await send("POST", "/feedback", {**DISLIKE, "reason": "wrong", "comment": "x"})
    await send("POST", "/feedback", LIKE)
    vote = await _vote(database)
    assert (vote["value"], vote["reason_code"], vote["comment"]) == (1, None, None)


async def test_a_vote_said_again_keeps_its_time(send: Send, database: Database) -> None:
    await send("POST", "/feedback", LIKE)
    before = await _vote(database)
    await send("POST", "/feedback", LIKE)
    assert (await _vote(database))["created_at"] == before["created_at"]


async def test_a_changed_vote_is_cast_when_it_changed(send: Send, database: Database) -> None:
    await send("POST", "/feedback", {**LIKE, "created_at": "2025-01-01T00:00:00Z"})
    await send("POST", "/feedback", DISLIKE)
    assert (await _vote(database))["created_at"] > datetime.now(UTC) - timedelta(hours=1)


@pytest.mark.parametrize(
    ("said", "code", "comment"),
    [
        ({"reason": "틀렸어요"}, "wrong", None),
        ({"reason": "가격이 달라요"}, None, "가격이 달라요"),
        ({"reason": "wrong", "comment": "see page 3"}, "wrong", "see page 3"),
        ({"reason": "too dear", "comment": "see page 3"}, None, "too dear\nsee page 3"),
        ({"reason": "wrong", "reason_code": "tone"}, "tone", "wrong"),
        ({"reason_code": "기타"}, "other", None),
        ({"reason_code": "own.code"}, "own.code", None),
        ({"reason": "  "}, None, None),
    ],
)
async def test_a_reason_becomes_a_code_or_a_comment(
    send: Send, database: Database, said: dict[str, str], code: str | None, comment: str | None
) -> None:
    await send("POST", "/feedback", {**DISLIKE, **said})
    vote = await _vote(database)
    assert (vote["reason_code"], vote["comment"]) == (code, comment)


async def test_votes_on_citations_change_one_by_one(send: Send, database: Database) -> None:
    await send("POST", "/feedback", {**LIKE, "citations": {"a": "up", "b": "up", "c": "up"}})
    await send("POST", "/feedback", {**LIKE, "citations": {"b": "down", "c": None}})
    assert (await _vote(database))["citations"] == {"a": 1, "b": 0}


async def test_a_given_time_is_honoured(send: Send, database: Database) -> None:
    await send("POST", "/feedback", {**LIKE, "created_at": "2025-10-17T09:00:00+09:00"})
    assert (await _vote(database))["created_at"] == datetime(2025, 10, 17, tzinfo=UTC)


async def test_a_vote_takes_the_generation_of_its_conversation(send: Send, database: Database) -> None:
    await send("POST", "/conversations", {"conversation_id": "c-1", "generation": 7})
    await send("POST", "/feedback", LIKE)
    assert (await _vote(database))["generation"] == 7


async def test_the_generation_of_a_vote_without_one_is_left_open(send: Send, database: Database) -> None:
    await send("POST", "/feedback", LIKE)
    assert (await _vote(database))["generation"] is None


# --- retraction -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("POST", {"json": {"conversation_id": "c-1", "feedback": None}}),
        ("PUT", {"json": {"conversation_id": "c-1", "value": None}}),
        ("DELETE", {"json": {"conversation_id": "c-1"}}),
        ("DELETE", {"params": {"conversation_id": "c-1"}}),
    ],
)
async def test_a_vote_can_be_retracted(
    send: Send, database: Database, method: str, given: dict[str, Any]
) -> None:
    await send("POST", "/feedback", LIKE)
    assert await send(method, "/feedback", **given) == (200, RETRACTED)
    assert await _votes(database) == []


async def test_retracting_nothing_is_no_error_and_says_so(send: Send) -> None:
    status, body = await send("DELETE", "/feedback", {"conversation_id": "c-1"})
    assert (status, body["message"]) == (200, "There was no feedback to retract.")


async def test_retracting_leaves_the_votes_of_others(send: Send, database: Database) -> None:
    await send("POST", "/feedback", {**LIKE, "user_id": "a"})
    await send("DELETE", "/feedback", {"conversation_id": "c-1", "user_id": "b"})
    assert len(await _votes(database)) == 1


# --- bad input --------------------------------------------------------------------------

TOO_LATE = (datetime.now(UTC) + timedelta(hours=2)).isoformat()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"feedback": "meh"}, "feedback"),
        ({"feedback": 2}, "feedback"),
        ({"feedback": ["like"]}, "feedback"),
        ({"conversation_id": ""}, "conversation_id"),
        ({"conversation_id": "  "}, "conversation_id"),
        ({"conversation_id": None}, "conversation_id"),
        ({"conversation_id": True}, "conversation_id"),
        ({"conversation_id": ["c"]}, "conversation_id"),
        ({"conversation_id": "c" * 201}, "conversation_id"),
        ({"conversation_id": "c\0"}, "conversation_id"),
        ({"conversation_id": "\ud800"}, "conversation_id"),
        ({"message_id": "m" * 201}, "message_id"),
        ({"user_id": {"id": 1}}, "user_id"),
        ({"user_id": "😀" * 200}, "user_id"),
        ({"app": "two words"}, "app"),
        ({"name": ""}, "name"),
        ({"reason": "r" * 256}, "reason"),
        ({"reason": 5}, "reason"),
        ({"reason": "a\0b"}, "reason"),
        ({"comment": "c" * 4001}, "comment"),
        ({"reason_code": "two words"}, "reason_code"),
        ({"citations": ["a"]}, "citations"),
        ({"citations": {"a": "meh"}}, "citations"),
        ({"citations": {"\ud800": "like"}}, "citations"),
        ({"source": "\ud800"}, "source"),
        ({"metadata": [1]}, "metadata"),
        ({"metadata": {"a": ["\0"]}}, "metadata"),
        ({"metadata": {"a": "\ud800"}}, "metadata"),
        ({"metadata": {"a": "x" * 9000}}, "metadata"),
        ({"source": "s" * 65}, "source"),
        ({"generation": 0}, "generation"),
        ({"generation": 2**63}, "generation"),
        ({"created_at": "yesterday"}, "created_at"),
        ({"created_at": "2025-10-17T09:00:00"}, "created_at"),
        ({"created_at": "0001-01-01T00:00:00+14:00"}, "created_at"),
        ({"created_at": "9999-12-31T23:59:59-14:00"}, "created_at"),
        ({"created_at": TOO_LATE}, "created_at"),
    ],
)
async def test_what_does_not_fit_is_refused_by_field(
    send: Send, database: Database, change: dict[str, Any], field: str
) -> None:
    status, body = await send("POST", "/feedback", {**LIKE, **change})
    assert (status, body["status"]) == (422, "error")
    assert body["field"].split(".")[0] == field
    assert body["reason"]
    assert await _votes(database) == []


@pytest.mark.parametrize(
    ("data", "content_type", "status", "field"),
    [
        (b"{", "application/json", 400, "body"),
        (b"\xff", "application/json", 400, "body"),
        (b"[" * 100_000, "application/json", 400, "body"),
        (b"{}", "application/json; charset=klingon", 422, "conversation_id"),
        (b"[]", "application/json", 422, "body"),
        (b'{"feedback": "like"}', "application/json", 422, "conversation_id"),
        (b'{"conversation_id": "c"}', "application/json", 422, "feedback"),
        (b'{"conversation_id": 1, "feedback": NaN}', "application/json", 422, "feedback"),
        (b'{"conversation_id": 1, "value": 1, "metadata": {"a": NaN}}', "application/json", 422, "metadata"),
        (b"conversation_id=1", "application/x-www-form-urlencoded", 415, "content-type"),
        (b" " * (1024 * 1024 + 1), "application/json", 413, "body"),
    ],
)  # fmt: skip
async def test_a_body_that_is_none_is_refused(
    send: Send, data: bytes, content_type: str, status: int, field: str
) -> None:
    answered, body = await send("POST", "/feedback", data=data, headers={"Content-Type": content_type})
    assert (answered, body["field"]) == (status, field)


async def test_another_method_is_refused(send: Send) -> None:
    status, body = await send("GET", "/feedback")
    assert (status, body["field"]) == (405, "method")


async def test_deeply_nested_metadata_is_stored_or_refused(send: Send) -> None:
    data = b'{"conversation_id":1,"feedback":1,"metadata":{"a":' + b"[" * 4000 + b"]" * 4000 + b"}}"
    status, body = await send("POST", "/feedback", data=data, headers={"Content-Type": "application/json"})
    assert status in (200, 400, 422), body


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)
bodies = st.dictionaries(
    st.sampled_from(
        [
            "conversation_id",
            "feedback",
            "reason",
            "user_id",
            "citations",
            "metadata",
            "created_at",
            "generation",
        ]
    ),
    json_values | st.sampled_from(["like", "2025-01-01T00:00:00Z", 1]),
    max_size=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies | json_values)
async def test_no_json_body_makes_the_collector_fail(send: Send, body: object) -> None:
    status, answer = await send("POST", "/feedback", data=json.dumps(body), headers=JSON)
    assert status in (200, 400, 422), answer


# --- batches ----------------------------------------------------------------------------

BATCH = [{"conversation_id": n, "feedback": "like" if n % 2 else "dislike"} for n in range(20)]


@pytest.mark.parametrize(
    "given",
    [
        {"json": BATCH},
        {"json": {"items": BATCH}},
        {
            "data": "\n".join(json.dumps(item) for item in BATCH) + "\n\n",
            "headers": {"Content-Type": "application/x-ndjson"},
        },
    ],
    ids=["array", "items", "ndjson"],
)
async def test_a_batch_is_recorded(send: Send, database: Database, given: dict[str, Any]) -> None:
    assert await send("POST", "/feedback/batch", **given) == (200, {"status": "ok", "recorded": 20})
    assert sum(vote["value"] for vote in await _votes(database)) == 10


async def test_a_batch_with_a_bad_item_is_refused_whole(send: Send, database: Database) -> None:
    items = [*BATCH[:17], {"conversation_id": 1, "feedback": "meh"}, *BATCH[17:]]
    status, body = await send("POST", "/feedback/batch", items)
    assert (status, body["field"]) == (422, "items.17.feedback")
    assert await _votes(database) == []


async def test_a_batch_with_a_reason_for_no_vote_is_refused_whole(send: Send, database: Database) -> None:
    items = [*BATCH, {"conversation_id": "x", "reason": "wrong"}]
    status, body = await send("POST", "/feedback/batch", items)
    assert (status, body["field"]) == (422, "items.20.feedback")
    assert await _votes(database) == []


async def test_a_batch_with_a_time_in_the_future_is_refused_whole(send: Send, database: Database) -> None:
    status, body = await send("POST", "/feedback/batch", [*BATCH, {**LIKE, "created_at": TOO_LATE}])
    assert (status, body["field"]) == (422, "items.20.created_at")
    assert await _votes(database) == []


async def test_the_last_of_several_votes_in_a_batch_wins(send: Send, database: Database) -> None:
    retraction = {"conversation_id": "c-2", "feedback": None}
    await send("POST", "/feedback", {"conversation_id": "c-2", "feedback": "like"})
    status, body = await send("POST", "/feedback/batch", [LIKE, retraction, DISLIKE])
    assert (status, body["recorded"]) == (200, 3)
    assert (await _vote(database))["value"] == 0


async def test_a_batch_may_have_ten_thousand_items_and_no_more(send: Send, database: Database) -> None:
    items = [{"conversation_id": n, "feedback": 1} for n in range(10_001)]
    status, body = await send("POST", "/feedback/batch", items)
    assert (status, body["field"]) == (422, "items")
    assert await send("POST", "/feedback/batch", items[1:]) == (200, {"status": "ok", "recorded": 10_000})


async def test_a_bad_line_of_ndjson_is_named(send: Send) -> None:
    status, body = await send(
        "POST", "/feedback/batch", data=b'{"conversation_id": 1, "feedback": 1}\n{', headers=NDJSON
    )
    assert (status, body["field"]) == (400, "items.1")


async def test_concurrent_batches_over_the_same_votes_all_succeed(send: Send, database: Database) -> None:
    forth = [{"conversation_id": n, "feedback": "like"} for n in range(300)]
    answers = await asyncio.gather(
        *(send("POST", "/feedback/batch", items) for items in [forth, forth[::-1]] * 4)
    )
    assert [status for status, _ in answers] == [200] * 8
    assert len(await _votes(database)) == 300


# --- votes that come at once --------------------------------------------------------------


async def test_votes_that_come_at_once_each_get_their_own_answer(send: Send, database: Database) -> None:
    good = [{"conversation_id": n, "feedback": "like"} for n in range(30)]
    sent: list[dict[str, Any]] = [
        *good[:10],
        {"conversation_id": "none", "reason": "wrong"},
        *good[10:20],
        {"conversation_id": "late", "feedback": "like", "created_at": TOO_LATE},
        {"conversation_id": "gone", "feedback": None},
        *good[20:],
    ]
    answers = await asyncio.gather(*(send("POST", "/feedback", body) for body in sent))
    others = [(status, body.get("field") or body["message"]) for status, body in answers if body != RECORDED]
    assert others == [
        (422, "feedback"),
        (422, "created_at"),
        (200, "There was no feedback to retract."),
    ]
    assert len(await _votes(database)) == 30


async def test_a_vote_that_the_database_refuses_fails_alone(send: Send, database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("alter table feedback_loop.vote add check (comment <> 'refused')")
    sent = [{"conversation_id": n, "feedback": "like", "comment": "fine"} for n in range(30)]
    sent[15]["comment"] = "refused"
    answers = await asyncio.gather(*(send("POST", "/feedback", body) for body in sent))
    assert [n for n, (status, _) in enumerate(answers) if status != 200] == [15]
    assert len(await _votes(database)) == 29


async def test_votes_on_one_answer_that_come_at_once_are_one(send: Send, database: Database) -> None:
    answers = await asyncio.gather(
        *(send("POST", "/feedback", LIKE | {"citations": {str(n): "up"}}) for n in range(20))
    )
    assert [status for status, _ in answers] == [200] * 20
    assert (await _vote(database))["citations"] == {str(n): 1 for n in range(20)}


# --- conversations ----------------------------------------------------------------------


async def test_a_conversation_is_recorded(send: Send, database: Database) -> None:
    said = {
        "conversation_id": "c-1", "message_id": "m-1", "user_id": "u-1", "question": "환불?",
        "answer": "7일 안에", "generation": 3,
    }  # fmt: skip
    assert await send("POST", "/conversations", said) == (
        200,
        {"status": "ok", "message": "Conversation recorded.", "recorded": 1},
    )
    row = await _conversation(database)
    assert {name: row[name] for name in said} == said


async def test_citations_become_objects_with_a_rank(send: Send, database: Database) -> None:
    chunk = "ab" * 32
    citations = [
        "a.md",
        chunk,
        {"source": "b.md", "chunk": chunk, "score": 0.5, "page": 3},
        {"source": "c", "rank": 1},
    ]
    await send("POST", "/conversations", {"conversation_id": 1, "citations": citations})
    assert (await _conversation(database))["citations"] == [
        {"source": "a.md", "rank": 1},
        {"chunk": chunk, "rank": 2},
        {"source": "b.md", "chunk": chunk, "score": 0.5, "rank": 3},
        {"source": "c", "rank": 1},
    ]


async def test_a_conversation_recorded_again_keeps_what_is_not_said(send: Send, database: Database) -> None:
    first = {"conversation_id": 1, "question": "q", "citations": ["a"], "answered_at": "2025-01-01T00:00:00Z"}
    await send("POST", "/conversations", first)
    await send("POST", "/conversations", [{"conversation_id": 1, "answer": "a"}])
    row = await _conversation(database)
    assert (row["question"], row["answer"], row["citations"]) == ("q", "a", [{"source": "a", "rank": 1}])
    assert row["answered_at"] == datetime(2025, 1, 1, tzinfo=UTC)


async def test_several_conversations_are_recorded_at_once(send: Send) -> None:
    items = [{"conversation_id": n, "answer": "a"} for n in range(50)]
    status, body = await send("POST", "/conversations", {"items": items})
    assert (status, body["recorded"]) == (200, 50)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"question": "q"}, "conversation_id"),
        ({"conversation_id": 1, "question": 5}, "question"),
        ({"conversation_id": 1, "citations": "a.md"}, "citations"),
        ({"conversation_id": 1, "citations": [{"rank": 1}]}, "citations.0"),
        ({"conversation_id": 1, "citations": [5]}, "citations.0"),
        ({"conversation_id": 1, "citations": [{"source": "a", "score": "high"}]}, "citations.0.score"),
        ({"conversation_id": 1, "answered_at": TOO_LATE}, "answered_at"),
        ([{"conversation_id": 1}, {"conversation_id": ""}], "items.1.conversation_id"),
        ([{"conversation_id": 1, "answered_at": TOO_LATE}], "items.0.answered_at"),
        ({"items": 5}, "items"),
        ("text", "items"),
    ],
)
async def test_a_conversation_that_does_not_fit_is_refused_by_field(
    send: Send, body: object, field: str
) -> None:
    status, answer = await send("POST", "/conversations", body)
    assert (status, answer["field"]) == (422, field)


# --- the token, and readiness -----------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/feedback"),
        ("PUT", "/feedback"),
        ("DELETE", "/feedback"),
        ("POST", "/feedback/batch"),
        ("POST", "/conversations"),
    ],
)
async def test_the_token_is_required_where_one_is_set(
    start: Callable[..., Any], method: str, path: str
) -> None:
    runtime = await start([build], api_token="secret")
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runtime.port}") as session:
        send = _sender(session)
        assert (await send(method, path, LIKE))[0] == 401
        accepted = await send(method, path, [LIKE] if "batch" in path else LIKE, headers=BEARER)
        assert accepted[0] == 200


async def test_a_collector_without_its_database_says_so_at_once(
    make_settings: Callable[..., Settings],
) -> None:
    runtime = Runtime(make_settings(database_url="postgresql://nobody@127.0.0.1:1/none"), [build])
    await runtime.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{runtime.port}") as session, asyncio.timeout(1):
            status, body = await _sender(session)("POST", "/feedback", LIKE)
        assert (status, body["status"]) == (503, "unavailable")
        assert "database" in body["reason"]
    finally:
        await runtime.stop()
