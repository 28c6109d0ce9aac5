"""Markup into an outline: HTML, and Markdown by way of it. Pure.

What is guaranteed: what a reader of the page would see as its content arrives once and in order;
lists and tables keep their lines, code its spaces. What is not: the page's furniture (navigation,
scripts, forms, the site's header and footer) and what `hidden` hides is left out.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

from bs4 import BeautifulSoup
from bs4.element import CData, NavigableString, PageElement, Tag
from bs4.exceptions import ParserRejectedMarkup
from markdown_it import MarkdownIt

from services.embedder.document import Outline, Unreadable

__all__ = ["add_html", "add_markdown"]

_LEVELS = {f"h{level}": level for level in range(1, 7)}
_GROUPS = {"ul", "ol", "dl", "table"}
_FRAMES = _GROUPS | {"thead", "tbody", "tfoot", "tr"}
_CELLS = {"td", "th"}
_BLOCKS = {
    "address", "article", "blockquote", "body", "caption", "dd", "details", "div", "dt", "figcaption",
    "figure", "footer", "header", "hr", "main", "p", "pre", "section", "summary", "tr",
}  # fmt: skip
_DROPPED = {
    "head",
    "title",
    "script",
    "style",
    "nav",
    "aside",
    "form",
    "noscript",
    "template",
    "svg",
    "iframe",
}
_FRONT_MATTER = re.compile(
    r"\A---[ \t]*\n(?=[\w.-]+:|---).*?^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE
)


def add_markdown(text: str, outline: Outline) -> None:
    """Add CommonMark with tables; front matter is left out, raw HTML is read as HTML."""
    text = _FRONT_MATTER.sub("", text, count=1)
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    _walk(_soup(markdown.render(text)), outline)


def add_html(markup: str, outline: Outline) -> str:
    """Add a page's `<main>` or only `<article>`, else all of it; returns what `<title>` says.

    Raises:
        Unreadable: the parser gives up on the markup.
    """
    soup = _soup(markup)
    articles = soup.find_all("article", limit=2)
    _walk(soup.find("main") or (articles[0] if len(articles) == 1 else soup), outline)
    return soup.title.get_text() if soup.title else ""


def _soup(markup: str) -> BeautifulSoup:
    with warnings.catch_warnings():
        # Beautiful Soup guesses that XHTML, or a page with nothing but a URL, is a mistake.
        warnings.simplefilter("ignore")
        try:
            return BeautifulSoup(markup, "html.parser")
        except ParserRejectedMarkup as error:
            raise Unreadable("document_broken", format="HTML", message=str(error)) from None


def _walk(root: Tag, outline: Outline) -> None:
    page = _Page(outline)
    for opens, node in _events(root):
        if isinstance(node, Tag):
            (page.open if opens else page.close)(node)
        elif type(node) in (NavigableString, CData) and not _is_layout(node):
            page.string(str(node))
    page.flush()


def _events(root: Tag) -> Iterator[tuple[bool, PageElement]]:
    """Each node as it opens and each tag again as it closes; no recursion, pages nest deeply."""
    stack: list[tuple[bool, PageElement]] = [(True, root)]
    while stack:
        opens, node = stack.pop()
        if opens and isinstance(node, Tag):
            if _is_furniture(node):
                continue
            stack.append((False, node))
            stack.extend((True, child) for child in reversed(node.contents))
        yield opens, node


def _is_furniture(tag: Tag) -> bool:
    if tag.name in ("header", "footer"):  # the site's; an article's own carries its title
        return tag.find_parent(["main", "article"]) is None
    return tag.name in _DROPPED or tag.has_attr("hidden")


def _is_layout(text: PageElement) -> bool:
    """Spaces between the rows of a table or the items of a list mean nothing."""
    return text.parent is not None and text.parent.name in _FRAMES and not str(text).strip()


class _Page:
    """Turns a tree's events into headings and blocks; a whole list or table is one block of lines."""

    def __init__(self, outline: Outline) -> None:
        self._outline = outline
        self._shown: list[str] = []
        self._groups: list[int | None] = []  # open lists and tables; the next number where numbered
        self._column = 0  # cells so far in this row
        self._cells = 0
        self._pre = 0
        self._mark = ""  # the bullet or column that the next text stands behind

    def open(self, tag: Tag) -> None:
        name = tag.name
        if name in _LEVELS:
            self.flush()
        elif name in _GROUPS:
            self._end_line()
            self._groups.append(_first_number(tag))
        elif name == "li":
            self._new_item()
        elif name in _CELLS:
            self._mark += " | " if self._column else ""
            self._column += 1
            self._cells += 1
        elif name == "tr":
            self._new_line()  # also where the row before was never closed
            self._column, self._mark = 0, ""
        elif name in _BLOCKS:
            self._end_line()
            self._pre += name == "pre"
        elif name == "br":
            self._shown.append("\n")
        elif name == "img":
            self.string(f" {tag.get('alt') or ''} ")

    def close(self, tag: Tag) -> None:
        name = tag.name
        if name in _LEVELS:
            self._outline.heading(_LEVELS[name], self._take())
        elif name in _GROUPS:
            self._end_line()
            if len(self._groups) == 1:
                self.flush()
            self._groups.pop()
        elif name in _CELLS:
            self._cells -= 1
        elif name in _BLOCKS:
            self._end_line()
            self._pre -= name == "pre"

    def string(self, text: str) -> None:
        if not self._pre:
            text = re.sub(r"\s+", " ", text)
            if self._at_space():
                text = text.lstrip()
        if self._mark and text.strip():
            self._shown.append(self._mark.lstrip(" ") if self._shown[-1:] == [" "] else self._mark)
            self._mark = ""
        if text and not self._mark:
            self._shown.append(text)

    def flush(self) -> None:
        self._outline.text(self._take())

    def _take(self) -> str:
        text = "".join(self._shown)
        self._shown.clear()
        self._mark = ""
        return text

    def _end_line(self) -> None:
        if not self._groups:
            self.flush()
        elif self._cells:
            self.string(" ")
        else:
            self._new_line()

    def _new_line(self) -> None:
        if self._shown and not self._shown[-1].endswith("\n"):
            self._shown.append("\n")

    def _new_item(self) -> None:
        if self._groups:
            self._new_line()
        else:  # an item without a list
            self.flush()
        number = self._groups[-1] if self._groups else None
        if number is not None:
            self._groups[-1] = number + 1
        indent = "  " * (len(self._groups) - 1)
        self._mark = f"{indent}- " if number is None else f"{indent}{number}. "

    def _at_space(self) -> bool:
        return not self._shown or self._shown[-1][-1:].isspace()


def _first_number(tag: Tag) -> int | None:
    start = str(tag.get("start", "1"))
    return (int(start) if re.fullmatch(r"[0-9]{1,9}", start) else 1) if tag.name == "ol" else None
