"""What people wrote, on the dashboard: the list, its file, and what dislikes have in common."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from services.dashboard import votes, votes_api
from services.dashboard.build import build
from shared.postgres.database import Database
from shared.runtime import Runtime
from tests.support.dashboard import (
    NINE,
    Start,
    add_generation,
    answer,
    cast,
    complain,
    read,
    url,
)
from tests.support.events import wait_until

MINUTE = timedelta(minutes=1)
RANGE = {"from": "2026-11-10", "to": "2026-11-18"}
SHIPPING, RETURNS, GONE = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


# --- the list -------------------------------------------------------------------------------


async def test_nothing_was_voted(start: Start, http: aiohttp.ClientSession) -> None:
    assert await read(http, await start([build]), "/dashboard/votes") == {"votes": [], "next": None}


async def test_vote_is_shown_with_everything_that_is_known_of_it(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    await add_generation(database, {SHIPPING: "shipping.md"})
    cited = [{"source": "returns.md", "rank": 2}, {"chunk": SHIPPING, "rank": 1}, {"chunk": GONE, "rank": 3}]
    await answer(database, "c", question="When?", text="Never.", citations=cited)
    id = await cast(
        database,
        conversation="c",
        user="u",
        reason="wrong",
        comment="No!",
        citations={SHIPPING: 0},
        generation=3,
    )
    await complain(database, id, "retrieval_miss", "g1")
    found = await read(http, runtime, "/dashboard/votes", **RANGE)
    assert found["votes"] == [
        {
            "id": id,
            "app": "default",
            "at": NINE.isoformat(),
            "value": 0,
            "user": "u",
            "conversation": "c",
            "message": "",
            "question": "When?",
            "answer": "Never.",
            "comment": "No!",
            "reason": "wrong",
            "generation": 3,
            "cause": "retrieval_miss",
            "group": "g1",
            "chunks": [
                {
                    "source": "shipping.md",
                    "heading": f"Heading of {SHIPPING}",
                    "text": f"Text of {SHIPPING}",
                    "vote": 0,
                    "rank": 1,
                },
                {"source": "returns.md", "heading": "", "text": "", "vote": None, "rank": 2},
            ],
        }
    ]


async def test_what_search_showed_stands_in_for_citations(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    generation = await add_generation(database, {SHIPPING: "shipping.md", RETURNS: "returns.md"})
    async with database.connection() as connection:
        await connection.execute(
            "insert into feedback_loop.search_log (app, conversation_id, query, generation, shown)"
            " values ('default', 'c', 'Where to?', $1, $2)",
            generation,
            [{"chunk": RETURNS, "score": 1.0}, {"chunk": SHIPPING, "score": 0.5}],
        )
    await cast(database, conversation="c")
    [found] = (await read(http, runtime, "/dashboard/votes", **RANGE))["votes"]
    assert found["question"] == "Where to?"
    assert [(chunk["source"], chunk["rank"]) for chunk in found["chunks"]] == [
        ("returns.md", 1),
        ("shipping.md", 2),
    ]


async def test_list_goes_on_where_it_stopped_though_votes_arrive(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    # Two at each moment: the order among them must hold too.
    cast_before = [await cast(database, at=NINE + n // 2 * MINUTE) for n in range(7)]
    seen: list[int] = []
    query: dict[str, Any] = {**RANGE, "limit": 2}
    while True:
        page = await read(http, runtime, "/dashboard/votes", **query)
        seen += [vote["id"] for vote in page["votes"]]
        if page["next"] is None:
            break
        query["before"] = page["next"]
        await cast(database, at=NINE + 60 * MINUTE)
    assert seen == cast_before[::-1]


async def test_list_of_several_apps_is_in_order(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    cast_before = [await cast(database, at=NINE + n * MINUTE, app=f"app{n % 3}") for n in range(6)]
    first = await read(http, runtime, "/dashboard/votes", **RANGE, limit=4)
    rest = await read(http, runtime, "/dashboard/votes", **RANGE, limit=4, before=first["next"])
    assert [vote["id"] for vote in first["votes"] + rest["votes"]] == cast_before[::-1]


async def test_texts_are_bounded_and_harmless(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    await answer(database, "c", question="q" * 20_000, text="<script>\u202e" + "a" * 100_000)
    await cast(database, conversation="c", comment="x\n" * 2_000)
    [found] = (await read(http, runtime, "/dashboard/votes", **RANGE))["votes"]
    assert {name: len(found[name]) for name in ("question", "answer", "comment")} == {
        "question": 500,
        "answer": 2_000,
        "comment": 2_000,
    }
    assert found["answer"].startswith("<script> aaa")


@pytest.mark.parametrize(("name", "value"), [("limit", "0"), ("limit", "201"), ("before", "yesterday")])
async def test_page_that_does_not_fit_is_refused(
    start: Start, http: aiohttp.ClientSession, name: str, value: str
) -> None:
    runtime = await start([build])
    async with http.get(url(runtime, "/dashboard/votes"), params={name: value}) as response:
        assert (response.status, (await response.json())["field"]) == (422, name)


# --- the file -------------------------------------------------------------------------------


async def export(http: aiohttp.ClientSession, runtime: Runtime, **query: Any) -> list[dict[str, str]]:
    async with http.get(url(runtime, "/dashboard/votes.csv"), params=RANGE | query) as response:
        assert response.status == 200
        text = (await response.read()).decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


async def test_file_is_one_to_keep(start: Start, http: aiohttp.ClientSession) -> None:
    runtime = await start([build])
    async with http.get(url(runtime, "/dashboard/votes.csv"), params=RANGE) as response:
        body = await response.read()
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == (
        'attachment; filename="votes-2026-11-10-2026-11-18.csv"'
    )
    assert response.headers["Cache-Control"] == "no-store"
    assert body.startswith(b"\xef\xbb\xbfid,at,app,user_feedback,negative_user_feedback,reason,comment,")
    assert body.endswith(b"\r\n") and body.count(b"\n") == 1


async def test_file_has_every_vote_of_the_filter(
    start: Start, http: aiohttp.ClientSession, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(votes, "BATCH", 2)
    runtime = await start([build])
    wanted = [await cast(database, at=NINE + n * MINUTE, app=f"app{n % 2}") for n in range(7)]
    await cast(database, 1)
    rows = await export(http, runtime, rated="down")
    assert {int(row["id"]) for row in rows} == set(wanted)
    assert {(row["user_feedback"], row["negative_user_feedback"]) for row in rows} == {("0", "1")}


async def test_hostile_cell_is_text_to_a_spreadsheet(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    await answer(
        database, "@c", question="+1", text='-1,"x"\n=2', citations=[{"source": "=cmd|' /C calc'!A0"}]
    )
    await cast(database, conversation="@c", user="\t=1", comment='=HYPERLINK("http://evil.example";"x")')
    [row] = await export(http, runtime)
    assert {name: row[name] for name in ("conversation", "user", "comment", "question", "answer")} == {
        "conversation": "'@c",
        "user": "'=1",
        "comment": '\'=HYPERLINK("http://evil.example";"x")',
        "question": "'+1",
        "answer": '\'-1,"x"\n=2',
    }
    assert row["documents"] == "'=cmd|' /C calc'!A0"


async def test_second_file_at_once_is_put_off(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    async with database.connection() as connection:
        # More than the sockets' buffers hold: who does not read keeps the file open.
        await connection.execute(
            "insert into feedback_loop.vote (conversation_id, value, comment, created_at)"
            " select 'c' || n, 0, repeat('long ', 6000), $1 from generate_series(1, 1500) n",
            NINE,
        )
    reader_of_one = aiohttp.ClientSession(read_bufsize=1024)
    async with reader_of_one, reader_of_one.get(url(runtime, "/dashboard/votes.csv"), params=RANGE) as one:
        assert one.status == 200
        async with http.get(url(runtime, "/dashboard/votes.csv"), params=RANGE) as other:
            assert other.status == 503
        one.close()
    await wait_until(lambda: _is_given(http, runtime))


async def test_file_that_takes_too_long_is_broken_off(
    start: Start, http: aiohttp.ClientSession, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(votes_api, "LONGEST_EXPORT", 0.0)
    runtime = await start([build])
    await cast(database, 0)
    with pytest.raises(aiohttp.ClientError):
        await export(http, runtime)
    monkeypatch.undo()
    await wait_until(lambda: _is_given(http, runtime))


async def _is_given(http: aiohttp.ClientSession, runtime: Runtime) -> bool:
    """Whether a file can be had (again)."""
    async with http.get(url(runtime, "/dashboard/votes.csv"), params={"rated": "up"}) as response:
        return response.status == 200


# --- what they have in common ---------------------------------------------------------------


async def test_groups_are_named_counted_and_quoted(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    for n, user in enumerate(["u", "u", "v"]):
        vote = await cast(database, at=NINE + n * MINUTE, user=user, comment=f"Comment {n}")
        await complain(database, vote, "unknown", "g1", "late parcels")
    await complain(database, await cast(database, user="w"), "unknown", "g2", "returns")
    assert (await read(http, runtime, "/dashboard/groups", **RANGE))["groups"] == [
        {"id": "g1", "label": "late parcels", "votes": 3, "users": 2, "quote": "Comment 2"},
        {"id": "g2", "label": "returns", "votes": 1, "users": 1, "quote": ""},
    ]


async def test_group_of_a_vote_that_was_changed_to_a_like_does_not_count_it(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    vote = await cast(database)
    await complain(database, vote, "unknown", "g1")
    async with database.connection() as connection:
        await connection.execute("update feedback_loop.vote set value = 1")
    assert (await read(http, runtime, "/dashboard/groups", **RANGE))["groups"] == []


async def test_other_groups_stay_while_one_is_chosen(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    for group in ("g1", "g2"):
        await complain(database, await cast(database), "unknown", group)
    found = await read(http, runtime, "/dashboard/groups", **RANGE, group="g1")
    assert [group["id"] for group in found["groups"]] == ["g1", "g2"]


async def test_gaps_are_questions_asked_most_first_each_once(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    for n, question in enumerate(["Do you ship to Mars?", "Opening hours", "do you ship to  mars", ""]):
        await answer(database, f"c{n}", question=question)
        await complain(database, await cast(database, conversation=f"c{n}"), "coverage_gap")
    gaps = (await read(http, runtime, "/dashboard/groups", **RANGE))["gaps"]
    assert (len(gaps), gaps[0].lower()[:18], gaps[1]) == (2, "do you ship to mar", "Opening hours")
