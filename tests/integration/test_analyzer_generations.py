"""Which generation a vote belongs to, and which votes the active generation answers for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.analyzer.build import build
from shared.events import RetrainRequested
from shared.runtime import Runtime
from tests.support.judging import DAY, HOUR, MOMENT, NINE, Loop


@pytest.fixture
async def loop(start: Callable[..., Any]) -> Loop:
    runtime: Runtime = await start([build])
    return Loop(runtime.kernel)


async def judged(loop: Loop, **fields: Any) -> int:
    """How many of the votes of 28 days the decision looks at."""
    said = await loop.evaluate(**fields)
    return next(window.total for window in said.evidence if window.name == "28d")


@pytest.fixture
async def two(loop: Loop) -> tuple[int, int]:
    """A generation of 20 days ago, and one that feedback drove, active for 10 days."""
    old = await loop.promote(NINE - 20 * DAY)
    return old, await loop.promote(NINE - 10 * DAY, old, anew=True)


# --- whose a vote is ------------------------------------------------------------------------


async def test_vote_is_of_the_generation_it_is_stamped_with(loop: Loop, two: tuple[int, int]) -> None:
    await loop.cast(1, 0, NINE - 15 * DAY, generation=two[1])
    await loop.cast(7, 0, NINE - HOUR, generation=two[0])
    assert await judged(loop) == 1


async def test_stamp_of_the_vote_comes_before_that_of_the_answer(loop: Loop, two: tuple[int, int]) -> None:
    await loop.answer("c", NINE - HOUR, two[0])
    await loop.cast(1, 0, conversation="c", generation=two[1])
    assert await judged(loop) == 1


async def test_vote_without_a_stamp_is_of_the_generation_that_answered(
    loop: Loop, two: tuple[int, int]
) -> None:
    await loop.answer("old", NINE - HOUR, two[0])
    await loop.answer("new", NINE - 15 * DAY, two[1])
    await loop.cast(7, 0, conversation="old")
    await loop.cast(1, 0, conversation="new")
    assert await judged(loop) == 1


async def test_without_any_stamp_it_is_of_the_one_active_when_the_answer_was_given(
    loop: Loop, two: tuple[int, int]
) -> None:
    await loop.answer("old", NINE - 10 * DAY - MOMENT)
    await loop.answer("new", NINE - 10 * DAY)
    await loop.cast(7, 0, conversation="old")
    await loop.cast(1, 0, conversation="new")
    assert await judged(loop) == 1


async def test_where_the_answer_is_unknown_it_is_of_the_one_active_when_it_was_cast(
    loop: Loop, two: tuple[int, int]
) -> None:
    await loop.cast(7, 0, NINE - 11 * DAY)
    await loop.cast(1, 0, NINE - 9 * DAY)
    assert await judged(loop) == 1


async def test_report_counts_the_votes_of_every_generation(loop: Loop, two: tuple[int, int]) -> None:
    await loop.cast(7, 0, generation=two[0])
    await loop.cast(1, 0, generation=two[1])
    assert (await loop.evaluate()).total == 8


# --- whose votes count ----------------------------------------------------------------------


async def test_generation_of_changed_documents_inherits(loop: Loop) -> None:
    first = await loop.promote(NINE - 20 * DAY)
    second = await loop.promote(NINE - 10 * DAY, first)
    await loop.promote(NINE - 5 * DAY, second)
    for ago in (15, 8, 1):
        await loop.cast(1, 0, NINE - ago * DAY)
    assert await judged(loop) == 3


async def test_inheritance_ends_at_the_generation_that_feedback_drove(
    loop: Loop, two: tuple[int, int]
) -> None:
    await loop.promote(NINE - 5 * DAY, two[1])
    for ago in (15, 8, 1):
        await loop.cast(1, 0, NINE - ago * DAY)
    assert await judged(loop) == 2


async def test_votes_from_before_any_generation_count(loop: Loop) -> None:
    await loop.cast(59, 41)
    said = await loop.evaluate()
    assert isinstance(said, RetrainRequested)
    assert (said.generation, said.base_generation) == (None, None)


async def test_first_generation_inherits_what_was_before_it(loop: Loop) -> None:
    await loop.promote(NINE - 10 * DAY)
    await loop.cast(1, 0, NINE - 15 * DAY)
    await loop.cast(1, 0, NINE - 5 * DAY)
    assert await judged(loop) == 2


async def test_generation_that_feedback_drove_does_not(loop: Loop) -> None:
    await loop.promote(NINE - 10 * DAY, anew=True)
    await loop.cast(7, 0, NINE - 15 * DAY)
    await loop.cast(1, 0, NINE - 5 * DAY)
    assert await judged(loop) == 1


async def test_rollback_counts_the_older_generation_s_votes_again(loop: Loop, two: tuple[int, int]) -> None:
    await loop.cast(2, 0, NINE - 15 * DAY)
    await loop.cast(7, 0, NINE - 8 * DAY)
    await loop.activate(two[0], NINE - 5 * DAY, "rollback")
    await loop.cast(1, 0, NINE - DAY)
    assert await judged(loop) == 3


async def test_promotion_after_a_rollback_counts_neither_the_dropped_one_s_votes(
    loop: Loop, two: tuple[int, int]
) -> None:
    await loop.activate(two[0], NINE - 5 * DAY, "rollback")
    await loop.promote(NINE - 3 * DAY, two[0])
    for votes, ago in ((2, 15), (7, 8), (1, 4), (1, 1)):
        await loop.cast(votes, 0, NINE - ago * DAY)
    assert await judged(loop) == 4


async def test_generations_of_another_app_are_none_of_its_business(loop: Loop) -> None:
    await loop.promote(NINE - 10 * DAY, anew=True, app="bank")
    await loop.cast(1, 0, NINE - 15 * DAY, app="shop")
    assert await judged(loop, app="shop") == 1


async def test_new_generation_is_not_judged_by_the_votes_that_led_to_it(loop: Loop) -> None:
    await loop.cast(59, 41)
    await loop.promote(NINE - MOMENT, anew=True)
    said = await loop.evaluate()
    assert (said.type, said.verdict, said.ratio) == ("report.ready", "insufficient_data", 0.41)
