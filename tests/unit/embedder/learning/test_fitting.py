"""The fusion weight and the adapter: what they find, and when they keep still."""

from __future__ import annotations

import numpy as np
import pytest

from services.embedder.learning import adapter, fusion_weight
from services.embedder.learning.measures import Floats
from shared.embedding.vectors import Vectors, unit

RNG = np.random.default_rng(0)


def halves(questions: int) -> tuple[Floats, Floats, Floats]:
    """Candidates that vectors rank right and words at random."""
    gains = np.zeros((questions, 20))
    gains[np.arange(questions), RNG.integers(0, 20, questions)] = 1
    return gains * 0.1 + 0.5, RNG.random((questions, 20)), gains


class TestFusionWeight:
    def test_without_questions_it_is_the_prior(self) -> None:
        assert fusion_weight.fit(*(np.zeros((0, 3)),) * 3) == fusion_weight.Weight(0.5, 0.5, 0)

    def test_many_questions_move_it_and_few_hardly(self) -> None:
        many, few = fusion_weight.fit(*halves(2000)), fusion_weight.fit(*halves(20))
        assert many.best >= 0.9 and many.alpha == pytest.approx((2000 * many.best + 250) / 2500)
        assert abs(few.alpha - 0.5) < 0.02

    def test_of_equally_good_weights_the_one_next_to_the_prior_is_taken(self) -> None:
        gains = np.array([[1.0, 0]])
        assert fusion_weight.fit(gains, gains, gains).best == 0.5

    def test_missing_candidates_do_not_disturb(self) -> None:
        dense, lexical, gains = halves(50)
        padding = np.full((50, 5), -np.inf)
        wide = fusion_weight.fit(
            np.hstack([dense, padding]), np.hstack([lexical, padding]), np.hstack([gains, np.zeros((50, 5))])
        )
        assert wide == fusion_weight.fit(dense, lexical, gains)

    def test_questions_without_gain_do_not_count(self) -> None:
        dense, lexical, gains = halves(50)
        gains[:20] = 0
        assert fusion_weight.fit(dense, lexical, gains).n == 30


def pairs(count: int, dimensions: int = 16) -> tuple[Vectors, Vectors]:
    """Questions, and chunks that are the questions turned by one rotation."""
    questions = unit(RNG.normal(size=(count, dimensions)))
    turn = np.linalg.qr(RNG.normal(size=(dimensions, dimensions)))[0]
    return questions, unit(questions @ turn)


class TestAdapter:
    def test_it_solves_its_own_equation(self) -> None:
        questions, chunks = pairs(200)
        weights = RNG.random(200)
        found = adapter.fit(questions, chunks, weights, 2.0)
        gram = (questions * weights[:, None]).T @ questions
        strength = 2.0 * np.trace(gram) / 16
        gradient = (found @ questions.T - chunks.T) * weights @ questions + strength * (found - np.eye(16))
        assert np.abs(gradient).max() < 1e-4

    def test_with_a_heavy_ridge_nothing_changes(self) -> None:
        questions, chunks = pairs(50)
        found = adapter.fit(questions, chunks, np.ones(50), 1e9)
        assert adapter.adapt(found, questions) == pytest.approx(questions, abs=1e-5)

    def test_below_a_thousand_liked_questions_there_is_none(self) -> None:
        questions, chunks = pairs(1200)
        assert adapter.choose(questions, chunks, np.ones(1200), np.arange(1200) // 2) is None

    def test_it_is_chosen_where_it_ranks_better(self) -> None:
        questions, chunks = pairs(1200)
        assert adapter.choose(questions, chunks, np.ones(1200), np.arange(1200)) is not None

    def test_it_is_left_alone_where_there_is_nothing_to_learn(self) -> None:
        questions = unit(RNG.normal(size=(1200, 16)))
        noisy = unit(questions + 0.05 * RNG.normal(size=questions.shape))
        assert adapter.choose(questions, noisy, np.ones(1200), np.arange(1200)) is None
