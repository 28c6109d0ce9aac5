"""What a search is asked, and what it finds: plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Found", "Hit", "Question"]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. With a `conversation_id`, what is shown is remembered for a later vote."""

    text: str
    k: int = 10
    app: str = "default"
    conversation_id: str = ""
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found.

    Attributes:
        score: what it is ranked by, `scores` weighed; of one question only, scores compare.
        scores: by part: `dense` (1: same direction as the question, about 0: unrelated), `lexical`
            (0 to 1), and `memory` (what users liked for a question like this one, if anything); with an
            adapter, `adapter` is what it added to `dense`.
    """

    rank: int
    score: float
    scores: dict[str, float]
    source: str
    heading: str
    text: str
    chunk: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found in `generation`; None where there is none yet."""

    generation: int | None
    results: list[Hit]

    def public(self) -> dict[str, Any]:
        return {"generation": self.generation, "results": [asdict(hit) for hit in self.results]}
