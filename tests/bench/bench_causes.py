"""How well "nothing is near" tells coverage gaps: `scripts/bench causes`.

The knowledge base holds the articles of KorQuAD whose title has an odd hash, about half; questions on
the others, Chatbot_data's small talk, and Cranfield's questions are gaps in it. Cranfield's questions
are covered by Cranfield. Covered questions are asked as they are, and worse: in Korean with every
second word made gibberish, in English with every second word left out. `FAR` was chosen on development
questions; the figures to quote are those of the test questions. Collections are found as in
`bench_retrieval`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from services.analyzer.causes import FAR
from services.embedder.fusion import fuse
from tests.bench.bench_retrieval import (
    by_both,
    cranfield,
    index,
    is_development,
    korquad,
    name,
    read,
    stored_vectors,
)

SMALL_TALK = 1_000
SYLLABLES = "가나다라마바사아자차카타파하거너더러머버"
GRID = [
    (dense, lexical) for dense in (0.2, 0.25, 0.3, 0.35, 0.4, 0.45) for lexical in (0.4, 0.5, 0.6, 0.7, 0.8)
]


def best_parts(texts: Sequence[str], questions: Sequence[str]) -> NDArray[np.float64]:
    """The best dense and the best lexical of the ten shown, shape (questions, 2)."""
    lexical = index(texts)
    best = []
    for question, row in zip(questions, stored_vectors(questions) @ stored_vectors(texts).T, strict=True):
        match = lexical.match(question)
        shown = by_both(row, match)[:10]
        bm25 = match.scores([name(place) for place in shown])
        parts = fuse(row[shown], bm25, best=match.best, bound=match.bound)
        best.append((parts.dense.max(), parts.lexical.max()))
    return np.array(best, np.float64)


def gibberish(question: str, chance: random.Random) -> str:
    words = question.split()
    spoilt = set(chance.sample(range(len(words)), len(words) // 2))
    return " ".join(
        "".join(chance.choice(SYLLABLES) for _ in word) if place in spoilt else word
        for place, word in enumerate(words)
    )


def test_coverage_gaps() -> None:
    chance = random.Random(0)
    korean, english = korquad(), cranfield()
    articles = json.loads(read("korquad", "KorQuAD_v1.0_dev.json"))["data"]
    kept = [
        hashlib.sha256(article["title"].encode()).digest()[0] % 2 == 1
        for article in articles
        for _ in article["paragraphs"]
    ]
    base = [text for text, here in zip(korean.texts, kept, strict=True) if here]
    asked = list(zip(korean.questions, korean.relevant, strict=True))[::2]
    covered = [question for question, relevant in asked if kept[next(iter(relevant))]]
    others = [question for question, relevant in asked if not kept[next(iter(relevant))]]
    talk = [row["Q"] for row in csv.DictReader(io.StringIO(read("korean-chat", "ChatbotData.csv")))]
    talk = chance.sample(talk, SMALL_TALK)
    # What is asked, what it was before it was spoilt (which decides its part), and of what.
    kinds = {
        "covered, KorQuAD": (covered, covered, base),
        "covered, Cranfield": (english.questions, english.questions, english.texts),
        "covered, half gibberish": ([gibberish(text, chance) for text in covered], covered, base),
        "covered, half left out": (
            [" ".join(text.split()[::2]) for text in english.questions],
            english.questions,
            english.texts,
        ),
        "gap, other articles": (others, others, base),
        "gap, small talk": (talk, talk, base),
        "gap, Cranfield's": (english.questions, english.questions, base),
    }
    parts = {kind: best_parts(texts, questions) for kind, (questions, _, texts) in kinds.items()}
    for part, wanted in (("development", True), ("test", False)):
        table = Table("dense <", "lexical <", *kinds, title=f"called a gap, {part}", title_justify="left")
        chosen = {
            kind: np.array([is_development(text) is wanted for text in originals])
            for kind, (_, originals, _) in kinds.items()
        }
        table.add_row("n", "", *(f"{chosen[kind].sum():,}" for kind in kinds))
        for far in GRID if wanted else [FAR]:
            rates = [(parts[kind][chosen[kind]] < far).all(axis=1).mean() for kind in kinds]
            table.add_row(*map(str, far), *(f"{rate:.1%}" for rate in rates))
        Console(width=150).print(table)
