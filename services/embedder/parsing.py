"""From a file's bytes to a `Document`. Pure.

What is guaranteed: `parse` returns a document with at least one block, or raises `Unreadable` with
a reason; no other exception leaves it, whatever the bytes. The same bytes
under the same name give the same document.

What is not: layout. Emphasis, links' addresses and a PDF's columns are gone, and a scanned PDF has
no text (there is no OCR).
"""

from __future__ import annotations

import codecs
import io
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from services.embedder.document import Block, Document, Outline, Unreadable, newlines, one_line

__all__ = ["SUFFIXES", "Block", "Document", "Unreadable", "parse"]

SUFFIXES = {".md", ".txt", ".html", ".htm", ".pdf"}
"""What `parse` can read, in lower case."""

_CONTROL_SHARE = 0.05

# Python's names of the encodings that a page may declare, and what browsers take them for. UTF-16
# is not among them: a page whose <meta> reads as ASCII is not UTF-16, whatever it says.
_CHARSETS = {
    "euc_kr": "cp949", "cp949": "cp949", "iso8859-1": "cp1252", "cp1252": "cp1252",
    "shift_jis": "cp932", "cp932": "cp932", "euc_jp": "euc_jp",
    "gb2312": "gb18030", "gbk": "gb18030", "gb18030": "gb18030", "big5": "big5",
}  # fmt: skip


def parse(name: str, data: bytes) -> Document:
    """Read one file. `name` gives the type, by its suffix, and the title where the text has none.

    Raises:
        Unreadable: the type is unknown, the content is not of that type, or holds no text.
    """
    path = PurePosixPath(name)
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise Unreadable("document_type")
    outline = Outline()
    try:
        title = read(data, outline)
    except RecursionError:
        raise Unreadable("document_deep") from None
    return outline.document(title, path.stem)


def _read_text(data: bytes, outline: Outline) -> str:
    _add_paragraphs(_decode(data), outline)
    return ""


def _read_markdown(data: bytes, outline: Outline) -> str:
    from services.embedder.markup import add_markdown  # slow to import, as are all of these

    add_markdown(newlines(_decode(data)), outline)
    return ""


def _read_html(data: bytes, outline: Outline) -> str:
    from bs4.dammit import EncodingDetector

    from services.embedder.markup import add_html

    declared = EncodingDetector.find_declared_encoding(data, is_html=True)
    return add_html(_decode(data, declared), outline)


class _PdfBytes(io.BytesIO):
    """Bytes that may be searched from end to end only so often.

    For every object that a broken PDF lacks, pypdf searches the whole file: 20 MB of garbage with a
    page tree at its head keep it busy for hours. The budget is a few seconds of search.
    """

    budget = 500_000_000

    def getbuffer(self) -> memoryview:
        whole = super().getbuffer()
        self.budget -= whole.nbytes
        if self.budget < 0:
            from pypdf.errors import PdfReadError

            raise PdfReadError("too much of it is missing")
        return whole


def _read_pdf(data: bytes, outline: Outline) -> str:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it logs every oddity of every file
    try:
        pages = [page.extract_text() for page in PdfReader(_PdfBytes(data)).pages]
    except (FileNotDecryptedError, DependencyError):
        raise Unreadable("document_encrypted") from None
    except Exception as error:  # on garbage, pypdf raises whatever its code stumbles over
        message = one_line(str(error))[:100] or type(error).__name__
        raise Unreadable("document_broken", format="PDF", message=message) from None
    if not any(page.strip() for page in pages):
        raise Unreadable("document_scanned")
    for page in pages:
        _add_paragraphs(page, outline)
    return ""


_READERS: Mapping[str, Callable[[bytes, Outline], str]] = {
    ".md": _read_markdown,
    ".txt": _read_text,
    ".html": _read_html,
    ".htm": _read_html,
    ".pdf": _read_pdf,
}


def _add_paragraphs(text: str, outline: Outline) -> None:
    for paragraph in re.split(r"\n\s*\n", newlines(text)):
        outline.text("\n".join(" ".join(line.split()) for line in paragraph.split("\n")))


def _decode(data: bytes, declared: str | None = None) -> str:
    """BOM, then what is declared, UTF-8, CP949 (Korean Windows): the first that fits strictly."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    else:
        encodings = [*_python_codec(declared), "utf-8-sig", "cp949"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if _is_binary(text):
            raise Unreadable("document_binary")
        return text
    if _is_binary(data.decode("latin-1")):
        raise Unreadable("document_binary")
    raise Unreadable("document_encoding")


def _python_codec(declared: str | None) -> list[str]:
    try:
        name = codecs.lookup(declared or "utf-8").name
    except (LookupError, ValueError):
        return []
    return [_CHARSETS[name]] if name in _CHARSETS else []


def _is_binary(text: str) -> bool:
    controls = sum(map(text.count, _CONTROLS))
    return "\0" in text or controls > _CONTROL_SHARE * len(text)


_CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r\f\x85"]
