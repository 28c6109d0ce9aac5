"""Why something was decided, in the languages that people read: a wording for each code and its figures.

What is guaranteed: every code of `WORDING` is worded in both languages with the same figures; a code that
is not known here (a newer service's) gives no sentence, so that its English detail is shown instead. What
is not: translation of what people or other programs wrote (`why`, the message of a failure).

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal, NamedTuple, get_args

from shared.events import Because

__all__ = ["LANGUAGES", "WORDING", "Language", "Wording", "in_all_languages", "percent", "say"]

Language = Literal["ko", "en"]
LANGUAGES: tuple[Language, ...] = get_args(Language)


class Wording(NamedTuple):
    en: str
    ko: str


WORDING: Mapping[str, Wording] = {
    # --- the votes that a decision rests on
    "votes": Wording(
        "{dislikes} of {total} votes in {window} are negative"
        " ({ratio}, interval {low} to {high} at z={z:.2f})",
        "{window} 피드백 {total}개 중 {dislikes}개가 부정({ratio}, z={z:.2f} 구간 {low}–{high})",
    ),
    "votes_none": Wording("0 votes in {window}", "{window} 피드백 0개"),
    # --- decisions (`shared/policy.py`)
    "no_votes": Wording("there is nothing to judge", "판단할 피드백이 없습니다"),
    "too_few_votes": Wording(
        "a decision needs {min_votes} votes (threshold {threshold})",
        "판단하려면 피드백이 {min_votes}개 필요합니다 (기준 {threshold})",
    ),
    "no_new_votes": Wording(
        "within the threshold of {threshold}, but nobody voted in {report}",
        "기준 {threshold} 이내이지만, {report}에는 새 피드백이 없습니다",
    ),
    "within_threshold": Wording("within the threshold of {threshold}", "기준 {threshold} 이내입니다"),
    "uncertain": Wording(
        "over the threshold of {threshold}, but the lower bound is not",
        "기준({threshold})을 넘었지만, 구간의 하한은 넘지 않았습니다",
    ),
    "retrain_running": Wording(
        "over the threshold of {threshold}, but a retrain is running",
        "기준({threshold})을 넘었지만, 재임베딩이 이미 진행 중입니다",
    ),
    "cooling_down": Wording(
        "lower bound over the threshold of {threshold}, but resting until {until}",
        "구간의 하한이 기준({threshold})을 넘었지만, {until}까지는 관찰 기간입니다",
    ),
    "rolling_back": Wording(
        "over the threshold of {threshold}, but the generation before it is being brought back",
        "기준({threshold})을 넘었지만, 이전 세대로 되돌리는 중입니다",
    ),
    "lower_bound_over_threshold": Wording(
        "lower bound over the threshold of {threshold}", "구간의 하한이 기준({threshold})을 넘었습니다"
    ),
    "ratio_over_threshold": Wording("over the threshold of {threshold}", "기준({threshold})을 넘었습니다"),
    "breaker_open": Wording(
        "lower bound over the threshold of {threshold}, but the last retrains did not lower the ratio"
        " ({retrains}), so a person must look",
        "구간의 하한이 기준({threshold})을 넘었지만, 지난 재임베딩들이 비율을 낮추지 못해({retrains})"
        " 사람의 확인이 필요합니다",
    ),
    "paused": Wording(
        "retraining is paused{why} (threshold {threshold})",
        "재임베딩이 일시 중지되어 있습니다{why} (기준 {threshold})",
    ),
    # --- causes of dislikes (`services/analyzer/causes.py`)
    "causes": Wording(
        "of {total} 👎 {mendable} could be mended by re-embedding (retrieval misses {misses},"
        " stale documents {stale}); not coverage gaps {gaps}, answer faults {faults}, unknown {unknown}",
        "👎 {total}개 중 {mendable}개는 재임베딩으로 나아질 수 있음 (검색 누락 {misses},"
        " 오래된 문서 {stale}); 나머지는 문서에 없음 {gaps}, 답변 문제 {faults}, 알 수 없음 {unknown}",
    ),
    # --- what a promotion led to (`services/analyzer/aftermath.py`)
    "aftermath_worse": Wording(
        "negative votes {before} ({before_dislikes} of {before_total}, {before_low} to {before_high})"
        " → {after} ({after_dislikes} of {after_total}, {after_low} to {after_high}):"
        " worse, intervals disjoint",
        "부정 비율 {before} ({before_total}개 중 {before_dislikes}개, {before_low}–{before_high})"
        " → {after} ({after_total}개 중 {after_dislikes}개, {after_low}–{after_high}):"
        " 더 나빠짐, 구간이 겹치지 않음",
    ),
    # --- how a build ended (`services/embedder`)
    "knowledge_empty": Wording(
        "the knowledge base is empty: there is nothing to embed", "지식이 비어 있어 임베딩할 것이 없습니다"
    ),
    "nothing_new": Wording(
        "no document changed, and there is no new feedback to learn from",
        "변경된 문서도, 새로 배울 피드백도 없습니다",
    ),
    "no_document_changed": Wording("no document changed", "변경된 문서가 없습니다"),
    "nothing_learned": Wording("nothing was learned from votes", "피드백에서 새로 배운 것은 없습니다"),
    "golden_worse": Wording("the golden set fares worse", "골든 세트의 결과가 나빠졌습니다"),
    "overtaken": Wording(
        "another generation was promoted while this one was built on {base}",
        "세대 {base} 위에 만드는 동안 다른 세대가 적용되었습니다",
    ),
    "not_whole": Wording(
        "of {planned} planned chunks {shown} are there and {embedded} are embedded",
        "계획한 청크 {planned}개 중 {shown}개가 있고 {embedded}개가 임베딩되었습니다",
    ),
    # --- why a document was skipped (`services/embedder`)
    "document_type": Wording("unsupported type", "지원하지 않는 형식"),
    "document_empty": Wording("no text", "텍스트가 없음"),
    "document_deep": Wording("nested too deeply", "너무 깊이 중첩됨"),
    "document_encrypted": Wording("encrypted PDF", "암호화된 PDF"),
    "document_broken": Wording("broken {format}: {message}", "손상된 {format}: {message}"),
    "document_scanned": Wording(
        "no text that can be extracted (scanned pages?)", "추출할 텍스트가 없음 (스캔한 페이지인가요?)"
    ),
    "document_binary": Wording("binary content in a text file", "텍스트 파일에 바이너리 내용이 있음"),
    "document_encoding": Wording(
        "unknown text encoding (save it as UTF-8)", "알 수 없는 문자 인코딩 (UTF-8로 저장해 주세요)"
    ),
    "document_costly": Wording(
        "takes too long or too much memory to read", "읽는 데 시간이나 메모리가 너무 많이 듦"
    ),
    "document_headings": Wording(
        "comes to too much text: its headings are too long", "제목이 너무 길어 텍스트가 지나치게 많아짐"
    ),
    "document_large": Wording("larger than {megabytes} MB", "{megabytes} MB보다 큼"),
    "document_refused": Wording("cannot be read: {message}", "읽을 수 없음: {message}"),
    "document_irregular": Wording("not a regular file", "일반 파일이 아님"),
    "document_outside": Wording("a link out of the folder", "폴더 밖을 가리키는 링크"),
    "document_folder_link": Wording(
        "a link to a folder is not followed", "폴더를 가리키는 링크는 따라가지 않음"
    ),
    "document_twice": Wording(
        "another file has the same name in another Unicode form",
        "유니코드 표기만 다른 같은 이름의 파일이 있음",
    ),
    "document_overruled": Wording(
        "deleted or replaced over the API since it last changed",
        "마지막으로 바뀐 뒤 API로 삭제되거나 교체됨",
    ),
    "folder_empty": Wording("holds no document that can be read", "읽을 수 있는 문서가 없음"),
    "folder_missing": Wording("the folder does not exist", "폴더가 없음"),
    "folder_file": Wording("this is not a folder", "폴더가 아님"),
    # --- what learning did not prove (`services/embedder/learning/gate.py`)
    "nothing_judged": Wording(
        "no vote says yet what search should have found",
        "검색이 무엇을 찾았어야 하는지 말해 주는 피드백이 아직 없습니다",
    ),
    "held_out_few": Wording(
        "held_out: {n} questions, and {least} are needed",
        "보지 않은 질문이 {n}개뿐입니다 ({least}개 필요)",
    ),
    "held_out_unsure": Wording(
        "held_out: ΔnDCG@10 {delta}, not surely above 0",
        "보지 않은 질문의 ΔnDCG@10 {delta}: 확실히 나아졌다고 할 수 없습니다",
    ),
    "without_top_user": Wording(
        "without_top_user: without it ΔnDCG@10 {delta}",
        "영향이 가장 큰 사용자를 빼면 ΔnDCG@10 {delta}: 확실한 개선이 아닙니다",
    ),
    "without_top_document": Wording(
        "without_top_document: without it ΔnDCG@10 {delta}",
        "영향이 가장 큰 문서를 빼면 ΔnDCG@10 {delta}: 확실한 개선이 아닙니다",
    ),
    "disjoint": Wording(
        "disjoint: ΔnDCG@10 {delta}, and −{margin:.3f} is allowed",
        "피드백이 없던 문서의 질문에서 ΔnDCG@10 {delta} (허용 −{margin:.3f})",
    ),
    "golden": Wording(
        "golden: ΔnDCG@10 {delta}, and −{margin:.3f} is allowed",
        "골든 세트에서 ΔnDCG@10 {delta} (허용 −{margin:.3f})",
    ),
    "overlap": Wording(
        "overlap: {kept:.2f} of the first ten stay",
        "처음 열 개의 검색 결과 중 {kept:.2f}만 그대로입니다",
    ),
    "shuffled_one_sided": Wording(
        "shuffled: {likes} 👍 and {dislikes} 👎 to tell learned from random, and both are needed",
        "우연과 가려낼 👍 {likes}개와 👎 {dislikes}개 중 어느 한쪽이 없습니다",
    ),
    "shuffled": Wording(
        "shuffled: random thumbs fit as well (agreement {agreement_liked:.2f} of 👍,"
        " {agreement_disliked:.2f} of 👎, p = {p:.3f})",
        "무작위 평가와 다르지 않습니다 (일치도 👍 {agreement_liked:.2f},"
        " 👎 {agreement_disliked:.2f}, p = {p:.3f})",
    ),
    # --- why there is no rollback (`services/embedder/rollback.py`)
    "no_generation": Wording("there is no generation yet", "아직 세대가 없습니다"),
    "none_before": Wording(
        "there is no generation before {generation}", "세대 {generation} 이전의 세대가 없습니다"
    ),
    "active_already": Wording(
        "generation {generation} is the active one already", "이미 사용 중인 세대입니다: {generation}"
    ),
    "unknown_generation": Wording(
        "there is no generation {generation}", "그런 세대는 없습니다: {generation}"
    ),
    "never_promoted": Wording(
        "generation {generation} was never promoted: it is {state}",
        "적용된 적이 없는 세대입니다: {generation} ({state})",
    ),
    "not_kept": Wording(
        "generation {generation} is no longer kept: only the last {kept} are",
        "더 이상 보관되지 않는 세대입니다: {generation} (최근 {kept}개만 보관)",
    ),
}
"""Code → its wordings; `{figure}` is filled in."""

_RATIOS = frozenset({"ratio", "low", "high", "before", "after"} | {
    f"{side}_{end}" for side in ("before", "after") for end in ("low", "high")
})  # fmt: skip
_SPAN = re.compile(r"([1-9]\d*)([mhd])")
_UNITS = {"m": "분", "h": "시간", "d": "일"}


def say(because: Iterable[Because], language: Language) -> str:
    """The reasons as a sentence: what the first one rests on and what follows from it are joined by `: `,
    further ones by `; `. Empty where a code is not known."""
    parts, before = [""], None
    for one in because:
        wording = WORDING.get(one.code)
        if wording is None:
            return ""
        try:
            said = getattr(wording, language).format_map(_shown(one.figures, language))
        except (KeyError, ValueError):  # another version's figures
            return ""
        joint = "" if before is None else ": " if before.startswith("votes") or before in _HEADS else "; "
        parts.append(joint + said)
        before = one.code
    return "".join(parts)


_HEADS = frozenset({"nothing_learned", "golden_worse"})
"""Codes that are explained by the next one."""


def in_all_languages(because: Iterable[Because], otherwise: str | None) -> dict[str, str]:
    """Language → sentence; where the reasons say nothing, only the English one that was told along."""
    because = list(because)
    said = {language: say(because, language) for language in LANGUAGES}
    if all(said.values()):
        return {str(language): sentence for language, sentence in said.items()}
    return {"en": otherwise} if otherwise else {}


def percent(ratio: float) -> str:
    """One decimal, half up, as the report rounds: 1 of 16 is 6.3%, where `:.1%` says 6.2%."""
    return f"{(Decimal(str(ratio)) * 100).quantize(Decimal('0.1'), ROUND_HALF_UP)}%"


def _shown(figures: Mapping[str, str | int | float], language: Language) -> dict[str, object]:
    shown: dict[str, object] = dict(figures)
    for name, value in figures.items():
        if name in _RATIOS:
            shown[name] = percent(float(value))
        elif name == "threshold":
            shown[name] = f"{float(value) * 100:g}%"
        elif name in ("window", "report"):
            shown[name] = _window(str(value), language)
        elif name == "why":
            shown[name] = f", {value}" if value else ""
    return shown


def _window(name: str, language: Language) -> str:
    if language == "en":
        return name
    span = _SPAN.fullmatch(name)
    return f"최근 {span[1]}{_UNITS[span[2]]}" if span else "리포트 기간"
