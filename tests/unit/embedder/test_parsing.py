"""Files into titled blocks: what is kept, what is left out, and what is refused with which reason."""

from __future__ import annotations

import io
import unicodedata
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter

from services.embedder.document import Outline
from services.embedder.parsing import SUFFIXES, Block, Unreadable, parse


def texts(name: str, data: bytes | str) -> list[str]:
    return [block.text for block in parse(name, data.encode() if isinstance(data, str) else data).blocks]


def pdf(*lines: str) -> bytes:
    """A one-page PDF that shows `lines`."""
    shown = " ".join(f"({line}) Tj 0 -20 Td" for line in lines)
    stream = f"BT /F1 12 Tf 72 720 Td {shown} ET"
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(stream)}>>stream\n{stream}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(body))
        body += f"{number} 0 obj {content} endobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"trailer<</Size 6/Root 1 0 R>>\nstartxref\n{len(body)}\n%%EOF"
    return f"{body}xref\n0 6\n0000000000 65535 f \n{table}{end}".encode()


def encrypted_pdf(password: str) -> bytes:
    writer = PdfWriter(PdfReader(io.BytesIO(pdf("secret"))))
    writer.encrypt(password, "owner", algorithm="RC4-128")
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


class TestMarkdown:
    def test_headings_give_the_path(self) -> None:
        blocks = parse("a.md", "# 환불\n\n머리\n\n## 기간\n\n7일\n\n# 배송\n\n빠름".encode()).blocks
        assert blocks == (
            Block(("환불",), "머리"),
            Block(("환불", "기간"), "7일"),
            Block(("배송",), "빠름"),
        )

    def test_only_first_level_heading_is_the_title(self) -> None:
        assert parse("a.md", b"# Refunds\n\ntext").title == "Refunds"

    def test_several_first_level_headings_leave_the_title_to_the_file(self) -> None:
        assert parse("docs/faq.md", b"# A\n\nx\n\n# B\n\ny").title == "faq"

    def test_front_matter_is_ignored(self) -> None:
        assert texts("a.md", "---\ntitle: x\ntags: [y]\n---\nbody") == ["body"]

    def test_thematic_breaks_are_not_taken_for_front_matter(self) -> None:
        assert texts("a.md", "---\n\nbody\n\n---\n\nend") == ["body", "end"]

    def test_nested_list_keeps_its_lines_and_marks(self) -> None:
        assert texts("a.md", "1. one\n2. two\n   - inner\n3. three") == [
            "1. one\n2. two\n  - inner\n3. three"
        ]

    def test_table_keeps_its_rows(self) -> None:
        assert texts("a.md", "| a | b |\n|---|---|\n| 1 | 2 |") == ["a | b\n1 | 2"]

    def test_empty_corner_cell_keeps_the_columns(self) -> None:
        assert texts("a.md", "|  | b |\n|---|---|\n| 1 | 2 |") == [" | b\n1 | 2"]

    def test_code_keeps_its_lines_and_spaces(self) -> None:
        assert texts("a.md", "```py\nif x:\n    y  = 1\n```") == ["if x:\n    y  = 1"]

    def test_emphasis_and_link_addresses_go(self) -> None:
        assert texts("a.md", "A **bold** [link](https://a.example) `code`") == ["A bold link code"]

    def test_heading_with_nothing_below_it_is_content(self) -> None:
        assert parse("a.md", b"# A\n\n## Empty\n\n## Full\n\nx").blocks[0] == Block(("A", "Empty"), "Empty")

    def test_overlong_heading_is_text(self) -> None:
        assert parse("a.md", b"# " + b"word " * 60).blocks[0].headings == ()


class TestHtml:
    def test_furniture_of_the_page_is_dropped(self) -> None:
        page = (
            "<title>t</title><header>H</header><nav>N</nav><p>body</p><aside>A</aside><script>s()</script>"
            "<style>p{}</style><form>F</form><footer>F</footer><p hidden>h</p><!-- c -->"
        )
        assert texts("a.html", page) == ["body"]

    def test_main_is_preferred(self) -> None:
        assert texts("a.html", "<div>menu</div><main><p>body</p></main><div>ads</div>") == ["body"]

    def test_only_article_is_preferred(self) -> None:
        assert texts("a.html", "<div>menu</div><article><p>body</p></article>") == ["body"]

    def test_header_of_an_article_belongs_to_it(self) -> None:
        page = parse("a.html", b"<article><header><h1>Title</h1></header><p>x</p></article>")
        assert page.blocks == (Block(("Title",), "x"),)

    def test_title_element_names_a_page_without_first_level_heading(self) -> None:
        assert parse("a.htm", b"<title>Shop &amp; Co</title><h2>Q</h2><p>A").title == "Shop & Co"

    def test_unclosed_and_nested_markup_keeps_lines(self) -> None:
        page = "<p>one<br>two<ul><li>a<ul><li>b</ul><li>c</ul><table><tr><td>1<td>2<tr><td>3</table>"
        assert texts("a.html", page) == ["one\ntwo", "- a\n  - b\n- c", "1 | 2\n3"]

    def test_declared_euc_kr_is_read_as_windows_does(self) -> None:
        page = '<meta charset="euc-kr"><p>똠방각하'.encode("cp949")
        assert texts("a.html", page) == ["똠방각하"]

    def test_wrongly_declared_charset_gives_way(self) -> None:
        assert texts("a.html", '<meta charset="utf-16"><p>한국어') == ["한국어"]


class TestText:
    def test_blank_lines_separate_paragraphs(self) -> None:
        assert texts("a.txt", "one\r\ntwo\r\n \r\nthree") == ["one\ntwo", "three"]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp949"])
    def test_encodings_of_korean_windows_are_read(self, encoding: str) -> None:
        assert texts("a.txt", "환불 안내입니다.".encode(encoding)) == ["환불 안내입니다."]

    def test_decomposed_hangul_is_composed(self) -> None:
        assert texts("a.txt", unicodedata.normalize("NFD", "한국어")) == ["한국어"]

    def test_invisible_marks_are_removed(self) -> None:
        assert texts("a.txt", "a\u200bb\xadc\x01 d e f g h i j k l m n o p q") == [
            "abc d e f g h i j k l m n o p q"
        ]

    def test_what_postgres_refuses_is_dropped(self) -> None:
        outline = Outline()
        outline.text("a\ud800b\0c")
        assert outline.document("t").blocks[0].text == "abc"


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "data", "reason"),
        [
            ("a.txt", b"", "document_empty"),
            ("a.md", b"---\ntitle: x\n---\n", "document_empty"),
            ("a.html", b"<nav>menu</nav>", "document_empty"),
            ("a.docx", b"PK", "document_type"),
            ("a.txt", b"\x7fELF\x02\x01\x00\x00", "document_binary"),
            ("a.md", b"\x89PNG\r\n\x1a\n\x03\x01\x02\xff\xd8", "document_binary"),
            ("a.txt", b"ab\x01\x02\x03", "document_binary"),
            ("a.txt", b"caf\xe9 au lait", "document_encoding"),
            ("a.pdf", b"", "document_broken"),
            ("a.pdf", b"%PDF-1.7\nnot really", "document_broken"),
            ("a.pdf", pdf("text")[:300], "document_broken"),
            ("a.pdf", pdf(), "document_scanned"),
            ("a.pdf", encrypted_pdf("secret"), "document_encrypted"),
        ],
    )
    def test_reason_is_named(self, name: str, data: bytes, reason: str) -> None:
        with pytest.raises(Unreadable, match=reason):
            parse(name, data)

    def test_garbage_behind_a_page_tree_is_given_up_in_time(self) -> None:
        kids = " ".join(f"{number} 0 R" for number in range(3, 3000))
        broken = pdf("x").replace(b"[3 0 R]", f"[{kids}]".encode()) + b"\n%" + b"\xa7" * 8_000_000
        with pytest.raises(Unreadable, match="document_broken"):
            parse("a.pdf", broken + pdf("x")[-60:])

    def test_deep_nesting_is_no_crash(self) -> None:
        assert texts("a.html", "<div>" * 5000 + "deep") == ["deep"]

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(sorted(SUFFIXES)), st.binary(max_size=200))
    def test_any_bytes_give_a_document_or_a_reason(self, suffix: str, data: bytes) -> None:
        with suppress(Unreadable):
            assert all(block.text.strip() for block in parse(f"a{suffix}", data).blocks)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 600), st.binary(max_size=6)), max_size=12))
    def test_any_damage_to_a_pdf_gives_a_document_or_a_reason(self, damage: list[tuple[int, bytes]]) -> None:
        data = bytearray(pdf("Some text", "Another line"))
        for place, bytes_ in damage:
            data[place : place + len(bytes_)] = bytes_
        with suppress(Unreadable):
            assert parse("a.pdf", bytes(data)).blocks


class TestPdf:
    def test_text_of_a_page_is_read(self) -> None:
        assert texts("guide.pdf", pdf("Refunds take 7 days.", "Ask us.")) == ["Refunds take 7 days.\nAsk us."]

    def test_file_name_is_the_title(self) -> None:
        assert parse("docs/guide.pdf", pdf("x")).title == "guide"

    def test_pdf_that_only_restricts_editing_is_read(self) -> None:
        assert texts("a.pdf", encrypted_pdf("")) == ["secret"]

    def test_oddities_are_not_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        parse("a.pdf", pdf("x").replace(b"Catalog", b"Cataxog"))
        assert not caplog.records
