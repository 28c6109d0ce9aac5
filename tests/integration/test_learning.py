"""The loop learns: users vote through the public API on what search shows them, a retrain follows, and
search finds what they liked; unless the votes are noise.

The questions are asked by nicknames that stand in no document, so that neither half of search can know
them. What is learned must come from the votes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from services.collector.build import build as collector
from services.embedder.golden import read_golden_set
from shared.events import RetrainRequested
from shared.runtime import Runtime
from shared.settings import SettingsError
from tests.support.embedder import Rig, start_rig

Start = Callable[..., Awaitable[Runtime]]

PRODUCTS = 60
FORMS = (
    "{} return policy", "how do I return {}", "can I send {} back", "refund for {}",
    "is there a refund on {} please", "sending back {} how", "{} returns?", "I want to return {}",
    "what about returning {}", "{}: give it back",
)  # fmt: skip


def word(random_: random.Random) -> str:
    return "".join(random_.choice("bcdfghjklmnprstvz") + random_.choice("aeiou") for _ in range(4))


class Shop:
    """A knowledge base, and users who know the products by other names."""

    def __init__(self, rig: Rig, seed: int = 7) -> None:
        self.rig = rig
        chance = random.Random(seed)
        self.names = [word(chance) for _ in range(PRODUCTS)]
        self.nicknames = [word(chance) for _ in range(PRODUCTS)]
        self.chunks: list[str] = []

    async def open(self) -> None:
        documents = [
            {"source": f"{name}.md", "content": f"# {name}\n\nTerms for {name}: keep {name} in its box."}
            for name in self.names
        ]
        status, body = await self.rig.call("POST", "/documents", documents)
        assert status == 202, body
        await self.rig.settled()
        rows = await self.rig.rows("select source, hash from feedback_loop.active_chunk")
        chunk_of = dict(rows)
        self.chunks = [chunk_of[f"{name}.md"] for name in self.names]

    async def vote(self, liked: Callable[[int], int], user: Callable[[int], str]) -> None:
        """Each product is asked for in every form. The answer cites three chunks, that of the product
        among them; the user likes the one that `liked` names, and dislikes the others."""
        chance = random.Random(11)
        asked = [(form, product) for form in range(len(FORMS)) for product in range(PRODUCTS)]
        start = datetime.now(UTC) - timedelta(days=20)
        answers, votes = [], []
        for number, (form, product) in enumerate(asked):
            question = FORMS[form].format(self.nicknames[product])
            best = liked(product)
            cited = {best, product, *chance.sample(range(PRODUCTS), 2)}
            answers.append(
                {
                    "conversation_id": number,
                    "question": question,
                    "citations": [{"chunk": self.chunks[each]} for each in sorted(cited)],
                }
            )
            votes.append(
                {
                    "conversation_id": number,
                    "user_id": user(number),
                    "feedback": "like",
                    "citations": {self.chunks[each]: "like" if each == best else "dislike" for each in cited},
                    "created_at": (start + timedelta(minutes=number)).isoformat(),
                }
            )
        for path, body in (("/conversations", answers), ("/feedback/batch", votes)):
            status, said = await self.rig.call("POST", path, body)
            assert status == 200, said

    async def rank(self, product: int) -> int | None:
        """Where search shows the right chunk to one who asks for a product in a new form."""
        question = f"please, may {self.nicknames[product]} be returned"
        results = (await self.rig.search(question, k=10))["results"]
        ranks = [hit["rank"] for hit in results if hit["chunk"] == self.chunks[product]]
        return ranks[0] if ranks else None


def retrain() -> RetrainRequested:
    now = datetime.now(UTC)
    known: dict[str, Any] = {
        "run": uuid4(), "as_of": now, "window_start": now - timedelta(days=1), "window_end": now,
        "likes": 59, "dislikes": 41, "total": 100, "ratio": 0.41, "interval": (0.32, 0.51),
        "verdict": "act", "reason": "lower_bound_over_threshold", "explanation": "", "policy": "wilson",
        "threshold": 0.3, "retrain": uuid4(),
    }  # fmt: skip
    return RetrainRequested(**known)


@pytest.fixture
async def shop(start: Start) -> Shop:
    shop = Shop(await start_rig(start, more=[collector]))
    await shop.open()
    return shop


async def test_what_users_voted_for_is_found_by_who_asks_next(shop: Shop) -> None:
    before = [await shop.rank(product) for product in range(20)]
    await shop.vote(liked=lambda product: product, user=lambda number: f"u{number % 97}")
    ended = await shop.rig.retrain(retrain())
    assert ended.outcome == "promoted", ended.gate["learning"]["why"]
    learning = ended.gate["learning"]
    assert learning["promoted"] is True
    assert learning["held_out"]["delta"]["low"] > 0
    assert ended.counts.embedded == 0, "no text changed: every vector is reused"
    after = [await shop.rank(product) for product in range(20)]
    assert sum(rank == 1 for rank in after) >= 18, (before, after)
    assert sum(rank == 1 for rank in before) <= 4, "else there was nothing to learn"


async def test_votes_at_random_change_nothing(shop: Shop) -> None:
    chance = random.Random(3)
    await shop.vote(liked=lambda product: chance.randrange(PRODUCTS), user=lambda number: f"u{number % 97}")
    ended = await shop.rig.retrain(retrain())
    assert ended.outcome == "unchanged", ended
    assert ended.generation_after == ended.generation_before
    assert ended.gate["learning"]["promoted"] is False
    assert ended.gate["learning"]["why"]


async def test_one_user_alone_teaches_nothing(shop: Shop) -> None:
    await shop.vote(liked=lambda product: product, user=lambda number: "brigade")
    assert (await shop.rig.retrain(retrain())).outcome == "unchanged"


async def test_votes_for_one_document_everywhere_teach_nothing(shop: Shop) -> None:
    await shop.vote(liked=lambda product: 0, user=lambda number: f"u{number % 97}")
    assert (await shop.rig.retrain(retrain())).outcome == "unchanged"


async def test_a_change_of_documents_keeps_what_was_learned_and_a_rollback_forgets_it(shop: Shop) -> None:
    await shop.vote(liked=lambda product: product, user=lambda number: f"u{number % 97}")
    assert (await shop.rig.retrain(retrain())).outcome == "promoted"
    await shop.rig.post("new.md", "# New\n\nSomething else altogether.")
    await shop.rig.settled()
    assert await shop.rank(5) == 1
    learned = await shop.rig.value("select count(*) from feedback_loop.learned")
    assert learned == 2
    assert (await shop.rig.roll_back(1)).outcome == "promoted"
    assert await shop.rank(5) != 1


async def test_a_build_by_hand_learns_too(shop: Shop) -> None:
    await shop.vote(liked=lambda product: product, user=lambda number: f"u{number % 97}")
    ended = await shop.rig.build("manual")
    assert (ended.outcome, ended.gate["learning"]["promoted"]) == ("promoted", True)
    assert await shop.rank(5) == 1


# --- the golden set -------------------------------------------------------------------------


@pytest.fixture
async def guarded(start: Start, tmp_path: Path) -> Rig:
    """An embedder that keeps twenty golden questions."""
    lines = [
        json.dumps({"question": f"what about subject {number:02}?", "sources": [f"{number:02}.md"]})
        for number in range(20)
    ]
    golden = tmp_path / "golden.jsonl"
    golden.write_text("\n".join(lines), encoding="utf-8")
    rig = await start_rig(start, golden_set=golden)
    documents = [subject(number, f"About subject {number:02}: all of it.") for number in range(20)]
    await rig.call("POST", "/documents", documents)
    await rig.settled()
    return rig


def subject(number: int, text: str) -> dict[str, str]:
    return {"source": f"{number:02}.md", "content": f"# Chapter\n\n{text}"}


async def test_changed_documents_that_the_golden_set_misses_are_rejected(guarded: Rig) -> None:
    spoilt = [subject(number, f"Lorem ipsum dolor {number * 7919}.") for number in range(20)]
    await guarded.call("POST", "/documents", spoilt)
    await guarded.settled()
    ended = guarded.outcomes.completed[-1][1]
    assert ended.outcome == "rejected", ended
    assert "golden set" in ended.detail
    assert ended.gate["golden"]["delta"]["mean"] < 0
    assert await guarded.value("select generation from feedback_loop.active_generation") == 1


async def test_changed_documents_that_the_golden_set_finds_are_promoted(guarded: Rig) -> None:
    await guarded.call("POST", "/documents", [subject(3, "About subject 03: all of it, and more.")])
    await guarded.settled()
    ended = guarded.outcomes.completed[-1][1]
    assert (ended.outcome, ended.gate["golden"]["passed"]) == ("promoted", True)


def test_a_golden_set_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    broken = tmp_path / "golden.jsonl"
    broken.write_text('{"question": "a", "sources": ["b"]}\n\n{"question": 1}\n', encoding="utf-8")
    with pytest.raises(SettingsError, match=r"line 3"):
        read_golden_set(broken)
