"""After a promotion: whose votes are whose, one verdict a week later, and a rollback of what is worse."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import pytest

from services.analyzer.build import build as analyzer
from services.collector.build import build as collector
from services.notifier import messages
from shared.bus.envelope import Envelope
from shared.events import Aftermath, FeedbackEvaluate, ReportReady, RetrainRequested
from shared.runtime import Runtime
from tests.support.embedder import Rig, article, start_rig
from tests.support.events import publish, publish_envelopes
from tests.support.judging import DAY, HOUR, Loop
from tests.support.notifying import a_run, report, retrain, settled
from tests.support.slack import FakeSlack

Start = Callable[..., Any]


@pytest.fixture
async def loop(start: Start) -> Loop:
    runtime: Runtime = await start([analyzer])
    return Loop(runtime.kernel)


async def promoted(loop: Loop, age: timedelta = 8 * DAY) -> tuple[int, int]:
    """A generation, and one that feedback drove and that was promoted so long ago."""
    now = await loop.now()
    old = await loop.promote(now - age - 20 * DAY)
    return old, await loop.promote(now - age, old, anew=True)


async def voted(loop: Loop, before: tuple[int, int], after: tuple[int, int], age: timedelta = 8 * DAY) -> int:
    """(likes, dislikes) on either side of a promotion so long ago. Returns the generation promoted."""
    _, new = await promoted(loop, age)
    promotion = await loop.now() - age
    await loop.cast(*before, promotion - DAY)
    await loop.cast(*after, promotion + DAY)
    return new


async def judged(loop: Loop, **fields: Any) -> Aftermath | None:
    return (await loop.evaluate(await loop.now(), **fields)).aftermath


async def rollbacks(loop: Loop) -> list[tuple[int, str]]:
    rows = await loop.rows(
        "select envelope -> 'data' as data from feedback_loop.outbox where type = 'rollback.requested'"
    )
    return [(row["data"]["to_generation"], row["data"]["requested_by"]) for row in rows]


async def verdicts(loop: Loop) -> list[str]:
    return [row["verdict"] for row in await loop.rows("select verdict from feedback_loop.verdict")]


# --- the verdict ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [((50, 50), (90, 10), "better"), ((90, 10), (50, 50), "worse"), ((90, 10), (85, 15), "same")],
)
async def test_seven_days_after_a_promotion_its_votes_are_compared(
    loop: Loop, before: tuple[int, int], after: tuple[int, int], said: str
) -> None:
    new = await voted(loop, before, after)
    found = await judged(loop)
    assert found is not None
    assert (found.generation, found.previous, found.verdict) == (new, new - 1, said)
    assert (found.before.likes, found.before.dislikes) == before
    assert (found.after.likes, found.after.dislikes) == after


async def test_verdict_is_on_record_with_its_evaluation(loop: Loop) -> None:
    new = await voted(loop, (50, 50), (90, 10))
    said = await loop.evaluate(await loop.now())
    [row] = await loop.rows("select * from feedback_loop.verdict")
    assert said.aftermath is not None
    assert (row["generation"], row["run"], row["sentence"]) == (new, said.run, said.aftermath.sentence)


async def test_verdict_is_told_once(loop: Loop) -> None:
    await voted(loop, (50, 50), (90, 10))
    await judged(loop)
    assert await judged(loop) is None


async def test_before_seven_days_there_is_no_verdict(loop: Loop) -> None:
    await voted(loop, (90, 10), (0, 100), 7 * DAY - HOUR)
    assert await judged(loop) is None
    assert await rollbacks(loop) == []


async def test_the_database_s_time_decides_when_it_is_due(loop: Loop) -> None:
    await voted(loop, (90, 10), (50, 50), 3 * DAY)
    later = await loop.now() + 10 * DAY
    assert (await loop.evaluate(later)).aftermath is None


async def test_too_few_votes_are_looked_at_again(loop: Loop) -> None:
    new = await voted(loop, (90, 10), (19, 0))
    assert await judged(loop) is None
    await loop.cast(1, 0, await loop.now() - HOUR, generation=new)
    found = await judged(loop)
    assert found is not None
    assert found.verdict == "same"


async def test_after_four_weeks_too_few_votes_leave_it_unknown(loop: Loop) -> None:
    await voted(loop, (90, 10), (0, 19), 28 * DAY)
    found = await judged(loop)
    assert found is not None
    assert (found.verdict, await rollbacks(loop)) == ("unknown", [])


async def test_votes_later_than_four_weeks_do_not_count(loop: Loop) -> None:
    new = await voted(loop, (90, 10), (90, 10), 40 * DAY)
    await loop.cast(0, 500, await loop.now() - HOUR, generation=new)
    found = await judged(loop)
    assert found is not None
    assert (found.verdict, found.after.total) == ("same", 100)


async def test_late_votes_on_the_predecessor_s_answers_count_for_neither(loop: Loop) -> None:
    new = await voted(loop, (90, 10), (90, 10))
    await loop.cast(0, 500, await loop.now() - HOUR, generation=new - 1)
    found = await judged(loop)
    assert found is not None
    assert (found.before.total, found.after.total) == (100, 100)


async def test_generations_of_changed_documents_are_judged_with_what_they_inherit(loop: Loop) -> None:
    new = await voted(loop, (90, 10), (50, 30))
    now = await loop.now()
    last = await loop.promote(now - 2 * DAY, new)
    await loop.cast(0, 20, now - DAY, generation=last)
    found = await judged(loop)
    assert found is not None
    assert (found.generation, found.after.total, await rollbacks(loop)) == (new, 100, [(new - 1, "verdict")])


async def test_predecessor_s_votes_are_those_of_what_it_inherits_too(loop: Loop) -> None:
    now = await loop.now()
    first = await loop.promote(now - 20 * DAY)
    second = await loop.promote(now - 12 * DAY, first)
    await loop.promote(now - 8 * DAY, second, anew=True)
    await loop.cast(10, 10, now - 15 * DAY)
    await loop.cast(10, 10, now - 10 * DAY)
    await loop.cast(40, 0, now - DAY)
    found = await judged(loop)
    assert found is not None
    assert (found.previous, found.before.total) == (second, 40)


async def test_promotion_that_feedback_did_not_drive_has_no_verdict(loop: Loop) -> None:
    now = await loop.now()
    first = await loop.promote(now - 20 * DAY)
    await loop.promote(now - 8 * DAY, first)
    await loop.cast(90, 10, now - 9 * DAY)
    await loop.cast(10, 90, now - 7 * DAY)
    assert await judged(loop) is None


async def test_generation_that_was_rolled_back_has_no_verdict(loop: Loop) -> None:
    new = await voted(loop, (90, 10), (50, 50))
    await loop.activate(new - 1, await loop.now() - DAY, "rollback")
    assert await judged(loop) is None


async def test_apps_are_judged_apart(loop: Loop) -> None:
    await voted(loop, (90, 10), (50, 50))
    assert await judged(loop, app="shop") is None
    assert await verdicts(loop) == []


# --- what is worse goes ---------------------------------------------------------------------


async def test_worse_generation_is_rolled_back_once_however_often_it_is_evaluated(loop: Loop) -> None:
    new = await voted(loop, (90, 10), (50, 50))
    as_of = await loop.now()
    twice, once, again = (
        Envelope.root(FeedbackEvaluate(as_of=as_of, requested_by=str(n)), "/elsewhere") for n in range(3)
    )
    await asyncio.gather(
        publish_envelopes(loop.kernel, twice, once), publish_envelopes(loop.kernel, again, twice)
    )
    await loop.handled(twice, once, again)
    assert await rollbacks(loop) == [(new - 1, "verdict")]
    assert await verdicts(loop) == ["worse"]


async def test_rollback_says_why(loop: Loop) -> None:
    await voted(loop, (90, 10), (50, 50))
    found = await judged(loop)
    [row] = await loop.rows(
        "select envelope -> 'data' ->> 'why' as why from feedback_loop.outbox"
        " where type = 'rollback.requested'"
    )
    assert found is not None
    assert row["why"] == found.sentence


async def test_evaluation_that_rolls_back_does_not_retrain(loop: Loop) -> None:
    await voted(loop, (90, 10), (10, 90))
    said = await loop.evaluate(await loop.now())
    assert isinstance(said, ReportReady)
    assert (said.verdict, said.reason) == ("watch", "rolling_back")
    assert await loop.rows("select from feedback_loop.retrain") == []


async def test_verdict_that_rolls_nothing_back_lets_the_evaluation_act(loop: Loop) -> None:
    await voted(loop, (30, 70), (30, 70))
    said = await loop.evaluate(await loop.now())
    assert isinstance(said, RetrainRequested)
    assert said.aftermath is not None


async def test_generation_that_a_person_brings_back_stays(loop: Loop) -> None:
    new = await voted(loop, (90, 10), (50, 50))
    await judged(loop)
    now = await loop.now()
    await loop.activate(new - 1, now, "rollback")
    await loop.activate(new, now, "rollback")
    await judged(loop)
    assert len(await rollbacks(loop)) == 1


# --- votes carry their generation -----------------------------------------------------------


@pytest.fixture
async def collecting(start: Start) -> Runtime:
    runtime: Runtime = await start([collector])
    return runtime


async def searched(runtime: Runtime, generation: int, conversation: str = "c", message: str = "") -> None:
    """A search of a conversation, as the embedder logs it."""
    async with runtime.kernel.database.connection() as connection:
        await connection.execute(
            "insert into feedback_loop.search_log (app, conversation_id, message_id, query, generation,"
            " shown) values ('default', $1, $2, 'q', $3, '[]')",
            conversation,
            message,
            generation,
        )


async def stamp(runtime: Runtime, table: str, path: str, **body: object) -> int | None:
    """Send a body about the conversation `c`. Returns the generation that is on record then."""
    url = f"http://127.0.0.1:{runtime.port}{path}"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json={"conversation_id": "c", **body}) as a,
    ):
        assert a.status == 200, await a.text()
    async with runtime.kernel.database.connection() as connection:
        generation: int | None = await connection.fetchval(f"select generation from feedback_loop.{table}")
        return generation


async def of_vote(runtime: Runtime, **body: object) -> int | None:
    return await stamp(runtime, "vote", "/feedback", feedback="like", **body)


async def of_conversation(runtime: Runtime, **body: object) -> int | None:
    return await stamp(runtime, "conversation", "/conversations", question="q", **body)


async def test_vote_is_stamped_from_the_latest_search_of_its_conversation(collecting: Runtime) -> None:
    await searched(collecting, 4)
    await searched(collecting, 5)
    await searched(collecting, 6, "another")
    assert await of_vote(collecting) == 5


async def test_conversation_is_stamped_from_its_latest_search(collecting: Runtime) -> None:
    await searched(collecting, 4)
    await searched(collecting, 5)
    assert await of_conversation(collecting) == 5


async def test_search_for_the_message_comes_before_one_for_the_conversation(collecting: Runtime) -> None:
    await searched(collecting, 4, message="m")
    await searched(collecting, 5)
    assert await of_vote(collecting, message_id="m") == 4


async def test_search_that_named_no_message_speaks_for_any(collecting: Runtime) -> None:
    await searched(collecting, 5)
    assert await of_vote(collecting, message_id="m") == 5


async def test_search_for_another_message_says_nothing(collecting: Runtime) -> None:
    await searched(collecting, 5, message="other")
    assert await of_vote(collecting, message_id="m") is None


async def test_what_the_sender_says_comes_before_the_search(collecting: Runtime) -> None:
    await searched(collecting, 5)
    assert await of_vote(collecting, generation=3) == 3


async def test_what_the_conversation_says_comes_before_the_search(collecting: Runtime) -> None:
    await searched(collecting, 5)
    await of_conversation(collecting, generation=3)
    assert await of_vote(collecting) == 3


async def test_search_of_another_app_says_nothing(collecting: Runtime) -> None:
    await searched(collecting, 5)
    assert await of_vote(collecting, app="shop") is None


# --- the whole way --------------------------------------------------------------------------


async def vote_on(rig: Rig, feedback: str, numbers: range) -> None:
    """So many conversations search, and vote on what they see."""
    for number in numbers:
        await rig.call("GET", "/search", q="generation", conversation_id=number)
    items = [{"conversation_id": number, "feedback": feedback} for number in numbers]
    status, body = await rig.call("POST", "/feedback/batch", items)
    assert status == 200, body


async def test_worse_generation_goes_by_itself(start: Start) -> None:
    rig = await start_rig(start, more=[analyzer, collector])
    await rig.post("number", article("Number", {"Now": "generation 1"}))
    await rig.settled()
    await vote_on(rig, "like", range(25))
    await rig.post("number", article("Number", {"Now": "generation 2"}))
    await rig.settled()
    await vote_on(rig, "dislike", range(25, 50))
    async with rig.database.transaction() as connection:  # eight days pass; feedback had driven it
        await connection.execute("update feedback_loop.generation set starts_anew = true where id = 2")
        for table in ("promotion", "active_generation"):
            await connection.execute(
                f"update feedback_loop.{table} set promoted_at = promoted_at - interval '8 days'"
                " - (2 - generation) * interval '8 days'"
            )
        await connection.execute(
            "update feedback_loop.vote set created_at = created_at - interval '1 day'"
            " - (2 - generation) * interval '8 days'"
        )
    as_of: datetime = await rig.value("select now()")

    await rig.publish(FeedbackEvaluate(as_of=as_of))
    await rig.settled()
    [ended] = [event for _, event in rig.outcomes.completed if event.reason == "rollback"]
    assert (ended.outcome, ended.generation_before, ended.generation_after) == ("promoted", 2, 1)
    assert (await rig.search("generation", 1))["results"][0]["text"] == "generation 1"

    # It rests then, whatever the votes say.
    assert await rig.value("select cooling_from is not null from feedback_loop.rest")


# --- what is told ---------------------------------------------------------------------------


def led_to() -> Aftermath:
    votes = {"start": report().as_of - 8 * DAY, "end": report().as_of, "low": 0.1, "high": 0.2}
    side = {"name": "votes", "likes": 90, "dislikes": 10, **votes}
    return Aftermath(generation=2, previous=1, before=side, after=side, verdict="same", sentence="")


@pytest.mark.parametrize("kind", ["report", "retrain"])
async def test_verdict_is_told_under_the_report(
    kind: str, slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime, run = await notifier(**slack.bot), a_run()
    plain = report(run=run.id) if kind == "report" else retrain(run)
    event = plain.model_copy(update={"aftermath": led_to()})
    await settled(runtime, *await publish(runtime.kernel, event, cause=run))
    first, second, *_ = slack.messages
    assert second.text == messages.aftermath(led_to(), "default", "ko")
    assert second.thread_ts == first.ts


async def test_verdict_told_through_a_webhook_is_a_message_of_its_own(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.webhook)
    event = report(run=uuid.uuid4(), aftermath=led_to())
    await settled(runtime, *await publish(runtime.kernel, event))
    assert slack.texts[1:] == [messages.aftermath(led_to(), "default", "ko")]
