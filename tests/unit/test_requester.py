"""Who asked: cron-job.org by its user agent, else the caller; always fit to be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.requester import printable, requester

CRON = "Mozilla/4.0 (compatible; cron-job.org; http://cron-job.org/abuse/)"


@pytest.mark.parametrize("agent", [CRON, CRON.upper(), "cron-job.org"])
@pytest.mark.parametrize("caller", [None, "", "somebody"])
def test_cron_job_org_is_known_by_its_user_agent(agent: str, caller: str | None) -> None:
    assert requester(agent, caller) == "cron-job.org"


@pytest.mark.parametrize(
    ("agent", "caller", "name"),
    [
        ("curl/8.5.0", "nightly job", "nightly job"),
        (None, "민지", "민지"),
        ("curl/8.5.0", None, "curl"),
        ("curl/8.5.0", "  ", "curl"),
        ("Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101", None, "Mozilla"),
        ("  GitHub-Hookshot/044aadd", None, "GitHub-Hookshot"),
        ("(no product)", None, "unknown"),
        ("", "", "unknown"),
        (None, None, "unknown"),
    ],
)
def test_others_are_named_by_the_caller_then_by_their_product(
    agent: str | None, caller: str | None, name: str
) -> None:
    assert requester(agent, caller) == name


@given(st.none() | st.text(), st.none() | st.text(max_size=1000))
def test_a_name_is_one_bounded_line_that_can_be_encoded(agent: str | None, caller: str | None) -> None:
    name = requester(agent, caller)
    assert 1 <= len(name) <= 100
    assert len(name.splitlines()) == 1
    assert name.encode()


@pytest.mark.parametrize(
    ("text", "flat"),
    [
        ("two\r\nlines", "two lines"),
        ("\x1b[31mred\x00", "[31mred"),
        ("a\u2028b\u2029c\u0085d", "a b c d"),
        ("invoice\u202egpj.exe", "invoice gpj.exe"),
        ("half \udce9 character", "half character"),
        ("👨\u200d👩\u200d👧 가족", "👨\u200d👩\u200d👧 가족"),
        (" \t ", ""),
        ("twelve chars", "twelve chars"),
        ("x" * 10**6, "x" * 19 + "…"),
        (" " * 10**6 + "far away", "…"),
    ],
)
def test_text_is_flattened(text: str, flat: str) -> None:
    assert printable(text, 20) == flat


@given(st.text(), st.integers(1, 50))
def test_flattening_bounds_and_settles(text: str, limit: int) -> None:
    once = printable(text, limit)
    assert len(once) <= limit
    assert printable(once, limit) == once
