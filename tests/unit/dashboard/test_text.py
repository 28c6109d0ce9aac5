"""Texts as they are shown, and as cells of a spreadsheet."""

from __future__ import annotations

import csv
import io

import pytest

from services.dashboard.text import lines, rows


def test_line_breaks_stay() -> None:
    assert lines("one\r\ntwo\rthree\n", 100) == "one\ntwo\nthree\n"


def test_what_turns_or_hides_text_becomes_a_space() -> None:
    assert lines("a\u202egnp.exe\x00b\x1b[31m\ud800", 100) == "a gnp.exe b [31m "


def test_emoji_stay_whole() -> None:
    family = "👩\u200d👩\u200d👧"
    assert lines(family, 100) == family


def test_long_text_is_cut_and_says_so() -> None:
    assert (len(lines("x" * 501, 500)), lines("x" * 501, 500)[-1]) == (500, "…")


def test_text_of_just_that_length_is_whole() -> None:
    assert lines("x" * 500, 500) == "x" * 500


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", " =1+1", "＝1"])
def test_formula_is_text_to_a_spreadsheet(text: str) -> None:
    [[cell]] = csv.reader(io.StringIO(rows([[text]]), newline=""))
    assert cell == f"'{text}"


@pytest.mark.parametrize("cell", ["a=b", "1-2", "", "e-mail", 'say "hi", please', "two\nlines"])
def test_other_text_is_as_it_is(cell: str) -> None:
    [[read, _]] = csv.reader(io.StringIO(rows([[cell, 1]]), newline=""))
    assert read == cell


def test_rows_end_as_the_standard_has_it() -> None:
    assert rows([["a", 'b"c'], [None, -1]]) == 'a,"b""c"\r\n,-1\r\n'
