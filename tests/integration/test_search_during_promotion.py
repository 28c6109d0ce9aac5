"""A thousand searches of two replicas while generations are promoted and rolled back; and what a search
sees while its process has not yet loaded what another one promoted."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.embedder import search
from services.embedder.shelf import Shelf
from shared.runtime import Runtime
from tests.support.embedder import Rig, article, start_rig
from tests.support.events import wait_until

Start = Callable[..., Awaitable[Runtime]]

SEARCHES = 1000
AT_ONCE = 64
MOVES = 10
"""Promotions and rollbacks, at least."""
CHUNKS = 12


async def post_edition(rig: Rig, number: int) -> None:
    """A document of which every chunk is new."""
    await rig.post("news", article("News", {f"Part {n}": f"Edition {number}, {n}." for n in range(CHUNKS)}))
    await rig.settled()


class Members:
    """Which chunks every generation has ever shown: of old ones the database forgets it."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.of: defaultdict[int, set[str]] = defaultdict(set)

    async def note(self) -> None:
        for generation, chunk in await self._rig.rows(
            "select generation, chunk_hash from feedback_loop.generation_chunk"
        ):
            self.of[generation].add(chunk)


async def test_of_a_thousand_searches_none_fails_and_none_mixes_generations(start: Start) -> None:
    promoting, other = await start_rig(start), await start_rig(start)
    members = Members(promoting)
    await post_edition(promoting, 0)
    answers: list[dict[str, Any]] = []
    moved = False

    async def move() -> None:
        nonlocal moved
        for number in range(1, MOVES + 1):
            await post_edition(promoting, number)
            await members.note()
            if number % 2:
                assert (await promoting.roll_back()).outcome == "promoted"
        moved = True

    async def read(rig: Rig) -> None:
        while not moved or len(answers) < SEARCHES:
            status, found = await rig.call("GET", "/search", q="Edition 3", k=2 * CHUNKS)
            assert status == 200, found
            answers.append(found)

    replicas = itertools.islice(itertools.cycle([promoting, other]), AT_ONCE)
    await members.note()
    await asyncio.gather(move(), *map(read, replicas))
    for found in answers:
        shown = {hit["chunk"] for hit in found["results"]}
        assert shown == members.of[found["generation"]], found["generation"]
    assert len({found["generation"] for found in answers}) > MOVES / 2


@pytest.fixture
def slow_load(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Loading a generation, where one is in memory already, waits for this event."""
    loaded = asyncio.Event()
    load = Shelf._load

    async def slowly(self: Shelf, app: str, generation: int) -> None:
        if self.last(app) is not None:
            await loaded.wait()
        await load(self, app, generation)

    monkeypatch.setattr(Shelf, "_load", slowly)
    monkeypatch.setattr(search, "_PATIENCE", 0.05)
    return loaded


async def test_no_search_waits_for_a_large_generation_to_be_loaded(
    start: Start, slow_load: asyncio.Event
) -> None:
    rig = await start_rig(start)
    await post_edition(rig, 0)
    first = await rig.search("Edition")
    await post_edition(rig, 1)
    assert await rig.search("Edition") == first, "the generation before, whole"
    slow_load.set()

    async def loaded() -> bool:
        found = await rig.search("Edition")
        assert len(found["results"]) == 10
        return bool(found["generation"] > first["generation"])

    await wait_until(loaded)


async def test_a_rollback_is_seen_at_once_where_both_are_in_memory(
    start: Start, slow_load: asyncio.Event
) -> None:
    slow_load.set()
    rig = await start_rig(start)
    await post_edition(rig, 0)
    first = await rig.search("Edition")
    await post_edition(rig, 1)
    await wait_until(lambda: rig.search("Edition"))
    slow_load.clear()
    await rig.roll_back()
    assert await rig.search("Edition") == first
