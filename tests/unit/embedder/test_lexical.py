"""Lexical search, against the formula worked out slowly, and on what people write."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.embedder import postings
from services.embedder.lexical import LONGEST, LexicalIndex
from services.embedder.terms import BITS, occurrences

KNOWLEDGE = {
    "refund": "환불 규정: 결제 후 7일 이내에 환불을 신청할 수 있습니다.",
    "shipping": "배송은 결제 후 2~3일이 걸립니다. 도서 산간은 하루 더 걸립니다.",
    "password": "Reset a forgotten password in Settings › Account. Passwords have 12 characters.",
    "api": "API 서버의 오류 코드 ERR_504는 시간 초과를 뜻한다.",
}


def index(texts: dict[str, str]) -> LexicalIndex:
    return LexicalIndex().renewed(texts, texts)


def best(question: str, texts: dict[str, str] = KNOWLEDGE) -> str:
    return index(texts).match(question).top(1)[0]


# --- the formula ------------------------------------------------------------------------------


def terms(text: str) -> Counter[str]:
    """The terms of a text of Hangul, ASCII and spaces, as `terms` describes them."""
    found: Counter[str] = Counter()
    words = "".join(c if c.isalnum() else " " for c in unicodedata.normalize("NFKC", text).casefold()).split()
    for before, word in zip(["", *words], words, strict=False):
        if before and not before[-1].isascii() and not word[0].isascii():
            found[before[-1] + word[0]] += 1
        found.update(a + b for a, b in pairwise(word) if not (a + b).isascii())
        if len(word) == 1 and not word.isascii():
            found[word] += 1
        for part in "".join(c if c.isascii() else " " for c in word).split():
            found[f"{part}$"] += 1
            if len(part) > 4:
                found[f"{part[:4]}*"] += 1
    return found


def bm25(question: str, texts: list[str]) -> tuple[list[float], float]:
    """Every text's score, and the bound."""
    counted = [terms(text) for text in texts]
    mean = sum(map(Counter.total, counted)) / len(texts) or 1
    scores, bound = [0.0] * len(texts), 0.0
    for term, times in terms(question).items():
        holders = sum(term in counts for counts in counted)
        weight = times * 2.2 * math.log(1 + (len(texts) - holders + 0.5) / (holders + 0.5))
        bound += weight
        for place, counts in enumerate(counted):
            saturation = 1.2 * (0.25 + 0.75 * counts.total() / mean)
            scores[place] += weight * counts[term] / (counts[term] + saturation)
    return scores, bound


texts = st.text("가나다 aBc1.-", max_size=40)


class TestFormula:
    @given(st.lists(texts, min_size=1, max_size=8), texts)
    def test_scores_are_bm25(self, corpus: list[str], question: str) -> None:
        named = {str(number): text for number, text in enumerate(corpus)}
        scores, bound = bm25(question, corpus)
        match = index(named).match(question)
        assert match.scores(list(named)) == pytest.approx(scores, rel=1e-5)
        assert [match.best, match.bound] == pytest.approx([max(scores), bound], rel=1e-5)

    @given(st.lists(texts, min_size=1, max_size=8), texts)
    def test_bound_is_over_every_score(self, corpus: list[str], question: str) -> None:
        match = index({str(number): text for number, text in enumerate(corpus)}).match(question)
        assert match.best < match.bound or match.best == match.bound == 0

    def test_bound_grows_with_words_that_nobody_wrote(self) -> None:
        whole = index(KNOWLEDGE)
        known, more = whole.match("환불 규정"), whole.match("환불 규정 quux")
        assert more.bound > known.bound and more.best == known.best

    def test_one_chunk_alone_is_found(self) -> None:
        assert best("환불", {"only": "환불"}) == "only"

    def test_term_standing_a_thousand_times_counts(self) -> None:
        assert best("환불", {"once": "환불" + "가나다라" * 500, "often": "환불 " * 1000}) == "often"


# --- what people write ------------------------------------------------------------------------


class TestTerms:
    @pytest.mark.parametrize(
        ("question", "expected"),
        [
            ("환불규정", "refund"),  # without the space
            ("환 불 규 정", "refund"),  # with too many
            (unicodedata.normalize("NFD", "환불 규정"), "refund"),  # as macOS names files
            ("환\u00ad불 규\u200b정", "refund"),  # as PDFs break words
            ("배송이 얼마나 걸리나요?", "shipping"),
            ("PASSWORD", "password"),
            ("ｐａｓｓｗｏｒｄ", "password"),  # full width
            ("resetting", "password"),  # by its first letters
            ("err 504", "api"),
            ("서버API", "api"),
            ("12자", "password"),
        ],
    )
    def test_chunk_is_found_by(self, question: str, expected: str) -> None:
        assert best(question) == expected

    def test_whole_word_counts_more_than_its_beginning(self) -> None:
        assert best("heated", {"a": "heaters", "b": "heated", "c": "heating"}) == "b"

    @pytest.mark.parametrize(
        ("question", "text"),
        [
            ("日本", "私は日本に住んでいます"),
            ("ประเทศไทย", "ฉันอยู่ประเทศไทย"),
            ("книги", "новые книги"),
            ("किताब", "नई किताब"),
            ("𠮷野家", "昨日𠮷野家で"),
            ("Straße", "STRASSE"),
        ],
    )
    def test_any_script_is_searched(self, question: str, text: str) -> None:
        assert best(question, {"other": "nothing of the kind", "this": text}) == "this"

    def test_punctuation_and_emoji_are_no_terms(self) -> None:
        assert len(occurrences(["… 👍🏽 ★ () _ —"])[0]) == 0

    def test_terms_do_not_cross_from_text_to_text(self) -> None:
        assert sorted(occurrences(["가나", "다라"])[1].tolist()) == [0, 1]

    def test_word_of_a_page_is_one_term_and_its_beginning(self) -> None:
        found, _ = occurrences(["x" * 100_000])
        assert len(found) == 2

    @given(st.lists(st.text(st.characters(), max_size=20), max_size=5))
    def test_any_text_has_terms_within_their_bits(self, corpus: list[str]) -> None:
        found, owners = occurrences(corpus)
        assert (found < 1 << BITS).all() and (owners < len(corpus)).all()

    def test_words_do_not_share_a_term(self) -> None:
        words = [f"{a}{b}{c}" for a in "abcdefgh" for b in range(100) for c in "abcdefghijklmnop"]
        assert len(np.unique(occurrences(words)[0])) == len(words)


# --- the best ---------------------------------------------------------------------------------


class TestTop:
    def test_best_come_first(self) -> None:
        match = index(KNOWLEDGE).match("결제 후 환불")
        assert match.top(10) == ["refund", "shipping"]

    def test_equal_scores_go_by_id(self) -> None:
        match = index(dict.fromkeys("dbcaef", "환불")).match("환불")
        assert match.top(3) == ["a", "b", "c"]

    @pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 100])
    def test_fewer_are_the_first_of_more(self, n: int) -> None:
        match = index(KNOWLEDGE).match("결제 오류 password 후")
        assert match.top(n) == match.top(1000)[:n]

    @pytest.mark.parametrize("question", ["", "???", "zzz"])
    def test_nothing_is_found_by(self, question: str) -> None:
        match = index(KNOWLEDGE).match(question)
        assert (match.top(10), match.best) == ([], 0)

    def test_empty_index_finds_nothing(self) -> None:
        match = LexicalIndex().match("환불")
        assert (match.top(10), match.best, len(match.scores([]))) == ([], 0, 0)

    def test_chunk_without_terms_scores_nothing(self) -> None:
        assert index({"a": "", "b": "환불"}).match("환불").scores(["a"]) == 0

    def test_score_of_a_stranger_is_an_error(self) -> None:
        with pytest.raises(KeyError, match="stranger"):
            index(KNOWLEDGE).match("환불").scores(["refund", "stranger", "api"])

    def test_long_question_is_judged_by_its_rarest_terms(self) -> None:
        common = " ".join(f"word{number}" for number in range(2 * LONGEST))
        corpus = {"a": common, "b": common, "rare": "quux"}
        assert "rare" in index(corpus).match(f"{common} quux").top(3)

    def test_words_that_nobody_wrote_do_not_crowd_out_the_others(self) -> None:
        unknown = " ".join(f"word{number}" for number in range(2 * LONGEST))
        assert best(f"{unknown} 환불 규정") == "refund"


# --- renewal ----------------------------------------------------------------------------------


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postings, "SEGMENT", 3)
    monkeypatch.setattr(postings, "_BATCH", 30)


def named(numbers: set[int]) -> dict[str, str]:
    return {str(number): f"문서 {number} 환불{'불' * (number % 3)} v{number % 5}" for number in numbers}


class TestRenewal:
    @settings(deadline=None)
    @given(st.lists(st.sets(st.integers(0, 30)), min_size=1, max_size=5), st.sampled_from([3, 100]))
    @example([set(range(20)), set(range(18)), set(range(20))], 100)  # struck out, and back again
    def test_history_leaves_no_trace(self, history: list[set[int]], segment: int) -> None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(postings, "SEGMENT", segment)
            renewed = LexicalIndex()
            for numbers in history:
                renewed = renewed.renewed(named(numbers), named(numbers))
        ids = list(named(history[-1]))
        found, expected = (made.match("환불 문서 7 v2") for made in (renewed, index(named(history[-1]))))
        assert len(renewed) == len(ids)
        assert found.top(100) == expected.top(100)
        assert found.scores(ids).tolist() == expected.scores(ids).tolist()

    def test_only_new_texts_are_asked_for(self) -> None:
        assert index(KNOWLEDGE).missing(["api", "new", "refund", "new", "also"]) == ["also", "new"]

    def test_known_texts_are_not_read_again(self) -> None:
        renewed = index(KNOWLEDGE).renewed([*KNOWLEDGE, "new"], {"new": "적립금"})
        assert renewed.match("적립금 환불").top(5) == ["new", "refund"]

    def test_what_left_is_not_found(self) -> None:
        assert index(KNOWLEDGE).renewed(["api"], {}).match("환불 오류").top(5) == ["api"]

    def test_what_left_takes_no_place_of_its_own(self) -> None:
        many = index(named(set(range(100))))
        fewer = many.renewed(named(set(range(1, 100))), {})
        assert all(a.rows is b.rows for a, b in zip(many._segments, fewer._segments, strict=True))

    def test_index_in_use_stays_as_it_was(self) -> None:
        whole = index(KNOWLEDGE)
        match = whole.match("환불")
        whole.renewed(["api"], {})
        assert match.top(1) == whole.match("환불").top(1) == ["refund"]

    def test_missing_text_is_an_error(self) -> None:
        with pytest.raises(KeyError, match="new"):
            index(KNOWLEDGE).renewed(["new"], {})

    def test_id_that_would_be_cut_is_refused(self) -> None:
        with pytest.raises(ValueError, match="64"):
            index({"x" * 65: "환불"})

    @pytest.mark.usefixtures("small_segments")
    def test_one_by_one_does_not_leave_one_segment_each(self) -> None:
        grown = LexicalIndex()
        for count in range(1, 31):
            grown = grown.renewed(named(set(range(count))), named({count - 1}))
        assert len(grown._segments) <= 11
