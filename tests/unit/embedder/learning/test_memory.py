"""The memory: whom it helps, how much, and that it keeps."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from services.embedder.learning.credit import Example
from services.embedder.learning.memory import LIMIT, STRENGTH, SURE_VECTOR, TAU_VECTOR, Memory
from shared.embedding.vectors import Vectors, unit

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def example(question: str, **targets: float) -> Example:
    return Example(question, targets, {}, ("ann",), 1.0, NOW)


def apart(count: int, dimensions: int = 64) -> Vectors:
    return np.asarray(np.eye(dimensions, dtype=np.float32)[:count])


def at(cosine: float, vector: Vectors, other: Vectors) -> Vectors:
    return np.asarray(unit((cosine * vector + np.sqrt(1 - cosine**2) * other)[None])[0])


class TestBonus:
    def test_the_same_question_gets_its_targets(self) -> None:
        memory = Memory.fit([example("환불 규정", a=0.5, b=-0.1)], apart(1))
        expected = {"a": 0.5 * STRENGTH, "b": -0.1 * STRENGTH}
        assert memory.bonus(apart(1)[0], "환불 규정") == pytest.approx(expected)

    def test_a_weaker_memory_gives_less(self) -> None:
        memory = Memory.fit([example("환불 규정", a=0.5)], apart(1), 0.5)
        assert memory.bonus(apart(1)[0], "환불 규정") == pytest.approx({"a": 0.25 * STRENGTH})

    def test_a_far_question_gets_nothing(self) -> None:
        memory = Memory.fit([example("환불 규정", a=0.5)], apart(2)[:1])
        assert memory.bonus(apart(2)[1], "점심 메뉴") == {}

    def test_it_fades_linearly_with_the_cosine(self) -> None:
        first, second = apart(2)
        memory = Memory.fit([example("환불", a=0.2)], first[None])
        half = at((SURE_VECTOR + TAU_VECTOR) / 2, first, second)
        assert memory.bonus(half) == pytest.approx({"a": 0.1 * STRENGTH}, rel=1e-4)

    def test_words_left_out_and_in_another_order_are_recognised(self) -> None:
        asked = ["how do I return a broken kettle", "which trains go to Busan at noon"]
        memory = Memory.fit([example(q, a=0.5) for q in asked], apart(2))
        assert memory.bonus(apart(3)[2], "broken kettle return how")["a"] > 0

    def test_it_is_limited_however_many_agree(self) -> None:
        memory = Memory.fit(
            [example("q", a=1.0), example("q", a=1.0), example("q", b=-1.0)], apart(1)[[0] * 3]
        )
        assert memory.bonus(apart(1)[0]) == pytest.approx({"a": LIMIT, "b": -LIMIT})

    def test_several_at_once_are_as_one_by_one(self) -> None:
        rng = np.random.default_rng(0)
        vectors = unit(rng.normal(size=(30, 4)))
        questions = [f"word{i % 7} word{i % 3} thing" for i in range(30)]
        memory = Memory.fit(
            [example(q, **{f"c{i % 5}": 0.3, "d": -0.1}) for i, q in enumerate(questions)], vectors
        )
        found = memory.bonuses(vectors, questions)
        for row in range(30):
            here = found.rows == row
            several = {
                memory.chunks[c].decode(): v
                for c, v in zip(found.columns[here], found.values[here], strict=True)
            }
            assert several == pytest.approx(memory.bonus(vectors[row], questions[row]), abs=1e-6)

    def test_without_itself_a_question_learns_from_the_others_only(self) -> None:
        memory = Memory.fit([example("q", a=0.5)], apart(1))
        assert len(memory.bonuses(apart(1), ["q"], own=False).rows) == 0


class TestKeeping:
    def test_bytes_bring_back_the_same_memory(self) -> None:
        memory = Memory.fit([example("환불 규정", a=0.2), example("배송", b=0.4)], apart(2))
        again = Memory.from_bytes(memory.to_bytes())
        assert again.bonus(apart(1)[0], "환불") == memory.bonus(apart(1)[0], "환불") != {}

    def test_nothing_makes_an_empty_memory(self) -> None:
        memory = Memory.from_bytes(Memory.fit([], np.zeros((0, 8), np.float32)).to_bytes())
        assert len(memory) == 0 and memory.bonus(apart(1, 8)[0], "q") == {}

    def test_questions_without_a_word_to_say_are_dropped(self) -> None:
        assert len(Memory.fit([example("q", a=0.0), example("r", a=0.5)], apart(2))) == 1

    def test_a_question_of_signs_alone_is_like_nothing(self) -> None:
        memory = Memory.fit([example("?!", a=0.5)], apart(1))
        assert memory.bonus(apart(2)[1], "...") == {}

    def test_too_few_vectors_are_refused(self) -> None:
        with pytest.raises(ValueError, match="1 questions and 2 vectors"):
            Memory.fit([example("q", a=0.5)], apart(2))

    @pytest.mark.parametrize("data", [b"", b"no archive"])
    def test_what_is_no_memory_is_refused(self, data: bytes) -> None:
        with pytest.raises((ValueError, EOFError)):
            Memory.from_bytes(data)


class TestWithout:
    ASKED = ("환불 규정", "배송 조회 방법", "how do I return a kettle")

    def memory(self) -> Memory:
        examples = [
            example(question, **{f"c{n}": 0.5, "shared": 0.2}) for n, question in enumerate(self.ASKED)
        ]
        return Memory.fit(examples, apart(3))

    def test_what_is_taken_out_helps_no_more(self) -> None:
        rest = self.memory().without(["배송 조회 방법"])
        assert len(rest) == 2
        assert rest.bonus(apart(3)[1], "배송 조회 방법") == {}

    def test_the_others_help_as_before(self) -> None:
        before, rest = self.memory(), self.memory().without(["배송 조회 방법"])
        for row in (0, 2):
            assert rest.bonus(apart(3)[row], self.ASKED[row]) == before.bonus(apart(3)[row], self.ASKED[row])

    def test_it_is_what_the_others_alone_would_have_made(self) -> None:
        rest = self.memory().without([self.ASKED[2]])
        alone = Memory.fit(
            [example(q, **{f"c{n}": 0.5, "shared": 0.2}) for n, q in enumerate(self.ASKED[:2])], apart(2)
        )
        for name in ("vectors", "terms", "starts", "owners", "lengths", "begins", "values"):
            np.testing.assert_array_equal(getattr(rest, name), getattr(alone, name))

    def test_it_keeps(self) -> None:
        rest = Memory.from_bytes(self.memory().without([self.ASKED[0]]).to_bytes())
        assert set(rest.bonus(apart(3)[1], self.ASKED[1])) == {"c1", "shared"}

    def test_nothing_may_be_left(self) -> None:
        rest = self.memory().without(self.ASKED)
        assert len(rest) == 0
        assert Memory.from_bytes(rest.to_bytes()).bonus(apart(1)[0], self.ASKED[0]) == {}

    def test_who_was_never_asked_takes_nothing(self) -> None:
        assert len(self.memory().without(["점심 메뉴"])) == 3
        assert len(Memory.fit([], apart(0)).without(["점심 메뉴"])) == 0
