"""The page about the HTTP interface in a real Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from shared.runtime import Runtime
from shared.web.openapi import document
from tests.support.browser import Tab, Tabs
from tests.support.openapi import BUILDERS


@pytest.fixture
async def runtime(start: Callable[..., Awaitable[Runtime]]) -> Runtime:
    return await start(list(BUILDERS.values()))


@pytest.fixture
async def tab(runtime: Runtime, tabs: Tabs) -> AsyncIterator[Tab]:
    """The page, when it has loaded."""
    tab = await tabs.open(f"http://127.0.0.1:{runtime.port}/docs")
    await expect(tab.page.locator("main[aria-busy]")).to_have_count(0)
    yield tab
    assert tab.console == []
    assert tab.elsewhere == []


async def test_it_shows_every_operation(runtime: Runtime, tab: Tab) -> None:
    names = {
        operation["operationId"]
        for methods in document(runtime.groups)["paths"].values()
        for operation in methods.values()
    }
    shown: Any = await tab.page.locator("details").evaluate_all("cards => cards.map(card => card.id)")
    assert set(shown) == names


async def test_a_route_is_found_and_says_what_it_takes(tab: Tab) -> None:
    await tab.page.get_by_label("Find a route").fill("vote-tokens")
    cards = tab.page.locator("details:visible")
    await expect(cards).to_have_count(1)
    await cards.locator("summary").click()
    await expect(cards).to_contain_text("conversation_id (needed)")
    await expect(cards).to_contain_text("Opened by API_TOKEN or ADMIN_TOKEN")


async def test_a_link_opens_its_route(runtime: Runtime, tab: Tab) -> None:
    await tab.page.goto(f"http://127.0.0.1:{runtime.port}/docs#get_runs")
    await expect(tab.page.locator("#get_runs")).to_have_attribute("open", "")


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_everyone_can_read_it(tab: Tab, theme: Any) -> None:
    await tab.page.emulate_media(color_scheme=theme)
    await tab.page.locator("details").evaluate_all("cards => cards.forEach(card => { card.open = true })")
    found = await Axe().run(tab.page)
    assert [violation["id"] for violation in found.response["violations"]] == []
