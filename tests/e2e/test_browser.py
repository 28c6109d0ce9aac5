"""The dashboard's page in a real Chromium, on the real services composed in one process."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import aiohttp
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Locator, Page, expect

from services.commands.demo.story import as_conversations, as_votes, conversations
from services.up import SERVICES
from shared.postgres.database import Database
from shared.runtime import Runtime
from tests.support.browser import Tabs
from tests.support.receiver import Fault as WebhookFault
from tests.support.receiver import Receiver

TOKEN = "a-token-of-thirty-two-characters"
HOSTILE = (
    "<img src=x onerror=\"document.title='pwned'\"><script>alert(1)</script></p> & <!channel>"
    " \u202eright-to-left\u202c مرحبا 👨‍👩‍👧‍👦 " + "아주 긴 글 " * 2000
)[:10_000]
COMMENT = HOSTILE[:4000]
"""As long as a comment may be."""
CARDS: dict[Any, str] = {"light": "rgb(255, 255, 255)", "dark": "rgb(26, 30, 37)"}
"""Theme → what a card's background is in it."""

SENTENCES = {
    "ko": r"피드백 \d+개 중 \d+개가 부정\(\d+\.\d%, 구간 [\d.]+–[\d.]+%\)",
    "en": r"\d+ of \d+ votes .* are negative \(\d+\.\d%, interval [\d.]+–[\d.]+%\)",
}
"""Language → how a verdict is explained."""

Start = Callable[..., Awaitable[Runtime]]
Loops = Callable[..., Awaitable["Loop"]]


class Loop:
    """The running services, as a chatbot and a reader meet them."""

    def __init__(self, runtime: Runtime, http: aiohttp.ClientSession) -> None:
        self.url = f"http://127.0.0.1:{runtime.port}"
        self._http = http

    async def post(self, path: str, body: Any) -> None:
        async with self._http.post(self.url + path, json=body) as response:
            assert response.status in (200, 202), await response.text()

    async def vote(
        self, name: str, feedback: str = "dislike", conversation: Any = None, **given: Any
    ) -> None:
        """A question, its answer, and a vote on it."""
        key = {"conversation_id": name, "user_id": f"user-{name}"}
        answer = {"question": f"질문 {name}?", "answer": f"답변 {name}.", "citations": ["guide.md"]}
        await self.post("/conversations", {**key, **answer, **(conversation or {})})
        await self.post("/feedback", {**key, "feedback": feedback, **given})

    async def hostile_vote(self) -> None:
        words = {"question": HOSTILE, "answer": HOSTILE, "citations": [HOSTILE[:500]]}
        await self.vote("<i>hostile</i>", conversation=words, comment=COMMENT, reason_code="wrong")

    async def sample(self, until: datetime | None = None) -> None:
        """The demo's votes, of a day and a half; the older half has 41 of 100 dislikes."""
        found, end = conversations(), until or datetime.now(UTC) - timedelta(minutes=1)
        await self.post("/conversations", as_conversations(found, end))
        await self.post("/feedback/batch", as_votes(found, end))


@pytest.fixture
async def loop(start: Start, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Loops]:
    """Start everything: `running = await loop(**settings)`."""
    # What draws the charts is made once for all tests of a worker.
    data = tmp_path_factory.getbasetemp() / "data"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as http:

        async def started(**settings: Any) -> Loop:
            given = {"data_dir": data, "report_language": "ko", **settings}
            return Loop(await start(list(SERVICES.values()), **given), http)

        yield started


def figure(page: Page, label: str) -> Locator:
    """The figure of a tile."""
    return page.locator("#tiles .tile").filter(has=page.locator("dt", has_text=label)).locator("dd")


def asked(page: Page) -> dict[str, list[str]]:
    """The filter in the page's address."""
    return parse_qs(urlsplit(page.url).query)


async def enter_token(page: Page, token: str = TOKEN) -> None:
    await page.locator("#token-open").click()
    await page.locator("#token-value").fill(token)
    await page.locator("#token-form button[type=submit]").click()


# --- how it looks ---------------------------------------------------------------------------


@pytest.mark.timeout(300)
async def test_page_is_sound_in_every_look(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    await running.sample()
    await running.hostile_vote()
    await running.post("/dashboard/commands", {"command": "run", "app": "default"})
    faults: dict[tuple[str, int, str], list[str]] = {}
    for language, width in itertools.product(("ko", "en"), (360, 1280)):
        tab = await tabs.open(f"{running.url}/?lang={language}", width, color_scheme="light")
        await tab.page.locator(".evidence summary").first.click()
        for theme, card in CARDS.items():
            await tab.page.emulate_media(color_scheme=theme)
            await expect(tab.page.locator(f"#chart [data-look={theme}] svg")).to_be_visible()
            await expect(tab.page.locator(".card").first).to_have_css("background-color", card)
            # What a theme changes is colours.
            rules = None if theme == "light" else ["color-contrast"]
            faults[language, width, theme] = await violations(tab.page, rules)
            if await tab.page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                faults[language, width, theme].append("scrolls sideways")
        faults[language, width, "any"] = tab.console + tab.elsewhere
        await tab.page.context.close()
    assert {look: found for look, found in faults.items() if found} == {}


async def violations(page: Page, rules: list[str] | None) -> list[str]:
    """What axe calls serious or critical; by all of its rules, or by these."""
    options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    found = await Axe().run(page, options=options)
    return [
        f"{violation['id']}: {node['html'][:200]}"
        for violation in found.response["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


async def test_empty_page_is_sound(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    tab = await tabs.open(f"{running.url}/?lang=en", 360)
    await expect(tab.page.locator("#empty")).to_be_visible()
    await expect(tab.page.locator("#votes-state")).to_contain_text("none in this period")
    await expect(tab.page.locator("#chart svg")).to_be_visible()
    assert (tab.console, tab.elsewhere) == ([], [])
    assert await tab.page.locator("[aria-busy=true]").count() == 0


async def test_theme_that_was_chosen_stays(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    page = (await tabs.open(running.url, color_scheme="light")).page
    await page.locator("#theme").click()
    await page.reload()
    await expect(page.locator(".card").first).to_have_css("background-color", CARDS["dark"])


# --- what happens ---------------------------------------------------------------------------


async def test_vote_shows_without_a_reload(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    page = (await tabs.open(f"{running.url}/?lang=ko")).page
    await expect(figure(page, "싫어요")).to_contain_text("0")
    await running.vote("fresh", comment="방금 누른 싫어요", reason_code="outdated")
    await expect(page.locator("#votes-list .said")).to_have_text("방금 누른 싫어요")
    await expect(figure(page, "싫어요")).to_contain_text("1")
    await running.vote("fresh", comment="고친 의견")
    await expect(page.locator("#votes-list .said")).to_have_text("고친 의견")


async def test_evidence_that_is_open_stays_open(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    await running.vote("first")
    page = (await tabs.open(running.url)).page
    await page.locator(".evidence summary").click()
    await running.vote("second")
    await expect(page.locator("#votes-list > li")).to_have_count(2)
    await expect(page.locator("#votes-list details[open] .answer")).to_have_text("답변 first.")


async def test_older_votes_stay_when_a_new_one_comes(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    for number in range(12):
        await running.vote(f"{number}")
    page = (await tabs.open(running.url)).page
    shown = page.locator("#votes-list > li")
    await expect(shown).to_have_count(10)
    await page.locator("#votes-more").click()
    await expect(shown).to_have_count(12)
    await running.vote("new")
    await expect(shown.first.locator("h3")).to_have_text("질문 new?")
    await expect(shown).to_have_count(13)
    await expect(page.locator("#votes-more")).to_be_hidden()


async def test_hostile_comment_is_text(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    await running.hostile_vote()
    tab = await tabs.open(running.url)
    await tab.page.locator(".evidence summary").click()
    for place in ("h3", ".said", ".answer", ".chunks .meta"):
        await expect(tab.page.locator(f"#votes-list {place}")).to_contain_text("<img src=x onerror=")
    assert await tab.page.locator("#votes-list :is(img, script)").count() == 0
    assert "pwned" not in await tab.page.title() and tab.console == []


async def test_verdict_is_explained_with_its_figures_in_both_languages(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    await running.sample()
    await running.post("/dashboard/commands", {"command": "run", "app": "default"})
    for language, sentence in SENTENCES.items():
        page = (await tabs.open(f"{running.url}/?lang={language}")).page
        await expect(page.locator("#latest .reason")).to_have_text(re.compile(sentence))


async def test_page_says_when_the_server_is_gone(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    page = (await tabs.open(f"{running.url}/?lang=en")).page
    await expect(page.locator("#link")).to_have_text("Live")
    await page.context.set_offline(True)
    await expect(page.locator("#notice")).to_contain_text("cannot be reached")
    await page.context.set_offline(False)
    await expect(page.locator("#link")).to_have_text("Live")
    await expect(page.locator("#notice")).to_be_hidden()


# --- filters --------------------------------------------------------------------------------


async def test_filter_goes_into_the_address_and_comes_out_of_it(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    await running.vote("one", reason_code="outdated", comment="낡음")
    await running.vote("two", reason_code="wrong")
    page = (await tabs.open(f"{running.url}/?lang=ko")).page
    await page.locator("#reasons-title").click()
    await page.get_by_label("오래된 정보").check()
    await page.get_by_label("의견 있음").check()
    await expect(page.locator("#votes-list > li")).to_have_count(1)
    await expect(figure(page, "총 피드백")).to_contain_text("1")
    address = page.url
    assert asked(page) == {"lang": ["ko"], "reason": ["outdated"], "comment": ["1"]}

    other = (await tabs.open(address)).page
    await expect(other.locator("#votes-list > li")).to_have_count(1)
    await expect(other.locator("#chips button")).to_have_count(2)
    await other.locator("#clear").click()
    await expect(other.locator("#votes-list > li")).to_have_count(2)
    assert asked(other) == {"lang": ["ko"]}


async def test_link_to_votes_leads_to_them(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    for number in range(8):
        await running.vote(f"{number}", reason_code="outdated" if number else "wrong")
    page = (await tabs.open(f"{running.url}/?lang=en&rated=down&reason=wrong")).page
    await expect(page.locator("#votes-list > li")).to_have_count(1)
    await expect(page.locator("#votes-list > li")).to_be_in_viewport()
    await expect(page.locator("#votes-filter")).to_have_text("👎 Dislikes · Wrong")


async def test_back_returns_to_the_filter(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    await running.vote("up", feedback="like")
    page = (await tabs.open(f"{running.url}/?lang=en")).page
    await page.locator("[name=rated]").select_option("up")
    await expect(page.locator("#votes-title")).to_have_text("Latest likes")
    await page.goto(f"{running.url}/healthz")
    await page.evaluate("history.back()")
    await expect(page.locator("#votes-title")).to_have_text("Latest likes")
    await expect(page.locator("[name=rated]")).to_have_value("up")


async def test_filter_that_the_server_refuses_is_said(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    page = (await tabs.open(f"{running.url}/?lang=en&generation=none")).page
    await expect(page.locator("#figures-failed")).to_contain_text("generation")
    await page.locator("#figures-failed button").click()
    await expect(page.locator("#figures-failed")).to_be_hidden()


async def test_another_threshold_is_tried(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    # Policies are replayed by calendar days: the older hundred all lie on one of them.
    yesterday = datetime.now(ZoneInfo("Asia/Seoul")) - timedelta(days=1)
    await running.sample(until=yesterday.replace(hour=16, minute=45))
    page = (await tabs.open(f"{running.url}/?lang=en")).page
    await expect(page.locator("#backtest-result")).to_contain_text("re-embeddings: 1")
    await page.locator("#backtest-threshold").fill("60")
    await expect(page.locator("#backtest-value")).to_have_text("60.0%")
    await expect(page.locator("#backtest-result .policy").first).to_contain_text("never")


# --- tokens, files, actions -----------------------------------------------------------------


async def test_words_and_actions_need_a_token_and_reach_the_loop(loop: Loops, tabs: Tabs) -> None:
    running = await loop(api_token=TOKEN)
    await running.sample()
    tab = await tabs.open(f"{running.url}/?lang=en")
    page, run = tab.page, tab.page.locator("[data-command=run]")
    await expect(page.locator("#votes-state")).to_contain_text("What people wrote needs a token")
    await expect(page.locator("#actions-hint")).to_contain_text("Actions need an admin token")
    await expect(run).to_be_disabled()

    await enter_token(page, "another token")
    await expect(page.locator("#token-error")).to_have_text("This token opens nothing here.")
    await page.keyboard.press("Escape")
    await enter_token(page)
    await expect(page.locator("#votes-list > li").first).to_be_visible()

    await run.click()
    await page.locator("#action-send").click()
    await expect(page.locator("#actions-done a")).to_have_text("Show the run")
    await expect(page.locator("#list article").first).to_contain_text("by dashboard")
    await expect(page.locator("#list .badge").first).to_have_text("Normal")
    assert tab.console == [] and TOKEN not in page.url


async def test_token_can_be_removed(loop: Loops, tabs: Tabs) -> None:
    running = await loop(read_token=TOKEN)
    page = (await tabs.open(f"{running.url}/?lang=en")).page
    await expect(page.locator("#locked")).to_contain_text("The figures need a token")
    await enter_token(page)
    await expect(page.locator("#link")).to_have_text("Live")
    await page.locator("#token-open").click()
    await page.locator("#token-remove").click()
    await expect(page.locator("#locked")).to_be_visible()
    assert await page.evaluate("localStorage.length") == 0


async def test_webhook_is_tested_from_the_page(loop: Loops, tabs: Tabs) -> None:
    async with Receiver() as receiver:
        running = await loop(**receiver.settings)
        page = (await tabs.open(f"{running.url}/?lang=en")).page
        await expect(page.locator("#link")).to_have_text("Live")
        receiver.next(WebhookFault(status=503))
        for said in ("has not taken the test message: answered HTTP 503", "has taken the test message."):
            await page.locator("[data-command=webhook]").click()
            await page.locator("#action-send").click()
            await expect(page.locator("#actions-done")).to_contain_text(said)
    assert receiver.types == ["webhook.test"]


async def test_pause_and_resume_reach_the_loop(loop: Loops, tabs: Tabs, database: Database) -> None:
    running = await loop()
    await running.vote("one")
    page = (await tabs.open(f"{running.url}/?lang=en")).page
    await expect(page.locator("#link")).to_have_text("Live")
    await page.locator("[data-command=pause]").click()
    await page.get_by_label("1 week").check()
    await page.locator("[name=why]").fill("a migration")
    await page.locator("#action-send").click()
    await expect(page.locator("#actions-done")).to_have_text("The loop is muted.")
    await expect(figure(page, "Alert state")).to_contain_text("Paused")
    await page.locator("[data-command=resume]").click()
    await page.locator("#action-send").click()
    await expect(page.locator("#actions-done")).to_have_text("The loop goes on.")
    await expect(figure(page, "Alert state")).not_to_contain_text("Paused")
    async with database.connection() as connection:
        paused, _ = await connection.fetch(
            "select envelope::text as text from feedback_loop.outbox where type like 'loop.%'"
            " order by created_at"
        )
    assert "a migration" in paused["text"]


async def test_file_holds_what_is_filtered(loop: Loops, tabs: Tabs, tmp_path: Path) -> None:
    running = await loop(api_token=TOKEN)
    await running.vote("one", reason_code="outdated", comment="=1+1")
    await running.vote("two", reason_code="wrong")
    page = (await tabs.open(f"{running.url}/?lang=en&reason=outdated", accept_downloads=True)).page
    await enter_token(page)
    async with page.expect_download() as download:
        await page.locator("#csv").click()
    await (await download.value).save_as(tmp_path / "votes.csv")
    rows = list(csv.DictReader((tmp_path / "votes.csv").open(encoding="utf-8-sig", newline="")))
    assert [row["comment"] for row in rows] == ["'=1+1"]


async def test_filter_and_action_by_keyboard(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    await running.vote("one", reason_code="outdated")
    page = (await tabs.open(f"{running.url}/?lang=en")).page
    await expect(page.locator("#votes-list > li")).to_have_count(1)
    await tab_to(page, "[data-days='7']")
    await page.keyboard.press("Enter")
    await expect(page.locator("[data-days='7']")).to_have_attribute("aria-pressed", "true")
    assert "from" in asked(page)

    await tab_to(page, "[data-command=run]", backwards=True)
    await page.keyboard.press("Enter")
    await expect(page.locator("#action-dialog")).to_be_visible()
    await tab_to(page, "#action-send")
    await page.keyboard.press("Enter")
    await expect(page.locator("#list article")).to_have_count(1)
    await expect(page.locator("[data-command=run]")).to_be_focused()


async def tab_to(page: Page, selector: str, backwards: bool = False) -> None:
    """Press Tab until the element has the focus, and can be seen to have it."""
    for _ in range(60):
        await page.keyboard.press("Shift+Tab" if backwards else "Tab")
        if await page.evaluate("selector => document.activeElement.matches(selector)", selector):
            outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none"
            return
    raise AssertionError(f"{selector} cannot be reached")


async def test_page_in_korean_gives_reasons_in_korean(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    await running.sample()
    await running.post("/dashboard/commands", {"command": "run", "app": "default"})
    page = (await tabs.open(f"{running.url}/?lang=ko")).page
    await page.locator("#latest details summary").click()
    exact = page.locator("#latest details p")
    await expect(exact).to_contain_text("기준 30% 이내입니다")
    assert await exact.get_attribute("lang") is None


async def test_re_embedding_that_changes_nothing_says_so(loop: Loops, tabs: Tabs) -> None:
    running = await loop()
    await running.post("/documents", {"source": "faq.md", "content": "Books can be returned within 14 days."})
    page = (await tabs.open(f"{running.url}/?lang=en")).page
    await expect(figure(page, "Active generation")).to_contain_text("since")
    await page.locator("[data-command=reembed]").click()
    await page.locator("#action-send").click()
    await expect(page.locator("#actions-done")).to_contain_text("No document has changed")
