"""From a document to the chunks that are embedded and found. Pure and deterministic.

What is guaranteed: every word of every block stands in some chunk (whole, unless it alone is longer
than a chunk, or a sentence ends within it, as where Korean omits a space); no chunk's text is longer
than `size`; no chunk crosses a heading, so an edit changes only the hashes of its own section; the
same heading and text have the same hash anywhere.

What is not: stability within a section. An edit moves the cuts that follow it there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from services.embedder.document import Document

__all__ = ["CHUNKER", "Chunk", "chunk"]

CHUNKER = "structure-1"
"""Name and version, stored with each generation: a change of what `chunk` returns needs a new one."""

# Where a piece may end, best first; a match ends where the piece does. A full stop behind a digit
# numbers an item or writes a date ("1. ", "2025. 10. 17.") more often than it ends a sentence.
_BLOCK = re.compile(r"(?=\n\n)")
_SENTENCE = re.compile(
    r"""(?:(?<!\d)\.|[!?…])["'”’」』)\]]*(?=\s)"""  # as in English, before a space
    r"""|(?:(?<=[다요죠까])[.!?]|[。！？])["'”’」』)\]]*"""  # endings that need none
    r"""|(?=\n)"""
)
_SPACE = re.compile(r"(?=\s)")
_WORD = re.compile(r"\S")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one section.

    Attributes:
        hash: SHA-256 of `embedded_text` in hex: the identity of the content.
        heading: document title and heading path, joined by " › ".
        text: what the section says here, 1 to `size` characters.
        ordinal: position in the document, from 0.
    """

    hash: str
    heading: str
    text: str
    ordinal: int

    @property
    def embedded_text(self) -> str:
        """What the vector is made of: heading, newline, text."""
        return f"{self.heading}\n{self.text}"


def chunk(document: Document, size: int = 600, overlap: int = 80) -> tuple[Chunk, ...]:
    """Cut a document into chunks of at most `size` characters (headings not counted).

    Blocks under one heading path fill a chunk together. Where they do not fit, the cut falls
    between blocks; within a long block at the end of a sentence, else of a word. After a cut within
    a block the next chunk repeats up to `overlap` characters, from the start of a sentence or word.
    Of identical chunks in one document the first counts.

    Raises:
        ValueError: `overlap` is not within 0 and half of `size`.
    """
    if not 0 <= overlap <= size // 2:
        raise ValueError(f"overlap {overlap} must lie within 0 and half of the size {size}")
    found: dict[str, Chunk] = {}
    for headings, blocks in groupby(document.blocks, key=lambda block: block.headings):
        path = headings if headings[:1] == (document.title,) else (document.title, *headings)
        heading = " › ".join(path)
        section = "\n\n".join(block.text for block in blocks).strip()
        for text in _pieces(section, size, overlap):
            digest = hashlib.sha256(f"{heading}\n{text}".encode()).hexdigest()
            found.setdefault(digest, Chunk(digest, heading, text, len(found)))
    return tuple(found.values())


def _pieces(text: str, size: int, overlap: int) -> Iterator[str]:
    start = done = 0  # where the next piece starts, and how far the pieces before it reach
    while len(text) - start > size:
        end = _cut(text, start, done, size)
        if end is None and start < done:  # the next word needs the room that the overlap takes
            start = done
            continue
        end = end or start + size
        yield text[start:end].rstrip()
        done = _next_word(text, end)
        start = _resume(text, max(start, end - overlap), end, done)
    if start < len(text):
        yield text[start:]


def _cut(text: str, start: int, done: int, size: int) -> int | None:
    """The best end, after `done`, for a piece from `start`; None inside a word of more than `size`."""
    # A quarter full at least: better to open a long block here than to leave a crumb.
    worthwhile = max(done, start + size // 4)
    limit = start + size
    for pattern, low in ((_BLOCK, worthwhile), (_SENTENCE, worthwhile), (_SPACE, done)):
        # Two characters more, so that a pattern sees what follows an end at the limit.
        ends = [match.end() for match in pattern.finditer(text, low, limit + 2)]
        fitting = [end for end in ends if low < end <= limit]
        if fitting:
            return fitting[-1]
    return None


def _resume(text: str, low: int, end: int, done: int) -> int:
    """Where the piece after a cut at `end` starts: from `low` on, or at `done` without overlap."""
    if "\n\n" in text[end:done]:
        return done
    for pattern in (_SENTENCE, _SPACE):
        for match in pattern.finditer(text, low, end):
            start = _next_word(text, match.end())
            if start < end:
                return start
    return done


def _next_word(text: str, position: int) -> int:
    found = _WORD.search(text, position)
    return found.start() if found else len(text)
