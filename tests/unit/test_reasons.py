"""Reasons in words: both languages say the same, with every figure that the deciders give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import services.embedder
from services.analyzer.aftermath import rollback
from shared.events import Aftermath, Because
from shared.policy import REASONS, Z95, decide, evidence
from shared.reasons import WORDING, in_all_languages, say
from tests.unit.test_policy import AS_OF, SENTENCES, WILSON

HANGUL = re.compile("[가-힣]")
VOTES = Because(
    code="votes",
    figures={
        "window": "7d",
        "total": 100,
        "dislikes": 41,
        "ratio": 0.41,
        "low": 0.307,
        "high": 0.522,
        "z": 2.24,
    },
)


@pytest.mark.parametrize("code", WORDING)
def test_both_languages_mention_the_same_figures(code: str) -> None:
    english, korean = (set(re.findall(r"\{(\w+)", text)) for text in WORDING[code])
    assert english == korean
    assert HANGUL.search(WORDING[code].ko) and not HANGUL.search(WORDING[code].en)


def test_every_reason_to_skip_a_document_has_words_and_no_others_are_kept() -> None:
    embedder = Path(services.embedder.__path__[0]).glob("*.py")
    given = re.findall(r'"((?:document|folder)_[a-z_]+)"', "".join(map(Path.read_text, embedder)))
    assert set(given) == {code for code in WORDING if code.startswith(("document_", "folder_"))}


@pytest.mark.parametrize("reason", SENTENCES)
def test_every_decision_is_said_in_korean_with_its_figures(reason: str) -> None:
    assert reason in REASONS
    decision = decide(SENTENCES[reason][0], WILSON)
    said = say(decision.because, "ko")
    assert HANGUL.search(said) and "{" not in said.replace("{week}", "")


def test_decision_in_korean() -> None:
    over = Because(code="lower_bound_over_threshold", figures={"threshold": 0.3})
    assert say([VOTES, over], "ko") == (
        "최근 7일 피드백 100개 중 41개가 부정(41.0%, z=2.24 구간 30.7%–52.2%):"
        " 구간의 하한이 기준(30%)을 넘었습니다"
    )


def test_reasons_that_are_not_known_are_left_to_the_english_detail() -> None:
    newer = Because(code="a_newer_service", figures={})
    assert say([VOTES, newer], "ko") == ""
    assert in_all_languages([newer], "its detail") == {"en": "its detail"}
    assert in_all_languages([], None) == {}


def test_figures_that_are_missing_are_no_error() -> None:
    assert say([Because(code="too_few_votes", figures={"threshold": 0.3})], "ko") == ""


def test_verdict_that_rolls_back_says_the_same_as_its_sentence() -> None:
    before, after = (evidence(name, AS_OF, AS_OF, 80 - n, 20 + n, Z95) for name, n in (("b", 0), ("a", 40)))
    sentence = (
        "negative votes 20.0% (20 of 100, 13.3% to 28.9%) → 60.0% (60 of 100, 50.2% to 69.1%):"
        " worse, intervals disjoint"
    )
    worse = Aftermath(
        generation=2, previous=1, before=before, after=after, verdict="worse", sentence=sentence
    )
    [asked] = rollback("default", worse)
    assert say(asked.because, "en") == asked.why == sentence
