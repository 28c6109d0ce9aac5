from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.collector.votes import (
    REASONS,
    Changes,
    Key,
    Retraction,
    Vote,
    fold,
    reason_code_of,
    vote_of,
)

KEY = Key("default", "c-1", "", "", "user_feedback")
OTHER = KEY._replace(conversation_id="c-2")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=10,
)


@pytest.mark.parametrize(
    "word", ["like", "up", "thumbs_up", "thumbsUp", "positive", "true", "1", True, 1, 1.0, " LIKE "]
)
def test_every_word_for_a_thumb_up_is_one(word: object) -> None:
    assert vote_of(word) == 1


@pytest.mark.parametrize(
    "word",
    ["dislike", "down", "thumbs_down", "thumbsDown", "negative", "false", "0", "-1", False, 0, -1, -1.0],
)
def test_every_word_for_a_thumb_down_is_zero(word: object) -> None:
    assert vote_of(word) == 0


def test_null_is_no_value() -> None:
    assert vote_of(None) is None


@pytest.mark.parametrize(
    "word", ["", "meh", "null", 2, 0.5, pytest.param(10**5000, id="huge"), [], {"like": 1}]
)
def test_an_unknown_vote_is_refused(word: object) -> None:
    with pytest.raises(ValueError, match="unknown vote"):
        vote_of(word)


@given(json_values)
def test_any_json_value_is_a_vote_or_refused(value: Any) -> None:
    try:
        found = vote_of(value)
    except ValueError:
        return
    assert found in (0, 1, None)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("wrong", "wrong"),
        ("Out-of-date", "outdated"),
        ("틀렸어요.", "wrong"),
        ("관련  없음", "irrelevant"),
        ("기타", "other"),
        ("The price is wrong", None),
        ("", None),
    ],
)
def test_a_reason_that_is_a_known_word_has_a_code(reason: str, code: str | None) -> None:
    assert reason_code_of(reason) == code


def test_every_listed_word_leads_to_its_own_code() -> None:
    assert {word: reason_code_of(word) for words in REASONS.values() for word in words} == {
        word: code for code, words in REASONS.items() for word in words
    }


def test_the_last_of_several_votes_wins() -> None:
    folded = fold([Vote(KEY, 1), Vote(OTHER, 1), Vote(KEY, 0)])
    assert {key: vote.value for key, vote in folded.votes.items()} == {KEY: 0, OTHER: 1}


def test_a_reason_after_its_vote_joins_it() -> None:
    folded = fold([Vote(KEY, 0), Vote(KEY, None, reason_code="wrong")])
    assert folded == Changes(set(), {KEY: Vote(KEY, 0, reason_code="wrong")}, {})


def test_a_reason_before_its_vote_joins_it() -> None:
    folded = fold([Vote(KEY, None, comment="old"), Vote(KEY, 0)])
    assert folded == Changes(set(), {KEY: Vote(KEY, 0, comment="old")}, {})


def test_a_changed_vote_drops_the_reason_of_the_old_one() -> None:
    folded = fold([Vote(KEY, 0, reason_code="wrong"), Vote(KEY, 1)])
    assert folded.votes[KEY].reason_code is None


def test_a_retraction_takes_back_what_came_before_it() -> None:
    assert fold([Vote(KEY, 0), Retraction(KEY)]) == Changes({KEY}, {}, {})


def test_a_vote_after_a_retraction_begins_anew() -> None:
    assert fold([Vote(KEY, 0, comment="x"), Retraction(KEY), Vote(KEY, 0)]) == Changes(
        {KEY}, {KEY: Vote(KEY, 0)}, {}
    )
