"""Whether thumbs bear out a memory: what counts as agreement, and that chance does not."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from services.embedder.learning.credit import Example, Vote
from services.embedder.learning.library import Library
from services.embedder.learning.memory import Memory
from services.embedder.learning.thumbs import Thumbs, heard

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VECTORS = np.eye(2, dtype=np.float32)
QUESTIONS = ["how to return a kettle", "which train goes to Busan"]
LIBRARY = Library(
    QUESTIONS, VECTORS, ["a"], VECTORS[:1], np.zeros((2, 1), np.int64), np.zeros((2, 1), np.float32), {}
)
MEMORY = Memory.fit([Example(QUESTIONS[0], {"a": 0.5, "b": -0.1}, {}, ("ann",), 1.0, NOW)], VECTORS[:1])


def vote(value: int | None, user: str = "bob", question: str = QUESTIONS[0], **given: object) -> Vote:
    return Vote(question, user, value, **({"voted": NOW, "shown": ["a", "b"]} | given))  # type: ignore[arg-type]


def others() -> list[Vote]:
    """So that nobody holds too large a share."""
    return [vote(1, f"user {i}") for i in range(30)]


def agreement(of: Vote) -> list[float]:
    heard_ = heard([of, *others()], LIBRARY, MEMORY)
    return list(heard_.agreement[: len(heard_.agreement) - 30])


class TestAgreement:
    def test_an_answer_that_had_the_right_chunk_first_agrees_wholly(self) -> None:
        assert agreement(vote(1)) == [1]

    def test_the_later_the_right_chunk_stands_the_less_an_answer_agrees(self) -> None:
        second, third = (agreement(vote(1, shown=shown))[0] for shown in (["x", "a"], ["x", "y", "a"]))
        assert 1 > second > third > 0

    def test_an_answer_without_the_right_chunk_does_not_agree(self) -> None:
        assert agreement(vote(0, shown=["x", "b"])) == [0]

    def test_what_is_cited_goes_before_what_was_shown(self) -> None:
        assert agreement(vote(0, cited=["b"])) == [0]

    def test_each_citation_is_heard_and_the_answer_then_is_not(self) -> None:
        assert sorted(agreement(vote(1, citations={"a": 1, "b": 0}))) == [0, 1]

    def test_a_question_that_the_memory_says_nothing_about_is_not_heard(self) -> None:
        assert agreement(vote(1, question=QUESTIONS[1])) == []

    def test_a_vote_without_any_chunk_is_not_heard(self) -> None:
        assert agreement(vote(1, shown=[])) == []

    def test_an_empty_memory_hears_nothing(self) -> None:
        assert len(heard(others(), LIBRARY, Memory.fit([], VECTORS[:0])).liked) == 0

    def test_the_last_vote_of_a_user_on_a_question_is_heard(self) -> None:
        found = heard([vote(0), vote(1), *others()], LIBRARY, MEMORY)
        assert len(found.liked) == 31 and found.liked.all()

    def test_a_user_with_many_votes_weighs_no_more_than_a_share(self) -> None:
        questions = [f"{QUESTIONS[0]} {i}" for i in range(40)]
        places, scores = np.zeros((41, 1), np.int64), np.zeros((41, 1), np.float32)
        library = Library(
            [*questions, QUESTIONS[0]], np.tile(VECTORS[:1], (41, 1)), ["a"], VECTORS[:1], places, scores, {}
        )
        found = heard([*(vote(0, question=q) for q in questions), *others()], library, MEMORY)
        assert found.weights[~found.liked].sum() <= 0.1001 * found.weights.sum()


def thumbs(liked: np.ndarray, agreement: np.ndarray, direct: np.ndarray | bool = False) -> Thumbs:
    return Thumbs(agreement, liked, np.broadcast_to(direct, liked.shape), np.ones(len(liked)))


class TestChance:
    def test_thumbs_that_follow_the_memory_are_not_chance(self) -> None:
        agreement = np.tile([1.0, 0.0], 50)
        assert thumbs(agreement > 0, agreement).p() == pytest.approx(0.001)

    def test_thumbs_against_the_memory_are(self) -> None:
        agreement = np.tile([1.0, 0.0], 50)
        assert thumbs(agreement == 0, agreement).p() == 1

    def test_thumbs_that_are_all_alike_are(self) -> None:
        assert thumbs(np.ones(100, bool), np.tile([1.0, 0.0], 50)).p() == 1

    def test_random_thumbs_have_a_small_p_no_more_often_than_it_says(self) -> None:
        rng = np.random.default_rng(0)
        found = [thumbs(rng.random(60) < 0.8, rng.random(60) ** 0.2).p() for _ in range(200)]
        assert np.mean(np.array(found) <= 0.1) <= 0.16

    def test_that_citations_are_liked_less_often_than_answers_is_no_agreement(self) -> None:
        rng, direct = np.random.default_rng(0), np.arange(400) < 200
        agreement = np.where(direct, 0.2, 0.8) + rng.normal(0, 0.05, 400)
        liked = rng.random(400) < np.where(direct, 0.2, 0.9)
        assert thumbs(liked, agreement, direct).p() > 0.05

    def test_a_thumb_without_weight_changes_nothing(self) -> None:
        agreement = np.tile([1.0, 0.0], 50)
        weights = np.where(np.arange(100) < 2, 1.0, 0.0)
        assert Thumbs(agreement, agreement > 0, np.zeros(100, bool), weights).p() > 0.1
