"""What holds a retrain back: one under way, the cool-down, the breaker, a pause."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from services.analyzer.build import build
from shared.bus.envelope import Envelope
from shared.events import (
    FeedbackEvaluate,
    LoopPaused,
    LoopResumed,
    Report,
    RetrainCompleted,
    RetrainRequested,
)
from shared.runtime import Runtime
from tests.support.events import publish_envelopes, wait_until
from tests.support.judging import DAY, HOUR, NINE, Loop

Start = Callable[..., Any]


@pytest.fixture
async def empty(start: Start) -> Loop:
    """Without any votes."""
    runtime: Runtime = await start([build])
    return Loop(runtime.kernel)


@pytest.fixture
async def loop(empty: Loop) -> Loop:
    """With votes that call for a retrain at nine."""
    await empty.cast(59, 41)
    return empty


async def reason(loop: Loop, **fields: Any) -> str:
    return (await loop.evaluate(**fields)).reason


ACTS = "lower_bound_over_threshold"


# --- one at a time --------------------------------------------------------------------------


async def test_second_retrain_waits_for_the_end_of_the_first(loop: Loop) -> None:
    await loop.evaluate()
    said = await loop.evaluate()
    assert (said.type, said.verdict, said.reason) == ("report.ready", "watch", "retrain_running")


async def test_retrain_of_another_app_holds_nothing_back(loop: Loop) -> None:
    await loop.cast(59, 41, app="shop")
    await loop.evaluate()
    assert await reason(loop, app="shop") == ACTS


async def test_of_two_runs_at_once_one_retrains_and_the_other_reports(loop: Loop) -> None:
    said = await two_runs_at_once(loop)
    assert sorted((event.type, event.reason) for event in said) == [
        ("report.ready", "retrain_running"),
        ("retrain.requested", ACTS),
    ]


async def test_two_runs_at_once_are_no_failure(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    await two_runs_at_once(loop)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def two_runs_at_once(loop: Loop) -> list[Report]:
    """What two runs end in that both judged before either wrote."""

    async def both_wait() -> bool:
        waiting = await loop.rows(
            "select from pg_locks where relation = 'feedback_loop.retrain'::regclass and not granted"
        )
        return len(waiting) == 2

    runs = [Envelope.root(FeedbackEvaluate(as_of=NINE), "/elsewhere") for _ in range(2)]
    async with loop.kernel.database.transaction() as connection:
        await connection.execute("lock table feedback_loop.retrain in share mode")
        await publish_envelopes(loop.kernel, *runs)
        await wait_until(both_wait)
    return [await loop.conclusion(run.id) for run in runs]


# --- the cool-down --------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["promoted", "rejected", "unchanged", "superseded", "failed"])
async def test_retrain_is_followed_by_a_rest_however_it_ended(loop: Loop, outcome: Any) -> None:
    said = await loop.evaluate()
    assert isinstance(said, RetrainRequested)
    await loop.tell(RetrainCompleted(outcome=outcome, reason="feedback", retrain=said.retrain))
    assert await reason(loop) == "cooling_down"


async def test_outcome_is_on_record_with_the_run(loop: Loop) -> None:
    said = await loop.evaluate()
    assert isinstance(said, RetrainRequested)
    await loop.tell(
        RetrainCompleted(
            outcome="promoted", reason="feedback", retrain=said.retrain, generation_after=7, detail="better"
        )
    )
    [row] = await loop.rows("select * from feedback_loop.run_status where id = $1", said.run)
    found = (row["state"], row["retrain_outcome"], row["retrain_generation"], row["retrain_detail"])
    assert found == ("decided", "promoted", 7, "better")


async def test_rollback_is_followed_by_a_rest(loop: Loop) -> None:
    await loop.tell(RetrainCompleted(outcome="promoted", reason="rollback"))
    assert await reason(loop) == "cooling_down"


async def test_refused_rollback_is_not(loop: Loop) -> None:
    await loop.tell(RetrainCompleted(outcome="rejected", reason="rollback"))
    assert await reason(loop) == ACTS


@pytest.mark.parametrize("why", ["documents", "manual"])
async def test_build_that_feedback_did_not_drive_is_not(loop: Loop, why: Any) -> None:
    await loop.tell(RetrainCompleted(outcome="promoted", reason=why))
    assert await reason(loop) == ACTS


async def test_build_of_documents_leaves_a_running_retrain_running(loop: Loop) -> None:
    await loop.evaluate()
    await loop.tell(RetrainCompleted(outcome="promoted", reason="documents"))
    assert await reason(loop) == "retrain_running"


async def test_rest_of_another_app_holds_nothing_back(loop: Loop) -> None:
    await loop.tell(RetrainCompleted(app="shop", outcome="promoted", reason="rollback"))
    assert await reason(loop) == ACTS


async def test_rest_ends_after_seven_days(loop: Loop) -> None:
    await loop.tell(RetrainCompleted(outcome="promoted", reason="rollback"))
    await loop.rows("update feedback_loop.rest set cooling_from = now() - interval '7 days'")
    assert await reason(loop) == ACTS


async def test_rest_is_measured_by_the_database_s_clock_whatever_as_of_says(loop: Loop) -> None:
    future = await loop.now() + 30 * DAY
    await loop.cast(59, 41, future - HOUR)
    await loop.tell(RetrainCompleted(outcome="promoted", reason="rollback"))
    assert await reason(loop, as_of=future) == "cooling_down"


async def test_rest_may_be_shorter(start: Start) -> None:
    loop = Loop((await start([build], cooldown_days=0)).kernel)
    await loop.cast(59, 41)
    await loop.tell(RetrainCompleted(outcome="promoted", reason="rollback"))
    assert await reason(loop) == ACTS


async def test_literal_policy_knows_no_rest(start: Start) -> None:
    loop = Loop((await start([build], policy="ratio")).kernel)
    await loop.cast(59, 41)
    await loop.tell(RetrainCompleted(outcome="promoted", reason="rollback"))
    assert (await loop.evaluate()).type == "retrain.requested"


# --- the breaker ----------------------------------------------------------------------------


async def after_two_retrains(loop: Loop, before: float) -> None:
    """Two retrains at the ratio `before`, 30 and 10 days ago, and 41 % a day after either."""
    for ago in (30, 10):
        await loop.retrained(timedelta(days=ago), before)
        await loop.cast(59, 41, await loop.now() - (ago - 1) * DAY)


async def judged_now(loop: Loop) -> str:
    return await reason(loop, as_of=await loop.now())


async def test_two_retrains_in_vain_open_the_breaker(empty: Loop) -> None:
    await after_two_retrains(empty, 0.4)
    said = await empty.evaluate(await empty.now())
    assert (said.type, said.verdict, said.reason) == ("report.ready", "paused", "breaker_open")


async def test_two_retrains_that_helped_a_little_do_not(empty: Loop) -> None:
    await after_two_retrains(empty, 0.42)
    assert await judged_now(empty) == ACTS


async def test_one_retrain_in_vain_does_not(empty: Loop) -> None:
    await empty.retrained(timedelta(days=10), 0.4)
    await empty.cast(59, 41, await empty.now() - 9 * DAY)
    assert await judged_now(empty) == ACTS


async def test_retrain_that_too_few_have_judged_since_is_not_in_vain(empty: Loop) -> None:
    for ago, votes in ((25, 100), (10, 19)):
        await empty.retrained(timedelta(days=ago), 0.4)
        await empty.cast(0, votes, await empty.now() - (ago - 1) * DAY)
    assert await judged_now(empty) == ACTS


async def test_votes_long_after_a_retrain_are_not_held_against_it(empty: Loop) -> None:
    for ago, dislikes in ((90, 41), (50, 10)):
        await empty.retrained(timedelta(days=ago), 0.4)
        await empty.cast(100 - dislikes, dislikes, await empty.now() - (ago - 1) * DAY)
    await empty.cast(500, 500, await empty.now() - HOUR)
    assert await judged_now(empty) == ACTS


async def test_resuming_closes_the_breaker(empty: Loop) -> None:
    await after_two_retrains(empty, 0.4)
    await empty.tell(LoopResumed())
    assert await judged_now(empty) == ACTS


async def test_retrains_of_another_app_open_no_breaker(empty: Loop) -> None:
    for ago in (25, 10):
        await empty.retrained(timedelta(days=ago), 0.4, app="shop")
        await empty.cast(59, 41, await empty.now() - (ago - 1) * DAY)
    assert await judged_now(empty) == ACTS


# --- a pause --------------------------------------------------------------------------------


async def test_pause_stops_retraining_and_says_why(loop: Loop) -> None:
    await loop.tell(LoopPaused(why="moving house"))
    said = await loop.evaluate()
    assert (said.type, said.verdict, said.reason) == ("report.ready", "paused", "paused")
    assert "moving house" in said.explanation


async def test_pause_of_another_app_stops_nothing(loop: Loop) -> None:
    await loop.tell(LoopPaused(app="shop"))
    assert await reason(loop) == ACTS


async def test_resumption_lifts_a_pause(loop: Loop) -> None:
    await loop.tell(LoopPaused(), LoopResumed())
    assert await reason(loop) == ACTS


async def test_pause_after_a_resumption_stands(loop: Loop) -> None:
    await loop.tell(LoopPaused(), LoopResumed(), LoopPaused())
    assert await reason(loop) == "paused"


@pytest.mark.parametrize(("hours", "expected"), [(1, "paused"), (-1, ACTS)])
async def test_pause_ends_by_itself_at_its_time(loop: Loop, hours: int, expected: str) -> None:
    await loop.tell(LoopPaused(until=await loop.now() + hours * HOUR))
    assert await reason(loop) == expected


@pytest.mark.parametrize(
    ("said", "expected"), [((LoopPaused, LoopResumed), ACTS), ((LoopResumed, LoopPaused), "paused")]
)
async def test_of_pause_and_resumption_what_was_said_last_stands_in_whatever_order_they_come(
    loop: Loop, said: tuple[type[LoopPaused | LoopResumed], ...], expected: str
) -> None:
    envelopes = [Envelope.root(event(), "/feedback-loop/dashboard", uuid.uuid4()) for event in said]
    for envelope in envelopes:
        async with loop.kernel.database.transaction() as connection:
            await loop.kernel.outbox.add(connection, [envelope])
    for envelope in reversed(envelopes):
        await loop.kernel.outbox.publish([envelope])
        await loop.handled(envelope)
    assert await reason(loop) == expected
