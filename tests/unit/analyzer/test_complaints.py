"""What groups of complaints are called, and which of them a report has."""

from __future__ import annotations

from uuid import UUID

import pytest

from services.analyzer.complaints import (
    Complaint,
    clean,
    code_group,
    digest,
    enough,
    group_id,
    label,
    report,
    still_said,
)

RUN = UUID(int=1)


def complaints(*users: str, group: str = "g", first: int = 1, text: str = "too slow") -> list[Complaint]:
    return [Complaint(vote, user, group, text, vote) for vote, user in enumerate(users, first)]


# --- what a group needs ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("users", "is_one"),
    [("aab", True), ("abc", True), ("ab", False), ("aaaaaa", False), ("", False)],
)
def test_a_group_has_three_votes_of_two_users(users: str, is_one: bool) -> None:
    assert enough(users) is is_one


def test_a_group_below_that_is_not_reported() -> None:
    said = [*complaints("a", "b", group="small"), *complaints("a", "a", "a", group="one user", first=9)]
    assert report(said, {"small": "x", "one user": "y"}) == []


def test_the_largest_group_is_reported_first() -> None:
    said = [*complaints("a", "b", "c", group="s"), *complaints("a", "b", "c", "d", group="l", first=9)]
    assert [(group.id, group.votes) for group in report(said, {"s": "x", "l": "y"})] == [("l", 4), ("s", 3)]


def test_users_are_counted_once() -> None:
    [group] = report(complaints("a", "a", "b"), {"g": "x"})
    assert (group.votes, group.users) == (3, 2)


def test_at_most_ten_groups_are_reported() -> None:
    said = [one for n in range(12) for one in complaints("a", "b", "c", group=f"{n}", first=n * 10)]
    assert len(report(said, {f"{n}": "x" for n in range(12)})) == 10


# --- quotes ---------------------------------------------------------------------------------


def quote(*said: tuple[str, int | None]) -> str:
    ones = [Complaint(vote, f"u{vote}", "g", text, near) for vote, (text, near) in enumerate(said)]
    [group] = report(ones, {"g": "x"})
    return group.quote


def test_the_most_central_comment_is_quoted() -> None:
    assert quote(("slowly", 2), ("too slow", 0), ("slow", 1)) == "too slow"


def test_a_comment_that_fits_is_quoted_rather_than_a_cut_one() -> None:
    assert quote(("slow " * 100, 0), ("slow", 1), ("so slow", 2)) == "slow"


def test_a_long_quote_is_cut() -> None:
    assert len(quote(("slow " * 100, 0), ("x" * 400, 1), ("y" * 300, 2))) <= 200


def test_votes_without_a_comment_are_quoted_by_nothing() -> None:
    assert quote(("", None), ("", None), ("", None)) == ""


# --- labels ---------------------------------------------------------------------------------

SLOW = [
    ("a", "응답이 너무 느려요"),
    ("b", "too slow"),
    ("c", "느려요"),
    ("d", "It is too slow"),
    ("e", "slow!"),
]


def test_a_label_is_made_of_words_of_the_comments() -> None:
    assert still_said(label(SLOW), [text for _, text in SLOW])


def test_a_label_has_what_several_users_say_in_either_language() -> None:
    assert {"느려요"} <= set(label(SLOW).split(" · ")) and "slow" in label(SLOW)


def test_a_word_that_all_complaints_have_stands_out_less() -> None:
    said = [("a", "bot refund wrong"), ("b", "bot refund rules"), ("c", "the bot about a refund")]
    others = [f"bot says {n}" for n in range(20)]
    assert label(said, others).startswith(("refund", "bot refund"))


def test_a_word_of_one_user_is_in_no_label_where_others_agree() -> None:
    said = [("a", "slow hong@example.com"), ("a", "slow hong@example.com"), ("b", "slow"), ("c", "slow")]
    assert "hong" not in label(said)


def test_comments_without_a_common_word_are_called_by_the_most_central() -> None:
    assert label([("a", "takes ages"), ("b", "slow"), ("c", "느림")]) == "takes ages"


@pytest.mark.parametrize(
    "hostile", ["<!channel> *x* `y`" * 99, "\u202eevil\u2028", "🦕" * 900, "ß" * 99, "ﬁ ﬁ"]
)
def test_a_label_is_one_bounded_line(hostile: str) -> None:
    found = label([("a", hostile), ("b", hostile), ("c", hostile)])
    assert len(found) <= 60 and found.isprintable()


def test_a_label_stays_while_its_words_are_said() -> None:
    assert still_said("느려요 · too slow", ["TOO SLOW", "너무 느려요"])


def test_a_label_goes_with_its_words() -> None:
    assert not still_said("느려요 · too slow", ["너무 느려요", "slow"])


# --- names ----------------------------------------------------------------------------------


def test_a_run_done_again_names_its_groups_the_same() -> None:
    assert group_id(RUN, 7) == group_id(RUN, 7) != group_id(RUN, 8)


def test_a_code_makes_one_group_for_each_app() -> None:
    assert code_group("a", "slow") == code_group("a", "slow") != code_group("b", "slow")


@pytest.mark.parametrize("code", [None, "", "other"])
def test_no_code_and_other_make_no_group(code: str | None) -> None:
    assert code_group("a", code) is None


@pytest.mark.parametrize("nothing", [None, "", "  ", "?!", "👎👎", "\u202e"])
def test_a_comment_without_letters_says_nothing(nothing: str | None) -> None:
    assert clean(nothing) == ""


def test_a_comment_is_compared_in_its_first_500_characters() -> None:
    assert len(clean("x" * 4000)) == 500


def test_a_lone_surrogate_has_a_digest() -> None:
    assert digest("\ud800")
