"""What a document is once it is read: a title and blocks of clean text under headings. Pure.

What is guaranteed of every text in a `Document`: NFC, no control characters but the newline, none
of what PostgreSQL's `text` refuses (NUL, lone surrogates), never blank.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

__all__ = ["MAX_HEADING", "Block", "Document", "Outline", "Unreadable", "newlines", "one_line"]

MAX_HEADING = 200
"""Characters; a longer "heading" is text in disguise and is kept as text."""

_NEWLINE = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Control characters, lone surrogates, and marks that show nothing (soft hyphen, zero-width space,
# direction marks, BOM). The zero-width joiners stay: they make emoji and some scripts.
_UNWANTED = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\xad\u200b\u200e\u200f\u2060\ufeff\ufffe\uffff]"
)


class Unreadable(Exception):
    """The file gives no text.

    Attributes:
        code, figures: why; `shared/reasons.py` has the words, which whoever parses does without.
    """

    def __init__(self, code: str, **figures: str | int) -> None:
        super().__init__(code, figures)
        self.code, self.figures = code, figures


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, list, table or piece of code, and the path of headings above it, outermost first."""

    headings: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """A title (the only level-1 heading; HTML's `<title>`; else the file's name) and its blocks."""

    title: str
    blocks: tuple[Block, ...]


class Outline:
    """Collects blocks under the headings that are open, cleaning text on the way in."""

    def __init__(self) -> None:
        self._path: list[tuple[int, str]] = []
        self._blocks: list[Block] = []
        self._first_level: list[str] = []
        self._bare = False  # nothing came below the last heading yet

    def heading(self, level: int, text: str) -> None:
        """Open a heading of `level` 1 to 6; it closes those of its level and below."""
        line = one_line(text)
        if len(line) > MAX_HEADING:
            self.text(text)
        elif line:
            if self._path and level <= self._path[-1][0]:
                self._keep_bare_heading()
            self._path = [(above, title) for above, title in self._path if above < level]
            self._path.append((level, line))
            self._bare = True
            if level == 1:
                self._first_level.append(line)

    def text(self, text: str) -> None:
        """Add a block, unless it is blank. Spaces and line breaks within it are kept."""
        text = _clean(text)
        if text:
            self._blocks.append(Block(tuple(heading for _, heading in self._path), text))
            self._bare = False

    def document(self, *titles: str) -> Document:
        """What was collected, called by its only level-1 heading, else by the first of `titles`.

        Raises:
            Unreadable: nothing was collected.
        """
        self._keep_bare_heading()
        if not self._blocks:
            raise Unreadable("document_empty")
        if len(self._first_level) == 1:
            titles = (self._first_level[0], *titles)
        shown = [line[:MAX_HEADING] for line in map(one_line, titles) if line]
        return Document(shown[0] if shown else "untitled", tuple(self._blocks))

    def _keep_bare_heading(self) -> None:
        # A heading with nothing below it is content: without a block it could never be found.
        if self._bare:
            self.text(self._path[-1][1])


def newlines(text: str) -> str:
    """`text` with every kind of line end, page break among them, as a newline."""
    return _NEWLINE.sub("\n", text)


def one_line(text: str) -> str:
    """`text` clean and in one line, with single spaces."""
    return " ".join(_clean(text).split())


def _clean(text: str) -> str:
    text = _UNWANTED.sub("", newlines(unicodedata.normalize("NFC", text)))
    lines = (line.replace("\xa0", " ").expandtabs(4).rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
