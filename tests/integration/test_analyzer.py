"""The analyzer: one evaluation in, exactly one conclusion out, and what it says."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from scipy.stats import binomtest

from services.analyzer.build import build
from services.collector.build import build as build_collector
from services.trigger.build import build as build_trigger
from shared.bus.envelope import Envelope
from shared.events import FeedbackEvaluate, ReportReady, RetrainRequested
from shared.runtime import Runtime
from tests.support.events import publish_envelopes
from tests.support.judging import DAY, HOUR, NINE, Loop
from tests.support.rabbit import sweep

Start = Callable[..., Any]
CONCLUSIONS = ["report.ready", "retrain.requested"]


@pytest.fixture
async def loop(start: Start) -> Loop:
    runtime: Runtime = await start([build])
    return Loop(runtime.kernel)


def an_evaluation(app: str = "default") -> Envelope:
    return Envelope.root(FeedbackEvaluate(app=app, as_of=NINE), "/elsewhere")


# --- what is concluded ----------------------------------------------------------------------


async def test_few_dislikes_end_in_a_report_with_the_counts(loop: Loop) -> None:
    await loop.cast(87, 13)
    said = await loop.evaluate()
    assert isinstance(said, ReportReady)
    assert (said.likes, said.dislikes, said.total, said.ratio, said.verdict) == (87, 13, 100, 0.13, "ok")


async def test_report_carries_the_interval_of_its_ratio(loop: Loop) -> None:
    await loop.cast(87, 13)
    said = await loop.evaluate()
    expected = binomtest(13, 100).proportion_ci(0.95, "wilson")
    assert said.interval == pytest.approx((expected.low, expected.high), abs=1e-6)


async def test_many_dislikes_end_in_a_retrain(loop: Loop) -> None:
    base = await loop.promote(NINE - 9 * DAY)
    await loop.cast(59, 41)
    said = await loop.evaluate()
    assert isinstance(said, RetrainRequested)
    assert (said.verdict, said.ratio, said.base_generation) == ("act", 0.41, base)


async def test_retrain_is_on_record_until_it_ends(loop: Loop) -> None:
    await loop.cast(59, 41)
    said = await loop.evaluate()
    assert isinstance(said, RetrainRequested)
    [row] = await loop.rows("select * from feedback_loop.retrain where finished_at is null")
    assert (row["id"], row["run"], row["ratio_before"]) == (said.retrain, said.run, 0.41)


async def test_retrain_is_logged_in_the_owner_s_words(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await loop.cast(59, 41)
    await loop.evaluate()
    assert "Retrain triggered (ratio=0.41)" in [record.getMessage() for record in caplog.records]


async def test_without_votes_there_is_nothing_to_say(loop: Loop) -> None:
    said = await loop.evaluate()
    assert isinstance(said, ReportReady)
    assert (said.verdict, said.reason, said.total, said.ratio) == ("insufficient_data", "no_votes", 0, None)


async def test_five_votes_are_too_few_however_bad(loop: Loop) -> None:
    await loop.cast(0, 5)
    said = await loop.evaluate()
    assert isinstance(said, ReportReady)
    assert (said.verdict, said.dislikes) == ("insufficient_data", 5)


async def test_report_of_no_votes_is_never_ok_however_good_the_week(loop: Loop) -> None:
    await loop.cast(100, 0, NINE - 3 * DAY)
    said = await loop.evaluate()
    assert (said.verdict, said.total) == ("insufficient_data", 0)


@pytest.mark.parametrize(("dislikes", "state"), [(13, "decided"), (41, "retraining")])
async def test_run_s_status_shows_the_decision(loop: Loop, dislikes: int, state: str) -> None:
    await loop.cast(100 - dislikes, dislikes)
    said = await loop.evaluate()
    [row] = await loop.rows("select * from feedback_loop.run_status where id = $1", said.run)
    assert (row["state"], row["verdict"], row["total"], row["dislikes"]) == (
        state,
        said.verdict,
        100,
        dislikes,
    )


async def test_evaluation_as_of_the_beginning_of_time_finds_no_votes(loop: Loop) -> None:
    await loop.cast(1, 1)
    said = await loop.evaluate(datetime(1, 1, 2, tzinfo=UTC))
    assert said.reason == "no_votes"


# --- exactly one ----------------------------------------------------------------------------


async def test_duplicates_of_an_evaluation_conclude_once(loop: Loop) -> None:
    await loop.cast(59, 41)
    evaluation = an_evaluation()
    await publish_envelopes(loop.kernel, *[evaluation] * 5)
    await loop.conclusion(evaluation.id)
    last = an_evaluation()
    await publish_envelopes(loop.kernel, last)
    await loop.conclusion(last.id)
    assert len(await loop.conclusions(evaluation.id)) == 1


async def test_redelivery_after_the_votes_changed_decides_the_same_to_the_byte(loop: Loop) -> None:
    stored = "select event_id, envelope::text from feedback_loop.outbox where cause = $1"
    await loop.cast(87, 13)
    evaluation = an_evaluation()
    await publish_envelopes(loop.kernel, evaluation)
    await loop.conclusion(evaluation.id)
    before = await loop.rows(stored, evaluation.id)
    await loop.cast(0, 500)
    await publish_envelopes(loop.kernel, evaluation)
    last = an_evaluation()
    await publish_envelopes(loop.kernel, last)
    await loop.conclusion(last.id)
    assert await loop.rows(stored, evaluation.id) == before


async def test_two_analyzers_on_a_broker_conclude_each_evaluation_once(
    start: Start, amqp_url: str, exchange: str
) -> None:
    settings = {"amqp_url": amqp_url, "amqp_exchange": exchange}
    first, second = [Loop((await start([build], **settings)).kernel) for _ in range(2)]
    evaluations = [an_evaluation(f"app-{n % 3}") for n in range(12)]
    for n in range(3):
        await first.cast(59, 41, app=f"app-{n}")
    try:
        await asyncio.gather(
            *(publish_envelopes(loop.kernel, *evaluations) for loop in (first, second, first)),
        )
        await first.handled(*evaluations)
        concluded = await first.rows(
            "select cause, count(*) from feedback_loop.outbox where type = any($1) group by cause",
            CONCLUSIONS,
        )
        acted = await first.rows("select app from feedback_loop.retrain order by app")
        assert sorted(map(tuple, concluded)) == sorted((evaluation.id, 1) for evaluation in evaluations)
        assert [row["app"] for row in acted] == ["app-0", "app-1", "app-2"]
    finally:
        await sweep(amqp_url, first.kernel.bus.topology, ["analyzer"])


# --- where evaluations and votes come from --------------------------------------------------


async def test_hit_on_the_trigger_is_judged(start: Start) -> None:
    runtime: Runtime = await start([build_trigger, build])
    loop = Loop(runtime.kernel)
    await loop.cast(87, 13, await loop.now())
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runtime.port}") as http:
        response = await http.get("/run-feedback-loop")
    said = await loop.conclusion(uuid.UUID(response.headers["Feedback-Loop-Run"]))
    assert (said.total, said.verdict) == (100, "ok")


async def test_vote_that_was_changed_counts_once_and_one_that_was_retracted_not_at_all(start: Start) -> None:
    runtime: Runtime = await start([build_collector, build])
    loop = Loop(runtime.kernel)
    said = [("a", "like"), ("b", "like"), ("c", "like"), ("b", "dislike"), ("c", None)]
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runtime.port}") as http:
        for who, feedback in said:
            body = {"conversation_id": 1, "user_id": who, "feedback": feedback}
            assert (await http.post("/feedback", json=body)).status == 200
    report = await loop.evaluate(await loop.now())
    assert (report.likes, report.dislikes) == (1, 1)


async def test_scores_of_other_names_do_not_count(loop: Loop) -> None:
    await loop.cast(87, 13)
    await loop.cast(0, 400, name="tone")
    said = await loop.evaluate()
    assert (said.total, said.verdict) == (100, "ok")


async def test_apps_are_judged_apart(loop: Loop) -> None:
    await loop.cast(87, 13, app="shop")
    await loop.cast(59, 41, app="bank")
    shop, bank = await loop.evaluate(app="shop"), await loop.evaluate(app="bank")
    assert (shop.type, shop.ratio) == ("report.ready", 0.13)
    assert (bank.type, bank.ratio) == ("retrain.requested", 0.41)


async def test_owner_s_own_tables_are_judged_with_no_call_to_the_collector(loop: Loop) -> None:
    await loop.rows(
        "create table public.conversation_log (id serial primary key, user_id text, question text,"
        " answer text, created_at timestamptz)"
    )
    await loop.rows(
        "create table public.feedback_log (id serial primary key, conversation_id integer, feedback text,"
        " reason varchar(255), created_at timestamptz)"
    )
    await loop.rows(
        "insert into public.conversation_log (created_at) select $1 from generate_series(1, 9)", NINE
    )
    await loop.rows(
        "insert into public.feedback_log (conversation_id, feedback, created_at)"
        " select 1 + n % 9, case when n <= 87 then 'like' else 'dislike' end, $1"
        " from generate_series(1, 100) n",
        NINE - HOUR,
    )
    said = await loop.evaluate()
    assert (said.likes, said.dislikes, said.verdict) == (87, 13, "ok")


# --- POLICY=ratio ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("likes", "dislikes", "type"),
    [(59, 41, "retrain.requested"), (2, 1, "retrain.requested"), (70, 30, "report.ready")],
)
async def test_literal_policy_acts_on_a_ratio_over_the_threshold_and_on_nothing_else(
    start: Start, likes: int, dislikes: int, type: str
) -> None:
    loop = Loop((await start([build], policy="ratio")).kernel)
    await loop.cast(likes, dislikes)
    assert (await loop.evaluate()).type == type


async def test_literal_policy_judges_the_report_s_window_alone(start: Start) -> None:
    loop = Loop((await start([build], policy="ratio")).kernel)
    await loop.cast(0, 500, NINE - 2 * DAY)
    await loop.cast(87, 13)
    assert (await loop.evaluate()).verdict == "ok"
