"""Causes of dislikes, from a search and votes over HTTP to what the evaluation says of them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.analyzer.build import build as analyzer
from services.analyzer.dislikes import dislikes
from services.collector.build import build as collector
from services.embedder.learning.credit import normal
from shared.events import Report
from shared.runtime import Runtime
from tests.support.embedder import Rig, article, start_rig
from tests.support.judging import DAY, Loop

Start = Callable[..., Awaitable[Runtime]]

QUESTION = "how long may I return a lamp"
FOREIGN = "zzqqxxjj wwvvkk"
RETURNS = article("Returns", {"Lamps": "A lamp may be returned within thirty days.", "Beds": "Never."})


class Shop:
    """A bot with a knowledge base of one document, and its users."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.loop = Loop(rig.runtime.kernel)

    async def put(self, source: str, content: str) -> None:
        await self.rig.post(source, content)
        await self.rig.settled()

    async def ask(self, conversation: str, question: str = QUESTION, k: int = 10) -> list[str]:
        """Search for a conversation; the hashes shown, best first."""
        body = {"q": question, "k": k, "conversation_id": conversation}
        status, found = await self.rig.call("POST", "/search", body)
        assert status == 200, found
        return [hit["chunk"] for hit in found["results"]]

    async def vote(self, conversation: str, user: str, feedback: str = "dislike", **more: Any) -> None:
        vote = {"conversation_id": conversation, "user_id": user, "feedback": feedback, **more}
        status, said = await self.rig.call("POST", "/feedback", vote)
        assert status == 200, said

    async def evaluate(self) -> Report:
        return await self.loop.evaluate(as_of=await self.loop.now())

    async def causes(self) -> dict[str, int]:
        """The causes that the next evaluation counts at least once."""
        return {cause: number for cause, number in (await self.evaluate()).causes.items() if number}


@pytest.fixture
async def shop(start: Start) -> Shop:
    shop = Shop(await start_rig(start, more=[collector, analyzer]))
    await shop.put("returns.md", RETURNS)
    return shop


async def test_search_remembers_the_parts_of_each_score(shop: Shop) -> None:
    await shop.ask("c")
    [(shown,)] = await shop.rig.rows("select shown from feedback_loop.search_log")
    assert all(entry.keys() >= {"chunk", "score", "dense", "lexical"} for entry in shown)


# --- each cause -----------------------------------------------------------------------------


async def test_a_question_far_from_every_document_is_a_coverage_gap(shop: Shop) -> None:
    await shop.ask("c", FOREIGN)
    await shop.vote("c", "u")
    said = await shop.evaluate()
    assert (said.causes["coverage_gap"], said.coverage_gaps) == (1, [FOREIGN])


async def test_a_near_question_is_no_coverage_gap(shop: Shop) -> None:
    await shop.ask("c")
    await shop.vote("c", "u")
    said = await shop.evaluate()
    assert (said.causes["unknown"], said.coverage_gaps) == (1, [])


async def test_what_another_liked_and_was_not_shown_is_a_retrieval_miss(shop: Shop) -> None:
    shown = await shop.ask("all")
    await shop.vote("all", "other", "like", citations={shown[1]: "like"})
    await shop.ask("first", f" {QUESTION.upper()}?", k=1)
    await shop.vote("first", "u")
    assert await shop.causes() == {"retrieval_miss": 1}


async def test_what_another_liked_and_was_shown_is_an_answer_fault(shop: Shop) -> None:
    [best] = await shop.ask("one", k=1)
    await shop.vote("one", "other", "like", citations={best: "like"})
    await shop.ask("two", k=1)
    await shop.vote("two", "u")
    assert await shop.causes() == {"answer_fault": 1}


async def test_ones_own_like_elsewhere_is_not_another_users(shop: Shop) -> None:
    shown = await shop.ask("all")
    await shop.vote("all", "u", "like", citations={shown[1]: "like"})
    await shop.ask("first", k=1)
    await shop.vote("first", "u")
    assert await shop.causes() == {"unknown": 1}


async def test_a_like_of_a_chunk_that_does_not_exist_tells_nothing(shop: Shop) -> None:
    await shop.ask("all")
    await shop.vote("all", "other", "like", citations={"f" * 64: "like"})
    await shop.ask("first", k=1)
    await shop.vote("first", "u")
    assert await shop.causes() == {"unknown": 1}


async def test_likes_of_another_app_tell_nothing(shop: Shop) -> None:
    shown = await shop.ask("all")
    conversation = {"conversation_id": "x", "app": "another", "question": QUESTION}
    assert (await shop.rig.call("POST", "/conversations", conversation))[0] == 200
    await shop.vote("x", "other", "like", app="another", citations={shown[1]: "like"})
    await shop.ask("first", k=1)
    await shop.vote("first", "u")
    assert await shop.causes() == {"unknown": 1}


async def test_a_like_counts_for_the_question_that_is_told_later(shop: Shop) -> None:
    """The bot says what was asked after users have voted; first it says something else."""
    shown = await shop.ask("all")
    await shop.vote("x", "other", "like", message_id="m", citations={shown[1]: "like"})
    await shop.ask("first", k=1)
    await shop.vote("first", "u")
    assert await shop.causes() == {"unknown": 1}
    answer = {"conversation_id": "x", "message_id": "m", "question": FOREIGN}
    for question, cause in ((FOREIGN, "unknown"), (f"{QUESTION}?", "retrieval_miss")):
        status, _ = await shop.rig.call("POST", "/conversations", answer | {"question": question})
        assert status == 200
        assert await shop.causes() == {cause: 1}


async def test_a_like_counts_whose_question_was_told_at_the_same_time(shop: Shop) -> None:
    """Neither sees the other, for neither has committed yet."""
    shown = await shop.ask("all")
    async with shop.rig.database.transaction() as connection:
        await connection.execute(
            "insert into feedback_loop.vote (conversation_id, user_id, value, citations)"
            " values ('x', 'other', 1, jsonb_build_object($1::text, 1))",
            shown[1],
        )
        answer = {"conversation_id": "x", "question": QUESTION}
        assert (await shop.rig.call("POST", "/conversations", answer))[0] == 200
    await shop.ask("first", k=1)
    await shop.vote("first", "u")
    assert await shop.causes() == {"retrieval_miss": 1}


@pytest.mark.parametrize(
    "gone",
    [
        "delete from feedback_loop.conversation where conversation_id = 'x'",
        "update feedback_loop.conversation set question = '' where conversation_id = 'x'",
        "delete from feedback_loop.search_log where conversation_id = 'searched'",
        "update feedback_loop.vote set citations = '{}' where conversation_id in ('x', 'searched')",
    ],
)
async def test_what_is_gone_leaves_no_digest_of_a_question(shop: Shop, gone: str) -> None:
    shown = await shop.ask("searched")
    conversation = {"conversation_id": "x", "question": QUESTION}
    assert (await shop.rig.call("POST", "/conversations", conversation))[0] == 200
    for name in ("x", "searched"):
        await shop.vote(name, "other", "like", citations={shown[1]: "like"})
    known = "select count(asked) from feedback_loop.vote where conversation_id = any($1)"
    assert await shop.rig.value(known, ["x", "searched"]) == 2
    await shop.rig.rows(gone)
    left = [name for name in ("x", "searched") if f"'{name}'" not in gone]
    assert await shop.rig.value(known, ["x", "searched"]) == len(left)


async def test_a_vote_that_likes_no_chunk_needs_no_question(shop: Shop) -> None:
    shown = await shop.ask("c")
    await shop.vote("c", "u", citations={shown[0]: "dislike"})
    assert await shop.rig.value("select count(asked) from feedback_loop.vote") == 0


async def test_an_edited_text_is_a_stale_document(shop: Shop) -> None:
    await shop.ask("c")
    await shop.vote("c", "u")
    await shop.put("returns.md", RETURNS.replace("thirty", "sixty"))
    assert await shop.causes() == {"stale_document": 1}


async def test_a_deleted_document_is_a_stale_document(shop: Shop) -> None:
    await shop.put("beds.md", article("Beds"))
    await shop.ask("c")
    await shop.vote("c", "u")
    await shop.rig.delete("returns.md")
    assert await shop.causes() == {"stale_document": 1}


async def test_an_edit_of_what_the_answer_does_not_cite_is_none_of_its_causes(shop: Shop) -> None:
    shown = await shop.ask("c")
    answer = {"conversation_id": "c", "citations": [{"chunk": shown[0]}]}
    assert (await shop.rig.call("POST", "/conversations", answer))[0] == 200
    await shop.vote("c", "u")
    await shop.put("returns.md", RETURNS.replace("Never", "Always"))
    assert await shop.causes() == {"unknown": 1}


async def test_an_edit_of_a_document_cited_by_name_is_seen(shop: Shop) -> None:
    await shop.ask("c")
    answer = {"conversation_id": "c", "citations": [{"source": "returns.md"}]}
    assert (await shop.rig.call("POST", "/conversations", answer))[0] == 200
    await shop.vote("c", "u")
    await shop.put("returns.md", RETURNS.replace("Never", "Always"))
    assert await shop.causes() == {"stale_document": 1}


async def test_another_way_of_cutting_makes_no_document_stale(shop: Shop) -> None:
    await shop.ask("c")
    await shop.vote("c", "u")
    await shop.rig.rows("update feedback_loop.document set chunker = 'another'")
    await shop.rig.rows("update feedback_loop.document_chunk set chunk_hash = 'cut ' || ordinal")
    assert await shop.causes() == {"unknown": 1}


async def test_a_vote_without_a_search_has_an_unknown_cause(shop: Shop) -> None:
    await shop.vote("nobody searched", "u")
    assert await shop.causes() == {"unknown": 1}


# --- what the evaluation says ---------------------------------------------------------------


async def test_explanation_tells_what_re_embedding_can_mend(shop: Shop) -> None:
    await shop.vote("c", "u", reason="outdated")
    await shop.vote("d", "u")
    assert "of 2 👎 1 could be mended by re-embedding" in (await shop.evaluate()).explanation


async def test_explanation_says_nothing_of_causes_that_nobody_knows(shop: Shop) -> None:
    await shop.vote("d", "u")
    assert "re-embedding" not in (await shop.evaluate()).explanation


async def test_likes_alone_have_no_causes(shop: Shop) -> None:
    await shop.vote("c", "u", "like")
    assert (await shop.evaluate()).causes == {}


async def test_votes_outside_the_report_window_are_not_counted(shop: Shop) -> None:
    await shop.vote("c", "u", created_at=(await shop.loop.now() - 3 * DAY).isoformat())
    assert (await shop.evaluate()).causes == {}


@pytest.mark.parametrize(
    "question",
    ["'; drop table feedback_loop.vote; --", "%s {} \\ $1 \u202e\u2028", "🦕" * 900, "?!", "\ufffd\x01"],
)
async def test_hostile_questions_are_listed_on_one_bounded_line(shop: Shop, question: str) -> None:
    await shop.rig.rows(
        "insert into feedback_loop.search_log (app, conversation_id, query, generation, shown)"
        """ values ('default', 'c', $1, 1, '[{"chunk": "x", "score": 0, "dense": 0, "lexical": 0}]')""",
        question,
    )
    await shop.vote("c", "u")
    [listed] = (await shop.evaluate()).coverage_gaps
    assert len(listed) <= 200 and listed.isprintable()


# --- the views ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "question",
    [" Wie  SPÄT?! ", "반품은\u3000며칠\n안에 되나요？", "ﬁne ①", "ＡＢＣ。", "", "?", "tab\tnbsp\u00a0x"],
)
async def test_the_same_question_is_the_same_in_sql(shop: Shop, question: str) -> None:
    assert await shop.rig.value("select feedback_loop.same_question($1)", question) == normal(question)


async def test_many_votes_on_one_question_are_read_in_time(shop: Shop) -> None:
    """1,000 dislikes and 20,000 likes of the same question: all pairs would be twenty million."""
    shown = await shop.ask("c")
    await shop.rig.rows(
        "insert into feedback_loop.conversation (conversation_id, question)"
        " select 'v' || n, $1 from generate_series(1, 21000) n",
        QUESTION,
    )
    await shop.rig.rows(
        "insert into feedback_loop.vote (conversation_id, user_id, value, citations)"
        " select 'v' || n, 'u' || n, (n > 1000)::int,"
        " case when n > 1000 then jsonb_build_object($1::text, 1) else '{}' end"
        " from generate_series(1, 21000) n",
        shown[0],
    )
    now, began = await shop.loop.now(), time.monotonic()
    async with shop.rig.database.connection() as connection:
        found = await dislikes(connection, "default", now - DAY, now)
    assert len(found) == 1000 and all(each.liked == {shown[0]} for each in found)
    assert time.monotonic() - began < 5


async def test_many_dislikes_over_many_chunks_are_read_in_time(shop: Shop) -> None:
    """Of tables that just grew and that the planner knows nothing of: no generation is read whole."""
    for statement in (
        "insert into feedback_loop.generation_chunk"
        " select 1, 'h' || n, (select id from feedback_loop.document), 's', n"
        " from generate_series(1, 20000) n",
        "insert into feedback_loop.document_chunk"
        " select 'default', 'returns.md', n, 'h' || n from generate_series(501, 20000) n",
        "insert into feedback_loop.search_log (app, conversation_id, query, generation, shown)"
        " select 'default', 'v' || n, 'q', 1, (select jsonb_agg(jsonb_build_object('chunk', 'h' || n + i))"
        "   from generate_series(0, 9) i) from generate_series(1, 1000) n",
        "insert into feedback_loop.vote (conversation_id, user_id, value)"
        " select 'v' || n, 'u', 0 from generate_series(1, 1000) n",
    ):
        await shop.rig.rows(statement)
    now, began = await shop.loop.now(), time.monotonic()
    async with shop.rig.database.connection() as connection:
        found = await dislikes(connection, "default", now - DAY, now)
    assert sum(each.text_left for each in found) == 500
    assert time.monotonic() - began < 5
