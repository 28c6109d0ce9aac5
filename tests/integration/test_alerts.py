"""The state of an app, from votes to the report and the view that others read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

import pytest

from services.analyzer.build import build
from shared.events import Alert, FeedbackEvaluate, LoopPaused
from shared.runtime import Runtime
from tests.support.events import publish, publish_envelopes
from tests.support.judging import DAY, HOUR, NINE, Loop

Start = Callable[..., Awaitable[Runtime]]


@pytest.fixture
async def loop(start: Start) -> Loop:
    runtime = await start([build])
    return Loop(runtime.kernel)


async def alert(loop: Loop, as_of: datetime = NINE, app: str = "default") -> Alert:
    told = (await loop.evaluate(as_of, app=app)).alert
    assert told is not None
    return told


async def state(loop: Loop, app: str = "default") -> str:
    [row] = await loop.rows("select state from feedback_loop.alert_state where app = $1", app)
    return str(row["state"])


async def test_an_app_without_votes_has_no_data(loop: Loop) -> None:
    assert (await alert(loop)).state == "NO_DATA"


async def test_too_few_votes_are_unknown(loop: Loop) -> None:
    await loop.cast(3, 0)
    assert (await alert(loop)).state == "UNKNOWN"


async def test_votes_within_the_threshold_are_ok(loop: Loop) -> None:
    await loop.cast(90, 10)
    assert (await alert(loop)).state == "OK"


async def test_a_day_without_votes_is_not_ok(loop: Loop) -> None:
    await loop.cast(90, 10, NINE - 3 * DAY)
    assert (await alert(loop)).state == "UNKNOWN"


async def test_an_uncertain_ratio_is_watched(loop: Loop) -> None:
    await loop.cast(14, 7)
    assert (await alert(loop)).state == "WATCH"


async def test_an_act_and_the_evaluation_while_it_retrains_are_one_alert(loop: Loop) -> None:
    await loop.cast(50, 50)
    first = await alert(loop)
    second = await alert(loop, NINE + HOUR)
    assert (first.state, second.state, second.changed) == ("ALERT", "ALERT", False)
    assert second.since == first.since


async def test_a_pause_is_a_state(loop: Loop) -> None:
    await loop.tell(LoopPaused(why="holiday"))
    assert (await alert(loop)).state == "PAUSED"


async def test_a_recovery_is_told_after_quiet_days(loop: Loop) -> None:
    await loop.cast(14, 7, NINE - HOUR)
    await alert(loop)
    await alert(loop, NINE + 40 * DAY)
    await loop.cast(95, 5, NINE + 41 * DAY - HOUR)
    told = await alert(loop, NINE + 41 * DAY)
    assert (told.before, told.state, told.recovered) == ("NO_DATA", "OK", True)


async def test_the_state_began_by_the_databases_time(loop: Loop) -> None:
    before = await loop.now()
    assert before <= (await alert(loop)).since <= await loop.now()


async def test_a_run_of_earlier_votes_does_not_turn_the_state_back(loop: Loop) -> None:
    await loop.cast(95, 5, NINE - 10 * DAY)
    await loop.cast(0, 60, NINE - HOUR)
    assert (await alert(loop)).state == "ALERT"
    late = await alert(loop, NINE - 9 * DAY)
    assert (late.state, late.changed, await state(loop)) == ("ALERT", False, "ALERT")


async def test_a_run_of_the_future_does_not_hold_up_the_next(loop: Loop) -> None:
    await alert(loop, await loop.now() + 1000 * DAY)
    await loop.cast(90, 10, await loop.now())
    assert (await alert(loop, await loop.now())).state == "OK"


async def test_a_run_delivered_twice_changes_the_state_once(loop: Loop) -> None:
    [run] = await publish(loop.kernel, FeedbackEvaluate(as_of=NINE))
    await loop.conclusion(run.id)
    await loop.cast(90, 10)
    await publish_envelopes(loop.kernel, run)
    await loop.evaluate(app="another")
    assert await state(loop) == "NO_DATA"


async def test_apps_have_states_of_their_own(loop: Loop) -> None:
    await loop.cast(90, 10, app="shop")
    await alert(loop, app="shop")
    await alert(loop, app="bank")
    assert (await state(loop, "shop"), await state(loop, "bank")) == ("OK", "NO_DATA")


async def test_the_decision_notes_state_and_causes(loop: Loop) -> None:
    await loop.cast(90, 10)
    await alert(loop)
    [row] = await loop.rows("select alert, causes from feedback_loop.decision")
    assert (row["alert"], row["causes"]["unknown"]) == ("OK", 10)
