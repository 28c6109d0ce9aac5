"""The page's words: the same in both languages, and none that is asked for is missing."""

from __future__ import annotations

import re
from importlib import resources
from typing import get_args

import pytest

from services.analyzer.causes import Cause
from services.collector.votes import REASONS as CODES
from shared.events import AlertState, Outcome, Verdict
from shared.policy import REASONS

STATIC = resources.files("services.dashboard").joinpath("static")
LANGUAGES = ("ko", "en")


def text(name: str) -> str:
    return STATIC.joinpath(name).read_text(encoding="utf-8")


def words(language: str) -> dict[str, str]:
    """Key → wording."""
    found = re.findall(r'^  "?([^":\n]+?)"?:\s*"(.*)",$', text(f"words.{language}.js"), re.MULTILINE)
    assert len(found) == len(dict(found)), "a key is there twice"
    return dict(found)


def test_both_languages_have_the_same_words() -> None:
    korean, english = map(words, LANGUAGES)
    assert korean.keys() == english.keys()
    blanks = {key: set(re.findall(r"\{\d\}", korean[key])) for key in korean}
    assert blanks == {key: set(re.findall(r"\{\d\}", english[key])) for key in english}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_code_that_the_loop_knows_is_worded(language: str) -> None:
    wanted = {
        *(f"code.{code}" for code in CODES),
        *(f"cause.{cause}" for cause in get_args(Cause)),
        *(f"alert.{state}" for state in get_args(AlertState)),
        *(f"verdict.{verdict}" for verdict in get_args(Verdict)),
        *(f"step.outcome.{outcome}" for outcome in get_args(Outcome)),
        *(f"reason.{reason}" for reason in REASONS),
    }
    assert wanted - words(language).keys() == set()


def test_no_word_that_is_asked_for_is_missing() -> None:
    page = set(re.findall(r'data-(?:text|label)="([^"]+)"', text("index.html")))
    scripts = [entry.name for entry in STATIC.iterdir() if entry.name.endswith(".js")]
    for name in scripts:
        page |= set(re.findall(r'\b(?:word|sentence)\("([^"]+)"', text(name)))
    assert page - words("en").keys() == set()
