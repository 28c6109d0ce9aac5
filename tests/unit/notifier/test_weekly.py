"""The weekly summary and the short report: their lines, and when they are due."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from services.notifier.weekly import Group, Past, Votes, Week, asked, due, summary, week_key
from shared.events import RetrainCompleted
from tests.support.notifying import URL
from tests.support.slack_blocks import mentions

LEARNED = {
    "learning": {
        "promoted": True,
        "held_out": {
            "before": {"mean": 0.812},
            "after": {"mean": 0.853},
            "delta": {"mean": 0.041, "low": 0.020, "high": 0.061, "n": 200},
        },
    }
}


def week(**more: Any) -> Week:
    given = {
        "app": "default",
        "first": date(2026, 11, 16),
        "last": date(2026, 11, 22),
        "now": Votes(180, 32),
        "before": Votes(150, 61),
        **more,
    }
    return Week(**given)


def test_this_week_stands_against_last() -> None:
    assert summary(week(), "ko", URL) == (
        "📅 AI 성능 개선 리포트\n"
        "- 2026-11-16 – 2026-11-22, 괄호 안은 지난주\n"
        "- 👍 좋아요: 180 (150)\n"
        "- 👎 싫어요: 32 (61)\n"
        "- 부정 비율: 15.1% (95% CI 11–21, n=212)\n"
        "- 지난주: 28.9% (95% CI 23–35, n=211)\n"
        "- 변화: ✅ 뚜렷한 감소 (구간이 겹치지 않음)\n"
        "- 재임베딩과 되돌림: 없음\n"
        "<https://loop.example.com|📊 실시간 Dashboard 보기>"
    )


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (Votes(100, 100), "⚠️ 뚜렷한 증가"),
        (Votes(140, 60), "뚜렷한 차이 없음"),
        (Votes(0, 0), "비교할 피드백 없음"),
    ],
)
def test_a_change_is_only_one_where_intervals_are_disjoint(now: Votes, said: str) -> None:
    assert f"변화: {said}" in summary(week(now=now), "ko", URL)


def test_what_was_rebuilt_is_told_with_what_the_gate_saw() -> None:
    event = RetrainCompleted(
        outcome="promoted", reason="feedback", generation_before=4, generation_after=5, gate=LEARNED
    )
    said = summary(week(outcomes=[event]), "ko", URL)
    assert "- 재임베딩과 되돌림: 1\n- 피드백: 적용 4 → 5 · 검색 품질 nDCG@10 0.812 → 0.853" in said


def test_a_rollback_is_called_one() -> None:
    event = RetrainCompleted(outcome="promoted", reason="rollback", generation_before=5, generation_after=4)
    assert "- 되돌리기: 되돌림 5 → 4" in summary(week(outcomes=[event]), "ko", URL)


def test_what_a_promotion_led_to_is_told() -> None:
    past = Past(5, "better", 7, Votes(66, 34), Votes(79, 21))
    said = summary(week(pasts=[past]), "ko", URL)
    assert "- 📈 재임베딩 7일 뒤: 부정 비율 34.0% → 21.0% (구간이 겹치지 않음)" in said


def test_the_largest_groups_are_named() -> None:
    said = summary(week(groups=[Group("배송 늦음", 12), Group("<!channel>", 4)]), "ko", URL)
    assert "- 불만 상위: 배송 늦음 (👎 12) · &lt;!channel&gt; (👎 4)" in said and not mentions(said)


def test_without_quotes_no_group_is_named() -> None:
    assert "비밀" not in summary(week(groups=[Group("비밀", 12)]), "ko", URL, quotes=False)


def test_many_builds_are_counted() -> None:
    event = RetrainCompleted(outcome="rejected", reason="manual")
    said = summary(week(outcomes=[event] * 30), "ko", URL)
    assert "재임베딩과 되돌림: 30" in said and "외 22건" in said and len(said) < 3000


def test_documents_that_changed_nothing_are_no_rebuild() -> None:
    event = RetrainCompleted(outcome="unchanged", reason="documents")
    assert "재임베딩과 되돌림: 없음" in summary(week(outcomes=[event]), "ko", URL)


def test_it_is_due_on_its_day_alone() -> None:
    days = [date(2026, 11, 23 + n) for n in range(7)]  # a Monday first
    assert [due(day, "mon") for day in days] == [True] + [False] * 6
    assert not any(due(day, "off") for day in days)


def test_a_week_has_one_key_per_app() -> None:
    assert week_key("shop", date(2027, 1, 3)) == "weekly/shop/2026-W53"
    assert week_key("shop", date(2027, 1, 4)) == "weekly/shop/2027-W01"


def test_the_short_report_says_what_the_report_says_and_the_span_before() -> None:
    first, last = date(2026, 11, 10), date(2026, 11, 23)
    said = asked("default", first, last, Votes(180, 32), Votes(0, 0), "OK", 5, "ko")
    assert said == (
        "🧠 AI Feedback Loop Report · 최근 14일 (2026-11-10 – 2026-11-23)\n"
        "- 👍 좋아요: 180\n"
        "- 👎 싫어요: 32\n"
        "- 총 피드백: 212\n"
        "- 부정 비율: 15.1% (95% CI 11–21, n=212)\n"
        "- 이전 14일: 부정 비율 - (n=0)\n"
        "- 경보 상태: 🟢 정상\n"
        "- 사용 중인 세대: 5"
    )
