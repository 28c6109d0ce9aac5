"""How well search finds, on two collections that others made, and how fast: `scripts/bench -k retrieval`.

The collections, KorQuAD 1.0 (dev) and Cranfield, are read from the folder `BENCH_DATA`, by default
`../shared/data` beside the checkout. A question belongs to *development* or to *test* by its hash, one
to two: what `terms`, `lexical` and `fusion` have for constants was chosen on development questions
(and, for English words, on Cranfield's titles as questions for their abstracts), and nothing else. The
figures to quote are those of the test questions.

Dense search is exact here; where the service has an approximate index it may find a little less.
Vectors are kept in the folder for temporary files, by the hash of what they are made of.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from services.embedder.fusion import CANDIDATES, fuse
from services.embedder.lexical import LexicalIndex, Match
from shared.embedding.use_model import UseEmbedder
from shared.embedding.vectors import Vectors

DATA = Path(os.environ.get("BENCH_DATA") or Path(__file__).parents[3] / "shared" / "data")
DEPTH = 10
RESAMPLES = 5000
CHUNKS, LENGTH = 100_000, 500

Floats = NDArray[np.float64]


# --- the collections --------------------------------------------------------------------------


@dataclass(frozen=True)
class Collection:
    """Texts, questions, and for each question the grades of what is relevant, by the text's place."""

    name: str
    texts: list[str]
    questions: list[str]
    relevant: list[dict[int, int]]


def read(*path: str) -> str:
    file = DATA.joinpath(*path)
    if not file.exists():
        missing = f"{file} is not there: set BENCH_DATA to the folder that holds korquad/ and cranfield/"
        print(f"\n{missing}")
        pytest.skip(missing)
    return file.read_text(encoding="utf-8")


def korquad() -> Collection:
    """A question's paragraph is what is relevant."""
    articles = json.loads(read("korquad", "KorQuAD_v1.0_dev.json"))["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    asked = [(qa["question"], {at: 1}) for at, paragraph in enumerate(paragraphs) for qa in paragraph["qas"]]
    return Collection(
        "KorQuAD",
        [paragraph["context"] for paragraph in paragraphs],
        [question for question, _ in asked],
        [relevant for _, relevant in asked],
    )


def cranfield() -> Collection:
    """Its files are no well-formed XML; its judgements count the questions in the order of their file."""
    documents = re.findall(
        r"<docno>\s*(\d+).*?<text>(.*?)</text>", read("cranfield", "cran.all.1400.xml"), re.DOTALL
    )
    questions = re.findall(r"<title>(.*?)</title>", read("cranfield", "cran.qry.xml"), re.DOTALL)
    places = {number: place for place, (number, _) in enumerate(documents)}
    relevant: list[dict[int, int]] = [{} for _ in questions]
    for line in read("cranfield", "cranqrel.trec.txt").splitlines():
        question, _, document, grade = line.split()
        relevant[int(question) - 1][places[document]] = int(grade)
    return Collection(
        "Cranfield",
        [" ".join(text.split()) for _, text in documents],
        [" ".join(question.split()) for question in questions],
        relevant,
    )


def is_development(question: str) -> bool:
    return hashlib.sha256(question.encode()).digest()[0] % 3 == 0


def stored_vectors(texts: Sequence[str]) -> Vectors:
    key = hashlib.sha256("\0".join([UseEmbedder.model, *texts]).encode()).hexdigest()
    file = Path(tempfile.gettempdir(), "ai-feedback-loop-bench", f"{key}.npy")
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        print(f"embedding {len(texts):,} texts …", flush=True)
        part = file.with_suffix(f".{os.getpid()}.npy")
        with ThreadPoolExecutor(1) as pool:  # callers may be in an event loop
            np.save(part, pool.submit(asyncio.run, embedded(texts)).result())
        part.replace(file)
    vectors: Vectors = np.load(file)
    return vectors


async def embedded(texts: Sequence[str]) -> Vectors:
    embedder = UseEmbedder()
    try:
        return await embedder.embed(texts)
    finally:
        await embedder.close()


# --- the engines ------------------------------------------------------------------------------


def name(place: int) -> str:
    return f"{place:06}"


def index(texts: Iterable[str]) -> LexicalIndex:
    named = {name(place): text for place, text in enumerate(texts)}
    return LexicalIndex().renewed(named, named)


def by_vectors(cosines: NDArray[np.float32]) -> list[int]:
    return [int(place) for place in np.argsort(-cosines, kind="stable")[:CANDIDATES]]


def by_terms(match: Match) -> list[int]:
    return [int(id) for id in match.top(CANDIDATES)]


def by_both(cosines: NDArray[np.float32], match: Match) -> list[int]:
    candidates = np.union1d(by_vectors(cosines), by_terms(match)).astype(np.intp)
    bm25 = match.scores([name(place) for place in candidates])
    score = fuse(cosines[candidates], bm25, best=match.best, bound=match.bound).score
    return [int(place) for place in candidates[np.argsort(-score, kind="stable")]]


# --- the figures ------------------------------------------------------------------------------


def gain(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades[:DEPTH], start=1))


def ndcg(found: list[int], relevant: dict[int, int]) -> float:
    return gain([relevant.get(place, 0) for place in found]) / gain(sorted(relevant.values(), reverse=True))


def recall(depth: int) -> Callable[[list[int], dict[int, int]], float]:
    def of(found: list[int], relevant: dict[int, int]) -> float:
        wanted = {place for place, grade in relevant.items() if grade > 0}
        return len(wanted.intersection(found[:depth])) / len(wanted)

    return of


def reciprocal_rank(found: list[int], relevant: dict[int, int]) -> float:
    ranks = (1 / rank for rank, place in enumerate(found, start=1) if relevant.get(place, 0) > 0)
    return next(ranks, 0.0)


FIGURES = {
    f"nDCG@{DEPTH}": ndcg,
    "recall@1": recall(1),
    "recall@5": recall(5),
    "recall@10": recall(10),
    "MRR": reciprocal_rank,
}


def interval(values: Floats) -> str:
    """The mean and its 95 % bootstrap interval over questions."""
    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)), dtype=np.int32)
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return f"{values.mean():.3f} {low:.3f}…{high:.3f}"


def report(collection: str, engines: dict[str, list[list[int]]], relevant: list[dict[int, int]]) -> None:
    table = Table("", *FIGURES, title=f"{collection}, n = {len(relevant):,}", title_justify="left")
    first: dict[str, Floats] = {}
    for engine, results in engines.items():
        scored = [
            np.array([figure(found, wanted) for found, wanted in zip(results, relevant, strict=True)])
            for figure in FIGURES.values()
        ]
        first[engine] = scored[0]
        table.add_row(engine, *map(interval, scored))
    better = max(["dense", "lexical"], key=lambda half: first[half].mean())
    table.add_row(f"hybrid − {better}", interval(first["hybrid"] - first[better]), *[""] * 4)
    Console(width=150).print(table)


@pytest.mark.parametrize("load", [korquad, cranfield])
def test_retrieval_quality(load: Callable[[], Collection]) -> None:
    collection = load()
    cosines = stored_vectors(collection.questions) @ stored_vectors(collection.texts).T
    lexical = index(collection.texts)
    matches = [lexical.match(question) for question in collection.questions]
    engines = {
        "dense": [by_vectors(row) for row in cosines],
        "lexical": [by_terms(match) for match in matches],
        "hybrid": [by_both(row, match) for row, match in zip(cosines, matches, strict=True)],
    }
    print()
    for part, wanted in (("development", True), ("test", False)):
        chosen = [at for at, text in enumerate(collection.questions) if is_development(text) is wanted]
        report(
            f"{collection.name}, {part}",
            {engine: [results[at] for at in chosen] for engine, results in engines.items()},
            [collection.relevant[at] for at in chosen],
        )


# --- time and memory --------------------------------------------------------------------------


def shuffled(collection: Collection, chunks: int) -> Iterable[str]:
    """Texts of `LENGTH` characters out of the collection's phrases of four words: its terms are as
    frequent as in the collection."""
    rng = random.Random(0)
    words = [word for text in collection.texts for word in text.split()]
    for _ in range(chunks):
        text = ""
        while len(text) < LENGTH:
            start = rng.randrange(len(words) - 4)
            text += " ".join(words[start : start + 4]) + " "
        yield text[:LENGTH]


@pytest.mark.parametrize("load", [korquad, cranfield])
def test_retrieval_speed(load: Callable[[], Collection]) -> None:
    """The lexical half and the fusion; beside them a search embeds the question and asks the database."""
    collection = load()
    texts = dict(zip(map(name, range(CHUNKS)), shuffled(collection, CHUNKS), strict=True))
    began = time.thread_time()
    lexical = LexicalIndex().renewed(texts, texts)
    building = time.thread_time() - began

    rng = random.Random(0)
    changed = {name(CHUNKS + number): texts[name(number)] for number in range(100)}
    began = time.thread_time()
    lexical.renewed([*list(texts)[100:], *changed], changed)
    renewing = time.thread_time() - began

    times = []
    for question in rng.choices(collection.questions, k=500):
        began = time.thread_time()
        match = lexical.match(question)
        top = match.top(2 * CANDIDATES)  # as many as two halves that share nothing
        fuse(match.scores(top), match.scores(top), best=match.best, bound=match.bound)
        times.append(1000 * (time.thread_time() - began))
    p50, p95, p99 = np.quantile(times, [0.5, 0.95, 0.99])
    print(
        f"\n{collection.name}, {CHUNKS:,} chunks of {LENGTH} characters, one core:"
        f" search p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f} ms;"
        f" built in {building:.1f} s, 100 of them changed in {renewing:.1f} s;"
        f" {lexical.nbytes / CHUNKS:,.0f} bytes a chunk"
    )
    assert p95 <= 50
