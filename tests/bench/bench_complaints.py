"""How well complaints are grouped by what they say: `scripts/bench complaints`.

The comments were written for this (`tests/unit/analyzer/complaints.tsv`), half Korean, half English, so
no chatbot's users speak here. `CUT`, `LETTERS` and `COMMON` were chosen on the part `dev`; the figures to
quote are those of `test`. Pairs: of those within one group, how many are of one topic (precision); of those
of one topic, how many are within one group (recall). All at once, and in four parts in any order, as
days would bring them (the mean of five).
"""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table

from services.analyzer.grouping import ANCHORS, Matrix, Said, features, group
from shared.embedding.use_model import UseEmbedder
from tests.unit.analyzer.test_grouping import quality, read


def in_parts(texts: list[str], matrix: Matrix, order: list[int], parts: int) -> list[str | int | None]:
    """The group of each comment, where they come one part after another."""
    groups: dict[int, str] = {}
    for part in range(1, parts + 1):
        here = order[: round(len(order) * part / parts)]
        said = [Said(vote, f"u{vote}", texts[vote], groups.get(vote)) for vote in here]
        for name, ones in group(said, matrix[here]).items():
            groups |= {one.vote: name if isinstance(name, str) else f"{part}/{name}" for one in ones}
    return [groups.get(vote) for vote in range(len(texts))]


async def test_complaints() -> None:
    embedder = UseEmbedder()
    anchors = await embedder.embed(ANCHORS)
    table = Table("comments", "parts", "precision", "recall", "grouped")
    for name in ("dev", "test"):
        topics, texts = read(name)
        matrix = features(texts, await embedder.embed(texts), anchors)
        for parts, tries in ((1, 1), (4, 5)):
            random = np.random.default_rng(1)
            figures = []
            for _ in range(tries):
                order = [int(vote) for vote in random.permutation(len(texts))]
                groups = in_parts(texts, matrix, order, parts)
                figures.append(
                    (*quality(topics, groups), sum(one is not None for one in groups) / len(texts))
                )
            means = np.mean(figures, axis=0)
            table.add_row(f"{name} ({len(texts)})", str(parts), *(f"{mean:.2f}" for mean in means))
    await embedder.close()
    Console().print(table)
