"""The fenced blocks of both READMEs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ENGLISH", "KOREAN", "ROOT", "Block", "block", "blocks"]

ROOT = Path(__file__).parents[2]
ENGLISH, KOREAN = ROOT / "README.md", ROOT / "README.ko.md"

_BLOCK = re.compile(r"(?:<!-- ([^\n]+) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: what the comment before it says, its language, its text."""

    comment: str
    language: str
    text: str

    @property
    def commands(self) -> str:
        """The text without remarks, which may be translated."""
        return "\n".join(re.sub(r"(^|\s{2,})# .*$", "", line) for line in self.text.splitlines())


def blocks(path: Path) -> list[Block]:
    return [Block(*found) for found in _BLOCK.findall(path.read_text(encoding="utf-8"))]


def block(comment: str) -> Block:
    """The English README's block with this comment before it."""
    (found,) = [block for block in blocks(ENGLISH) if block.comment == comment]
    return found
