"""What a process that starts has loaded before anybody searches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from services.embedder import warming
from services.embedder.shelf import Shelf
from shared.runtime import Runtime
from tests.support.embedder import Rig, article, start_rig
from tests.support.events import wait_until

Start = Callable[..., Awaitable[Runtime]]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(warming, "PAUSE", 0)
    caplog.set_level(logging.INFO, "services.embedder")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The apps whose index was loaded, in order."""
    loaded: list[str] = []
    load = Shelf._load

    async def noted(self: Shelf, app: str, generation: int) -> None:
        await load(self, app, generation)
        loaded.append(app)

    monkeypatch.setattr(Shelf, "_load", noted)
    return loaded


async def with_documents(start: Start, *apps: str) -> Rig:
    rig = await start_rig(start)
    for app in apps:
        await rig.post("news", article("News"), app)
    await rig.settled()
    return rig


async def test_an_app_that_is_searched_is_loaded_before_the_first_search(
    start: Start, loads: list[str]
) -> None:
    first = await with_documents(start, "asked", "quiet")
    status, _ = await first.call("GET", "/search", q="part", app="asked", conversation_id="c1")
    assert status == 200
    loads.clear()
    rig = await start_rig(start)
    await wait_until(lambda: loads)
    found = await rig.search("part", app="asked")
    assert found["results"]
    assert loads == ["asked"], "once, and of no app that nobody searches"


async def test_a_role_without_the_new_privilege_searches_as_before(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(warming, "SEARCHED_LATELY", "select app from feedback_loop.not_for_this_role")
    rig = await with_documents(start, "default")
    await wait_until(lambda: "not ready to search yet" in caplog.text)
    assert (await rig.search("part"))["results"]


async def test_a_process_can_stop_before_it_has_loaded(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "PAUSE", 3600)
    rig = await with_documents(start, "default")
    await rig.runtime.stop()
    assert not [task for task in asyncio.all_tasks() if "Warming" in repr(task)]
