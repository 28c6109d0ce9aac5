"""Grouping by vectors: by hand-made ones, and by the model's on comments written for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.analyzer.grouping import ANCHORS, Matrix, Said, clusters, features, group
from shared.embedding.use_model import UseEmbedder

FILE = Path(__file__).with_name("complaints.tsv")


def rows(*topics: int, seed: int = 0) -> Matrix:
    """A row for each topic number, near the others of its topic and far from the rest."""
    noise = np.random.default_rng(seed).normal(size=(len(topics), 40)) * 0.02
    matrix = np.eye(40)[list(topics)] + noise
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True), np.float32)


def said(*groups: str | None, user: str = "u{}") -> list[Said]:
    return [Said(vote, user.format(vote), f"text {vote}", known) for vote, known in enumerate(groups, 1)]


def votes(found: dict[str | int, list[Said]]) -> dict[str | int, list[int]]:
    return {name: sorted(one.vote for one in ones) for name, ones in found.items()}


# --- clusters -------------------------------------------------------------------------------


def test_rows_of_a_topic_are_one_cluster() -> None:
    assert sorted(clusters(rows(0, 1, 0, 1, 0, 2), [1] * 6)) == [[0, 2, 4], [1, 3], [5]]


def test_equal_rows_end_in_one_cluster() -> None:
    assert clusters(np.tile(rows(3), (50, 1)), [1] * 50) == [list(range(50))]


def test_no_rows_are_no_cluster() -> None:
    assert clusters(np.empty((0, 40), np.float32), []) == []


@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_those_of_average_linkage(seed: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(30, 6)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    assert sorted(clusters(matrix, [1] * 30, 0.3)) == sorted(plainly(matrix, 0.3))


def plainly(matrix: Matrix, cut: float) -> list[list[int]]:
    """Average linkage as it is defined: join the nearest pair until none is near enough."""
    found = [[row] for row in range(len(matrix))]
    while len(found) > 1:
        near, one, other = max(
            (float((matrix[a] @ matrix[b].T).mean()), i, j)
            for i, a in enumerate(found)
            for j, b in enumerate(found[:i])
        )
        if near < cut:
            break
        found[other] = sorted(found[other] + found.pop(one))
    return found


# --- groups ---------------------------------------------------------------------------------


def test_three_alike_make_a_group_named_after_the_first_vote() -> None:
    assert votes(group(said(None, None, None, None), rows(0, 1, 1, 1))) == {2: [2, 3, 4]}


def test_two_alike_make_no_group() -> None:
    assert group(said(None, None, None), rows(0, 0, 1)) == {}


def test_one_user_makes_no_group() -> None:
    assert group(said(None, None, None, user="same"), rows(0, 0, 0)) == {}


def test_a_new_comment_joins_the_group_it_resembles() -> None:
    assert votes(group(said("g", "h", None), rows(0, 1, 1))) == {"g": [1], "h": [2, 3]}


def test_a_comment_that_resembles_no_group_joins_none() -> None:
    assert votes(group(said("g", "g", None), rows(0, 0, 1))) == {"g": [1, 2]}


def test_who_is_in_a_group_stays_there() -> None:
    assert votes(group(said("g", "g", "h"), rows(0, 1, 0))) == {"g": [1, 2], "h": [3]}


def test_the_order_of_comments_does_not_matter() -> None:
    ones, matrix = said(None, None, None, None, "g", None), rows(0, 1, 0, 0, 2, 2)
    backwards = group(ones[::-1], matrix[::-1])
    assert votes(group(ones, matrix)) == votes(backwards)


def test_the_most_central_member_comes_first() -> None:
    matrix = rows(0, 0, 0, 0)
    matrix[0] = (matrix[0] + 0.5 * rows(1)[0]) / np.linalg.norm(matrix[0] + 0.5 * rows(1)[0])
    [ones] = group(said(None, None, None, None), matrix).values()
    assert ones[-1].vote == 1


# --- by the model ---------------------------------------------------------------------------


def read(part: str) -> tuple[list[str], list[str]]:
    """Topics ("-": none) and comments."""
    lines = [line.split("\t") for line in FILE.read_text(encoding="utf-8").splitlines()]
    chosen = [line for line in lines if line[0] == part and any(map(str.isalnum, line[2]))]
    return [line[1] for line in chosen], [line[2] for line in chosen]


def quality(topics: list[str], groups: list[str | int | None]) -> tuple[float, float]:
    """Precision and recall of pairs: within one group, and of one topic."""
    pairs = [(i, j) for i in range(len(topics)) for j in range(i)]
    found = {(i, j) for i, j in pairs if groups[i] is not None and groups[i] == groups[j]}
    true = {(i, j) for i, j in pairs if topics[i] == topics[j] != "-"}
    return len(found & true) / len(found), len(found & true) / len(true)


async def test_groups_of_comments_never_seen_are_mostly_of_one_topic() -> None:
    """Half Korean, half English; measured: precision .70, recall .46."""
    topics, texts = read("test")
    embedder = UseEmbedder()
    vectors, anchors = await embedder.embed(texts), await embedder.embed(ANCHORS)
    await embedder.close()
    ones = [Said(vote, f"u{vote}", text) for vote, text in enumerate(texts)]
    groups: list[str | int | None] = [None] * len(texts)
    for name, members in group(ones, features(texts, vectors, anchors)).items():
        for one in members:
            groups[one.vote] = name
    precision, recall = quality(topics, groups)
    print(f"precision {precision:.2f}, recall {recall:.2f}")
    assert precision > 0.6 and recall > 0.35
