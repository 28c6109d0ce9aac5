"""How long a search takes in 100,000 chunks, end to end: `scripts/bench search`.

`BENCH_CHUNKS` takes another number, `BENCH_SEARCHES` (500) another number of questions. Texts and
questions are KorQuAD's (dev; see `bench_retrieval` for `BENCH_DATA`). A chunk is a piece of one paragraph
and a piece of another one near to it; its vector is the same mixture of their vectors, by the model
`use`, with noise of length ¼ (cosine to the mixture: about .97). To embed a hundred thousand texts would
take an hour; to draw vectors at random would give HNSW a problem that no model poses. The rows are
written with COPY into the product's own tables, the HNSW index is built afterwards with its defaults.

The services run in processes of their own: two, of which one promotes. Questions are embedded
beforehand, for the time of a search is meant beside that of the model. The service is asked over HTTP,
and in turn with it pgvector alone (its own query by index on the same table, as many candidates as the
service takes, and once its ten nearest with its defaults) and `bm25s` alone (`pip install bm25s`;
without it, our own lexical index stands in): what else the machine does strikes all of them.
PostgreSQL is the embedded one as it comes: 128 MB of shared buffers.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import numpy as np
from rich.console import Console
from rich.table import Table

from services.embedder import tables
from services.embedder.build import build
from services.embedder.chunking import CHUNKER
from services.embedder.lexical import LexicalIndex
from shared.embedding.vectors import Vectors, unit
from shared.postgres.database import Connection, Database
from shared.postgres.embedded import start_postgres, stop_postgres
from shared.runtime import Runtime, running
from shared.settings import Settings
from tests.bench.bench_retrieval import korquad, stored_vectors
from tests.bench.flame import flame
from tests.support.events import wait_until
from tests.support.processes import free_port

CHUNKS = int(os.environ.get("BENCH_CHUNKS", "100000"))
SEARCHES = int(os.environ.get("BENCH_SEARCHES", "500"))
LENGTH = 500
PER_DOCUMENT = 10
CHANGED = 100
"""Documents that a promotion changes: one per cent of 100,000 chunks."""

Ask = Callable[[str], Awaitable[object]]


# --- the collection ---------------------------------------------------------------------------


def chunks() -> tuple[list[str], Vectors]:
    """Texts, all different, and their vectors."""
    collection = korquad()
    vectors = stored_vectors(collection.texts)
    near = np.argsort(-(vectors @ vectors.T), axis=1)[:, 1:16]
    rng = np.random.default_rng(0)
    texts: dict[str, np.ndarray[Any, Any]] = dict(zip(collection.texts, vectors, strict=True))
    while len(texts) < CHUNKS:
        first = int(rng.integers(len(vectors)))
        second = int(near[first, rng.integers(near.shape[1])])
        share = rng.uniform(0, 0.5)
        parts = [(first, 1 - share), (second, share)]
        text = " ".join(_piece(collection.texts[place], int(LENGTH * part), rng) for place, part in parts)
        noise = rng.standard_normal(vectors.shape[1]) * 0.25 / vectors.shape[1] ** 0.5
        texts[text] = sum(part * vectors[place] for place, part in parts) + noise
    return list(texts)[:CHUNKS], unit(np.array(list(texts.values())[:CHUNKS]))


def _piece(text: str, length: int, rng: np.random.Generator) -> str:
    start = int(rng.integers(max(1, len(text) - length + 1)))
    return text[start : start + length]


async def load(database: Database, texts: Sequence[str], vectors: Vectors) -> None:
    """One active generation of these chunks, as the product would have written it."""
    hashes = [hashlib.sha256(f"\n{text}".encode()).hexdigest() for text in texts]
    async with database.transaction() as connection:
        model = await tables.register_model(connection, Known.model, vectors.shape[1])
        generation = await connection.fetchval(
            "insert into feedback_loop.generation (app, model, chunker, reason, state, chunks, batches,"
            " remaining, counts, starts_anew)"
            " values ('default', $1, $2, 'manual', 'promoted', $3, 0, 0, '{}', false) returning id",
            model.id,
            CHUNKER,
            len(texts),
        )
        await connection.execute(
            "insert into feedback_loop.document (app, source, title, media_type, data_hash, chunker, origin)"
            " select 'default', n || '.md', '', '', '', $2, 'api' from generate_series(0, ($1 - 1) / $3) n",
            len(texts),
            CHUNKER,
            PER_DOCUMENT,
        )
        await _copy(connection, "chunk", [(hash, "", text) for hash, text in zip(hashes, texts, strict=True)])
        await _copy(
            connection,
            "document_chunk",
            [
                ("default", f"{place // PER_DOCUMENT}.md", place % PER_DOCUMENT, hash)
                for place, hash in enumerate(hashes)
            ],
        )
        await connection.execute(
            "insert into feedback_loop.generation_chunk (generation, chunk_hash, document, source, ordinal)"
            " select $1, c.chunk_hash, d.id, d.source, c.ordinal from feedback_loop.document d"
            " join feedback_loop.document_chunk c using (app, source)",
            generation,
        )
        await _store(connection, model, hashes, vectors)
        await connection.execute(
            "insert into feedback_loop.active_generation values ('default', $1)", generation
        )
        await connection.execute(
            "insert into feedback_loop.promotion (app, generation, kind) values ('default', $1, 'promotion')",
            generation,
        )
    async with database.connection() as connection:
        await connection.execute("vacuum analyze", timeout=600)


async def _copy(connection: Connection, table: str, rows: Sequence[tuple[object, ...]]) -> None:
    await connection.copy_records_to_table(table, schema_name="feedback_loop", records=rows)


async def _store(connection: Connection, model: tables.Model, hashes: list[str], vectors: Vectors) -> None:
    for start in range(0, len(hashes), 1000):
        await tables.store_vectors(
            connection, model, hashes[start : start + 1000], vectors[start : start + 1000]
        )
    await connection.execute("set local maintenance_work_mem = '1GB'")
    await tables.index_vectors(connection, model.id)


# --- the services -----------------------------------------------------------------------------


class Known:
    """An embedder that looks vectors up; those of unknown texts are drawn by their hash."""

    name = model = "known"

    def __init__(self) -> None:
        questions = korquad().questions
        self._vectors = dict(zip(questions, stored_vectors(questions), strict=True))

    async def dimensions(self) -> int:
        return 512

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        return np.array([self._vector(text) for text in texts])

    async def check(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def _vector(self, text: str) -> Any:
        if text in self._vectors:
            return self._vectors[text]
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        return unit(np.random.default_rng(seed).standard_normal((1, 512)))[0]


@cache
def _known() -> Known:
    return Known()


def serve(dsn: str, port: int) -> None:
    """An embedder service in this process, until it is ended."""

    async def forever() -> None:
        settings = Settings(_env_file=None, database_url=dsn, port=port, host="127.0.0.1")
        async with running(Runtime(settings, [partial(build, embedder=Known())])):
            await asyncio.Event().wait()

    asyncio.run(forever())


@dataclass(frozen=True, slots=True)
class Served:
    process: BaseProcess
    url: str


@contextmanager
def serving(dsn: str) -> Iterator[Served]:
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(dsn, port), daemon=True)
    process.start()
    try:
        yield Served(process, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.join(30)


def resident(process: BaseProcess, what: str = "VmRSS") -> float:
    """MB."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


class Client:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def search(self, question: str, **more: str) -> dict[str, Any]:
        async with self.session.get(f"{self.url}/search", params={"q": question, **more}) as response:
            assert response.status == 200, await response.text()
            found: dict[str, Any] = await response.json()
            return found

    async def remembered(self, question: str) -> object:
        return await self.search(question, conversation_id="c")

    async def ready(self) -> bool:
        try:
            async with self.session.get(f"{self.url}/readyz") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


# --- the peers --------------------------------------------------------------------------------


def pgvector(pool: asyncpg.Pool[Any], nearest: int, explored: int) -> Ask:
    """pgvector's own query: the `nearest` chunks by index, no generation, no texts."""
    known = _known()

    async def ask(question: str) -> object:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(f"set local hnsw.ef_search = {explored}")
            return await connection.fetch(
                "select chunk_hash, embedding <=> $1::real[]::vector as distance from feedback_loop.vector_1"
                f" order by distance limit {nearest}",
                known._vector(question).tolist(),
            )

    return ask


def words_alone(texts: list[str]) -> tuple[str, Ask]:
    """bm25s over the words between spaces, its ten best; else our own index."""
    try:
        import bm25s  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        index = LexicalIndex().extended({f"{place:06}": text for place, text in enumerate(texts)})
        return "our lexical index alone (bm25s is not installed)", _threaded(
            lambda question: index.match(question).top(10)
        )
    retriever = bm25s.BM25()
    retriever.index(bm25s.tokenize(texts, stopwords=None, show_progress=False), show_progress=False)

    def best(question: str) -> object:
        tokens = bm25s.tokenize(question, stopwords=None, show_progress=False)
        return retriever.retrieve(tokens, k=10, show_progress=False)

    return "bm25s alone, 10 best", _threaded(best)


def _threaded(search: Callable[[str], object]) -> Ask:
    return lambda question: asyncio.to_thread(search, question)


async def recall(pool: asyncpg.Pool[Any], questions: Sequence[str], most: int = 50) -> float:
    """The share of the ten nearest that the index finds as the service asks it."""
    by_index, found = pgvector(pool, 100, 200), []
    for question in questions[:most]:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("set local enable_indexscan = off")
            nearest = await connection.fetch(
                "select chunk_hash from feedback_loop.vector_1"
                " order by embedding <=> $1::real[]::vector limit 10",
                _known()._vector(question).tolist(),
            )
        rows: Any = await by_index(question)
        found.append(len({row[0] for row in nearest} & {row[0] for row in rows}) / 10)
    return float(np.mean(found))


# --- the figures ------------------------------------------------------------------------------


def quantiles(times: Sequence[float]) -> list[float]:
    return [1000 * float(q) for q in np.quantile(times, [0.5, 0.95, 0.99])]


def cells(times: Sequence[float]) -> list[str]:
    return [f"{ms:.1f}" for ms in quantiles(times)]


async def timed(ask: Ask, question: str) -> float:
    began = time.perf_counter()
    await ask(question)
    return time.perf_counter() - began


async def in_turn(asks: dict[str, Ask], questions: Sequence[str]) -> dict[str, list[float]]:
    """Every question to each, but one after the other, and never two the same question in a row, whose
    pages the first would have brought into memory. The first tenth only warms up."""
    times: dict[str, list[float]] = {name: [] for name in asks}
    for at in range(len(questions)):
        for shift, (name, ask) in enumerate(asks.items()):
            question = questions[(at + shift * len(questions) // len(asks)) % len(questions)]
            times[name].append(await timed(ask, question))
    return {name: every[len(every) // 10 :] for name, every in times.items()}


async def four_at_once(asks: dict[str, Ask], questions: Sequence[str]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {}
    for name, ask in asks.items():
        waiting = iter(questions)

        async def worker(ask: Ask = ask, waiting: Iterator[str] = waiting) -> list[float]:
            return [await timed(ask, question) for question in waiting]

        shares = await asyncio.gather(*(worker() for _ in range(4)))
        times[name] = [each for share in shares for each in share]
    return times


def report(title: str, times: dict[str, list[float]], product: str, peers: tuple[str, str]) -> float:
    """Print a table. Returns the product's p95 over the sum of the two peers'."""
    table = Table("ms", "p50", "p95", "p99", title=title, title_justify="left")
    for name, each in times.items():
        table.add_row(name, *cells(each))
    ours, *theirs = (quantiles(times[name]) for name in (product, *peers))
    ratios = [mine / sum(pair) for mine, pair in zip(ours, zip(*theirs, strict=True), strict=True)]
    table.add_row(f"{product} / ({' + '.join(peers)})", *(f"{ratio:.2f} ×" for ratio in ratios))
    Console(width=150).print(table)
    return float(ratios[1])


# --- a promotion ------------------------------------------------------------------------------


async def searching(
    client: Client, questions: Sequence[str], ended: asyncio.Event
) -> list[tuple[float, float, int]]:
    """Search until `ended`: when each search began, how long it took, and the generation it named."""
    seen: list[tuple[float, float, int]] = []
    while not ended.is_set():
        began = time.time()
        found = await client.search(questions[len(seen) % len(questions)])
        seen.append((began, time.time() - began, found["generation"]))
    return seen


async def promotion(database: Database, clients: dict[str, Client], questions: Sequence[str]) -> None:
    """Change a hundred documents over HTTP while both services are searched."""
    ended = asyncio.Event()
    loops = [asyncio.create_task(searching(client, questions, ended)) for client in clients.values()]
    changed = [
        {"source": f"{n}.md", "content": "\n\n".join(f"## {part}\n\n새 글 {n} {part}" for part in range(10))}
        for n in range(CHANGED)
    ]
    first = next(iter(clients.values()))
    async with first.session.post(f"{first.url}/documents", json=changed) as response:
        assert response.status == 202, await response.text()

    async def promoted() -> Any:
        async with database.connection() as connection:
            return await connection.fetchval(
                "select extract(epoch from promoted_at)::float8 from feedback_loop.active_generation"
                " where generation > 1"
            )

    at = await wait_until(promoted, 300)
    await asyncio.sleep(5)
    ended.set()
    table = Table(
        f"{CHANGED} documents changed", "p50", "p95", "p99", "longest", "new generation first shown after",
        title="Searches from the request to five seconds after the promotion, ms", title_justify="left",
    )  # fmt: skip
    for name, seen in zip(clients, await asyncio.gather(*loops), strict=True):
        fresh = min(began + took for began, took, generation in seen if generation > 1)
        times = [took for _, took, _ in seen]
        table.add_row(name, *cells(times), f"{1000 * max(times):.0f}", f"{1000 * (fresh - at):.0f}")
    Console(width=150).print(table)


# --- the benchmark ----------------------------------------------------------------------------


@contextmanager
def postgres() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="fl-bench-"))
    try:
        yield asyncio.run(start_postgres(folder))
    finally:
        asyncio.run(stop_postgres(folder))
        shutil.rmtree(folder, ignore_errors=True)


async def measure(dsn: str, promoting: Served, other: Served) -> tuple[float, float]:
    """Returns p95 in ms, one at a time, and its ratio to the sum of the peers'."""
    texts, vectors = chunks()
    database = Database(dsn)
    await database.connect()
    await database.migrate()
    began = time.perf_counter()
    await load(database, texts, vectors)
    print(f"\n{len(texts):,} chunks loaded in {time.perf_counter() - began:.0f} s, index included")
    async with aiohttp.ClientSession() as session, asyncpg.create_pool(dsn, min_size=4, max_size=4) as pool:
        clients = {
            "the process that promotes": Client(session, promoting.url),
            "another process": Client(session, other.url),
        }
        client = clients["the process that promotes"]
        for each in clients.values():
            await wait_until(each.ready, 60)
        questions = korquad().questions
        await cold(promoting, client, questions[0])
        await clients["another process"].search(questions[0])
        chosen = list(np.random.default_rng(0).choice(questions, SEARCHES))
        ours, vectors_alone, (words, by_words) = "GET /search", "pgvector alone", words_alone(texts)
        asks: dict[str, Ask] = {
            ours: client.search,
            "GET /search, with a conversation": client.remembered,
            vectors_alone: pgvector(pool, 100, 200),
            "pgvector alone, 10 nearest, ef_search 40": pgvector(pool, 10, 40),
            words: by_words,
        }
        with flame("search", promoting.process.pid):
            single = await in_turn(asks, chosen)
        ratio = report(f"{len(texts):,} chunks, one at a time", single, ours, (vectors_alone, words))
        print(f"The vectors' ten nearest, of which the index finds: {await recall(pool, chosen):.2f}")
        report("Four at once", await four_at_once(asks, chosen), ours, (vectors_alone, words))
        print(f"The service takes {resident(promoting.process):.0f} MB now")
        await promotion(database, clients, chosen)
        print(f"The service takes {resident(promoting.process):.0f} MB after the promotion")
    await database.close()
    return quantiles(single[ours])[1], ratio


async def cold(served: Served, client: Client, question: str) -> None:
    """The first search, which loads the lexical index, and what that takes."""
    before = resident(served.process)
    took = await timed(client.search, question)
    print(
        f"The first search of a process takes {took:.1f} s: it loads the lexical index;"
        f" {before:.0f} MB before, {resident(served.process):.0f} after,"
        f" {resident(served.process, 'VmHWM'):.0f} at most"
    )


def test_search() -> None:
    """p95 ≤ 50 ms, and ≤ 2 × the sum of pgvector's and bm25s' own."""
    with postgres() as dsn, serving(dsn) as promoting, serving(dsn) as other:
        p95, ratio = asyncio.run(measure(dsn, promoting, other))
    assert p95 <= 50
    assert ratio <= 2
