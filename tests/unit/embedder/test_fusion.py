"""How two scores become one."""

from __future__ import annotations

import numpy as np
import pytest

from services.embedder.fusion import PRIOR, Fused, fuse, mean_cosine
from shared.embedding.vectors import unit

COSINE = np.array([0.6, 0.3, -0.1, 0.6], np.float32)
BM25 = np.array([0.0, 8.0, 10.0, 4.0], np.float32)


def fused(alpha: float = PRIOR, baseline: float = 0.0, best: float = 10, bound: float = 20) -> Fused:
    return fuse(COSINE, BM25, best=best, bound=bound, alpha=alpha, baseline=baseline)


class TestFuse:
    def test_score_is_the_weighted_mean_of_the_parts(self) -> None:
        both = fused(alpha=0.3)
        assert both.score == pytest.approx(0.3 * both.dense + 0.7 * both.lexical)

    def test_prior_weighs_both_alike(self) -> None:
        assert fused().score == pytest.approx([0.3, 0.55, 0.45, 0.5])

    def test_whole_weight_on_vectors_ranks_by_cosine(self) -> None:
        assert fused(alpha=1).score == pytest.approx(COSINE)

    def test_no_weight_on_vectors_ranks_by_terms(self) -> None:
        assert fused(alpha=0).score == pytest.approx(BM25 / 10)

    def test_best_match_is_one(self) -> None:
        assert fused().lexical.max() == 1

    def test_crumbs_do_not_count_like_a_find(self) -> None:
        assert fused(bound=100).lexical.max() == pytest.approx(0.4)

    def test_question_without_terms_is_left_to_the_vectors(self) -> None:
        both = fuse(COSINE, np.zeros(4), best=0, bound=0)
        assert both.score == pytest.approx(PRIOR * COSINE)

    def test_score_does_not_depend_on_the_other_candidates(self) -> None:
        alone = fuse(COSINE[1:2], BM25[1:2], best=10, bound=20)
        assert alone.score[0] == fused().score[1]

    def test_model_whose_vectors_crowd_is_spread(self) -> None:
        crowded = fuse(0.7 + 0.3 * COSINE, BM25, best=10, bound=20, baseline=0.7)
        assert crowded.score == pytest.approx(fused().score, abs=1e-6)

    def test_no_candidates_give_no_scores(self) -> None:
        assert fuse(np.zeros(0), np.zeros(0), best=0, bound=5).score.shape == (0,)

    @pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
    def test_weight_out_of_range_is_refused(self, alpha: float) -> None:
        with pytest.raises(ValueError, match="alpha"):
            fused(alpha=alpha)

    def test_baseline_of_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match="baseline"):
            fused(baseline=1)

    def test_halves_of_different_length_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"\(4,\).*\(3,\)"):
            fuse(COSINE, BM25[:3], best=10, bound=20)


class TestMeanCosine:
    def test_every_pair_of_different_rows_counts_once(self) -> None:
        vectors = unit(np.random.default_rng(0).normal(0.5, 1, (5, 8)))
        pairs = [float(vectors[i] @ vectors[j]) for i in range(5) for j in range(i)]
        assert mean_cosine(vectors) == pytest.approx(np.mean(pairs), abs=1e-6)
