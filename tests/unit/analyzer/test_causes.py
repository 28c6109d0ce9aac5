"""Causes of dislikes: each rule, their order, what is counted and listed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.analyzer.causes import FAR, Causes, Dislike, count, sort
from shared.reasons import say

SHOWN = frozenset({"a", "b"})
NEAR, FAR_OFF = {"dense": 0.6, "lexical": 1.0}, {"dense": 0.1, "lexical": 0.2}


def searched(scores: dict[str, float], **known: Any) -> Dislike:
    both: dict[str, Any] = {**scores, **known}
    return Dislike(shown=SHOWN, **both)


def gap(question: str) -> Dislike:
    return searched(FAR_OFF, question=question, asked=question.lower())


# --- one dislike ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dislike", "cause"),
    [
        (Dislike(), "unknown"),
        (searched(NEAR), "unknown"),
        (searched(NEAR, reason="wrong"), "unknown"),
        (searched(NEAR, reason="incomplete"), "unknown"),
        (searched(NEAR, reason="a code that nobody knows"), "unknown"),
        (Dislike(reason="outdated"), "stale_document"),
        (searched(NEAR, text_left=True), "stale_document"),
        (searched(FAR_OFF), "coverage_gap"),
        (searched(FAR_OFF, reason="irrelevant"), "coverage_gap"),
        (searched(NEAR, reason="irrelevant"), "retrieval_miss"),
        (searched(NEAR, reason="source"), "retrieval_miss"),
        (searched(NEAR, citations={"a": 0, "b": 0}), "retrieval_miss"),
        (searched(NEAR, liked=frozenset({"c"})), "retrieval_miss"),
        (searched(NEAR, liked=frozenset({"b", "c"})), "answer_fault"),
        (searched(NEAR, citations={"a": 1, "b": 0}), "answer_fault"),
        (searched(NEAR, reason="tone"), "answer_fault"),
        (searched(FAR_OFF, reason="slow"), "answer_fault"),
    ],
)
def test_cause(dislike: Dislike, cause: str) -> None:
    assert sort(dislike) == cause


def test_a_chunk_that_others_liked_shows_that_it_is_no_gap() -> None:
    assert sort(searched(FAR_OFF, liked=frozenset({"c"}))) == "retrieval_miss"


def test_what_was_not_recorded_as_shown_is_not_held_against_retrieval() -> None:
    assert sort(Dislike(reason="irrelevant", liked=frozenset({"c"}))) == "unknown"


@pytest.mark.parametrize("scores", [{"dense": 0.1}, {"lexical": 0.1}, {}])
def test_without_both_scores_nothing_is_called_a_gap(scores: dict[str, float]) -> None:
    assert sort(searched(scores)) == "unknown"


@pytest.mark.parametrize("scores", [(FAR[0], 0.0), (0.0, FAR[1])])
def test_one_near_half_is_enough_for_no_gap(scores: tuple[float, float]) -> None:
    assert sort(searched({"dense": scores[0], "lexical": scores[1]})) == "unknown"


def test_a_vote_on_a_chunk_that_was_not_shown_proves_nothing() -> None:
    assert sort(searched(NEAR, citations={"forged": 1})) == "unknown"


# --- many -----------------------------------------------------------------------------------


def counted(dislikes: Iterable[Dislike]) -> Causes:
    return count([(one, sort(one)) for one in dislikes])


def test_each_dislike_is_counted_once() -> None:
    causes = counted([searched(NEAR), gap("q"), gap("q"), Dislike(reason="outdated")])
    assert causes.counts == {
        "retrieval_miss": 0,
        "stale_document": 1,
        "coverage_gap": 2,
        "answer_fault": 0,
        "unknown": 1,
    }


def test_no_dislikes_have_no_causes() -> None:
    assert counted([]) == Causes({}, ())


def test_gaps_are_listed_once_asked_most_first() -> None:
    causes = counted([gap("once"), gap("Twice"), gap("twice")])
    assert causes.gaps == ("Twice", "once")


def test_at_most_five_gaps_are_listed() -> None:
    assert len(counted(gap(f"question {n}") for n in range(9)).gaps) == 5


def test_dislikes_of_unknown_questions_are_counted_not_listed() -> None:
    causes = counted([gap(""), gap(" \u202e\n")])
    assert (causes.counts["coverage_gap"], causes.gaps) == (2, ())


@given(st.lists(st.text(max_size=400), max_size=12))
def test_listed_questions_are_bounded_on_one_line_and_distinct(questions: list[str]) -> None:
    gaps = counted(map(gap, questions)).gaps
    assert len(set(gaps)) == len(gaps) <= 5
    assert all(0 < len(gap) <= 200 and gap.replace("\u200d", "").isprintable() for gap in gaps)


def test_the_order_of_dislikes_does_not_matter() -> None:
    dislikes = [gap(text) for text in ("A", "a", "b", "C", "c", "c ", "d", "e", "f")]
    shuffled = random.Random(3).sample(dislikes, len(dislikes))
    assert counted(dislikes) == counted(shuffled)


# --- what is told ---------------------------------------------------------------------------


def test_counts_tell_what_re_embedding_can_mend() -> None:
    counts = {"retrieval_miss": 12, "stale_document": 5, "coverage_gap": 9, "answer_fault": 6, "unknown": 9}
    because = Causes(counts).because  # type: ignore[arg-type]
    assert because is not None
    assert say([because], "en") == (
        "of 41 👎 17 could be mended by re-embedding (retrieval misses 12, stale documents 5);"
        " not coverage gaps 9, answer faults 6, unknown 9"
    )


@pytest.mark.parametrize("counts", [{}, {"unknown": 3}])
def test_nothing_is_told_where_nothing_is_known(counts: Any) -> None:
    assert Causes(counts).because is None
