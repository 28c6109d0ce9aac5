"""What is asked for at the same time is written together, and nobody pays for another."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import pytest

from shared.postgres.database import DatabaseUnavailable
from shared.postgres.gathering import Gathering, share


class Writer:
    """Writes when `go` is set. `bad` items make a write fail, `refused` ones do not."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.go = asyncio.Event()
        self.begun = asyncio.Event()

    async def __call__(self, items: Sequence[str]) -> list[str | Exception]:
        self.groups.append(list(items))
        self.begun.set()
        await self.go.wait()
        if "bad" in items:
            raise ValueError("bad")
        if "down" in items:
            raise DatabaseUnavailable("down")
        return [KeyError(item) if item == "refused" else item.upper() for item in items]


async def _added(gathering: Gathering[str, str], *items: str) -> list[asyncio.Task[str]]:
    """The items, of which none can be written yet, one after the other."""
    tasks = []
    for item in items:
        tasks.append(asyncio.create_task(gathering.add(item)))
        await asyncio.sleep(0)
    return tasks


async def _busy(writer: Writer, gathering: Gathering[str, str]) -> asyncio.Task[str]:
    """An item that is being written, until `go`."""
    first = asyncio.create_task(gathering.add("first"))
    await writer.begun.wait()
    return first


async def test_the_first_goes_at_once_and_the_others_together() -> None:
    writer = Writer()
    gathering = Gathering(writer, key=str)
    first = await _busy(writer, gathering)
    others = await _added(gathering, "a", "b", "c")
    writer.go.set()
    assert await asyncio.gather(first, *others) == ["FIRST", "A", "B", "C"]
    assert writer.groups == [["first"], ["a", "b", "c"]]


async def test_after_a_pause_it_goes_on() -> None:
    writer = Writer()
    writer.go.set()
    gathering = Gathering(writer, key=str)
    assert [await gathering.add("a"), await gathering.add("b")] == ["A", "B"]


async def test_one_that_makes_a_write_fail_fails_alone() -> None:
    writer = Writer()
    gathering = Gathering(writer, key=str)
    first = await _busy(writer, gathering)
    others = await _added(gathering, "a", "bad", "b")
    writer.go.set()
    a, bad, b = await asyncio.gather(*others, return_exceptions=True)
    assert (await first, a, type(bad), b) == ("FIRST", "A", ValueError, "B")


async def test_one_that_is_refused_is_told_so_alone() -> None:
    writer = Writer()
    gathering = Gathering(writer, key=str)
    first = await _busy(writer, gathering)
    others = await _added(gathering, "a", "refused")
    writer.go.set()
    a, refused = await asyncio.gather(*others, return_exceptions=True)
    assert (await first, a, type(refused)) == ("FIRST", "A", KeyError)


async def test_while_the_database_is_away_nothing_is_tried_one_by_one() -> None:
    writer = Writer()
    gathering = Gathering(writer, key=str)
    first = await _busy(writer, gathering)
    others = await _added(gathering, "a", "down")
    writer.go.set()
    errors = await asyncio.gather(*others, return_exceptions=True)
    assert (await first, [type(error) for error in errors]) == ("FIRST", [DatabaseUnavailable] * 2)
    assert len(writer.groups) == 2


async def test_whose_sender_has_gone_is_not_written() -> None:
    writer = Writer()
    gathering = Gathering(writer, key=str)
    first = await _busy(writer, gathering)
    gone, stays = await _added(gathering, "gone", "stays")
    gone.cancel()
    writer.go.set()
    assert (await first, await stays) == ("FIRST", "STAYS")
    assert writer.groups == [["first"], ["stays"]]


async def test_a_sender_that_goes_while_its_item_is_written_takes_no_other_along() -> None:
    writer = Writer()
    gathering = Gathering(writer, key=str)
    first = await _busy(writer, gathering)
    (other,) = await _added(gathering, "other")
    first.cancel()
    writer.go.set()
    assert await other == "OTHER"


async def test_items_of_one_key_are_written_one_after_the_other() -> None:
    writer = Writer()
    gathering = Gathering(writer, key=lambda item: item[0])
    first = await _busy(writer, gathering)
    others = await _added(gathering, "a1", "b1", "a2", "a3", "b2")
    writer.go.set()
    await asyncio.gather(first, *others)
    assert writer.groups == [["first"], ["a1", "b1"], ["a2", "b2"], ["a3"]]


async def test_only_so_many_may_wait() -> None:
    writer = Writer()
    gathering = Gathering(writer, key=str, room=2)
    first = await _busy(writer, gathering)
    others = await _added(gathering, "a", "b")
    with pytest.raises(DatabaseUnavailable):
        await gathering.add("c")
    writer.go.set()
    assert await asyncio.gather(first, *others) == ["FIRST", "A", "B"]


def test_a_share_has_a_limit_and_the_rest_keeps_its_order() -> None:
    waiting = deque(["a1", "a2", "b1", "c1", "b2"])
    assert share(waiting, lambda item: item[0], 2) == ["a1", "b1"]
    assert list(waiting) == ["a2", "c1", "b2"]
