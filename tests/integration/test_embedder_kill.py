"""kill -9 of an embedder in the middle of a build: another one ends it, and little is done twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from shared.bus.port import Topology
from shared.postgres.database import Database
from tests.support.embedder import Bigrams, article
from tests.support.events import wait_until
from tests.support.processes import Process
from tests.support.rabbit import sweep

DOCUMENTS = 60
BATCH = 4
KNOWLEDGE = Path(__file__).parents[2] / "services/commands/demo/knowledge"


class EmbeddingsApi:
    """An embeddings API of OpenAI's form that counts what it is asked for, and takes its time."""

    def __init__(self) -> None:
        self.texts: Counter[str] = Counter()
        self.url = ""
        self._bigrams = Bigrams()

    async def embeddings(self, request: web.Request) -> web.Response:
        texts: list[str] = (await request.json())["input"]
        self.texts.update(texts)
        await asyncio.sleep(0.05)
        vectors = await self._bigrams.embed(texts)
        data = [{"index": index, "embedding": vector.tolist()} for index, vector in enumerate(vectors)]
        return web.json_response({"data": data})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[EmbeddingsApi]:
        app = web.Application()
        app.add_routes([web.post("/v1/embeddings", self.embeddings)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()


async def call(process: Process, method: str, path: str, body: object = None, **query: Any) -> Any:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, process.url + path, json=body, params=query) as response,
    ):
        assert response.ok, await response.text()
        return await response.json()


async def progress(database: Database) -> tuple[str, int]:
    """State of the first build, and the batches it has done."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "select state, done from feedback_loop.build_progress where generation = 1"
        )
    return (row["state"], row["done"]) if row else ("", 0)


async def until_done(database: Database, batches: int) -> None:
    async def done() -> bool:
        return (await progress(database))[1] >= batches

    await wait_until(done, 60)


async def until_promoted(database: Database) -> None:
    async def promoted() -> bool:
        return (await progress(database))[0] == "promoted"

    await wait_until(promoted, 90)


async def killed_at(environment: dict[str, str], database: Database, batches: int) -> None:
    """An embedder that goes on with the build until so many batches are done, and dies there."""
    async with Process("run", "embedder", **environment) as process:
        await process.until_ready()
        await until_done(database, batches)
        process.kill()
        state, done = await progress(database)
        assert (state, done < DOCUMENTS // BATCH) == ("building", True)


@pytest.mark.parametrize("bus", ["memory", "rabbit"])
async def test_a_build_survives_kill_9_and_embeds_nothing_twice_but_the_batch_in_hand(
    bus: str, dsn: str, database: Database, exchange: str, request: pytest.FixtureRequest
) -> None:
    async with EmbeddingsApi().running() as api:
        environment = {
            "DATABASE_URL": dsn,
            "EMBEDDER": "openai",
            "OPENAI_BASE_URL": api.url,
            "EMBEDDING_BATCH": str(BATCH),
        }
        if bus == "rabbit":
            amqp_url = request.getfixturevalue("amqp_url")
            environment |= {"AMQP_URL": amqp_url, "AMQP_EXCHANGE": exchange}
        documents = [{"source": f"d{n}", "content": article(f"Document {n}", 1)} for n in range(DOCUMENTS)]
        async with Process("run", "embedder", **environment) as process:
            await process.until_ready()
            await call(process, "POST", "/documents", documents)
            await until_done(database, 3)
            process.kill()
        await killed_at(environment, database, 7)
        async with Process("run", "embedder", **environment) as process:
            await until_promoted(database)
            found = await call(process, "GET", "/search", q="What Document 42 says in part 0", k=100)
    if bus == "rabbit":
        await sweep(amqp_url, Topology(exchange), ["embedder"])

    assert len(found["results"]) == DOCUMENTS
    assert found["results"][0]["source"] == "d42"
    embedded = [count for text, count in api.texts.items() if text.startswith("Document")]
    assert len(embedded) == DOCUMENTS
    assert sum(embedded) <= DOCUMENTS + 2 * BATCH  # the batch in hand, of each kill
    async with database.connection() as connection:
        outcomes = await connection.fetch(
            "select envelope -> 'data' as data from feedback_loop.outbox where type = 'retrain.completed'"
        )
    assert [row["data"]["outcome"] for row in outcomes] == ["promoted"]
    assert outcomes[0]["data"]["counts"]["embedded"] == DOCUMENTS
    assert outcomes[0]["data"]["gate"] == {"planned": 60, "shown": 60, "embedded": 60}


async def test_a_build_with_the_real_model_survives_kill_9(dsn: str, database: Database) -> None:
    environment = {"DATABASE_URL": dsn, "KNOWLEDGE_DIR": str(KNOWLEDGE), "EMBEDDING_BATCH": "4"}
    async with Process("run", "embedder", **environment) as process:
        await process.until_ready()
        await call(process, "POST", "/documents", {"source": "note", "content": "배송은 이틀 걸립니다."})
        await until_done(database, 3)
        process.kill()
    assert (await progress(database))[0] == "building"
    async with Process("run", "embedder", **environment) as process:
        await until_promoted(database)
        found = await call(process, "GET", "/search", q="배송은 며칠이나 걸리나요?", k=5)
    assert found["generation"] == 1
    assert "note" in [hit["source"] for hit in found["results"]]
    async with database.connection() as connection:
        whole = await connection.fetchrow(
            "select count(distinct a.source) as shown, count(*) as chunks,"
            " (select count(*) from feedback_loop.document) as known,"
            " (select chunks from feedback_loop.generation) as planned"
            " from feedback_loop.active_chunk a"
        )
    assert whole is not None
    assert whole["shown"] == whole["known"] > 40
    assert whole["chunks"] == whole["planned"]
