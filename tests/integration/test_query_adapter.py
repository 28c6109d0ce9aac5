"""The query adapter through the services: over a thousand questions are liked over `POST /feedback`, a
retrain fits an adapter to them, and search finds better with it, and says so.

There must be something to adapt to: the embedder here turns questions away from documents, all of them
the same way, as models do that were trained on one side only.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pytest

from services.collector.build import build as collector
from services.embedder.learning.adapter import LEAST
from shared.embedding.vectors import Vectors, unit
from shared.events import GenerationRequested
from shared.runtime import Runtime
from tests.support.embedder import Bigrams, Rig, start_rig
from tests.support.events import wait_until

Start = Callable[..., Awaitable[Runtime]]

TOPICS, WORDS = 200, 6
OLDER, AGAIN, NEW = LEAST + 20, 400, 280
"""Questions: those that are fitted to, three fifths, and the newer ones that judge: some of those again,
some not."""
PATIENCE = 100
"""Seconds for the retrain, which searches for 1,300 questions again: five, where nothing else runs."""


class Turned(Bigrams):
    """A text is the sum of its words, each of which has a random direction; a question, whose words
    begin with x, is turned on top of that."""

    def __init__(self) -> None:
        super().__init__(16, "turned")
        noise = np.random.default_rng(1).standard_normal((16, 16))
        self._turn = np.eye(16) + 0.85 * np.linalg.qr(noise)[0]

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        return unit(np.array([self._of(text) for text in texts]))

    def _of(self, text: str) -> Any:
        vector = np.sum([_direction(word.removeprefix("x")) for word in text.split()], axis=0)
        return self._turn @ vector if text.startswith("x") else vector


@cache
def _direction(word: str) -> Any:
    seed = hashlib.sha256(word.encode()).digest()[:8]
    return np.random.default_rng(int.from_bytes(seed, "big")).standard_normal(16)


class Library:
    """Documents of a few words each, and questions with most of those words; lexical search does not
    know them, because of the x before them."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.chance = random.Random(5)
        self.topics = [[self._word() for _ in range(WORDS)] for _ in range(TOPICS)]
        self.chunks: list[str] = []

    async def open(self) -> None:
        documents = [
            {"source": f"{at:03}.txt", "content": " ".join(words)} for at, words in enumerate(self.topics)
        ]
        status, body = await self.rig.call("POST", "/documents", documents)
        assert status == 202, body
        await self.rig.settled()
        chunk_of = dict(await self.rig.rows("select source, hash from feedback_loop.active_chunk"))
        self.chunks = [chunk_of[document["source"]] for document in documents]

    def questions(self, count: int) -> list[tuple[int, str]]:
        """Topics and questions about them."""
        asked = []
        for number in range(count):
            topic = number % TOPICS
            words = self.chance.sample(self.topics[topic], WORDS - 1)
            asked.append((topic, " ".join(f"x{word}" for word in words)))
        return asked

    async def vote(self, asked: Sequence[tuple[int, str]]) -> None:
        """Everybody asks one question, a minute after the one before, and likes the topic's chunk, but
        not the four others that the answer cites."""
        start = datetime.now(UTC) - timedelta(days=30)
        answers: list[dict[str, Any]] = []
        votes: list[dict[str, Any]] = []
        for number, (topic, question) in enumerate(asked):
            others = self.chance.sample([at for at in range(TOPICS) if at != topic], 4)
            cited = {self.chunks[topic]: "like", **{self.chunks[at]: "dislike" for at in others}}
            answers.append(
                {
                    "conversation_id": number,
                    "question": question,
                    "citations": [{"chunk": chunk} for chunk in cited],
                }
            )
            votes.append(
                {
                    "conversation_id": number,
                    "user_id": f"u{number}",
                    "feedback": "like",
                    "citations": cited,
                    "created_at": (start + timedelta(minutes=number)).isoformat(),
                }
            )
        for path, bodies in (("/conversations", answers), ("/feedback/batch", votes)):
            for part in range(0, len(bodies), 500):
                status, said = await self.rig.call("POST", path, bodies[part : part + 500])
                assert status == 200, said

    async def found_first(self, asked: Sequence[tuple[int, str]]) -> int:
        """For how many questions search shows the right chunk first."""
        found = [(await self.rig.search(question, k=1))["results"][0] for _, question in asked]
        return sum(hit["chunk"] == self.chunks[topic] for hit, (topic, _) in zip(found, asked, strict=True))

    def _word(self) -> str:
        return "".join(self.chance.choice("bcdfghklmnprstv") + self.chance.choice("aeiou") for _ in range(3))


@pytest.fixture
async def library(start: Start) -> Library:
    library = Library(await start_rig(start, Turned(), more=[collector]))
    await library.open()
    return library


@pytest.mark.timeout(240)
async def test_a_thousand_liked_questions_teach_an_adapter_that_search_shows(library: Library) -> None:
    older, never = library.questions(OLDER), library.questions(50)
    newer = library.chance.sample(older, AGAIN) + library.questions(NEW)
    library.chance.shuffle(newer)
    await library.vote([*older, *newer])
    before = await library.found_first(never)
    assert "adapter" not in (await library.rig.search(never[0][1]))["results"][0]["scores"]

    asked = await library.rig.publish(GenerationRequested(reason="manual"))
    [ended] = await wait_until(lambda: library.rig.outcomes.of(asked.id), PATIENCE)

    learning = ended.gate["learning"]
    assert ended.outcome == "promoted", learning["why"]
    assert learning["recipe"]["ridge"] is not None
    results = (await library.rig.search(never[0][1]))["results"]
    assert all("adapter" in hit["scores"] for hit in results)
    assert results[0]["scores"]["adapter"] > 0
    assert await library.found_first(never) > before
