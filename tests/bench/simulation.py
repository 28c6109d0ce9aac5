"""Collections with known answers, and users who thumb what hybrid search shows them.

How a question is asked again, with nothing known of chunks or scores:

- *reworded*: a quarter of its words (one at least) left out, the others in random order;
- *hard*: half of its words left out, the others in random order, and in every second of those one
  character after the first is missing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.embedder.fusion import CANDIDATES, fuse
from services.embedder.learning.credit import Vote, normal
from services.embedder.learning.library import Learned, Library
from services.embedder.lexical import LexicalIndex
from shared.embedding.use_model import UseEmbedder
from shared.embedding.vectors import Vectors

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 60
SHOWN = 5
NOISE = 0.1
USERS = 200
CACHE = Path(tempfile.gettempdir()) / "feedback-loop-bench"


@dataclass(frozen=True, eq=False)
class Collection:
    """Chunks, questions, and which chunks are right for each question.

    Attributes:
        documents: of each chunk, the document it is from.
        right: of each question, places of its right chunks.
    """

    name: str
    chunks: list[str]
    documents: list[str]
    questions: list[str]
    right: list[list[int]]


def korquad(folder: Path) -> Collection:
    """Paragraphs are chunks, articles are documents."""
    articles = json.loads((folder / "korquad" / "KorQuAD_v1.0_dev.json").read_text())["data"]
    paragraphs = [(article["title"], each) for article in articles for each in article["paragraphs"]]
    asked = [(each["question"], place) for place, (_, p) in enumerate(paragraphs) for each in p["qas"]]
    return Collection(
        "KorQuAD dev",
        [paragraph["context"] for _, paragraph in paragraphs],
        [title for title, _ in paragraphs],
        [question for question, _ in asked],
        [[place] for _, place in asked],
    )


def cranfield(folder: Path) -> Collection:
    """Abstracts are chunks and documents; every judged degree of relevance above 0 is right."""
    folder = folder / "cranfield"
    docs = re.findall(r"<doc>(.*?)</doc>", (folder / "cran.all.1400.xml").read_text(), re.S)
    places = {int(_tag(doc, "docno")): place for place, doc in enumerate(docs)}
    questions = re.findall(r"<title>(.*?)</title>", (folder / "cran.qry.xml").read_text(), re.S)
    right: list[list[int]] = [[] for _ in questions]
    for line in (folder / "cranqrel.trec.txt").read_text().splitlines():
        fields = line.split()
        if len(fields) >= 4 and int(fields[3]) > 0:
            right[int(fields[0]) - 1].append(places[int(fields[2])])
    return Collection(
        "Cranfield",
        [" ".join(_tag(doc, "text").split()) or " " for doc in docs],
        [f"abstract {place}" for place in range(len(docs))],
        [" ".join(question.split()) for question in questions],
        right,
    )


def reworded(question: str, rng: random.Random) -> str:
    words = question.rstrip("?. ").split()
    return " ".join(rng.sample(words, max(min(2, len(words)), len(words) - max(1, len(words) // 4))))


def hard(question: str, rng: random.Random) -> str:
    words = question.rstrip("?. ").split()
    kept = rng.sample(words, max(min(2, len(words)), (len(words) + 1) // 2))
    return " ".join(_mistyped(word, rng) if len(word) > 2 and rng.random() < 0.5 else word for word in kept)


def embedded(texts: Sequence[str]) -> Vectors:
    """Vectors of `texts`, each list kept in a temporary folder."""
    CACHE.mkdir(exist_ok=True)
    path = CACHE / (hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24] + ".npy")
    if not path.exists():
        np.save(path, asyncio.run(UseEmbedder().embed(texts)))
    return np.asarray(np.load(path), np.float32)


class Engine:
    """Hybrid search over a collection as the embedder does it, for many questions at once."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.ids = [hashlib.sha256(text.encode()).hexdigest() for text in collection.chunks]
        self.vectors = embedded(collection.chunks)
        self.documents = dict(zip(self.ids, collection.documents, strict=True))
        self._index = LexicalIndex().renewed(self.ids, dict(zip(self.ids, collection.chunks, strict=True)))

    def library(self, questions: Sequence[str], *, whole: bool = False) -> Library:
        """Of distinct questions; `whole`: every chunk is a candidate, so that measures are exact."""
        asked = list({normal(question): question for question in questions}.values())
        vectors = embedded(asked)
        n = len(self.ids)
        width = n if whole else min(n, 2 * CANDIDATES)
        candidates = np.full((len(asked), width), -1, np.int64)
        lexical = np.zeros((len(asked), width), np.float32)
        for row, question in enumerate(asked):
            match, cosine = self._index.match(question), self.vectors @ vectors[row]
            bm25 = match.scores(self.ids)
            fused = fuse(cosine, bm25, best=match.best, bound=match.bound)
            few = np.arange(n) if whole else np.union1d(_best(cosine), _best(bm25))
            candidates[row, : len(few)] = few
            lexical[row, : len(few)] = fused.lexical[few]
        return Library(asked, vectors, self.ids, self.vectors, candidates, lexical, self.documents)

    def truth(self, questions: Sequence[int]) -> list[dict[str, float]]:
        """What is right for these questions of the collection: chunk → 1."""
        return [{self.ids[place]: 1.0 for place in self.collection.right[q]} for q in questions]


@dataclass(frozen=True, slots=True)
class Asked:
    """Someone asks: which question of the collection, in which words, when."""

    source: int
    text: str
    when: datetime
    user: str


def stream(collection: Collection, questions: Sequence[int], again: int, rng: random.Random) -> list[Asked]:
    """Each question once in its own words, in the first two thirds of the time, and `again` of them,
    drawn at random, in other words in the last: every second time the hard kind."""
    first = [(q, collection.questions[q], rng.uniform(0, DAYS * 2 / 3)) for q in questions]
    kinds = [reworded, hard]
    drawn = [rng.choice(list(questions)) for _ in range(again)]
    later = [
        (q, kinds[i % 2](collection.questions[q], rng), rng.uniform(DAYS * 2 / 3, DAYS))
        for i, q in enumerate(drawn)
    ]
    start = NOW - timedelta(days=DAYS)
    return [
        Asked(q, text, start + timedelta(days=day), f"user {rng.randrange(USERS)}")
        for q, text, day in first + later
    ]


def shown(library: Library, asked: Sequence[Asked]) -> list[list[str]]:
    """The first `SHOWN` chunks that search shows for each."""
    rows = library.at([each.text for each in asked])
    scores = library.scores(rows, Learned())
    tops = np.argsort(-scores, axis=1, kind="stable")[:, :SHOWN]
    return [
        [library.chunks[place] for place in library.candidates[rows[i]][tops[i]]] for i in range(len(rows))
    ]


def votes(
    asked: Sequence[Asked],
    seen: Sequence[Sequence[str]],
    truth: Mapping[int, Mapping[str, float]],
    rng: random.Random,
    *,
    on_chunks: bool,
) -> list[Vote]:
    """Each user thumbs what was shown, and errs one time in ten: every chunk, whether it is right; or
    the answer, whether a right chunk was shown. Every second 👎 on an answer says *irrelevant*, the
    others nothing."""

    def thumb(right: bool) -> int:
        return int(right != (rng.random() < NOISE))

    cast = []
    for each, chunks in zip(asked, seen, strict=True):
        right = truth[each.source]
        if on_chunks:
            thumbs = {chunk: thumb(chunk in right) for chunk in chunks}
            vote = Vote(each.text, each.user, None, each.when, chunks, citations=thumbs)
        else:
            value = thumb(any(chunk in right for chunk in chunks))
            reason = "irrelevant" if not value and rng.random() < 0.5 else None
            vote = Vote(each.text, each.user, value, each.when, chunks, reason=reason)
        cast.append(vote)
    return cast


def _best(scores: NDArray[np.floating]) -> NDArray[np.intp]:
    return np.argsort(-scores, kind="stable")[:CANDIDATES]


def _mistyped(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word))
    return word[:at] + word[at + 1 :]


def _tag(text: str, name: str) -> str:
    found = re.search(rf"<{name}>(.*?)</{name}>", text, re.S)
    return found[1] if found else ""
