"""The dashboard's figures, through HTTP: tiles, days, markers, chart, backtest."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from services.dashboard import figures
from services.dashboard.build import build
from shared.policy import wilson
from shared.postgres.database import Database
from tests.support.dashboard import NINE, Start, add_generation, answer, cast, read, url

DAY = timedelta(days=1)
WEEK = {"from": "2026-11-12", "to": "2026-11-18"}
"""Seven days, the last of them that of `NINE`."""


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_empty_database_has_no_figures(start: Start, http: aiohttp.ClientSession) -> None:
    found = await read(http, await start([build]), "/dashboard/summary")
    assert found["tiles"] == {
        "rated": 0,
        "likes": 0,
        "dislikes": 0,
        "ratio": None,
        "low": None,
        "high": None,
        "answers": 0,
        "response_rate": None,
        "generation": None,
    }
    assert (found["days"], len(found["series"])) == (28, 28)
    empty = ("apps", "reasons", "documents", "generations", "markers", "alerts", "causes", "quality")
    assert [found[name] for name in empty] == [[]] * 8


async def test_tiles_count_the_votes_of_the_range(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    for value in (1, 1, 1, 0):
        await cast(database, value)
    await cast(database, 0, NINE - 7 * DAY)
    tiles = (await read(http, runtime, "/dashboard/summary", **WEEK))["tiles"]
    low, high = wilson(1, 4)
    assert (tiles["rated"], tiles["likes"], tiles["dislikes"], tiles["ratio"]) == (4, 3, 1, 0.25)
    assert (tiles["low"], tiles["high"]) == (pytest.approx(low), pytest.approx(high))


async def test_score_of_another_name_is_no_vote(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    await cast(database, 0)
    async with database.connection() as connection:
        await connection.execute("update feedback_loop.vote set name = 'judge'")
    assert (await read(http, runtime, "/dashboard/summary", **WEEK))["tiles"]["rated"] == 0


async def test_day_without_votes_has_no_ratio(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    await cast(database, 1)
    await cast(database, 0, NINE - 2 * DAY)
    series = (await read(http, runtime, "/dashboard/summary", **WEEK))["series"]
    assert [(day["at"], day["ratio"]) for day in series[-3:]] == [
        ("2026-11-16", 1.0),
        ("2026-11-17", None),
        ("2026-11-18", 0.0),
    ]
    assert series[-2] == {
        "at": "2026-11-17", "likes": 0, "dislikes": 0, "ratio": None, "low": None, "high": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "moment", "day"),
    [
        ("Asia/Seoul", "2026-11-17T23:59:59.999999+09:00", "2026-11-17"),
        ("Asia/Seoul", "2026-11-18T00:00:00+09:00", "2026-11-18"),
        ("Asia/Seoul", "2026-11-17T15:00:00+00:00", "2026-11-18"),
        ("America/New_York", "2026-11-18T04:59:00+00:00", "2026-11-17"),
        ("UTC", "2026-11-17T23:59:00+00:00", "2026-11-17"),
    ],
)
async def test_vote_belongs_to_its_day_in_the_time_zone(
    start: Start, http: aiohttp.ClientSession, database: Database, zone: str, moment: str, day: str
) -> None:
    runtime = await start([build], timezone=zone)
    await cast(database, 0, datetime.fromisoformat(moment))
    found = await read(http, runtime, "/dashboard/summary", **{"from": day, "to": day})
    assert [(each["at"], each["dislikes"]) for each in found["series"]] == [(day, 1)]


async def test_day_of_25_hours_has_the_votes_of_all_of_them(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build], timezone="Europe/Berlin")
    for hour in range(24 + 3):
        await cast(database, 1, datetime(2026, 10, 24, 21, 30, tzinfo=UTC) + timedelta(hours=hour))
    query = {"from": "2026-10-24", "to": "2026-10-26"}
    series = (await read(http, runtime, "/dashboard/summary", **query))["series"]
    assert [day["likes"] for day in series] == [1, 25, 1]


async def test_response_rate_is_the_share_of_answers_that_are_rated(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    for name in "abcd":
        await answer(database, name)
    await answer(database, "earlier", NINE - 30 * DAY)
    await cast(database, 0, conversation="a", user="u")
    await cast(database, 1, conversation="a", user="v")
    await cast(database, 1, conversation="nobody knows")
    tiles = (await read(http, runtime, "/dashboard/summary", **WEEK))["tiles"]
    assert (tiles["answers"], tiles["response_rate"]) == (4, 0.25)


async def test_response_rate_of_many_answers_is_that_of_the_latest(
    start: Start, http: aiohttp.ClientSession, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "ANSWERS", 2)
    runtime = await start([build])
    for n, name in enumerate("abcd"):
        await answer(database, name, NINE + timedelta(minutes=n))
    await cast(database, 0, conversation="d")
    tiles = (await read(http, runtime, "/dashboard/summary", **WEEK))["tiles"]
    assert (tiles["answers"], tiles["response_rate"]) == (4, 0.5)


async def test_generations_and_when_they_came(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    first = await add_generation(database, promoted=NINE - 20 * DAY)
    second = await add_generation(database, promoted=NINE - DAY)
    rejected = await add_generation(database, promoted=None, state="rejected")
    found = await read(http, runtime, "/dashboard/summary", **WEEK)
    assert found["tiles"]["generation"] == second
    assert [each["id"] for each in found["generations"]] == [rejected, second, first]
    assert [each["promoted_at"] is None for each in found["generations"]] == [True, False, False]
    assert found["markers"] == [{"at": (NINE - DAY).isoformat(), "generation": second, "kind": "promotion"}]


async def test_several_apps_have_no_one_generation(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    await add_generation(database, app="one")
    other = await add_generation(database, app="other")
    whole = await read(http, runtime, "/dashboard/summary", **WEEK)
    part = await read(http, runtime, "/dashboard/summary", **WEEK, app="other")
    assert (whole["tiles"]["generation"], part["tiles"]["generation"]) == (None, other)
    assert whole["apps"] == part["apps"] == ["one", "other"]


async def test_alert_states_are_those_of_the_app(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    async with database.connection() as connection:
        for app, state in (("one", "OK"), ("other", "ALERT")):
            await connection.execute(
                "insert into feedback_loop.alert (app, state, since, troubled, run, as_of, changed_at)"
                " values ($1, $2, $3, false, gen_random_uuid(), $3, $3)",
                app,
                state,
                NINE,
            )
    found = await read(http, runtime, "/dashboard/summary", app="other")
    assert found["alerts"] == [{"app": "other", "state": "ALERT", "since": NINE.isoformat()}]


async def test_quality_of_search_is_told_by_generation(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    def interval(mean: float) -> dict[str, Any]:
        return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "n": 200}

    held_out = {"before": interval(0.8), "after": interval(0.84), "delta": interval(0.04)}
    runtime = await start([build])
    await add_generation(database, gate={"planned": 3, "shown": 3})
    await add_generation(
        database, promoted=None, state="rejected", gate={"learning": {"why": ["too few votes"]}}
    )
    last = await add_generation(database, gate={"learning": {"held_out": held_out}})
    found = (await read(http, runtime, "/dashboard/summary"))["quality"]
    assert [(each["outcome"], each["reason"], each["delta"]) for each in found] == [
        ("promoted", "", 0.04),
        ("rejected", "too few votes", None),
    ]
    assert (found[0]["generation"], found[0]["n"]) == (last, 200)


# --- chart ----------------------------------------------------------------------------------


async def test_chart_has_a_value_for_each_day(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    await cast(database, 0)
    spec = await read(http, runtime, "/dashboard/trend.json", **WEEK, lang="en", theme="dark")
    assert [row["ratio"] for row in spec["data"]["values"]] == [None] * 6 + [1.0]
    assert spec["width"] == "container"


async def test_chart_marks_a_generation_at_its_day_in_the_time_zone(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build])
    await add_generation(database, promoted=datetime(2026, 11, 16, 15, 30, tzinfo=UTC))
    await cast(database, 0, datetime(2026, 11, 16, 16, 0, tzinfo=UTC))
    spec = await read(http, runtime, "/dashboard/trend.json", **WEEK, lang="en")
    [voted] = [row["at"] for row in spec["data"]["values"] if row["ratio"] is not None]
    [marked] = [
        value["at"]
        for layer in spec["layer"]
        for value in layer.get("data", {}).get("values", [])
        if "at" in value
    ][:1]
    assert marked == voted


@pytest.mark.parametrize(("name", "value"), [("lang", "fr"), ("theme", "blue"), ("rated", "sideways")])
async def test_chart_that_cannot_be_drawn_is_refused(
    start: Start, http: aiohttp.ClientSession, name: str, value: str
) -> None:
    runtime = await start([build])
    async with http.get(url(runtime, "/dashboard/trend.json"), params={name: value}) as response:
        assert (response.status, (await response.json())["field"]) == (422, name)


# --- backtest -------------------------------------------------------------------------------


async def _poor_day(database: Database, app: str = "default") -> str:
    """Yesterday (in UTC) 30 of 60 votes are dislikes. Returns the day."""
    async with database.connection() as connection:
        noon: datetime = await connection.fetchval(
            "select date_trunc('day', now(), 'UTC') - interval '12 hours'"
        )
        await connection.execute(
            "insert into feedback_loop.vote (app, conversation_id, value, created_at)"
            " select $2, 'poor' || n, n % 2, $1 from generate_series(1, 60) n",
            noon,
            app,
        )
    return noon.date().isoformat()


async def test_backtest_names_the_days_on_which_either_policy_acts(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build], timezone="UTC")
    day = await _poor_day(database)
    found = await read(http, runtime, "/dashboard/backtest", threshold="0.3")
    acted = {"retrains": 1, "days": [day]}
    assert found == {"threshold": 0.3, "days": 90, "wilson": acted, "ratio": acted}


async def test_backtest_with_a_higher_threshold_acts_less(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build], timezone="UTC")
    await _poor_day(database)
    found = await read(http, runtime, "/dashboard/backtest", threshold="0.45")
    assert (found["wilson"]["retrains"], found["ratio"]["retrains"]) == (0, 1)


async def test_backtest_looks_at_each_app_by_itself(
    start: Start, http: aiohttp.ClientSession, database: Database
) -> None:
    runtime = await start([build], timezone="UTC")
    day = await _poor_day(database, "one")
    await _poor_day(database, "other")
    whole = await read(http, runtime, "/dashboard/backtest")
    part = await read(http, runtime, "/dashboard/backtest", app="one")
    assert whole["wilson"] == {"retrains": 2, "days": [day]}
    assert part["wilson"] == {"retrains": 1, "days": [day]}


async def test_backtest_of_nothing(start: Start, http: aiohttp.ClientSession) -> None:
    found = await read(http, await start([build]), "/dashboard/backtest", days="7")
    assert found["wilson"] == found["ratio"] == {"retrains": 0, "days": []}


@pytest.mark.parametrize(
    ("name", "value"), [("threshold", "0"), ("threshold", "1"), ("threshold", "nan"), ("days", "367")]
)
async def test_backtest_out_of_range_is_refused(
    start: Start, http: aiohttp.ClientSession, name: str, value: str
) -> None:
    runtime = await start([build])
    async with http.get(url(runtime, "/dashboard/backtest"), params={name: value}) as response:
        assert (response.status, json.loads(await response.text())["field"]) == (422, name)
