"""What the gate found wanting, as reasons: the very sentences of the gate, and the same in Korean."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from services.embedder.learning.gate import LEAST, Decision, Evidence, judge
from services.embedder.learning.told import reasons
from shared.reasons import say
from tests.unit.embedder.learning.test_learning_gate import N, evidence, paired, thumbs

FAILING = {
    "few": evidence(n=LEAST - 1),
    "worse": evidence(-0.05),
    "harm": replace(evidence(), disjoint=paired(-0.05), golden=paired(-0.05), overlap=np.full(N, 0.1)),
    "random": replace(evidence(), thumbs=thumbs(np.arange(N) % 2 == 0)),
    "one-sided": replace(evidence(), thumbs=thumbs(np.ones(N, bool))),
}


def without_digits(sentence: str) -> str:
    return re.sub(r"\d+\.\d+", "#", sentence)


@pytest.mark.parametrize("given", FAILING.values(), ids=FAILING)
def test_reasons_say_what_the_gate_said(given: Evidence) -> None:
    decision = judge(given)
    found = reasons(decision)
    said = [say([one], "en") for one in found]
    # Figures are kept with five digits, so the fourth may be rounded twice.
    assert decision.reasons and list(map(without_digits, said)) == list(map(without_digits, decision.reasons))
    assert all(say([one], "ko") for one in found)


def test_no_reasons_where_it_is_promoted() -> None:
    assert reasons(judge(evidence())) == []


def test_nothing_to_judge_by_is_a_reason() -> None:
    why = "no vote says yet what search should have found"
    found = reasons(Decision(False, [why], {"votes": 3}))
    assert say(found, "en") == why
