"""Complaint groups, from comments in the ledger to the report and the views that others read."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from zlib import crc32

import numpy as np
import pytest

from services.analyzer import dislikes
from services.analyzer.build import build
from shared.embedding.vectors import Vectors, unit
from shared.events import ComplaintGroup
from shared.failures import Reject, Unavailable
from shared.runtime import Runtime
from tests.support.judging import DAY, HOUR, NINE, Loop

Start = Callable[..., Awaitable[Runtime]]

TOPICS = {"slow": 1, "느려": 1, "rude": 2, "무례": 2, "link": 3}


class Topical:
    """An embedder: texts with a word of one topic are near each other, all others far from anything.

    Attributes:
        asked: every text that it was given, but for the anchors.
        failure: raised instead, where there is one.
        meanwhile: runs before it answers.
    """

    name = model = "topical"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failure: Exception | None = None
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def dimensions(self) -> int:
        return 512

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        if self.failure is not None:
            raise self.failure
        if len(texts) < 40:
            self.asked += texts
            if self.meanwhile is not None:
                await self.meanwhile()
        return unit(np.array([self._vector(text) for text in texts]))

    async def check(self) -> None: ...

    async def close(self) -> None: ...

    def _vector(self, text: str) -> Vectors:
        topic = next((number for word, number in TOPICS.items() if word in text.lower()), None)
        seed = crc32(text.encode("utf-8", "replace")) if topic is None else topic
        return np.asarray(np.random.default_rng(seed).normal(size=512), np.float32)


class Shop:
    """A running analyzer, and the people who complain."""

    def __init__(self, loop: Loop, embedder: Topical) -> None:
        self.loop = loop
        self.embedder = embedder
        self.now = NINE

    async def says(
        self, user: str, comment: str | None, at: datetime | None = None, code: str | None = None
    ) -> int:
        """A dislike; returns its id."""
        [row] = await self.loop.rows(
            "insert into feedback_loop.vote"
            " (conversation_id, user_id, value, comment, reason_code, created_at)"
            " values (gen_random_uuid()::text, $1, 0, $2, $3, $4) returning id",
            user,
            comment,
            code,
            at or self.now - HOUR,
        )
        return int(row["id"])

    async def all_say(self, *comments: str) -> list[int]:
        return [await self.says(f"user {n}", comment) for n, comment in enumerate(comments)]

    async def groups(self) -> list[ComplaintGroup]:
        return (await self.loop.evaluate(self.now)).complaint_groups

    async def group_of(self, vote: int) -> str | None:
        [row] = await self.loop.rows(
            "select group_id from feedback_loop.complaint_of_vote where vote = $1", vote
        )
        return row["group_id"]  # type: ignore[no-any-return]


@pytest.fixture
async def shop(start: Start) -> Shop:
    embedder = Topical()
    runtime = await start([partial(build, embedder=embedder)])
    return Shop(Loop(runtime.kernel), embedder)


SLOW = ("too slow", "slow!", "정말 느려요", "느려요 느려")


async def test_what_means_the_same_is_one_group_across_languages(shop: Shop) -> None:
    await shop.all_say(*SLOW, "rude", "the link")
    [group] = await shop.groups()
    assert (group.votes, group.users) == (4, 4)
    assert group.quote in SLOW


async def test_the_words_of_the_label_are_in_the_comments(shop: Shop) -> None:
    await shop.all_say(*SLOW)
    [group] = await shop.groups()
    assert all(any(term in text for text in SLOW) for term in group.label.split(" · "))


async def test_three_votes_of_one_user_are_no_group(shop: Shop) -> None:
    for comment in SLOW:
        await shop.says("user", comment)
    assert await shop.groups() == []


async def test_a_conversation_tells_one_unknown_user_from_another(shop: Shop) -> None:
    for comment in SLOW[:3]:
        await shop.says("", comment)
    [group] = await shop.groups()
    assert group.users == 3


async def test_what_is_said_seldom_makes_a_group_though_many_dislikes_are_newer(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dislikes, "MOST_DISLIKES", 3)
    seldom = [await shop.says(f"user {n}", text, NINE - n * DAY) for n, text in enumerate(SLOW, 1)]
    for n in range(5):
        await shop.says(f"other {n}", None)
    await shop.groups()
    groups = {await shop.group_of(vote) for vote in seldom}
    assert len(groups) == 1 and groups != {None}
    # They stay in it, and count no longer among those that have just joined.
    assert sum((await shop.loop.evaluate(NINE + HOUR)).causes.values()) == 3


# --- from day to day ------------------------------------------------------------------------


async def test_a_group_keeps_id_and_label_on_the_next_day(shop: Shop) -> None:
    await shop.all_say(*SLOW)
    [first] = await shop.groups()
    shop.now += DAY
    await shop.all_say("very slow today", "slow as a snail", "slow again")
    [second] = await shop.groups()
    assert (second.id, second.label, second.votes) == (first.id, first.label, 3)


async def test_a_group_is_known_after_months(shop: Shop) -> None:
    await shop.all_say(*SLOW)
    [first] = await shop.groups()
    shop.now += 200 * DAY
    await shop.all_say("very slow today", "slow as a snail", "slow again")
    assert [group.id for group in await shop.groups()] == [first.id]


async def test_what_is_rare_makes_a_group_over_several_days(shop: Shop) -> None:
    votes = [await shop.says(f"user {n}", comment, NINE - (n + 2) * DAY) for n, comment in enumerate(SLOW)]
    assert await shop.groups() == []  # none of them was cast in the report window
    assert len({await shop.group_of(vote) for vote in votes}) == 1
    assert await shop.group_of(votes[0]) is not None


async def test_a_label_whose_words_are_gone_is_replaced(shop: Shop) -> None:
    votes = await shop.all_say("so slow", "slow page", "slow thing")
    [first] = await shop.groups()
    await shop.all_say("느려 화면", "느려 화면이", "화면 느려")
    await shop.groups()
    await shop.loop.rows("delete from feedback_loop.vote where id = any($1::bigint[])", votes)
    [second] = await shop.groups()
    assert (second.id, "slow" in first.label, "slow" in second.label) == (first.id, True, False)


async def test_a_group_without_votes_is_forgotten(shop: Shop) -> None:
    votes = await shop.all_say(*SLOW)
    await shop.groups()
    await shop.loop.rows("delete from feedback_loop.vote where id = any($1::bigint[])", votes)
    await shop.groups()
    assert await shop.loop.rows("select from feedback_loop.complaint_group_label") == []


async def test_a_comment_that_changes_moves(shop: Shop) -> None:
    first, *_ = await shop.all_say(*SLOW, "rude", "rude bot", "무례")
    await shop.groups()
    await shop.loop.rows("update feedback_loop.vote set comment = 'rude, too' where id = $1", first)
    assert [(group.votes, "rude" in group.label) for group in await shop.groups()] == [(4, True), (3, False)]


async def test_a_vote_that_became_a_like_is_in_no_view(shop: Shop) -> None:
    first, *_ = await shop.all_say(*SLOW)
    await shop.groups()
    await shop.loop.rows("update feedback_loop.vote set value = 1 where id = $1", first)
    assert await shop.loop.rows("select from feedback_loop.complaint_of_vote where vote = $1", first) == []


# --- reason codes ---------------------------------------------------------------------------


async def test_votes_without_a_comment_are_grouped_by_their_code(shop: Shop) -> None:
    for user in "abc":
        await shop.says(user, None, code="outdated")
    [group] = await shop.groups()
    assert (group.label, group.votes, group.quote) == ("outdated", 3, "")


async def test_the_code_other_says_nothing(shop: Shop) -> None:
    for user in "abc":
        await shop.says(user, None, code="other")
    assert await shop.groups() == []


@pytest.mark.parametrize(
    "failure",
    [
        Unavailable("the API", "down", partial(Topical.check, Topical())),
        Reject("OPENAI_API_KEY is wrong"),
        ValueError("nan"),
    ],
    ids=["down", "refused", "broken"],
)
async def test_without_embeddings_there_are_groups_by_code(
    shop: Shop, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    shop.embedder.failure = failure
    for user in "abc":
        await shop.says(user, "too slow", code="slow")
    with caplog.at_level(logging.WARNING):
        [group] = await shop.groups()
    assert (group.label, group.quote) == ("slow", "too slow")
    assert "complaints are not grouped by what they say" in caplog.text


async def test_comments_wait_for_embeddings_until_the_next_time(shop: Shop) -> None:
    shop.embedder.failure = Reject("no")
    await shop.all_say(*SLOW)
    assert await shop.groups() == []
    shop.embedder.failure = None
    assert len(await shop.groups()) == 1


# --- what is embedded -----------------------------------------------------------------------


async def test_two_comments_are_not_worth_a_model(shop: Shop) -> None:
    await shop.all_say(*SLOW[:2], "?!", " ")
    await shop.groups()
    assert shop.embedder.asked == []


async def test_each_comment_is_embedded_once(shop: Shop) -> None:
    await shop.all_say(*SLOW, "the link")
    await shop.groups()
    await shop.groups()
    assert sorted(shop.embedder.asked) == sorted([*SLOW, "the link"])


async def test_a_long_comment_is_embedded_in_part(shop: Shop) -> None:
    await shop.all_say(*SLOW[:2], "slow " * 800)
    await shop.groups()
    assert max(len(text) for text in shop.embedder.asked) == 500


async def test_another_model_finds_the_same_groups(start: Start) -> None:
    first, second = Topical(), Topical()
    second.model = "another"
    shop = Shop(Loop((await start([partial(build, embedder=first)])).kernel), first)
    await shop.all_say(*SLOW)
    [before] = await shop.groups()
    await shop.loop.kernel.bus.close()
    shop = Shop(Loop((await start([partial(build, embedder=second)])).kernel), second)
    shop.now += DAY
    await shop.all_say("slow today", "slow as a snail", "slow again")
    assert [group.id for group in await shop.groups()] == [before.id]


# --- meanwhile ------------------------------------------------------------------------------


async def test_a_comment_changed_meanwhile_waits(shop: Shop) -> None:
    *_, last = await shop.all_say(*SLOW)

    async def change() -> None:
        await shop.loop.rows("update feedback_loop.vote set comment = 'the link' where id = $1", last)

    shop.embedder.meanwhile = change
    [group] = await shop.groups()
    assert (group.votes, await shop.group_of(last)) == (3, None)


async def test_a_vote_retracted_meanwhile_is_no_failure(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    *_, last = await shop.all_say(*SLOW)

    async def retract() -> None:
        await shop.loop.rows("delete from feedback_loop.vote where id = $1", last)

    shop.embedder.meanwhile = retract
    [group] = await shop.groups()
    assert (group.votes, "failed" in caplog.text) == (3, False)


async def test_hostile_comments_are_quoted_on_one_bounded_line(shop: Shop) -> None:
    hostile = "slow <!channel> \u202e\u2028*x* 🦕" * 100
    await shop.all_say(hostile, hostile + "!", hostile + "?")
    [group] = await shop.groups()
    assert len(group.quote) <= 200 and group.quote.isprintable() and group.label.isprintable()


# --- causes ---------------------------------------------------------------------------------


async def test_each_dislike_has_its_cause(shop: Shop) -> None:
    vote = await shop.says("a", None, code="outdated")
    await shop.groups()
    [row] = await shop.loop.rows("select cause from feedback_loop.complaint_of_vote where vote = $1", vote)
    assert row["cause"] == "stale_document"


async def test_a_run_of_earlier_votes_leaves_causes_as_they_are(shop: Shop) -> None:
    vote = await shop.says("a", None, NINE - 3 * DAY, code="outdated")
    await shop.groups()
    await shop.loop.rows("update feedback_loop.complaint set cause = 'coverage_gap'")
    shop.now -= DAY
    await shop.groups()
    [row] = await shop.loop.rows("select cause from feedback_loop.complaint where vote = $1", vote)
    assert row["cause"] == "coverage_gap"


async def test_apps_have_groups_of_their_own(shop: Shop) -> None:
    await shop.all_say(*SLOW)
    await shop.loop.rows("update feedback_loop.vote set app = 'bank'")
    await shop.all_say(*SLOW)
    [bank] = (await shop.loop.evaluate(app="bank")).complaint_groups
    [other] = await shop.groups()
    assert bank.id != other.id


async def test_the_real_model_groups_korean_and_english(start: Start) -> None:
    runtime = await start([build])
    shop = Shop(Loop(runtime.kernel), Topical())
    await shop.all_say(
        "너무 느려요", "too slow", "very slow today", "링크 깨짐", "the link is broken", "broken link"
    )
    assert sorted(group.votes for group in await shop.groups()) == [3, 3]
