"""The whole trial on a small world whose truth is known: what is learned, and what nobody can force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from services.embedder.learning.credit import Vote, examples
from services.embedder.learning.library import Learned, Library
from services.embedder.learning.trial import STRENGTHS, Recipe, fit, learn, split
from shared.embedding.vectors import unit
from tests.bench.attacks import deal

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUESTIONS, CHUNKS, SHOWN = 250, 120, 5
START = NOW - timedelta(days=30)


class World:
    """Questions that search answers badly: the right chunk stands anywhere among the first five, or, where
    that is `missed`, behind them. Each is asked `forms` times, in words that differ by one."""

    def __init__(self, seed: int = 0, forms: int = 3, missed: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        base, nothing = unit(rng.normal(size=(QUESTIONS, 32))), np.zeros((CHUNKS, 32))
        self.right = rng.integers(0, CHUNKS, QUESTIONS)
        self.texts = [f"q{i} about{i} topic{i} way{k}" for k in range(forms) for i in range(QUESTIONS)]
        alike = unit(np.tile(base, (forms, 1)) + 0.02 * rng.normal(size=(forms * QUESTIONS, 32)))
        # Orthogonal to all questions: only words find anything.
        vectors = np.hstack([alike, np.zeros_like(alike)])
        chunk_vectors = unit(np.hstack([nothing, rng.normal(size=nothing.shape)]))
        chunks = [f"chunk{c:03}" for c in range(CHUNKS)]
        candidates = np.array([self._few(rng, i % QUESTIONS, missed) for i in range(forms * QUESTIONS)])
        scores = -np.sort(-rng.uniform(0, 0.3, candidates.shape), axis=1).astype(np.float32)
        documents = {chunk: f"document{c % 60}" for c, chunk in enumerate(chunks)}
        self.library = Library(self.texts, vectors, chunks, chunk_vectors, candidates, scores, documents)

    def _few(self, rng: np.random.Generator, question: int, missed: float) -> list[int]:
        others = [c for c in rng.permutation(CHUNKS)[:20] if c != self.right[question]][:19]
        at = SHOWN + 1 if missed and rng.random() < missed else int(rng.integers(0, SHOWN))
        return [*others[:at], int(self.right[question]), *others[at:]]

    def votes(self) -> list[Vote]:
        cast = []
        for i, text in enumerate(self.texts):
            row = self.library.scores(np.array([i]), Learned())[0]
            shown = [self.library.chunks[c] for c in self.library.candidates[i][np.argsort(-row)[:SHOWN]]]
            right = self.library.chunks[self.right[i % QUESTIONS]]
            thumbs = {chunk: int(chunk == right) for chunk in shown}
            when = START + timedelta(minutes=i)
            cast.append(Vote(text, f"user {i % 70}", None, when, shown, citations=thumbs))
        return cast


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def misses() -> World:
    return World(forms=5, missed=0.25)


def on_answers(world: World) -> list[Vote]:
    return [replace(v, value=max(v.citations.values()), citations={}) for v in world.votes()]


def test_honest_votes_are_promoted_and_help_those_who_ask_again(world: World) -> None:
    outcome = learn(world.votes(), world.library, NOW)
    assert outcome.decision.reasons == []
    again = outcome.decision.figures["by_kind"]["asked again"]["ndcg@10"]
    assert again["delta"]["low"] > 0.05


def test_what_is_promoted_has_learned_from_all_votes(world: World) -> None:
    outcome = learn(world.votes(), world.library, NOW)
    assert outcome.learned is not None and outcome.learned.memory is not None
    assert len(outcome.learned.memory) > outcome.decision.figures["recipe"]["questions"]


def test_the_same_votes_decide_the_same(world: World) -> None:
    first, second = (learn(world.votes(), world.library, NOW).decision for _ in range(2))
    assert first == second


def shuffled(cast: Sequence[Vote]) -> list[Vote]:
    return deal(cast, np.random.default_rng(0))


def brigade(cast: Sequence[Vote]) -> list[Vote]:
    return [replace(vote, user="one") for vote in cast]


def brigade_and_one_friend(cast: Sequence[Vote]) -> list[Vote]:
    return [replace(vote, user="friend" if i % 50 == 0 else "one") for i, vote in enumerate(cast)]


def one_document(cast: Sequence[Vote]) -> list[Vote]:
    return [replace(v, shown=[*v.shown, "chunk007"], citations={"chunk007": 1}) for v in cast]


@pytest.mark.parametrize("attack", [shuffled, brigade, brigade_and_one_friend, one_document])
def test_votes_that_tell_nothing_are_not_promoted(
    world: World, attack: Callable[[Sequence[Vote]], list[Vote]]
) -> None:
    assert not learn(attack(world.votes()), world.library, NOW).decision.promote


def test_without_votes_nothing_is_learned_and_it_says_why(world: World) -> None:
    outcome = learn([], world.library, NOW)
    assert outcome.learned is None and outcome.decision.reasons


class TestVotesOnAnswers:
    """Liked is an answer with the right chunk among what was shown; one in four has not."""

    def test_honest_ones_are_promoted(self, misses: World) -> None:
        assert learn(on_answers(misses), misses.library, NOW).decision.reasons == []

    def test_the_same_thumbs_dealt_out_at_random_are_not(self, misses: World) -> None:
        decision = learn(shuffled(on_answers(misses)), misses.library, NOW).decision
        assert "shuffled" in {reason.split(":")[0] for reason in decision.reasons}

    def test_the_opposite_thumbs_are_not(self, misses: World) -> None:
        cast = [replace(vote, value=1 - (vote.value or 0)) for vote in on_answers(misses)]
        assert not learn(cast, misses.library, NOW).decision.promote


def test_likes_of_answers_alone_are_not_evidence(world: World) -> None:
    cast = [replace(vote, value=1, citations={}) for vote in world.votes()]
    assert not learn(cast, world.library, NOW).decision.promote


def wrong(world: World) -> dict[str, dict[str, float]]:
    """A golden set that calls right what users disliked."""
    return {
        text: {next(c for c, thumb in vote.citations.items() if not thumb): 1.0}
        for text, vote in zip(world.texts, world.votes(), strict=True)
    }


def test_a_weaker_memory_is_tried_where_only_what_might_get_worse_speaks_against_it(world: World) -> None:
    tried = [learn(world.votes(), world.library, NOW, golden=each) for each in (None, wrong(world))]
    assert [outcome.recipe.strength for outcome in tried] == [STRENGTHS[0], STRENGTHS[-1]]


def test_a_golden_question_that_gets_worse_stops_it(world: World) -> None:
    decision = learn(world.votes(), world.library, NOW, golden=wrong(world)).decision
    assert [reason.split(":")[0] for reason in decision.reasons] == ["golden"]


def test_a_question_outside_the_library_is_refused(world: World) -> None:
    with pytest.raises(KeyError):
        learn([*world.votes(), replace(world.votes()[0], question="unheard of")], world.library, NOW)


def test_votes_are_split_by_time(world: World) -> None:
    older, newer = split(list(reversed(world.votes())))
    assert max(vote.voted for vote in older) <= min(vote.voted for vote in newer)


def test_a_deal_changes_nothing_but_thumbs(world: World) -> None:
    cast = world.votes()
    dealt = shuffled(cast)
    assert [(v.question, v.user, v.shown) for v in dealt] == [(v.question, v.user, v.shown) for v in cast]
    assert sum(sum(v.citations.values()) for v in dealt) == sum(sum(v.citations.values()) for v in cast)


def test_an_empty_memory_changes_no_score(world: World) -> None:
    rows = np.arange(10)
    learned = fit([], world.library, Recipe(weight=True, ridge=1.0))
    plain = world.library.scores(rows, Learned())
    assert (world.library.scores(rows, learned) == plain).all()


def test_what_was_liked_rises(world: World) -> None:
    learned = fit(examples(world.votes(), NOW), world.library, Recipe())
    rows = np.arange(QUESTIONS)
    gain = world.library.scores(rows, learned) - world.library.scores(rows, Learned())
    right = world.library.candidates[rows] == world.right[:, None]
    assert (gain[right] > 0).mean() > 0.95
