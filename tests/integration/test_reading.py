"""Documents made to be slow or large: they end, and what comes after them is read."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from services.embedder.parsing import Unreadable, parse
from services.embedder.reading import PLAIN, Reader

QUADRATIC = b"<a:" * 1_000_000
"""HTML whose open elements are looked through for each further one: hours."""
LONG = b"word " * PLAIN
"""Text that is not read in this process."""


def endless_pdf() -> bytes:
    """A small PDF: one page, of which there are very many, packed to a thousandth."""
    packed = zlib.compress(b"BT /F 1 Tf (x) Tj ET\n" * 200_000)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 9999/Kids[" + b"3 0 R " * 9999 + b"]>>",
        b"<</Type/Page/Parent 2 0 R/Contents 4 0 R/MediaBox[0 0 9 9]"
        b"/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>",
        b"<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (len(packed), packed),
    ]
    body = b"%PDF-1.4\n"
    for number, content in enumerate(objects, start=1):
        body += b"%d 0 obj%s endobj\n" % (number, content)
    return body + b"trailer<</Root 1 0 R>>\nstartxref\n0\n%%EOF"


@pytest.mark.parametrize(("name", "data"), [("a.html", QUADRATIC), ("a.pdf", endless_pdf())])
def test_a_document_that_takes_too_long_is_given_up_and_the_next_one_is_read(name: str, data: bytes) -> None:
    with Reader(cpu=1) as reader:
        with pytest.raises(Unreadable, match="document_costly"):
            reader.parse(name, data)
        assert reader.parse("b.txt", LONG) == parse("b.txt", LONG)


def test_a_document_is_given_up_when_its_time_by_the_clock_is_over() -> None:
    with Reader(wall=0.5) as reader, pytest.raises(Unreadable, match="document_costly"):
        reader.parse("a.html", QUADRATIC)


def test_a_document_that_takes_too_much_memory_is_given_up_and_the_next_one_is_read() -> None:
    with Reader(memory=100 * 1024**2) as reader:
        with pytest.raises(Unreadable, match="document_costly"):
            reader.parse("a.txt", b"word " * 4_000_000)
        assert reader.parse("b.txt", LONG) == parse("b.txt", LONG)


def test_a_document_whose_headings_would_fill_the_memory_of_who_asks_is_given_up() -> None:
    headings = "".join(f"{'#' * level} {'가' * 199}\n\n" for level in range(1, 7))
    with Reader() as reader, pytest.raises(Unreadable, match="document_headings"):
        reader.parse("a.md", (headings + "a\n\n***\n\n" * 22_000).encode())


def test_what_is_wrong_with_a_document_is_told_in_the_same_words() -> None:
    with Reader() as reader, pytest.raises(Unreadable, match="document_binary"):
        reader.parse("a.txt", b"\0" * (PLAIN + 1))


def test_a_pdf_is_read_as_in_this_process() -> None:
    path = Path(__file__).parents[2] / "services/commands/demo/knowledge/en/campus-library-guide.pdf"
    with Reader() as reader:
        assert reader.parse(path.name, path.read_bytes()) == parse(path.name, path.read_bytes())


def test_a_process_that_died_is_replaced() -> None:
    with Reader() as reader:
        reader.parse("a.txt", LONG)
        assert reader._process is not None
        reader._process.kill()
        reader._process.wait()
        assert reader.parse("b.txt", LONG) == parse("b.txt", LONG)
