"""The fenced blocks of the READMEs and of the documents."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ENGLISH", "KOREAN", "PAGES", "ROOT", "Block", "block", "blocks"]

ROOT = Path(__file__).parents[2]
ENGLISH, KOREAN = ROOT / "README.md", ROOT / "README.ko.md"
PAGES = [ENGLISH, KOREAN, *sorted((ROOT / "docs").rglob("*.md"))]
"""Every page whose commands are run, or say what they need."""

_BLOCK = re.compile(r"(?:<!-- ([^\n]+) -->\n)?^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


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
    """The block with this comment before it, of the English page that has it first."""
    english = [page for page in PAGES if not page.name.endswith(".ko.md")]
    return next(found for page in english for found in blocks(page) if found.comment == comment)
