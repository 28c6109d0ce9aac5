"""An embedder of the tests' own, and an embedder service to ask and to search."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import aiohttp
import numpy as np

from services.embedder.build import build
from shared.bus.envelope import Envelope
from shared.delivery.router import Registration
from shared.delivery.work import UnitOfWork
from shared.embedding.texts import encodable
from shared.embedding.vectors import Vectors, unit
from shared.events import (
    Event,
    GenerationRequested,
    LoopFailed,
    RetrainCompleted,
    RetrainRequested,
    RollbackRequested,
)
from shared.postgres.database import Database
from shared.runtime import Builder, Kernel, Runtime, Service
from tests.support.events import publish, wait_until

__all__ = ["Bigrams", "Outcomes", "Rig", "article", "start_rig", "write"]


class Bigrams:
    """Hashed character bigrams: deterministic, quick, and near for texts that share words.

    Attributes:
        built: every text embedded for a build, in order (searches are not counted).
        before: awaited before each call for a build; may wait, or raise.
    """

    name = "bigrams"

    def __init__(self, dimensions: int = 64, model: str = "bigrams") -> None:
        self.model = model
        self.built: list[str] = []
        self.before: Callable[[Sequence[str]], Awaitable[None]] | None = None
        self._dimensions = dimensions

    async def dimensions(self) -> int:
        return self._dimensions

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        if not urgent:
            if self.before is not None:
                await self.before(texts)
            self.built += texts
        return unit(np.array([self._vector(encodable(text)) for text in texts]))

    async def check(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def _vector(self, text: str) -> list[float]:
        vector = [1e-6] * self._dimensions
        for first, second in itertools.pairwise(text):
            digest = hashlib.blake2b(f"{first}{second}".encode(), digest_size=4).digest()
            vector[int.from_bytes(digest, "big") % self._dimensions] += 1
        return vector


@dataclass
class Outcomes:
    """A consumer of `retrain.completed` and `loop.failed`, as notifier and analyzer are."""

    completed: list[tuple[UUID, RetrainCompleted]] = field(default_factory=list)
    """What came, with its correlation."""
    failures: list[LoopFailed] = field(default_factory=list)

    def build(self, kernel: Kernel) -> Service:
        return Service(
            name="listener",
            registrations=[
                Registration(RetrainCompleted, self._end),
                Registration(LoopFailed, self._failure),
            ],
        )

    async def _end(self, event: RetrainCompleted, work: UnitOfWork, deps: object) -> list[Event]:
        await work.begin()  # a duplicate ends here
        self.completed.append((work.envelope.correlation, event))
        return []

    async def _failure(self, event: LoopFailed, work: UnitOfWork, deps: object) -> list[Event]:
        await work.begin()
        self.failures.append(event)
        return []

    def of(self, root: UUID) -> list[RetrainCompleted]:
        """How what began with the event `root` ended."""
        return [event for correlation, event in self.completed if correlation == root]


@dataclass
class Rig:
    """An embedder service that runs, and what a client does with it."""

    runtime: Runtime
    embedder: Bigrams
    outcomes: Outcomes
    session: aiohttp.ClientSession

    @property
    def database(self) -> Database:
        return self.runtime.kernel.database

    async def publish(self, event: Event) -> Envelope:
        return (await publish(self.runtime.kernel, event))[0]

    async def end_of(self, envelope: Envelope) -> RetrainCompleted:
        ended: list[RetrainCompleted] = await wait_until(lambda: self.outcomes.of(envelope.id), 30)
        return ended[0]

    async def build(
        self, reason: Literal["documents", "manual"] = "manual", app: str = "default"
    ) -> RetrainCompleted:
        """Ask for a generation, and wait for the outcome."""
        return await self.end_of(await self.publish(GenerationRequested(app=app, reason=reason)))

    async def retrain(self, event: RetrainRequested) -> RetrainCompleted:
        return await self.end_of(await self.publish(event))

    async def roll_back(self, to: int | None = None, why: str = "") -> RetrainCompleted:
        return await self.end_of(await self.publish(RollbackRequested(to_generation=to, why=why)))

    async def settled(self) -> None:
        """Wait until every event is dealt with by all who take it."""
        await wait_until(lambda: self._settled(), 30)

    async def _settled(self) -> bool:
        open_events = await self.value(
            "select count(*) from feedback_loop.outbox o join feedback_loop.consumer c using (type)"
            " where not exists (select from feedback_loop.inbox i"
            "   where i.consumer = c.consumer and i.event_id = o.event_id)"
        )
        return not open_events

    async def value(self, query: str, *arguments: object) -> Any:
        async with self.database.connection() as connection:
            return await connection.fetchval(query, *arguments)

    async def rows(self, query: str, *arguments: object) -> list[Any]:
        async with self.database.connection() as connection:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]

    async def call(
        self, method: str, path: str, body: object = None, **query: str | int
    ) -> tuple[int, dict[str, Any]]:
        """One HTTP request. Returns status and body."""
        url = f"http://127.0.0.1:{self.runtime.port}{path}"
        async with self.session.request(method, url, json=body, params=query) as response:
            return response.status, await response.json()

    async def post(self, source: str, content: str, app: str = "default") -> None:
        status, body = await self.call(
            "POST", "/documents", {"source": source, "content": content, "app": app}
        )
        assert status == 202, body

    async def delete(self, source: str) -> None:
        status, body = await self.call("DELETE", "/documents", source=source)
        assert status == 200, body

    async def search(self, query: str, k: int = 10, app: str = "default") -> dict[str, Any]:
        status, body = await self.call("GET", "/search", q=query, k=k, app=app)
        assert status == 200, body
        return body

    async def sources(self, query: str, k: int = 10) -> list[str]:
        """The documents that a search shows, best first."""
        return [hit["source"] for hit in (await self.search(query, k))["results"]]


async def start_rig(
    start: Callable[..., Awaitable[Runtime]],
    embedder: Bigrams | None = None,
    *,
    configured: bool = False,
    more: Sequence[Builder] = (),
    **settings: Any,
) -> Rig:
    """Start an embedder service and a listener.

    Args:
        configured: with the embedder that the settings name, rather than one of the tests' own.
        more: other services beside them.
    """
    embedder, outcomes, session = embedder or Bigrams(), Outcomes(), aiohttp.ClientSession()

    def closer(kernel: Kernel) -> Service:
        return Service(name="session", on_stop=session.close)

    builder = build if configured else partial(build, embedder=embedder)
    runtime = await start([builder, outcomes.build, closer, *more], **settings)
    return Rig(runtime, embedder, outcomes, session)


def article(title: str, sections: Mapping[str, str] | int = 3) -> str:
    """A Markdown document that is cut into one chunk for each section."""
    if isinstance(sections, int):
        sections = {f"Part {n}": f"What {title} says in part {n}." for n in range(sections)}
    return f"# {title}\n\n" + "\n\n".join(f"## {name}\n\n{text}" for name, text in sections.items())


def write(folder: Path, **documents: str) -> None:
    """Write Markdown files: `write(folder, returns=article("Returns"))`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
