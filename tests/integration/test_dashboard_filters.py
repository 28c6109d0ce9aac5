"""What the dashboard's filters let through, through HTTP: each alone, all together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from services.dashboard.build import build
from shared.postgres.database import Database
from tests.support.dashboard import NINE, Start, add_generation, answer, cast, complain, read, url

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
RANGE = {"from": "2026-11-10", "to": "2026-11-18"}
SHIPPING, RETURNS = "a" * 64, "b" * 64


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def votes(database: Database) -> dict[int, str]:
    """Votes that differ, by id: each named for what it has that the others have not."""
    generation = await add_generation(
        database, {SHIPPING: "shipping.md", RETURNS: "returns.md"}, promoted=NINE - 3 * DAY
    )
    await answer(database, "cites", citations=[{"source": "shipping.md", "rank": 1}])
    await answer(database, "cites a chunk", citations=[{"chunk": RETURNS, "rank": 1}])
    async with database.connection() as connection:
        await connection.execute(
            "insert into feedback_loop.search_log (app, conversation_id, query, generation, shown)"
            " values ('default', 'shown', 'q', $1, $2)",
            generation,
            [{"chunk": SHIPPING, "score": 1.0}],
        )
    await answer(database, "old answer", NINE - 4 * DAY)
    named = {
        "like": await cast(database, 1, generation=99),
        "reason": await cast(database, reason="wrong", generation=99),
        "other reason": await cast(database, reason="slow", generation=99),
        "comment": await cast(database, comment="Not so.", generation=99),
        "blank comment": await cast(database, comment="", generation=99),
        "other app": await cast(database, app="shop", generation=99),
        "cites": await cast(database, conversation="cites", generation=99),
        "cites a chunk": await cast(database, conversation="cites a chunk", generation=99),
        "shown": await cast(database, conversation="shown", generation=99),
        "unstamped": await cast(database),
        "old answer": await cast(database, conversation="old answer"),
        "early": await cast(database, at=NINE - 8 * DAY, generation=99),
        "stale": await cast(database, generation=99),
        "grouped": await cast(database, generation=99),
    }
    await complain(database, named["stale"], "stale_document")
    await complain(database, named["grouped"], "unknown", "g1")
    return {id: name for name, id in named.items()}


async def listed(http: aiohttp.ClientSession, runtime: Any, votes: dict[int, str], **query: Any) -> set[str]:
    """The names of the votes that are listed; the tiles must count the same ones."""
    query = RANGE | query
    found = (await read(http, runtime, "/dashboard/votes", limit=200, **query))["votes"]
    tiles = (await read(http, runtime, "/dashboard/summary", **query))["tiles"]
    assert tiles["rated"] == len(found)
    return {votes[vote["id"]] for vote in found}


async def test_no_filter_lets_everything_through(
    start: Start, http: aiohttp.ClientSession, votes: dict[int, str]
) -> None:
    assert await listed(http, await start([build]), votes) == set(votes.values())


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"app": "shop"}, {"other app"}),
        ({"app": "nobody"}, set()),
        ({"to": "2026-11-10"}, {"early"}),
        ({"rated": "up"}, {"like"}),
        ({"reason": "wrong"}, {"reason"}),
        ({"reason": ["wrong", "slow"]}, {"reason", "other reason"}),
        ({"comment": "1"}, {"comment"}),
        ({"document": "shipping.md"}, {"cites", "shown"}),
        ({"document": "returns.md"}, {"cites a chunk"}),
        ({"document": "nothing.md"}, set()),
        ({"cause": "stale_document"}, {"stale"}),
        ({"group": "g1"}, {"grouped"}),
        ({"group": "'; drop table feedback_loop.vote; --"}, set()),
    ],
    ids=lambda given: str(given) if isinstance(given, dict) else "",
)
async def test_filter_lets_through_what_it_names(
    start: Start,
    http: aiohttp.ClientSession,
    votes: dict[int, str],
    query: dict[str, Any],
    expected: set[str],
) -> None:
    assert await listed(http, await start([build]), votes, **query) == expected


async def test_dislikes_are_all_but_the_like(
    start: Start, http: aiohttp.ClientSession, votes: dict[int, str]
) -> None:
    assert await listed(http, await start([build]), votes, rated="down") == set(votes.values()) - {"like"}


async def test_vote_is_of_the_generation_that_was_active_when_its_answer_was_given(
    start: Start, http: aiohttp.ClientSession, database: Database, votes: dict[int, str]
) -> None:
    async with database.connection() as connection:
        active = await connection.fetchval("select generation from feedback_loop.active_generation")
    assert await listed(http, await start([build]), votes, generation=active) == {"unstamped"}


async def test_filters_together_let_through_what_fits_all(
    start: Start, http: aiohttp.ClientSession, database: Database, votes: dict[int, str]
) -> None:
    runtime = await start([build])
    fits: dict[str, Any] = {"reason": "wrong", "comment": "Late.", "generation": 7, "conversation": "cites"}
    whole = await cast(database, app="default", user="u", **fits)
    await complain(database, whole, "stale_document", "g1")
    for n, (name, other) in enumerate([("reason", "slow"), ("comment", None), ("generation", 8)]):
        near = await cast(database, user=f"u{n}", **{**fits, name: other})
        await complain(database, near, "stale_document", "g1")
    query = {
        "app": "default", "rated": "down", "reason": "wrong", "comment": "1", "document": "shipping.md",
        "generation": 7, "cause": "stale_document", "group": "g1",
    }  # fmt: skip
    assert await listed(http, runtime, {**votes, whole: "whole"}, **query) == {"whole"}


@pytest.mark.parametrize(
    ("name", "value"), [("cause", "weather"), ("from", "2026-11-19"), ("document", "a\0b")]
)
async def test_every_route_names_what_does_not_fit(
    start: Start, http: aiohttp.ClientSession, name: str, value: str
) -> None:
    runtime = await start([build])
    query = {"to": "2026-11-18", name: value}
    refused = {}
    for path in ("summary", "groups", "votes", "votes.csv", "trend.json"):
        async with http.get(url(runtime, f"/dashboard/{path}"), params=query) as response:
            refused[path] = response.status, (await response.json())["field"]
    assert set(refused.values()) == {(422, name)}, refused


async def test_choices_of_a_filter_stay_while_one_is_chosen(
    start: Start, http: aiohttp.ClientSession, votes: dict[int, str]
) -> None:
    runtime = await start([build])
    reasons = await read(http, runtime, "/dashboard/summary", **RANGE, reason="wrong")
    documents = await read(http, runtime, "/dashboard/summary", **RANGE, document="returns.md")
    causes = await read(http, runtime, "/dashboard/summary", **RANGE, cause="unknown")
    assert reasons["reasons"] == [{"code": "slow", "votes": 1}, {"code": "wrong", "votes": 1}]
    assert documents["documents"] == [
        {"source": "shipping.md", "votes": 2},
        {"source": "returns.md", "votes": 1},
    ]
    assert causes["causes"] == [{"cause": "stale_document", "votes": 1}, {"cause": "unknown", "votes": 1}]


async def test_choices_are_of_what_else_is_filtered(
    start: Start, http: aiohttp.ClientSession, votes: dict[int, str]
) -> None:
    found = await read(http, await start([build]), "/dashboard/summary", **RANGE, rated="up")
    assert (found["reasons"], found["documents"], found["causes"]) == ([], [], [])
