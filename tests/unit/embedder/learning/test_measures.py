"""Measures against numbers worked out by hand, and the bootstrap against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from services.embedder.learning.measures import bootstrap, by_rank, measure, mrr, ndcg, recall

SCORES = np.array([[0.9, 0.8, 0.7, -np.inf]])


def test_ndcg_of_a_hit_at_rank_two() -> None:
    assert ndcg(*by_rank(SCORES, np.array([[0.0, 1, 0, 0]]))) == pytest.approx([1 / np.log2(3)])


def test_ndcg_weighs_grades() -> None:
    found = ndcg(*by_rank(SCORES, np.array([[1.0, 2, 0, 0]])))
    assert found == pytest.approx([(1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3))])


def test_a_question_without_anything_right_has_zero() -> None:
    assert set(measure(SCORES, np.zeros((1, 4)))["ndcg@10"]) == {0.0}


def test_recall_and_reciprocal_rank() -> None:
    ranked = np.array([[0.0, 1, 1], [0, 0, 0]])
    assert recall(ranked, np.array([4, 1]), 2) == pytest.approx([0.25, 0])
    assert mrr(ranked) == pytest.approx([0.5, 0])


def test_equal_scores_go_by_place() -> None:
    ranked, _ = by_rank(np.zeros((1, 3)), np.array([[1.0, 2, 3]]))
    assert ranked.tolist() == [[1, 2, 3]]


def test_the_interval_agrees_with_an_independent_one() -> None:
    values = np.random.default_rng(0).normal(0.1, 1, 400)
    ours = bootstrap(values, resamples=5000)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000, random_state=1)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)


def test_the_interval_is_the_same_every_time() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap(values) == bootstrap(values)


def test_questions_without_weight_do_not_count() -> None:
    found = bootstrap(np.array([1.0, 1.0, -5.0]), np.array([1.0, 1.0, 0.0]))
    assert (found.mean, found.low, found.n) == (1.0, 1.0, 2)


def test_no_question_gives_no_interval() -> None:
    assert bootstrap(np.zeros(0)).public() == {"mean": 0, "low": 0, "high": 0, "n": 0}


def test_negative_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="not negative"):
        bootstrap(np.zeros(2), np.array([1.0, -1.0]))
