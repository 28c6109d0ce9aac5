"""Rolling back: to which generation, what it shows, what is said where it cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from shared.events import GenerationRequested, RollbackRequested
from tests.support.embedder import Bigrams, Rig, article, start_rig
from tests.support.events import publish_envelopes

Start = Callable[..., Any]


@pytest.fixture
async def rig(start: Start) -> Rig:
    return await start_rig(start)


async def build_generations(rig: Rig, count: int) -> None:
    """Generations 1 to `count`, each saying its number, beside a document that never changes."""
    await rig.call("POST", "/documents", [
        {"source": "same", "content": article("Same")},
        {"source": "number", "content": article("Number", {"Now": "generation 1"})},
    ])  # fmt: skip
    await rig.settled()
    for number in range(2, count + 1):
        await rig.post("number", article("Number", {"Now": f"generation {number}"}))
        await rig.settled()


async def shown(rig: Rig) -> tuple[int, str]:
    """The active generation, and what its answer says."""
    found = await rig.search("generation", 1)
    return found["generation"], found["results"][0]["text"]


async def test_a_rollback_goes_to_the_generation_before(rig: Rig) -> None:
    await build_generations(rig, 3)
    ended = await rig.roll_back(why="worse answers")
    assert (ended.outcome, ended.reason, ended.detail) == ("promoted", "rollback", "worse answers")
    assert (ended.generation_before, ended.generation_after) == (3, 2)
    assert await shown(rig) == (2, "generation 2")


async def test_a_second_rollback_goes_one_further_back(rig: Rig) -> None:
    await build_generations(rig, 3)
    await rig.roll_back()
    await rig.roll_back()
    assert await shown(rig) == (1, "generation 1")


async def test_a_rollback_that_comes_twice_goes_back_once(rig: Rig) -> None:
    await build_generations(rig, 3)
    envelope = await rig.publish(RollbackRequested())
    await rig.end_of(envelope)
    await publish_envelopes(rig.runtime.kernel, envelope)
    await rig.build("documents")  # it comes after it in the queue
    assert [ended.reason for _, ended in rig.outcomes.completed].count("rollback") == 1
    assert await rig.rows("select previous from feedback_loop.promotion where generation = 4") == [(2,)]


async def test_a_rollback_goes_to_a_given_generation(rig: Rig) -> None:
    await build_generations(rig, 3)
    await rig.roll_back(1)
    assert await shown(rig) == (1, "generation 1")


async def test_a_rollback_can_be_taken_back(rig: Rig) -> None:
    await build_generations(rig, 3)
    await rig.roll_back(1)
    await rig.roll_back(3)
    assert await shown(rig) == (3, "generation 3")


async def test_a_rollback_embeds_nothing(rig: Rig) -> None:
    await build_generations(rig, 2)
    rig.embedder.built.clear()
    await rig.roll_back()
    assert rig.embedder.built == []


async def test_what_was_deleted_stays_deleted(rig: Rig) -> None:
    await build_generations(rig, 2)
    await rig.delete("same")
    await rig.settled()
    await rig.roll_back(1)
    assert await rig.sources("What Same says in part 1", 50) == ["number"]
    await rig.roll_back(2)
    assert await rig.sources("What Same says in part 1", 50) == ["number"]


async def test_a_deleted_document_that_came_again_does_not_bring_its_old_text_back(rig: Rig) -> None:
    await build_generations(rig, 1)
    await rig.delete("number")
    await rig.settled()
    await rig.post("number", article("Number", {"Now": "generation 3"}))
    await rig.settled()
    await rig.roll_back(1)
    assert await rig.sources("generation", 50) == ["same"] * 3


async def test_the_next_build_brings_todays_documents(rig: Rig) -> None:
    await build_generations(rig, 3)
    await rig.roll_back(1)
    ended = await rig.build()
    assert (ended.outcome, ended.generation_before, ended.counts.changed) == ("promoted", 1, 1)
    assert await shown(rig) == (4, "generation 3")


async def test_the_generation_before_is_the_one_rolled_back_to(rig: Rig) -> None:
    await build_generations(rig, 5)
    await rig.roll_back(3)
    await rig.build()
    await rig.roll_back()
    assert await shown(rig) == (3, "generation 3")


@pytest.mark.parametrize(
    ("to", "said"),
    [
        (None, "there is no generation before 1"),
        (1, "generation 1 is the active one already"),
        (7, "there is no generation 7"),
    ],
)
async def test_where_there_is_none_to_go_to_it_is_said(rig: Rig, to: int | None, said: str) -> None:
    await build_generations(rig, 1)
    ended = await rig.roll_back(to)
    assert (ended.outcome, ended.reason, ended.detail) == ("rejected", "rollback", said)
    assert (ended.generation_before, ended.generation_after) == (1, 1)


async def test_before_the_first_generation_it_is_said(rig: Rig) -> None:
    ended = await rig.roll_back()
    assert (ended.outcome, ended.detail) == ("rejected", "there is no generation yet")


async def test_a_generation_that_is_no_longer_kept_is_refused(rig: Rig) -> None:
    await build_generations(rig, 4)
    ended = await rig.roll_back(1)
    assert ended.outcome == "rejected"
    assert "no longer kept" in ended.detail
    assert await shown(rig) == (4, "generation 4")


async def test_a_generation_of_another_app_is_refused(rig: Rig) -> None:
    await build_generations(rig, 1)
    await rig.post("other", article("Other"), app="shop")
    await rig.settled()
    assert (await rig.roll_back(2)).detail == "there is no generation 2"


async def test_a_generation_that_was_never_promoted_is_refused(rig: Rig) -> None:
    await build_generations(rig, 1)
    release = asyncio.Event()

    async def hold(texts: object) -> None:
        await release.wait()
        raise ArithmeticError

    rig.embedder.before = hold
    await rig.post("late", article("Late"))
    release.set()
    await rig.settled()
    assert (await rig.roll_back(2)).detail == "generation 2 was never promoted: it is failed"


async def test_a_build_under_way_is_superseded_by_a_rollback_and_does_not_undo_it(rig: Rig) -> None:
    await build_generations(rig, 2)
    held, release = asyncio.Event(), asyncio.Event()

    async def hold(texts: object) -> None:
        held.set()
        await release.wait()

    rig.embedder.before = hold
    await rig.post("late", article("Late"))
    await held.wait()
    async with rig.database.transaction() as connection:  # as another replica's rollback does
        await connection.execute("update feedback_loop.active_generation set generation = 1")
        await connection.execute(
            "insert into feedback_loop.promotion (app, generation, previous, kind)"
            " values ('default', 1, 2, 'rollback')"
        )
    release.set()
    await rig.settled()
    assert rig.outcomes.completed[-1][1].outcome == "superseded"
    active = await rig.value("select generation from feedback_loop.active_generation")
    assert active == 1

    await rig.post("later", article("Later"))  # a change of documents builds on it again
    await rig.settled()
    assert (await rig.sources("What Late says in part 0"))[0] == "late"


async def test_a_rollback_does_not_wait_for_a_long_build(rig: Rig) -> None:
    await build_generations(rig, 2)

    held, release = asyncio.Event(), asyncio.Event()

    async def hold(texts: object) -> None:
        held.set()
        await release.wait()

    rig.embedder.before = hold
    await rig.post("long", article("Long", 3000))
    await held.wait()
    asked = await rig.publish(RollbackRequested())
    release.set()
    await rig.end_of(asked)
    assert await rig.value("select remaining from feedback_loop.generation where id = 3") > 0
    await rig.settled()


async def test_a_rollback_to_another_model_is_searched_by_a_process_that_runs_it(start: Start) -> None:
    old = await start_rig(start)
    await build_generations(old, 1)
    new = await start_rig(start, Bigrams(96, "bigrams-96"))
    await new.end_of(await new.publish(GenerationRequested(reason="manual")))
    status, answer = await old.call("GET", "/search", q="generation")
    assert status == 503
    assert "re-embed" in answer["reason"]
    await new.roll_back()
    assert await shown(old) == (1, "generation 1")
    assert (await new.call("GET", "/search", q="generation"))[0] == 503


async def test_the_base_of_the_last_retrain_is_kept_however_many_builds_follow(rig: Rig) -> None:
    await build_generations(rig, 2)
    async with rig.database.connection() as connection:
        await connection.execute("update feedback_loop.generation set starts_anew = true where id = 2")
    for number in range(5):
        await rig.post(f"daily-{number}", article(f"Daily {number}"))
        await rig.settled()
    assert (await rig.roll_back(1)).outcome == "promoted"
