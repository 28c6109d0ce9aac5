"""Chunks: what is in them, how long they are, and what an edit changes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.embedder.chunking import chunk
from services.embedder.parsing import Block, Document

SENTENCE = "환불은 구매 후 7일 이내에 신청할 수 있습니다."

words = st.text(st.sampled_from("가나다라마바사 abc.!?。다요,0123\n\n"), min_size=1, max_size=120)
headings = st.lists(st.sampled_from(["하나", "둘", "Three"]), max_size=2).map(tuple)
blocks = st.builds(Block, headings, words.filter(lambda text: bool(text.strip())))
documents = st.builds(Document, st.sampled_from(["제목", "하나"]), st.lists(blocks, max_size=8).map(tuple))
limits = st.tuples(st.integers(10, 60), st.integers(0, 5))


def document(*texts: str, path: tuple[str, ...] = ("절",)) -> Document:
    return Document("문서", tuple(Block(path, text) for text in texts))


class TestContent:
    def test_heading_is_title_and_path(self) -> None:
        assert chunk(document("text", path=("절", "항")))[0].heading == "문서 › 절 › 항"

    def test_title_is_not_repeated_in_the_heading(self) -> None:
        assert chunk(document("text", path=("문서", "항")))[0].heading == "문서 › 항"

    def test_hash_is_that_of_what_is_embedded(self) -> None:
        first = chunk(document("text"))[0]
        assert first.hash == hashlib.sha256("문서 › 절\ntext".encode()).hexdigest()

    def test_identical_chunks_appear_once(self) -> None:
        twice = Document("t", (Block(("a",), "x"), Block(("b",), "y"), Block(("a",), "x")))
        assert [piece.ordinal for piece in chunk(twice)] == [0, 1]

    def test_document_without_blocks_has_no_chunks(self) -> None:
        assert chunk(Document("t", ())) == ()

    def test_chunks_do_not_cross_headings(self) -> None:
        two = Document("t", (Block(("a",), "one"), Block(("b",), "two")))
        assert [piece.text for piece in chunk(two)] == ["one", "two"]


class TestCuts:
    def test_blocks_fill_a_chunk_together(self) -> None:
        assert [piece.text for piece in chunk(document("one", "two"))] == ["one\n\ntwo"]

    def test_whole_blocks_are_kept_where_they_fit(self) -> None:
        first, second = "가" * 300, "나" * 400
        assert [piece.text for piece in chunk(document(first, second))] == [first, second]

    def test_long_block_is_cut_behind_a_sentence(self) -> None:
        assert all(piece.text.endswith("습니다.") for piece in chunk(document(" ".join([SENTENCE] * 60))))

    def test_sentence_end_needs_no_space_in_korean(self) -> None:
        assert chunk(document("가나다라마바사아자차카다." * 4), size=30, overlap=0)[0].text.endswith("다.")

    def test_number_of_an_item_ends_no_sentence(self) -> None:
        pieces = chunk(document("Alpha beta. Gamma 12. Delta epsilon"), size=24, overlap=0)
        assert pieces[0].text == "Alpha beta."

    def test_pieces_of_a_block_overlap_by_whole_sentences(self) -> None:
        numbered = [f"{number}번째 문장은 여기에서 끝이 납니다." for number in range(60)]
        pieces = chunk(document(" ".join(numbered)))
        repeated = [later.text.split(". ")[0] in sooner.text for sooner, later in pairwise(pieces)]
        assert all(repeated)

    def test_overlap_keeps_its_bound(self) -> None:
        numbered = " ".join(f"w{number}" for number in range(600))
        pieces = chunk(document(numbered), size=100, overlap=20)
        for sooner, later in pairwise(pieces):
            shared = set(sooner.text.split()) & set(later.text.split())
            assert 0 < len(" ".join(shared)) <= 20

    def test_word_longer_than_a_chunk_is_cut_hard(self) -> None:
        word = "abcdefghijklmnopqrstuvwxyz"
        pieces = chunk(document(word), size=10, overlap=5)
        assert [piece.text for piece in pieces] == [word[:10], word[10:20], word[20:]]

    def test_overlap_of_more_than_half_is_refused(self) -> None:
        with pytest.raises(ValueError, match="overlap"):
            chunk(document("x"), size=100, overlap=51)


_SENTENCES = re.compile(r"(?<=[다요][.!?])|(?<=。)")


class TestInvariants:
    @settings(deadline=None)
    @given(documents, limits)
    def test_no_word_is_lost(self, whole: Document, limit: tuple[int, int]) -> None:
        size, overlap = limit
        pieces = chunk(whole, size, overlap)
        for block in whole.blocks:
            for token in block.text.split():
                # One that is too long is cut anywhere; others only where a sentence ends within.
                words = _SENTENCES.split(token) if len(token) <= size else token
                assert all(any(word in piece.text for piece in pieces) for word in words)

    @settings(deadline=None)
    @given(documents, limits)
    def test_no_chunk_is_too_long_or_blank(self, whole: Document, limit: tuple[int, int]) -> None:
        assert all(
            0 < len(piece.text.strip()) <= len(piece.text) <= limit[0] for piece in chunk(whole, *limit)
        )

    @given(documents)
    def test_same_document_gives_same_chunks(self, whole: Document) -> None:
        assert chunk(whole) == chunk(replace(whole))

    @given(documents, words)
    def test_edit_in_one_section_leaves_the_others(self, whole: Document, added: str) -> None:
        first, last = Block(("first",), SENTENCE), Block(("last",), SENTENCE)
        before = chunk(replace(whole, blocks=(first, *whole.blocks, last)), 40, 5)
        after = chunk(
            replace(whole, blocks=(replace(first, text=f"{SENTENCE} {added}"), *whole.blocks, last)), 40, 5
        )
        unedited = [piece.hash for piece in before if "first" not in piece.heading]
        assert unedited == [piece.hash for piece in after if "first" not in piece.heading]

    @given(documents)
    def test_ordinals_count_up(self, whole: Document) -> None:
        pieces = chunk(whole, 20, 5)
        assert [piece.ordinal for piece in pieces] == list(range(len(pieces)))
