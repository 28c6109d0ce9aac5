"""Re-embedding KorQuAD's 964 paragraphs through the services, beside the embedder alone on the same texts;
again with nothing changed, and with ten paragraphs changed; and what a faster forward pass is worth.

`scripts/bench embed` (`BENCH_DATA`). The service `embedder` runs in this process, over the bus within one
process, on the embedded PostgreSQL: one worker. It counts from the request to `retrain.completed`: reading
the folder, cutting, planning, embedding, storing with the HNSW index, judging, promoting. The embedder alone
gets the chunks' texts in the product's batches and order, and the vectors are thrown away.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.table import Table

from services.embedder.build import build
from shared.bus.envelope import Envelope
from shared.embedding.use_model import UseEmbedder
from shared.embedding.vectors import Vectors
from shared.events import GenerationRequested
from shared.runtime import Runtime, running
from shared.settings import Settings
from tests.bench.bench_retrieval import korquad
from tests.bench.flame import flame
from tests.bench.served import CORES, postgres

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
CHANGED = 10
SLOW, QUICK, PRODUCT = "the library's own forward pass", "the embedder alone", "product"


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds by the clock and of a core, and how many texts were embedded."""

    clock: float
    core: float
    texts: int


class Counting(UseEmbedder):
    """The product's embedder; counts what it is given."""

    texts = 0

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        self.texts += len(texts)
        return await super().embed(texts, urgent=urgent)


async def timed(embedder: Counting, work: Coroutine[object, object, object]) -> Took:
    before, clock, core = embedder.texts, time.perf_counter(), time.process_time()
    await work
    return Took(time.perf_counter() - clock, time.process_time() - core, embedder.texts - before)


async def alone(embedder: Counting, texts: list[str], batch: int) -> Vectors:
    parts = [await embedder.embed(texts[start : start + batch]) for start in range(0, len(texts), batch)]
    return np.concatenate(parts)


async def generation(runtime: Runtime) -> None:
    """Ask for a generation of today's documents, and wait for its end."""
    kernel = runtime.kernel

    async def ended() -> int:
        async with kernel.database.connection() as connection:
            count: int = await connection.fetchval(
                "select count(*) from feedback_loop.outbox where type = 'retrain.completed'"
            )
        return count

    before = await ended()
    asked = Envelope.root(GenerationRequested(reason="documents", requested_by="bench"), "/bench")
    async with kernel.database.transaction() as connection:
        await kernel.outbox.add(connection, [asked])
    await kernel.outbox.publish_soon([asked])
    async with asyncio.timeout(900):
        while await ended() == before:
            await asyncio.sleep(0.05)


async def measure(dsn: str, folder: Path) -> dict[str, list[Took]]:
    texts = korquad().texts
    for place, text in enumerate(texts):
        (folder / f"{place:04}.txt").write_text(text, encoding="utf-8")
    embedder = Counting()
    await embedder.check()
    settings = Settings(_env_file=None, database_url=dsn, knowledge_dir=folder, port=0, host="127.0.0.1")
    took: dict[str, list[Took]] = {SLOW: [], QUICK: [], PRODUCT: [], "nothing changed": [], "ten changed": []}
    async with running(Runtime(settings, [partial(build, embedder=embedder)])) as runtime:
        for turn in range(ROUNDS):
            await forget(runtime)
            with flame("embed"):
                took[PRODUCT].append(await timed(embedder, generation(runtime)))
            chunks = await stored(runtime)
            took[QUICK].append(await timed(embedder, alone(embedder, chunks, settings.embedding_batch)))
            quick, embedder._forward = embedder._forward, None
            took[SLOW].append(await timed(embedder, alone(embedder, chunks, settings.embedding_batch)))
            embedder._forward = quick
            took["nothing changed"].append(await timed(embedder, generation(runtime)))
            for place in range(CHANGED):
                text = f"{texts[place]} {turn}"
                (folder / f"{place:04}.txt").write_text(text, encoding="utf-8")
            took["ten changed"].append(await timed(embedder, generation(runtime)))
    return took


async def stored(runtime: Runtime) -> list[str]:
    """The texts of all chunks, as they are embedded and in the order of a plan."""
    async with runtime.kernel.database.connection() as connection:
        rows = await connection.fetch(
            "select heading || E'\\n' || text as text from feedback_loop.chunk order by length(text), hash"
        )
    return [row["text"] for row in rows]


async def forget(runtime: Runtime) -> None:
    """Begin anew: no document, no generation, no vector, and no model."""
    async with runtime.kernel.database.connection() as connection:
        for row in await connection.fetch("select table_name from feedback_loop.model"):
            await connection.execute(f"drop table feedback_loop.{row['table_name']} cascade")
        await connection.execute(
            "truncate feedback_loop.model, feedback_loop.generation, feedback_loop.document,"
            " feedback_loop.chunk, feedback_loop.folder_file cascade"
        )


def report(took: dict[str, list[Took]]) -> None:
    title = f"964 paragraphs, {ROUNDS} rounds in turn, load average {os.getloadavg()[0]:.1f}"
    shown = Table("seconds", "least", "median", "of a core", "texts", title=title, title_justify="left")
    for name, each in took.items():
        clock, core = [one.clock for one in each], median(one.core for one in each)
        texts = ", ".join(str(one) for one in sorted({one.texts for one in each}))
        shown.add_row(name, f"{min(clock):.2f}", f"{median(clock):.2f}", f"{core:.2f}", texts)
    Console(width=110).print(shown)


def ratio(ours: list[Took], theirs: list[Took]) -> float:
    """Of processor time, median of the rounds: neighbours change it less than the clock."""
    return median(a.core / b.core for a, b in zip(ours, theirs, strict=True))


def test_embed() -> None:
    """≤ 1.10 × the embedder alone; exactly what changed is embedded."""
    with postgres() as dsn, TemporaryDirectory() as folder:
        os.sched_setaffinity(0, CORES)
        took = asyncio.run(measure(dsn, Path(folder)))
    report(took)
    print(f"product ÷ embedder alone: {ratio(took[PRODUCT], took[QUICK]):.2f} of a core;", end=" ")
    print(f"the library's own ÷ the embedder: {ratio(took[SLOW], took[QUICK]):.2f}")
    assert {each.texts for each in took["nothing changed"]} == {0}
    assert {each.texts for each in took["ten changed"]} == {CHANGED}
    assert ratio(took[PRODUCT], took[QUICK]) <= 1.10
