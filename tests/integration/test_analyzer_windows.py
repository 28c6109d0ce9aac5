"""The analyzer's windows: which votes a report counts by when they were cast, and how few are read."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import aiohttp
import pytest

from services.analyzer.build import build
from services.trigger.build import build as build_trigger
from shared.postgres.database import Database
from shared.runtime import Runtime, running
from shared.settings import Settings
from tests.support.events import wait_until
from tests.support.judging import DAY, HOUR, MOMENT, NINE, Loop

Start = Callable[..., Any]


@pytest.fixture
async def loop(start: Start) -> Loop:
    runtime: Runtime = await start([build])
    return Loop(runtime.kernel)


# --- boundaries -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "counted"),
    [
        (NINE - DAY, 0),
        (NINE - DAY + MOMENT, 1),
        (NINE, 1),
        (NINE + MOMENT, 0),
    ],
    ids=["at its start", "just after its start", "at its end", "just after its end"],
)
async def test_window_excludes_its_start_and_includes_its_end(loop: Loop, at: datetime, counted: int) -> None:
    await loop.cast(1, 0, at)
    assert (await loop.evaluate(window="24h")).total == counted


async def test_votes_cast_after_as_of_count_for_nothing(loop: Loop) -> None:
    await loop.cast(87, 13)
    await loop.cast(0, 500, NINE + MOMENT)
    said = await loop.evaluate()
    assert (said.verdict, [window.total for window in said.evidence]) == ("ok", [100, 100])


@pytest.mark.parametrize(("ago", "totals"), [(6 * DAY, [30, 30]), (8 * DAY, [0, 30]), (29 * DAY, [0, 0])])
async def test_decision_looks_at_seven_and_at_28_days(loop: Loop, ago: Any, totals: list[int]) -> None:
    await loop.cast(30, 0, NINE - ago)
    said = await loop.evaluate()
    assert [(window.name, window.total) for window in said.evidence] == list(
        zip(["7d", "28d"], totals, strict=True)
    )


async def test_window_before_is_as_long_and_ends_where_the_report_s_begins(loop: Loop) -> None:
    await loop.cast(1, 0, NINE - 2 * DAY)
    await loop.cast(3, 1, NINE - DAY)
    await loop.cast(0, 5, NINE - HOUR)
    previous = (await loop.evaluate(window="24h")).previous
    assert previous is not None
    assert (previous.likes, previous.dislikes, previous.ratio) == (3, 1, 0.25)


async def test_window_before_without_votes_has_no_ratio(loop: Loop) -> None:
    await loop.cast(87, 13)
    previous = (await loop.evaluate()).previous
    assert previous is not None
    assert previous.ratio is None


# --- lengths --------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "length"), [("24h", DAY), ("7d", 7 * DAY)])
async def test_report_window_may_be_a_duration(start: Start, window: str, length: Any) -> None:
    loop = Loop((await start([build], report_window=window)).kernel)
    said = await loop.evaluate()
    assert (said.window_start, said.window_end) == (NINE - length, NINE)


async def test_window_of_the_event_comes_before_the_setting(start: Start) -> None:
    loop = Loop((await start([build], report_window="24h")).kernel)
    assert (await loop.evaluate(window="90m")).window_start == NINE - 1.5 * HOUR


async def test_event_may_ask_for_the_votes_since_the_last_report(start: Start) -> None:
    loop = Loop((await start([build], report_window="24h")).kernel)
    await loop.evaluate(NINE - 3 * DAY, scheduled=True)
    assert (await loop.evaluate(window="since_last")).window_start == NINE - 3 * DAY


# --- since the last scheduled report --------------------------------------------------------


async def test_first_report_covers_24_hours(loop: Loop) -> None:
    assert (await loop.evaluate()).window_start == NINE - DAY


async def test_report_begins_where_the_last_scheduled_one_ended(loop: Loop) -> None:
    await loop.evaluate(NINE - 3 * DAY, scheduled=True)
    assert (await loop.evaluate(scheduled=True)).window_start == NINE - 3 * DAY


async def test_vote_on_the_border_of_two_reports_is_in_one(loop: Loop) -> None:
    await loop.cast(1, 0, NINE - DAY)
    first = await loop.evaluate(NINE - DAY, scheduled=True)
    assert (first.total, (await loop.evaluate(scheduled=True)).total) == (1, 0)


async def test_unscheduled_run_in_between_moves_nothing(loop: Loop) -> None:
    await loop.evaluate(NINE - 3 * DAY, scheduled=True)
    await loop.evaluate(NINE - HOUR)
    assert (await loop.evaluate(scheduled=True)).window_start == NINE - 3 * DAY


async def test_backdated_run_begins_at_the_scheduled_report_before_it(loop: Loop) -> None:
    await loop.evaluate(NINE - 3 * DAY, scheduled=True)
    await loop.evaluate(NINE + 3 * DAY, scheduled=True)
    assert (await loop.evaluate()).window_start == NINE - 3 * DAY


async def test_reports_of_another_app_move_nothing(loop: Loop) -> None:
    await loop.evaluate(NINE - HOUR, scheduled=True, app="shop")
    assert (await loop.evaluate(app="bank")).window_start == NINE - DAY


async def test_scheduled_hit_that_joins_an_unscheduled_run_makes_it_the_last_report(start: Start) -> None:
    runtime: Runtime = await start([build_trigger, build])
    loop, body = Loop(runtime.kernel), {"as_of": (NINE - 3 * DAY).isoformat()}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runtime.port}") as http:
        by_hand = await http.post("/run-feedback-loop", json=body)
        run = uuid.UUID(by_hand.headers["Feedback-Loop-Run"])
        await loop.conclusion(run)
        joining = await http.post("/run-feedback-loop", json=body, headers={"User-Agent": "cron-job.org"})
    assert joining.headers["Feedback-Loop-Run"] == str(run)
    assert (await loop.evaluate()).window_start == NINE - 3 * DAY


# --- how much is read -----------------------------------------------------------------------


async def test_evaluation_does_not_read_the_whole_history(
    make_settings: Callable[..., Settings], database: Database
) -> None:
    async with running(Runtime(make_settings(), [build])) as runtime:
        await fill_a_year(Loop(runtime.kernel))
    before = await scans(database)
    async with running(Runtime(make_settings(), [build])) as runtime:
        await Loop(runtime.kernel).evaluate()
    after = await scans(database)
    assert [after[table].whole - before[table].whole for table in after] == [0, 0]
    assert all(after[table].indexed > before[table].indexed for table in after)


async def fill_a_year(loop: Loop) -> None:
    await loop.rows(
        "insert into feedback_loop.vote (conversation_id, value, created_at)"
        " select n, (n % 7 > 0)::int, $1::timestamptz - n * interval '10 minutes'"
        " from generate_series(1, 50000) n",
        NINE,
    )
    await loop.rows(
        "insert into feedback_loop.conversation (conversation_id, answered_at)"
        " select conversation_id, created_at from feedback_loop.vote"
    )
    await loop.promote(NINE - 300 * DAY)
    await loop.retrained(await loop.now() - NINE + 290 * DAY, 0.4)
    await loop.rows("analyze feedback_loop.vote, feedback_loop.conversation")


class Scans(NamedTuple):
    """How often a table was read from end to end, and how often through an index."""

    whole: int
    indexed: int


async def scans(database: Database) -> dict[str, Scans]:
    """Of votes and conversations, by all connections that have ended: a connection tells at its end."""

    async def alone() -> bool:
        async with database.connection() as connection:
            others = await connection.fetchval(
                "select count(*) from pg_stat_activity where datname = current_database()"
                " and backend_type = 'client backend' and pid <> pg_backend_pid()"
            )
        return bool(others == 0)

    await wait_until(alone)
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select relname, seq_scan, idx_scan from pg_stat_user_tables"
            " where relname in ('vote', 'conversation')"
        )
    return {row["relname"]: Scans(row["seq_scan"], row["idx_scan"]) for row in rows}
