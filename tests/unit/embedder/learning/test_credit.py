"""Votes and what they credit: who counts, for what, and how much."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.embedder.learning.credit import (
    ANSWER,
    BLAME,
    HALF_LIFE,
    Example,
    Vote,
    caps,
    examples,
    normal,
    share,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def vote(question: str = "q", user: str = "ann", value: int | None = 1, **given: object) -> Vote:
    defaults: dict[str, object] = {"voted": NOW, "shown": ["a", "b", "c"]}
    return Vote(question, user, value, **(defaults | given))  # type: ignore[arg-type]


def crowd(count: int = 40) -> list[Vote]:
    """Others, so that nobody holds too large a share."""
    return [vote(f"other {i}", f"user {i}", citations={f"x{i}": 1}, shown=[f"x{i}"]) for i in range(count)]


def credit(*votes: Vote, others: list[Vote] | None = None) -> Example:
    found = examples([*votes, *(crowd() if others is None else others)], NOW)
    return next(example for example in found if example.question == "q")


class TestWhatAVoteSays:
    def test_a_like_on_a_citation_is_for_that_chunk_alone(self) -> None:
        assert credit(vote(citations={"b": 1})).targets == {"b": 0.5}

    def test_a_dislike_on_a_citation_weighs_less(self) -> None:
        assert credit(vote(value=None, citations={"b": 0})).targets == {"b": pytest.approx(-BLAME / 2)}

    def test_a_like_on_an_answer_is_shared_by_rank(self) -> None:
        found = credit(vote(), others=crowd(400)).targets
        assert found == pytest.approx({"a": ANSWER / 2, "b": ANSWER / 4, "c": ANSWER / 6})

    def test_what_the_answer_cites_goes_before_what_was_shown(self) -> None:
        assert credit(vote(cited=["c"])).targets == {"c": ANSWER / 2}

    @pytest.mark.parametrize("reason", ["irrelevant", "source"])
    def test_a_dislike_counts_where_its_reason_points_at_retrieval(self, reason: str) -> None:
        assert credit(vote(value=0, reason=reason)).targets["a"] == pytest.approx(-ANSWER * BLAME / 2)

    @pytest.mark.parametrize("reason", [None, "wrong", "outdated", "incomplete", "tone", "slow", "other"])
    def test_a_dislike_of_the_answer_says_nothing_of_chunks(self, reason: str | None) -> None:
        found = examples([vote(value=0, reason=reason), *crowd()], NOW)
        assert "q" not in {example.question for example in found}

    def test_a_chunk_that_was_neither_shown_nor_cited_gets_nothing(self) -> None:
        assert "z" not in credit(vote(citations={"a": 1, "z": 1})).targets

    def test_direct_is_what_rests_on_citations(self) -> None:
        found = credit(vote(citations={"a": 1}), vote(user="bob", shown=["b"]))
        assert found.direct == {"a": 0.5} and found.targets == {"a": 0.5, "b": ANSWER / 2}


class TestWhoCounts:
    def test_the_last_vote_of_a_user_on_a_question_counts(self) -> None:
        earlier = vote(citations={"a": 1}, voted=NOW - timedelta(hours=1))
        assert credit(vote(question="Q?", citations={"b": 1}), earlier).targets == {"b": 0.5}

    def test_a_pair_counts_fully_from_two_users(self) -> None:
        both = credit(vote(citations={"a": 1}), vote(user="bob", citations={"a": 1}))
        assert both.targets["a"] == pytest.approx(1) and both.users == ("ann", "bob")

    def test_however_many_agree_on_answers_a_target_is_1_at_most(self) -> None:
        assert credit(vote(), vote(user="bob"), others=crowd(400)).targets["a"] == 1

    def test_users_who_disagree_cancel_each_other(self) -> None:
        both = credit(vote(citations={"a": 1}), vote(user="bob", citations={"a": 0}))
        assert both.targets["a"] == pytest.approx((1 - BLAME) / 2)

    def test_a_vote_loses_half_its_weight_in_a_half_life(self) -> None:
        old = credit(vote(citations={"a": 1}, voted=NOW - timedelta(days=HALF_LIFE)))
        assert old.targets["a"] == pytest.approx(0.25) and old.trust == pytest.approx(0.5)

    def test_a_vote_dated_in_the_future_weighs_no_more_than_one(self) -> None:
        assert credit(vote(citations={"a": 1}, voted=NOW + timedelta(days=900))).targets["a"] == 0.5

    def test_a_user_who_is_alone_holds_nothing(self) -> None:
        votes = [vote(f"q{i}", citations={f"c{i}": 1}, shown=[f"c{i}"]) for i in range(50)]
        assert all(y == 0 for example in examples(votes, NOW) for y in example.targets.values())

    def test_a_document_that_is_alone_holds_nothing(self) -> None:
        votes = [vote(f"q{i}", f"user {i}", citations={"a": 1}) for i in range(50)]
        assert all(y == 0 for example in examples(votes, NOW) for y in example.targets.values())

    def test_chunks_of_one_document_are_capped_together(self) -> None:
        votes = [vote(f"q{i}", f"user {i}", citations={f"d{i}": 1}, shown=[f"d{i}"]) for i in range(400)]
        owners = {f"d{i}": "the one" for i in range(400)}
        found = examples([*votes, *crowd(100)], NOW, owners)
        of = {example.question: example for example in found}
        assert of["q1"].targets["d1"] < 0.05 and of["other 1"].targets["x1"] == 0.5

    def test_one_of_many_chunks_holds_half_of_what_a_document_may(self) -> None:
        votes = [vote(f"q{i}", f"user {i}", citations={"a": 1}) for i in range(400)]
        found = examples([*votes, *crowd(100)], NOW)
        held = sum(example.targets.get("a", 0.0) for example in found)
        assert held <= 0.0501 * sum(sum(example.targets.values()) for example in found)

    def test_a_brigade_of_one_holds_its_share_at_most(self) -> None:
        votes = [vote(f"q{i}", citations={f"d{i}": 1}, shown=[f"d{i}"]) for i in range(900)]
        found = examples([*votes, *crowd(100)], NOW)
        held = sum(sum(e.targets.values()) for e in found if e.users == ("ann",))
        assert held <= 0.1001 * sum(sum(e.targets.values()) for e in found)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1e6), max_size=40))
def test_caps_leave_no_group_more_than_its_share(masses: dict[str, float]) -> None:
    left = {group: mass * caps(masses)[group] for group, mass in masses.items()}
    limit = share(len(masses)) * sum(left.values())
    assert all(mass <= limit * (1 + 1e-6) + 1e-9 for mass in left.values())


@given(st.lists(st.floats(0.9, 1.1), min_size=25, max_size=60))
def test_caps_leave_even_groups_alone(masses: list[float]) -> None:
    assert set(caps({str(i): mass for i, mass in enumerate(masses)}).values()) == {1.0}


def test_questions_are_the_same_without_case_spacing_and_closing_signs() -> None:
    assert normal("  환불  규정은？ ") == normal("환불 규정은") and normal("ＡＢ?") == "ab"
