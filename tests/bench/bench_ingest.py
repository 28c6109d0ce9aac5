"""Bringing the index up to date, beside what others have for it: `scripts/bench ingest` (`BENCH_DATA`;
`pip install langchain-classic langchain-postgres llama-index-vector-stores-postgres` first, for the peers).

KorQuAD's 964 paragraphs; everything new, then nothing changed, then ten paragraphs changed, in turn:

- the product: its service `embedder` in this process, one worker, from the request to `retrain.completed`;
- LangChain: `index()` with `PGVector` and `SQLRecordManager`, `cleanup="full"`;
- LlamaIndex: `IngestionPipeline` with `PGVectorStore` and its document store in memory, upserts and deletes.

All have the product's embedder and one embedded PostgreSQL, a database each. The peers get the paragraphs cut
already, as the product cuts them; the product reads and cuts the files itself, and judges the result.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import index
from llama_index.core import Document as Node
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.storage.docstore import SimpleDocumentStore
from pydantic import PrivateAttr
from rich.console import Console
from rich.table import Table

from services.embedder.build import build
from shared.runtime import Runtime, running
from shared.settings import Settings
from tests.bench.bench_embed import CHANGED, ROUNDS, Counting, Took, forget, generation, stored, timed
from tests.bench.bench_retrieval import korquad
from tests.bench.served import CORES, postgres

PEERS = "pip install langchain-classic langchain-postgres llama-index-vector-stores-postgres"
WORKS = ("everything new", "nothing changed", f"{CHANGED} changed")
PRODUCT, LANGCHAIN, LLAMAINDEX = "product", "LangChain", "LlamaIndex"

Embed = Callable[[Sequence[str]], list[list[float]]]
Ingest = Callable[[list[str]], object]
"""Brings a peer's index up to date with these texts; the place of a text is its name."""


def of_langchain(dsn: str, embed: Embed) -> Ingest:
    indexes = pytest.importorskip("langchain_classic.indexes", reason=PEERS)
    stores = pytest.importorskip("langchain_postgres", reason=PEERS)

    class Same(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return embed(texts)

        def embed_query(self, text: str) -> list[float]:
            return embed([text])[0]

    address = dsn.replace("postgresql://", "postgresql+psycopg://", 1)
    store = stores.PGVector(embeddings=Same(), collection_name="bench", connection=address)
    manager = indexes.SQLRecordManager("bench", db_url=address)
    manager.create_schema()

    def ingest(texts: list[str]) -> object:
        documents = [Document(text, metadata={"source": str(place)}) for place, text in enumerate(texts)]
        return index(documents, manager, store, cleanup="full", source_id_key="source", key_encoder="blake2b")

    return ingest


def of_llamaindex(dsn: str, embed: Embed, dimensions: int) -> Ingest:
    stores = pytest.importorskip("llama_index.vector_stores.postgres", reason=PEERS)

    class Same(BaseEmbedding):
        _embed: Embed = PrivateAttr()

        def __init__(self, embed: Embed) -> None:
            super().__init__(model_name="same", embed_batch_size=64)
            self._embed = embed

        def _get_text_embedding(self, text: str) -> list[float]:
            return self._embed([text])[0]

        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            return self._embed(texts)

        def _get_query_embedding(self, query: str) -> list[float]:
            return self._embed([query])[0]

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._embed([query])[0]

    store = stores.PGVectorStore(
        connection_string=dsn.replace("postgresql://", "postgresql+psycopg2://", 1),
        async_connection_string=dsn.replace("postgresql://", "postgresql+asyncpg://", 1),
        table_name="bench",
        embed_dim=dimensions,
        use_jsonb=True,
        hnsw_kwargs={"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_dist_method": "vector_cosine_ops"},
    )
    pipeline = IngestionPipeline(
        transformations=[Same(embed)],
        vector_store=store,
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        disable_cache=True,
    )

    def ingest(texts: list[str]) -> object:
        return pipeline.run(documents=[Node(text=text, id_=str(place)) for place, text in enumerate(texts)])

    return ingest


async def fresh(dsn: str, name: str) -> str:
    """The DSN of an empty database with pgvector."""
    server = await asyncpg.connect(dsn)
    await server.execute(f"drop database if exists {name} with (force)")
    await server.execute(f"create database {name}")
    await server.close()
    own = urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
    connection = await asyncpg.connect(own)
    await connection.execute("create extension vector")
    await connection.close()
    return own


async def measure(dsn: str, folder: Path) -> dict[tuple[str, str], list[Took]]:
    paragraphs = korquad().texts
    embedder, loop = Counting(), asyncio.get_running_loop()
    await embedder.check()

    def embed(texts: Sequence[str]) -> list[list[float]]:
        """For the peers, who call it from a thread of theirs."""
        return asyncio.run_coroutine_threadsafe(embedder.embed(texts), loop).result().tolist()  # type: ignore[no-any-return]

    def write(place: int, text: str) -> None:
        (folder / f"{place:04}.txt").write_text(text, encoding="utf-8")

    took: dict[tuple[str, str], list[Took]] = {}

    async def take(who: str, work: str, what: Any) -> None:
        took.setdefault((who, work), []).append(await timed(embedder, what))

    own = await fresh(dsn, "product")
    settings = Settings(_env_file=None, database_url=own, knowledge_dir=folder, port=0, host="127.0.0.1")
    async with running(Runtime(settings, [partial(build, embedder=embedder)])) as runtime:
        for turn in range(ROUNDS):
            await forget(runtime)
            for place, text in enumerate(paragraphs):
                write(place, text)
            await take(PRODUCT, WORKS[0], generation(runtime))
            chunks = await stored(runtime)
            peers = {
                LANGCHAIN: of_langchain(await fresh(dsn, "langchain"), embed),
                LLAMAINDEX: of_llamaindex(await fresh(dsn, "llamaindex"), embed, await embedder.dimensions()),
            }
            for who, ingest in peers.items():
                await take(who, WORKS[0], asyncio.to_thread(ingest, chunks))
            await take(PRODUCT, WORKS[1], generation(runtime))
            for who, ingest in peers.items():
                await take(who, WORKS[1], asyncio.to_thread(ingest, chunks))
            for place in range(CHANGED):
                write(place, f"{paragraphs[place]} {turn}")
                chunks[place] = f"{chunks[place]} {turn}"
            await take(PRODUCT, WORKS[2], generation(runtime))
            for who, ingest in peers.items():
                await take(who, WORKS[2], asyncio.to_thread(ingest, chunks))
    return took


def report(took: dict[tuple[str, str], list[Took]]) -> None:
    title = f"964 paragraphs, {ROUNDS} rounds in turn, load average {os.getloadavg()[0]:.1f}"
    shown = Table("seconds", "", "least", "median", "of a core", "texts", title=title, title_justify="left")
    for work in WORKS:
        for who in (PRODUCT, LANGCHAIN, LLAMAINDEX):
            each = took[who, work]
            clock, core = [one.clock for one in each], median(one.core for one in each)
            texts = ", ".join(str(one) for one in sorted({one.texts for one in each}))
            shown.add_row(work, who, f"{min(clock):.3f}", f"{median(clock):.3f}", f"{core:.3f}", texts)
    Console(width=110).print(shown)


def test_ingest() -> None:
    """Exactly what changed is embedded, sooner than by LangChain."""
    with postgres() as dsn, TemporaryDirectory() as folder:
        os.sched_setaffinity(0, CORES)
        took = asyncio.run(measure(dsn, Path(folder)))
    report(took)
    assert {one.texts for one in took[PRODUCT, WORKS[1]]} == {0}
    assert {one.texts for one in took[PRODUCT, WORKS[2]]} == {CHANGED}
    for work in WORKS[1:]:
        ours, theirs = ([one.clock for one in took[who, work]] for who in (PRODUCT, LANGCHAIN))
        assert median(ours) < median(theirs)
