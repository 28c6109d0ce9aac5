"""What stands beside a report's text: its lines, its links and buttons, and hostile text."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.notifier import messages
from services.notifier.blocks import Done, report
from shared.events import Alert, AlertState, Comparison, ComplaintGroup, ReportReady, Verdict
from tests.support.notifying import NINE, SEOUL, URL, facts
from tests.support.slack_blocks import problems, texts

HOSTILE = (
    "<!channel> everyone",
    "<@U0BOSS> <#C0GENERAL|general> <https://evil.example|here>",
    "& &amp; &lt;!here&gt;",
    "*bold* _it_ ~no~ `code` ```block``` > quote",
    "\u202eevil\u202c \u2067rtl\u2069 مرحبا",
    "👩‍👩‍👧‍👦🇰🇷 :siren: :tada:",
    "line\nline\r\n- 상태: ✅ 정상 유지\u2028x",
    "\x00\x1b[31m\ud800",
    "가" * 10_000,
    "&" * 10_000,
    "",
    " ",
)


def ready(likes: int = 131, dislikes: int = 81, **more: Any) -> ReportReady:
    return ReportReady(**facts(likes, dislikes, **more))


def shown(event: ReportReady, **more: Any) -> list[str]:
    """Every text of the blocks, after the report itself."""
    return texts(report(event, SEOUL, "ko", URL, **more))[1:]


def line(event: ReportReady, part: str) -> str:
    [found] = [text.strip() for text in shown(event) if part in text]
    return found


def buttons(event: ReportReady, **more: Any) -> dict[str, dict[str, Any]]:
    blocks = report(event, SEOUL, "ko", URL, **more)
    return {
        element["action_id"]: element
        for block in blocks
        if block["type"] == "actions"
        for element in block["elements"]
    }


def alert(state: AlertState, before: AlertState | None = None, **more: Any) -> Alert:
    return Alert(state=state, since=NINE, before=before, **more)


def group(number: int, **more: Any) -> ComplaintGroup:
    return ComplaintGroup(
        **{
            "id": f"g{number}",
            "label": f"배송 {number}",
            "votes": 9 - number,
            "users": 4,
            "quote": "늦어요",
            **more,
        }
    )


# --- lines ----------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["ko", "en"])
def test_the_report_stands_first_word_for_word(language: messages.Language) -> None:
    event = ready()
    first = report(event, SEOUL, language, URL)[0]
    assert first["text"]["text"] == messages.report(event, SEOUL, language, URL)


def test_one_line_says_ratio_interval_votes_threshold_and_window() -> None:
    assert line(ready(), "95% CI") == "부정 비율 38.2% (95% CI 32–45, n=212) ≥ 30% · 1d"


def test_a_ratio_within_the_threshold_is_said_to_be_below_it() -> None:
    assert line(ready(87, 13), "95% CI") == "부정 비율 13.0% (95% CI 8–21, n=100) < 30% · 1d"


def test_no_votes_have_no_ratio() -> None:
    assert line(ready(0, 0), "n=0") == "부정 비율 - (n=0), 기준 30% · 1d"


@pytest.mark.parametrize(
    ("window", "name"),
    [
        (timedelta(hours=24), "전날 대비"),
        (timedelta(hours=23, minutes=56), "전날 대비"),
        (timedelta(days=7), "지난주 대비"),
        (timedelta(days=7, minutes=5), "지난주 대비"),
        (timedelta(days=3), "이전 3일 대비"),
        (timedelta(days=28), "이전 28일 대비"),
        (timedelta(hours=6), "이전 6시간 대비"),
        (timedelta(hours=36), "이전 36시간 대비"),
    ],
)
def test_the_window_before_is_called_by_its_length(window: timedelta, name: str) -> None:
    before = Comparison(likes=142, dislikes=38, ratio=38 / 180)
    event = ready(window_start=NINE - window, previous=before)
    assert line(event, "대비") == f"{name}: 부정 비율 21.1% → 38.2% (+17.1%p) · 피드백 180 → 212"


def test_a_window_before_without_votes_is_not_compared() -> None:
    event = ready(previous=Comparison(likes=0, dislikes=0, ratio=None))
    assert line(event, "대비") == "전날 대비: 이전 피드백 없음"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (alert("ALERT"), "경보 상태: 🔴 경보 (2025-10-17 09:00부터)"),
        (alert("ALERT", "WATCH", changed=True), "경보 상태 변화: 🟡 주의 → 🔴 경보"),
        (alert("OK", "ALERT", changed=True, recovered=True), "✅ 회복: 🔴 경보 → 🟢 정상"),
        (alert("OK", None, changed=True), "경보 상태: 🟢 정상 (2025-10-17 09:00부터)"),
        (None, "상태: 👀 주의 관찰"),
    ],
)
def test_the_state_is_said_with_what_changed(given: Alert | None, said: str) -> None:
    assert shown(ready(verdict="watch", alert=given))[0] == said


def test_causes_and_gaps_are_counted() -> None:
    event = ready(causes={"retrieval_miss": 5, "coverage_gap": 2}, coverage_gaps=["질문 1", "질문 2"])
    assert line(event, "원인") == "원인: 검색 누락 5 · 문서에 없음 2"
    assert line(event, "문서에 없는 질문") == "문서에 없는 질문: 2건"


def test_three_groups_are_shown_with_a_quote_each() -> None:
    said = "".join(shown(ready(complaint_groups=[group(n) for n in range(5)])))
    assert said.count("늦어요") == 3
    assert "1. 배송 0 · 👎 9 · 사용자 4명" in said and "배송 3" not in said


def test_without_quotes_nothing_that_users_wrote_is_told() -> None:
    event = ready(
        complaint_groups=[group(n, label="비밀", quote="비밀") for n in range(4)], coverage_gaps=["비밀"]
    )
    said = "".join(texts(report(event, SEOUL, "ko", URL, quotes=False)))
    assert "비밀" not in said and "불만 묶음: 4개 · 👎 30" in said


def test_the_context_has_time_generation_and_policy() -> None:
    assert line(ready(generation=5), "정책") == "생성 시각 2025-10-17 09:00 · 세대 5 · wilson 정책"


# --- buttons --------------------------------------------------------------------------------


def test_links_open_what_the_report_counted() -> None:
    found = buttons(ready(app="shop", window_start=NINE - timedelta(days=7)))
    given = {"from": ["2025-10-10"], "to": ["2025-10-17"], "app": ["shop"]}
    assert parse_qs(urlsplit(found["open_report"]["url"]).query) == given
    assert parse_qs(urlsplit(found["open_votes"]["url"]).query) == {**given, "rated": ["down"]}
    assert found["open_report"]["url"].startswith(f"{URL}/?")


def test_a_dashboard_s_address_keeps_its_path_and_query() -> None:
    blocks = report(ready(), SEOUL, "ko", "https://x.example/loop?team=a")
    [actions] = [block for block in blocks if block["type"] == "actions"]
    url = urlsplit(actions["elements"][0]["url"])
    assert (url.path, parse_qs(url.query)["team"]) == ("/loop", ["a"])


@pytest.mark.parametrize("address", ["javascript:alert(1)", "dashboard", "https://x.example/" + "a" * 3000])
def test_an_address_that_slack_would_refuse_has_no_button(address: str) -> None:
    blocks = report(ready(), SEOUL, "ko", address)
    assert not [block for block in blocks if block["type"] == "actions"]


def test_buttons_that_change_the_loop_are_there_where_somebody_listens() -> None:
    assert not [name for name in buttons(ready()) if name.startswith("do_")]
    found = buttons(ready(), buttons=True)
    labels = {name: found[name]["text"]["text"] for name in found if name.startswith("do_")}
    assert labels == {"do_reembed": "지금 재임베딩", "do_rollback": "롤백", "do_pause": "일시 중지"}


def test_every_button_that_changes_the_loop_asks_first() -> None:
    found = buttons(ready(), buttons=True)
    assert all("confirm" in found[name] for name in found if name.startswith("do_"))


def test_a_paused_loop_can_be_resumed() -> None:
    found = buttons(ready(verdict="paused"), buttons=True)
    assert "do_resume" in found and "do_pause" not in found


def test_what_was_done_says_by_whom_and_has_no_button_any_more() -> None:
    done = [Done("rollback", "jin", NINE)]
    assert "do_rollback" not in buttons(ready(), buttons=True, done=done)
    assert shown(ready(), buttons=True, done=done)[-1] == "✅ 요청됨: 롤백 · jin · 2025-10-17 09:00"


def test_a_report_whose_buttons_were_all_used_is_sound() -> None:
    done = [Done(action, "jin", NINE) for action in ("reembed", "rollback", "pause")]
    event = ready()
    blocks = report(event, SEOUL, "ko", URL, buttons=True, done=done)
    assert problems({"text": "x", "blocks": blocks}) == []


# --- hostile text, and limits ---------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("language", ["ko", "en"])
def test_hostile_words_keep_every_limit(language: messages.Language, text: str) -> None:
    event = ready(
        alert=alert("ALERT", "OK", changed=True),
        complaint_groups=[group(n, label=text, quote=text) for n in range(10)],
        coverage_gaps=[text] * 5,
        causes={"retrieval_miss": 5, text[:20]: 3},
        explanation=text,
        requested_by=text,
    )
    done = [Done(action, text, NINE) for action in ("reembed", "rollback")]
    blocks = report(event, SEOUL, language, URL, buttons=True, done=done)
    body = {"text": messages.report(event, SEOUL, language, URL), "blocks": blocks}
    assert problems(body) == []


@pytest.mark.parametrize("text", HOSTILE)
def test_what_users_wrote_is_never_markup(text: str) -> None:
    event = ready(complaint_groups=[group(1, label=f"ZZ{text}", quote=f"ZZ{text}")])
    blocks = report(event, SEOUL, "ko", URL)
    marked = [block["text"]["text"] for block in blocks if block["type"] == "section"]
    assert not [said for said in marked if "ZZ" in said]
    said = [one for one in texts(blocks) if "ZZ" in one]
    assert len(said) == 2 and not any(set(one) & set("\n\u202e\u2067\x00\x1b") for one in said)


@settings(max_examples=60, deadline=None)
@given(
    label=st.text(max_size=400),
    quote=st.text(max_size=3000),
    likes=st.integers(0, 10**9),
    dislikes=st.integers(0, 10**9),
    verdict=st.sampled_from(get_args(Verdict)),
    state=st.sampled_from(get_args(AlertState)),
    hours=st.integers(0, 24 * 4000),
    groups=st.integers(0, 10),
)
def test_any_report_is_one_that_slack_takes(
    label: str,
    quote: str,
    likes: int,
    dislikes: int,
    verdict: Verdict,
    state: AlertState,
    hours: int,
    groups: int,
) -> None:
    event = ready(
        likes,
        dislikes,
        verdict=verdict,
        window_start=NINE - timedelta(hours=hours),
        alert=alert(state, "OK", changed=bool(hours % 2)),
        previous=Comparison(likes=dislikes, dislikes=likes, ratio=None),
        complaint_groups=[group(n, label=label, quote=quote) for n in range(groups)],
    )
    blocks = report(event, SEOUL, "en", URL, buttons=True)
    assert problems({"text": "x", "blocks": blocks}) == []


def test_windows_at_the_ends_of_time_have_links() -> None:
    first, last = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC)
    event = ready(window_start=first, window_end=last)
    blocks = report(event, SEOUL, "ko", URL)
    assert problems({"text": "x", "blocks": blocks}) == []


def test_a_button_carries_the_run_it_belongs_to() -> None:
    run = uuid.uuid4()
    found = buttons(ready(run=run), buttons=True)
    assert {found[name]["value"] for name in found if name.startswith("do_")} == {str(run)}
