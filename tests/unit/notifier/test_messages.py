"""The messages: the owner's report character by character, every outcome, hostile text."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifier.messages import (
    Language,
    Markup,
    aftermath,
    failed,
    outcome,
    paused,
    report,
    resumed,
    retrain_started,
    start_notice,
)
from services.notifier.wording import WORDS
from shared.events import (
    Aftermath,
    Because,
    Evidence,
    GenerationCounts,
    LoopFailed,
    LoopPaused,
    LoopResumed,
    Outcome,
    ReportReady,
    RetrainCompleted,
    RetrainRequested,
    Skipped,
    Verdict,
)

SEOUL = ZoneInfo("Asia/Seoul")
NINE = datetime(2025, 10, 17, 0, 0, tzinfo=UTC)  # 09:00 in Seoul
URL = "https://loop.example.com"
ID = uuid.UUID(int=7)


def facts(likes: int, dislikes: int, verdict: Verdict = "ok", **more: Any) -> dict[str, Any]:
    total = likes + dislikes
    return {
        "run": ID,
        "as_of": NINE,
        "window_start": NINE - timedelta(days=1),
        "window_end": NINE,
        "likes": likes,
        "dislikes": dislikes,
        "total": total,
        "ratio": dislikes / total if total else None,
        "interval": None,
        "verdict": verdict,
        "reason": "within_threshold",
        "explanation": "",
        "policy": "wilson",
        "threshold": 0.3,
        **more,
    }


def ready(likes: int, dislikes: int, verdict: Verdict = "ok", **more: Any) -> ReportReady:
    return ReportReady(**facts(likes, dislikes, verdict, **more))


def completed(result: Outcome, **more: Any) -> RetrainCompleted:
    return RetrainCompleted(**{"outcome": result, "reason": "feedback", **more})


def line(text: str, start: str) -> str:
    [found] = [one for one in text.splitlines() if one.startswith(start)]
    return found


# --- the report -----------------------------------------------------------------------------


def test_report_is_the_owner_s_character_by_character() -> None:
    assert report(ready(87, 13), SEOUL, "ko", URL) == (
        "🧠 AI Feedback Loop Report\n"
        "- 👍 좋아요: 87\n"
        "- 👎 싫어요: 13\n"
        "- 총 피드백: 100\n"
        "- 부정 비율: 13.0%\n"
        "- 상태: ✅ 정상 유지\n"
        "- 생성 시각: 2025-10-17 09:00\n"
        "<https://loop.example.com|📊 실시간 Dashboard 보기>"
    )


def test_report_in_english_on_a_terminal() -> None:
    assert report(ready(87, 13), ZoneInfo("UTC"), "en", URL, "plain") == (
        "🧠 AI Feedback Loop Report\n"
        "- 👍 Likes: 87\n"
        "- 👎 Dislikes: 13\n"
        "- Total feedback: 100\n"
        "- Negative ratio: 13.0%\n"
        "- Status: ✅ Normal\n"
        "- Generated at: 2025-10-17 00:00\n"
        "📊 View live dashboard: https://loop.example.com"
    )


@pytest.mark.parametrize(
    ("verdict", "ko", "en"),
    [
        ("ok", "✅ 정상 유지", "✅ Normal"),
        ("watch", "👀 주의 관찰", "👀 Watching"),
        ("act", "🔁 재임베딩 시작", "🔁 Re-embedding started"),
        ("insufficient_data", "⏳ 표본 부족", "⏳ Too few votes"),
        ("paused", "⏸ 일시 중지", "⏸ Paused"),
    ],
)
def test_status_of_each_verdict(verdict: Verdict, ko: str, en: str) -> None:
    event = ready(59, 41, verdict)
    assert line(report(event, SEOUL, "ko", URL), "- 상태") == f"- 상태: {ko}"
    assert line(report(event, SEOUL, "en", URL), "- Status") == f"- Status: {en}"


def test_report_of_no_votes_has_no_ratio() -> None:
    text = report(ready(0, 0, "insufficient_data"), SEOUL, "ko", URL)
    assert "- 총 피드백: 0\n- 부정 비율: -\n- 상태: ⏳ 표본 부족\n" in text


@pytest.mark.parametrize(
    ("dislikes", "total", "shown"),
    [
        (41, 100, "41.0%"),
        (1, 16, "6.3%"),  # 6.25
        (1, 2000, "0.1%"),  # 0.05
        (201, 2000, "10.1%"),  # 10.05, which no float is
        (1, 3, "33.3%"),
        (2, 3, "66.7%"),
        (0, 5, "0.0%"),
        (5, 5, "100.0%"),
    ],
)
def test_ratio_rounds_half_up(dislikes: int, total: int, shown: str) -> None:
    text = report(ready(total - dislikes, dislikes), SEOUL, "ko", URL)
    assert line(text, "- 부정 비율") == f"- 부정 비율: {shown}"


@given(st.integers(1, 10**7).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_ratio_rounds_half_up_for_any_count(count: tuple[int, int]) -> None:
    dislikes, total = count
    tenths = (2000 * dislikes + total) // (2 * total)
    text = report(ready(total - dislikes, dislikes), SEOUL, "en", URL)
    assert line(text, "- Negative") == f"- Negative ratio: {tenths // 10}.{tenths % 10}%"


def test_a_retrain_request_is_reported_as_any_evaluation() -> None:
    event = RetrainRequested(retrain=ID, **facts(59, 41, "act"))
    assert report(event, SEOUL, "ko", URL) == report(ready(59, 41, "act"), SEOUL, "ko", URL)


def test_report_names_an_app_other_than_the_default() -> None:
    title, *others = report(ready(87, 13, app="shop"), SEOUL, "ko", URL).splitlines()
    assert title == "🧠 AI Feedback Loop Report (shop)"
    assert others == report(ready(87, 13), SEOUL, "ko", URL).splitlines()[1:]


def test_link_is_escaped_for_slack_alone() -> None:
    url = "https://x.test/?a=1&b=<2>|3"
    assert report(ready(1, 0), SEOUL, "en", url).splitlines()[-1] == (
        "<https://x.test/?a=1&amp;b=&lt;2&gt;%7C3|📊 View live dashboard>"
    )
    assert report(ready(1, 0), SEOUL, "en", url, "plain").endswith(f": {url}")


# --- the other messages ---------------------------------------------------------------------


@pytest.mark.parametrize("language", get_args(Language))
def test_start_notice_is_the_owner_s(language: Language) -> None:
    assert start_notice("cron-job.org", NINE, SEOUL, language) == (
        "🕒 Feedback Loop started by cron-job.org (2025-10-17 09:00)"
    )


def test_start_notice_without_a_name() -> None:
    assert start_notice(" ", NINE, SEOUL, "ko") == "🕒 Feedback Loop started by unknown (2025-10-17 09:00)"


def test_retrain_started_gives_the_figures_that_led_to_it() -> None:
    week = Evidence(name="7d", start=NINE, end=NINE, likes=59, dislikes=41, low=0.3067, high=0.5219)
    event = RetrainRequested(retrain=ID, **facts(59, 41, "act", evidence=[week]))
    assert retrain_started(event, "ko") == (
        "🔁 재임베딩을 시작합니다\n"
        "- 부정 비율: 41.0% (👎 41 / 100)\n"
        "- 7d: 41.0% [30.7% – 52.2%] (👎 41 / 100)\n"
        "- 기준: 30%"
    )


def started_because(**more: Any) -> RetrainRequested:
    return RetrainRequested(retrain=ID, **facts(59, 41, "act", **more))


CAUSES = {"retrieval_miss": 12, "stale_document": 5, "coverage_gap": 9, "answer_fault": 0, "unknown": 15}


def test_retrain_started_names_the_causes_that_there_are() -> None:
    assert retrain_started(started_because(causes=CAUSES), "ko").splitlines()[-1] == (
        "- 원인: 검색 누락 12 · 오래된 문서 5 · 문서에 없음 9 · 알 수 없음 15"
    )


@pytest.mark.parametrize("causes", [{}, {"unknown": 9}, {"unknown": 9, "coverage_gap": 0}])
def test_retrain_started_is_silent_about_causes_that_nobody_knows(causes: dict[str, int]) -> None:
    assert retrain_started(started_because(causes=causes), "en").splitlines()[-1] == "- Threshold: 30%"


def test_a_cause_of_later_versions_is_left_out() -> None:
    text = retrain_started(started_because(causes={"moon_phase": 3, "coverage_gap": 1}), "en")
    assert text.splitlines()[-1] == "- Causes: coverage gaps 1"


def test_retrain_started_lists_the_questions_of_coverage_gaps() -> None:
    text = retrain_started(started_because(coverage_gaps=["반품은?", "<!channel> a\nb"]), "ko")
    assert text.splitlines()[-1] == "- 문서에 없는 질문: “반품은?” · “&lt;!channel&gt; a b”"


def test_retrain_started_with_hostile_questions_stays_bounded() -> None:
    assert len(retrain_started(started_because(coverage_gaps=["<" * 9000] * 99, causes=CAUSES), "en")) < 4000


@pytest.mark.parametrize("language", get_args(Language))
def test_the_report_says_nothing_of_causes(language: Language) -> None:
    plain = ReportReady(**facts(59, 41))
    sorted_ = ReportReady(**facts(59, 41, causes=CAUSES, coverage_gaps=["q"]))
    assert report(plain, SEOUL, language, URL) == report(sorted_, SEOUL, language, URL)


def led_to(verdict: str, after: tuple[int, int] = (79, 21), days: int = 7) -> Aftermath:
    """A promotion after which so many liked and disliked."""
    old = Evidence(name="", start=NINE, end=NINE, likes=66, dislikes=34, low=0.2546, high=0.4372)
    end, (likes, dislikes) = NINE + timedelta(days=days, hours=23), after
    new = Evidence(name="", start=NINE, end=end, likes=likes, dislikes=dislikes, low=0.1417, high=0.2998)
    return Aftermath(generation=2, previous=1, before=old, after=new, verdict=verdict, sentence="<!channel>")


def test_aftermath_gives_the_ratios_and_what_they_rest_on() -> None:
    assert aftermath(led_to("better"), "default", "ko") == (
        "📈 재임베딩 7일 뒤: 부정 비율 34.0% → 21.0% (구간이 겹치지 않음)\n"
        "- 이전: 34.0% [25.5% – 43.7%] (👎 34 / 100)\n"
        "- 이후: 21.0% [14.2% – 30.0%] (👎 21 / 100)"
    )


@pytest.mark.parametrize(
    ("verdict", "title"),
    [
        ("worse", "📉 재임베딩 7일 뒤: 부정 비율 34.0% → 21.0% (구간이 겹치지 않음), 이전 세대로 되돌립니다"),
        ("same", "📊 재임베딩 7일 뒤: 부정 비율 34.0% → 21.0% (뚜렷한 차이 없음)"),
        ("unknown", "⏳ 재임베딩 7일 뒤: 부정 비율 34.0% → 21.0% (표본 부족)"),
    ],
)
def test_other_verdicts_say_so(verdict: str, title: str) -> None:
    assert aftermath(led_to(verdict), "default", "ko").splitlines()[0] == title


def test_aftermath_without_votes_has_no_ratio() -> None:
    first = aftermath(led_to("unknown", (0, 0), 28), "shop", "en").splitlines()[0]
    assert first == "⏳ 28 days after re-embedding: negative ratio 34.0% → - (too few votes) (shop)"


def test_promotion_says_what_changed() -> None:
    event = completed(
        "promoted",
        ratio=0.41,
        requested_by="cron-job.org",
        generation_before=3,
        generation_after=4,
        counts=GenerationCounts(documents=40, added=2, changed=1, removed=3, embedded=12, reused=340),
        seconds=12.34,
    )
    assert outcome(event, "ko") == (
        "✅ 재임베딩 완료: 새 세대를 적용했습니다\n"
        "- 세대: 3 → 4\n"
        "- 문서: 추가 2 · 변경 1 · 삭제 3\n"
        "- 청크: 임베딩 12 · 재사용 340\n"
        "- 소요 시간: 12.3초\n"
        "- 계기: 피드백 41.0% (cron-job.org)"
    )
    assert outcome(event, "en") == (
        "✅ Re-embedding done: the new generation is active\n"
        "- Generation: 3 → 4\n"
        "- Documents: 2 added · 1 changed · 3 removed\n"
        "- Chunks: 12 embedded · 340 reused\n"
        "- Took: 12.3 s\n"
        "- Cause: feedback 41.0% (cron-job.org)"
    )


def test_unchanged_says_that_there_was_nothing_to_do() -> None:
    event = completed("unchanged", reason="manual", generation_before=3, generation_after=3)
    assert outcome(event, "ko") == (
        "➖ 변경된 문서도, 새로 배울 피드백도 없습니다\n- 사용 중인 세대: 3\n- 계기: 수동 요청"
    )


@pytest.mark.parametrize(
    ("result", "title"),
    [
        ("rejected", "🚫 새 세대가 더 낫지 않아 적용하지 않았습니다"),
        ("superseded", "⏭ 더 새로운 작업이 있어 중단했습니다"),
        ("failed", "❌ 재임베딩에 실패했습니다"),
    ],
)
def test_other_outcomes_say_why(result: Outcome, title: str) -> None:
    lines = outcome(completed(result, detail="the API said no", generation_after=3), "ko").splitlines()
    assert lines[0] == title
    assert "- 내용: the API said no" in lines
    assert "- 사용 중인 세대: 3" in lines


def test_the_first_promotion_has_no_generation_before() -> None:
    assert "- Active generation: 1\n" in outcome(completed("promoted", generation_after=1), "en")


def test_rollback_done() -> None:
    event = completed(
        "promoted", reason="rollback", detail="worse votes", generation_before=4, generation_after=3
    )
    assert outcome(event, "ko") == (
        "↩️ 이전 세대로 되돌렸습니다\n- 세대: 4 → 3\n- 계기: 되돌리기\n- 내용: worse votes"
    )


@pytest.mark.parametrize("result", ["rejected", "unchanged", "superseded", "failed"])
def test_rollback_that_did_not_happen(result: Outcome) -> None:
    assert outcome(completed(result, reason="rollback"), "en").startswith("❌ The rollback did not happen\n")


@pytest.mark.parametrize(
    ("number", "ending"),
    [(1, "d0.pdf (broken)"), (5, "d4.pdf (broken)"), (6, "d4.pdf (broken) 외 1건"), (99, "외 94건")],
)
def test_skipped_documents_are_named_up_to_five(number: int, ending: str) -> None:
    skipped = [Skipped(source=f"d{n}.pdf", reason="broken") for n in range(number)]
    text = outcome(completed("unchanged", counts=GenerationCounts(skipped=skipped)), "ko")
    named = line(text, "- 건너뛴")
    assert named.startswith(f"- 건너뛴 문서 {number}건: d0.pdf (broken)")
    assert named.endswith(ending)
    assert named.count("broken") == min(number, 5)


def test_a_document_is_skipped_for_a_reason_in_the_readers_language() -> None:
    because = [Because(code="document_broken", figures={"format": "PDF", "message": "EOF"})]
    skipped = [Skipped(source="a.pdf", reason="as a version without codes has it", because=because)]
    event = completed("unchanged", counts=GenerationCounts(skipped=skipped))
    assert line(outcome(event, "ko"), "- 건너뛴") == "- 건너뛴 문서 1건: a.pdf (손상된 PDF: EOF)"
    assert "a.pdf (broken PDF: EOF)" in outcome(event, "en")


def test_failure_says_what_where_and_why() -> None:
    event = LoopFailed(
        failed_event=ID,
        failed_type="feedback.evaluate",
        consumer="analyzer",
        reason="connection refused",
        attempts=6,
        dead_letter="feedback-loop.analyzer.dead",
    )
    assert failed(event, "ko") == (
        "❌ AI Feedback Loop 처리 실패\n"
        "- 서비스: analyzer\n"
        f"- 이벤트: feedback.evaluate ({ID})\n"
        "- 시도: 6회\n"
        "- 이유: connection refused\n"
        "- 보관 위치: feedback-loop.analyzer.dead"
    )


def test_pause_and_resume() -> None:
    pause = LoopPaused(why="release", requested_by="민지", until=NINE)
    assert paused(pause, SEOUL, "ko") == (
        "⏸ 재임베딩을 일시 중지했습니다\n- 이유: release\n- 요청: 민지\n- 기한: 2025-10-17 09:00"
    )
    assert resumed(LoopResumed(requested_by="민지"), "en") == ("▶️ Re-embedding goes on\n- Requested by: 민지")


def test_a_pause_for_ever_can_be_shown() -> None:
    for_ever = LoopPaused(until=datetime(9999, 12, 31, 23, 59, tzinfo=UTC))
    assert "9999-12-31 23:59" in paused(for_ever, SEOUL, "ko")


# --- text that people wrote -----------------------------------------------------------------


def every_message(text: str, language: Language, markup: Markup) -> list[str]:
    skipped = [Skipped(source=text, reason=text)] * 50
    window = Evidence(name=text, start=NINE, end=NINE, likes=1, dislikes=1, low=0, high=1)
    retrain = RetrainRequested(retrain=ID, **facts(1, 1, "act", evidence=[window] * 50, requested_by=text))
    lost = LoopFailed(
        failed_event=ID, failed_type=text, consumer=text, reason=text, attempts=1, dead_letter=text
    )
    done = completed(
        "promoted", detail=text, requested_by=text, counts=GenerationCounts(skipped=skipped), seconds=1
    )
    return [
        start_notice(text, NINE, SEOUL, language, markup),
        retrain_started(retrain, language, markup),
        outcome(done, language, markup),
        failed(lost, language, markup),
        paused(LoopPaused(why=text, requested_by=text), SEOUL, language, markup),
        resumed(LoopResumed(why=text, requested_by=text), language, markup),
    ]


HOSTILE = [
    "<!channel>",
    "<https://evil.test|click>",
    "<@U123> & <#C1>",
    "&lt;!here&gt;",
    "a\n- 상태: ✅ 정상 유지",
    "\x1b[2J\x07",
    "{} {0} {why} %s",
    "&" * 100_000,
    "\u202e\u2066 \u2028 \x00",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("language", get_args(Language))
def test_slack_sees_no_mention_no_link_and_no_forged_line(text: str, language: Language) -> None:
    usual = every_message("x", language, "slack")
    for message, plain in zip(every_message(text, language, "slack"), usual, strict=True):
        assert not re.search(r"[<>]|&(?!(amp|lt|gt);)", message)
        assert len(message.splitlines()) <= len(plain.splitlines())
        assert len(message) < 10_000


def test_a_terminal_gets_the_text_as_it_is_but_for_control_characters() -> None:
    [notice, *_] = every_message("R&D <ops>\x1b[2J", "en", "plain")
    assert notice == "🕒 Feedback Loop started by R&D <ops> [2J (2025-10-17 09:00)"


def test_escaping_keeps_what_was_written() -> None:
    [notice, *_] = every_message("R&D <ops> &amp;", "en", "slack")
    assert "by R&amp;D &lt;ops&gt; &amp;amp; (" in notice


@given(st.text(max_size=600), st.sampled_from(get_args(Language)), st.sampled_from(get_args(Markup)))
def test_any_text_stays_in_its_line_and_within_bounds(text: str, language: Language, markup: Markup) -> None:
    usual = every_message("x", language, markup)
    for message, plain in zip(every_message(text, language, markup), usual, strict=True):
        assert len(message.splitlines()) <= len(plain.splitlines())
        assert all(c.isprintable() or c in "\n\u200d\ufe0f" for c in message)
        assert len(message) < 10_000


def test_both_languages_have_the_same_wordings_with_the_same_gaps() -> None:
    ko, en = WORDS["ko"], WORDS["en"]
    assert ko.keys() == en.keys()
    assert {key: text.count("{}") for key, text in ko.items()} == {
        key: text.count("{}") for key, text in en.items()
    }
    assert {f"status.{verdict}" for verdict in get_args(Verdict)} <= ko.keys()
    assert {f"outcome.{result}" for result in get_args(Outcome)} <= ko.keys()
