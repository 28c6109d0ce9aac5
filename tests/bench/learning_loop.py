"""The loop through its own public path: documents are posted, users ask and vote, the trigger is hit, a
retrain follows, and others ask. HTTP alone leads there; that the retrain ended is heard on the bus, as
notifier and analyzer hear it.

Every paragraph or abstract is a source of its own, named by number so that its name tells nothing, and
cut into chunks as any document is. A chunk is right if its source is (yes or no; Cranfield's degrees of
relevance are not told apart). Measured are sources in the order of the first chunk that search shows of
each, so that a long source, cut in several chunks, does not count several times; MRR ends at rank 10.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np

from services.analyzer.build import build as analyzer
from services.collector.build import build as collector
from services.embedder.learning.measures import Floats, measure
from services.trigger.build import build as trigger
from shared.events import GenerationCounts, RetrainCompleted
from tests.bench import simulation as sim
from tests.support.embedder import Rig, start_rig
from tests.support.events import wait_until

__all__ = ["Loop", "Retrained", "asked_later", "open_loop"]

K = 50
"""Chunks that a search is asked for when it is measured: enough for ten sources."""
DEPTH = 10
AT_ONCE = 4
PATIENCE = 900
"""Seconds that a build may take."""

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Retrained:
    """How the retrain ended, and the seconds from the trigger's hit to that."""

    ended: RetrainCompleted
    seconds: float

    def report(self) -> str:
        learning = self.ended.gate.get("learning", {})
        return (
            f"  {self.ended.outcome}{self.ended.detail and ': ' + self.ended.detail}"
            f" · {self.seconds:.1f} s from the trigger to the outcome\n"
            f"  learned: {learning.get('promoted')} {learning.get('why') or ''}\n"
            f"  gate {learning.get('held_out', {}).get('delta')}, {learning.get('recipe')}"
        )


@dataclass(frozen=True, slots=True)
class Loop:
    """Services that run, and one collection in the knowledge base of the app `app`."""

    rig: Rig
    app: str
    collection: sim.Collection

    async def post_documents(self) -> GenerationCounts:
        """Post everything that is not blank, and wait until search shows it."""
        documents = [
            {"app": self.app, "source": _source(place), "content": text}
            for place, text in enumerate(self.collection.chunks)
            if text.strip()
        ]
        await self._said(202, "POST", "/documents", documents)
        ended = await self._ended("documents")
        assert ended.outcome == "promoted", ended
        return ended.counts

    async def vote(self, asked: Sequence[sim.Asked], seed: int, *, on_chunks: bool) -> float:
        """Everyone asks, sees `sim.SHOWN` chunks and thumbs them as `sim.votes` says: the answer, and with
        `on_chunks` every chunk too. Returns the share of 👎 on answers."""
        found = await _several(lambda at: self._ask(asked[at], f"c{at}"), range(len(asked)))
        shown = [[hit["chunk"] for hit in results] for results in found]
        truth: dict[int, dict[str, float]] = {each.source: {} for each in asked}
        for each, results in zip(asked, found, strict=True):
            right = self._right(each.source)
            truth[each.source] |= {hit["chunk"]: 1.0 for hit in results if hit["source"] in right}
        rng, shift = random.Random(seed), datetime.now(UTC) - sim.NOW
        answers = sim.votes(asked, shown, truth, rng, on_chunks=False)
        chunks = sim.votes(asked, shown, truth, rng, on_chunks=True) if on_chunks else answers
        bodies = [
            {
                "app": self.app,
                "conversation_id": f"c{at}",
                "user_id": answer.user,
                "feedback": answer.value,
                "reason": answer.reason,
                "citations": dict(chunk.citations),
                "created_at": (answer.voted + shift).isoformat(),
            }
            for at, (answer, chunk) in enumerate(zip(answers, chunks, strict=True))
        ]
        await _several(lambda body: self._said(200, "POST", "/feedback", body), bodies)
        return sum(not answer.value for answer in answers) / len(answers)

    async def retrain(self) -> Retrained:
        """Hit the trigger, and wait for what follows."""
        began = time.perf_counter()
        body = {"app": self.app, "window": f"{sim.DAYS + 1}d"}
        await self._said(200, "POST", "/run-feedback-loop", body)
        ended = await self._ended("feedback")
        return Retrained(ended, time.perf_counter() - began)

    async def measured(self, questions: Sequence[tuple[int, str]]) -> Mapping[str, Floats]:
        """Every measure for every question, given as its number in the collection and its words."""
        found = await _several(lambda asked: self._search(asked[1], K), questions)
        rights = [self._right(source) for source, _ in questions]
        width = DEPTH + max((len(right) for right in rights), default=0)
        # In place r stands what has rank r; behind that, without a rank, what is right and was not found.
        scores = np.full((len(questions), width), -np.inf)
        scores[:, :DEPTH] = -np.arange(DEPTH)
        gains = np.zeros((len(questions), width))
        for row, (results, right) in enumerate(zip(found, rights, strict=True)):
            sources = list(dict.fromkeys(hit["source"] for hit in results))[:DEPTH]
            gains[row, : len(sources)] = [source in right for source in sources]
            gains[row, DEPTH : DEPTH + len(right.difference(sources))] = 1
        return measure(scores, gains)

    def _right(self, question: int) -> frozenset[str]:
        return frozenset(_source(place) for place in self.collection.right[question])

    async def _ask(self, asked: sim.Asked, conversation: str) -> list[dict[str, Any]]:
        return await self._search(asked.text, sim.SHOWN, conversation_id=conversation)

    async def _search(self, question: str, k: int, **more: str) -> list[dict[str, Any]]:
        body = {"q": question, "k": k, "app": self.app, **more}
        results: list[dict[str, Any]] = (await self._said(200, "POST", "/search", body))["results"]
        return results

    async def _said(self, expected: int, method: str, path: str, body: object) -> dict[str, Any]:
        status, said = await self.rig.call(method, path, body)
        assert status == expected, said
        return said

    async def _ended(self, reason: str) -> RetrainCompleted:
        def found() -> list[RetrainCompleted]:
            ends = [event for _, event in self.rig.outcomes.completed]
            return [event for event in ends if (event.app, event.reason) == (self.app, reason)]

        ended: list[RetrainCompleted] = await wait_until(found, PATIENCE)
        return ended[0]


def asked_later(
    collection: sim.Collection,
    train: Sequence[int],
    new: Sequence[int],
    unseen: Sequence[int],
    most: int,
    rng: random.Random,
) -> list[list[tuple[int, str]]]:
    """What is asked before and after: of `train` reworded and hard, and the others as they are; `most` of
    each, drawn at random. Questions are given as their number in the collection and their words."""
    kinds: list[tuple[Sequence[int], Callable[[str, random.Random], str]]] = [
        (train, sim.reworded), (train, sim.hard), (new, _as_it_is), (unseen, _as_it_is),
    ]  # fmt: skip
    return [
        [(q, words(collection.questions[q], rng)) for q in rng.sample(of, min(most, len(of)))]
        for of, words in kinds
    ]


async def open_loop(start: Callable[..., Awaitable[Any]]) -> Rig:
    """Trigger, collector, analyzer and embedder in this process, with the embedder of the settings' default.

    The policy is set so that a few 👎 suffice: what a retrain does is measured, not whether it is due.
    """
    services = [trigger, collector, analyzer]
    return await start_rig(start, configured=True, more=services, policy="ratio", threshold=0.01)


def _as_it_is(question: str, rng: random.Random) -> str:
    return question


def _source(place: int) -> str:
    return f"{place:05}.md"


async def _several(do: Callable[[A], Awaitable[B]], of: Sequence[A]) -> list[B]:
    """What `do` gives for each, in order; a few at once."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(each: A) -> B:
        async with free:
            return await do(each)

    return list(await asyncio.gather(*(one(each) for each in of)))
