"""The 👍/👎 widget for pages of others: its demo in a real Chromium, served from another origin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Locator, Route, expect

from feedback_loop_client import AsyncFeedbackLoop
from services.collector.build import build as collector
from shared.postgres.database import Database
from shared.runtime import Runtime
from tests.support.browser import Tab, Tabs
from tests.support.events import wait_until

FOLDER = Path(__file__).parents[2] / "clients/widget"
KEY = "k" * 32

Start = Callable[..., Awaitable[Runtime]]
Open = Callable[..., Awaitable[Tab]]


@pytest.fixture
async def site() -> AsyncIterator[str]:
    """A web server of somebody's own, with the widget's files. Its origin."""
    app = web.Application()
    app.router.add_static("/", FOLDER)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def loop(start: Start, site: str) -> Runtime:
    """A service that takes votes from pages of that site, with a vote token."""
    return await start([collector], api_token="api", vote_token_secret=KEY, cors_origins=site)


def url(runtime: Runtime) -> str:
    return f"http://127.0.0.1:{runtime.port}"


@pytest.fixture
def opened(loop: Runtime, site: str, tabs: Tabs) -> Open:
    """Opens the demo for a user who may vote; `given` are other `data-` attributes."""

    async def opened(**given: str) -> Tab:
        async with AsyncFeedbackLoop(url(loop), "api") as client:
            token = await client.vote_token("demo", user_id="kim")
        said = {"url": url(loop), "token": token.token, "user": "kim", **given}
        return await tabs.open(f"{site}/demo.html#{urlencode(said)}")

    return opened


def buttons(tab: Tab, number: int = 0) -> tuple[Locator, Locator, Locator]:
    """👍, 👎 and the status of one of the page's widgets."""
    widget = tab.page.locator("feedback-votes").nth(number)
    thumbs = widget.locator("> button")
    return thumbs.nth(0), thumbs.nth(1), widget.get_by_role("status")


async def votes(database: Database) -> list[tuple[Any, ...]]:
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select conversation_id, message_id, user_id, value, reason_code, comment from feedback_loop.vote"
        )
    return [tuple(row) for row in rows]


def test_it_is_small() -> None:
    assert len((FOLDER / "feedback-votes.js").read_bytes()) < 3 * 1024


# --- votes ------------------------------------------------------------------------------------


async def test_a_press_votes(opened: Open, database: Database) -> None:
    like, dislike, status = buttons(await opened())
    await like.click()
    await expect(status).to_have_text("Thank you.")
    await expect(like).to_have_attribute("aria-pressed", "true")
    await expect(dislike).to_have_attribute("aria-pressed", "false")
    assert await votes(database) == [("demo", "1", "kim", 1, None, None)]


async def test_the_other_thumb_changes_the_vote(opened: Open, database: Database) -> None:
    like, dislike, _ = buttons(await opened())
    await like.click()
    await dislike.click()  # perhaps before the first one has arrived
    await expect(like).to_have_attribute("aria-pressed", "false")
    await expect(dislike).to_have_attribute("aria-pressed", "true")
    await wait_until(lambda: _are(database, [("demo", "1", "kim", 0, None, None)]), 10)


async def test_presses_are_sent_one_after_the_other(opened: Open, database: Database) -> None:
    tab = await opened()
    like, dislike, status = buttons(tab)
    seen: list[Route] = []

    async def hold_the_first(route: Route) -> None:
        seen.append(route)
        if len(seen) > 1:
            await route.continue_()

    await tab.page.route("**/feedback", hold_the_first)
    await like.click()
    await wait_until(lambda: len(seen) == 1, 10)
    await dislike.click()
    await expect(dislike).to_have_attribute("aria-pressed", "true")
    assert len(seen) == 1
    await seen[0].continue_()
    await wait_until(lambda: _are(database, [("demo", "1", "kim", 0, None, None)]), 10)
    await expect(status).to_have_text("Thank you.")


async def _are(database: Database, expected: list[tuple[Any, ...]]) -> bool:
    return await votes(database) == expected


async def test_the_same_thumb_takes_the_vote_back(opened: Open, database: Database) -> None:
    like, _, status = buttons(await opened())
    await like.click()
    await expect(status).to_have_text("Thank you.")
    await like.click()
    await expect(status).to_have_text("Taken back.")
    await expect(like).to_have_attribute("aria-pressed", "false")
    assert await votes(database) == []


async def test_a_vote_that_is_there_is_shown_and_taken_back(
    opened: Open, loop: Runtime, database: Database
) -> None:
    async with AsyncFeedbackLoop(url(loop), "api") as client:
        await client.vote("demo", "like", message_id="1", user_id="kim")
    like, _, status = buttons(await opened(vote="like"))
    await expect(like).to_have_attribute("aria-pressed", "true")
    await like.click()
    await expect(status).to_have_text("Taken back.")
    assert await votes(database) == []


async def test_an_answer_that_comes_later_can_be_voted_on(opened: Open, database: Database) -> None:
    tab = await opened()
    await tab.page.evaluate(
        "const votes = document.createElement('feedback-votes');"
        "Object.assign(votes.dataset, document.querySelector('feedback-votes').dataset, { message: 'late' });"
        "document.querySelector('main').append(votes)"
    )
    like, _, status = buttons(tab, 2)
    await like.click()
    await expect(status).to_have_text("Thank you.")
    assert [row[1] for row in await votes(database)] == ["late"]


async def test_each_answer_has_its_own_vote(opened: Open, database: Database) -> None:
    tab = await opened()
    await buttons(tab, 0)[0].click()
    await buttons(tab, 1)[1].click()
    await expect(buttons(tab, 1)[2]).to_have_text("고맙습니다.")
    await expect(buttons(tab, 0)[2]).to_have_text("Thank you.")
    assert {(row[1], row[3]) for row in await votes(database)} == {("1", 1), ("2", 0)}


# --- why --------------------------------------------------------------------------------------


async def test_a_dislike_asks_why(opened: Open, database: Database) -> None:
    tab = await opened()
    like, dislike, status = buttons(tab)
    widget = tab.page.locator("feedback-votes").first
    await expect(widget.get_by_text("What was wrong?")).to_be_hidden()
    await dislike.click()
    await widget.get_by_role("button", name="Outdated").click()
    await expect(status).to_have_text("Thank you.")
    await widget.get_by_label("Comment").fill("it is ten now")
    await widget.get_by_role("button", name="Send").click()
    await wait_until(lambda: _are(database, [("demo", "1", "kim", 0, "outdated", "it is ten now")]), 10)
    await expect(widget.get_by_role("button", name="Outdated")).to_have_attribute("aria-pressed", "true")
    await like.click()
    await expect(widget.get_by_text("What was wrong?")).to_be_hidden()


async def test_the_keyboard_is_enough(opened: Open, database: Database) -> None:
    tab = await opened()
    like, dislike, status = buttons(tab)
    keyboard = tab.page.keyboard
    await keyboard.press("Tab")
    await expect(like).to_be_focused()
    await keyboard.press("Tab")
    await keyboard.press("Space")
    await expect(status).to_have_text("Thank you.")
    await expect(dislike).to_be_focused()
    await keyboard.press("Tab")
    await keyboard.press("Enter")  # the first reason
    await wait_until(lambda: _are(database, [("demo", "1", "kim", 0, "wrong", None)]), 10)


# --- what fails -------------------------------------------------------------------------------


async def test_a_vote_that_is_not_taken_is_not_shown(opened: Open, database: Database) -> None:
    like, _, status = buttons(await opened(user="lee"))  # not the token's user
    await like.click()
    await expect(status).to_have_text("Not sent. Try again.")
    await expect(like).to_have_attribute("aria-pressed", "false")
    assert await votes(database) == []


async def test_a_change_that_does_not_arrive_leaves_the_vote(opened: Open, database: Database) -> None:
    tab = await opened()
    like, dislike, status = buttons(tab)
    await like.click()
    await expect(status).to_have_text("Thank you.")
    await tab.page.context.set_offline(True)
    await dislike.click()
    await expect(status).to_have_text("Not sent. Try again.")
    await expect(like).to_have_attribute("aria-pressed", "true")
    await expect(dislike).to_have_attribute("aria-pressed", "false")
    await tab.page.context.set_offline(False)
    await dislike.click()
    await expect(status).to_have_text("Thank you.")
    assert [row[3] for row in await votes(database)] == [0]


async def test_with_an_old_token_it_asks_to_reload(opened: Open) -> None:
    like, _, status = buttons(await opened(token="eyJ.not.ours"), 1)
    await like.click()
    await expect(status).to_have_text("못 보냈어요. 페이지를 새로 고쳐 주세요.")


async def test_a_page_of_another_site_cannot_vote(
    start: Start, site: str, tabs: Tabs, database: Database
) -> None:
    service = await start([collector], cors_origins="https://shop.example")
    tab = await tabs.open(f"{site}/demo.html#{urlencode({'url': url(service)})}")
    like, _, status = buttons(tab)
    await like.click()
    await expect(status).to_have_text("Not sent. Try again.")
    assert await votes(database) == []


# --- for everyone -----------------------------------------------------------------------------


async def test_axe_finds_nothing(opened: Open) -> None:
    tab = await opened()
    for number in (0, 1):
        await buttons(tab, number)[1].click()  # with the question why, and a thumb pressed
        await expect(buttons(tab, number)[2]).not_to_be_empty()
    found = await Axe().run(tab.page, options={"resultTypes": ["violations"]})
    assert [
        f"{fault['id']}: {node['html']}" for fault in found.response["violations"] for node in fault["nodes"]
    ] == []
    assert tab.console == []


async def test_buttons_have_names_in_the_pages_language(opened: Open) -> None:
    tab = await opened()
    for number, (like, dislike) in enumerate((("Good answer", "Bad answer"), ("좋아요", "싫어요"))):
        await expect(buttons(tab, number)[0]).to_have_accessible_name(like)
        await expect(buttons(tab, number)[1]).to_have_accessible_name(dislike)
