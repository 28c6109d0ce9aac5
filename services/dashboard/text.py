"""Texts that people wrote, fit to be shown, and as cells of a spreadsheet. Pure.

What is guaranteed: bounded, valid Unicode, no control characters (but line breaks) and no direction
overrides; a cell is text to a spreadsheet, never a formula. What is not: that it is escaped for a markup;
the page inserts it as text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

__all__ = ["BOM", "is_formula", "lines", "rows"]

BOM = "\ufeff"
"""By this Excel knows UTF-8."""

_JOINER = "\u200d"
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def lines(text: str, limit: int) -> str:
    """`text` with its line breaks, of at most `limit` characters, a longer one ending in `…`.

    Other control characters, direction overrides and lone surrogates become spaces.
    """
    head = text[: limit + 1].replace("\r\n", "\n").replace("\r", "\n")
    shown = "".join(c if c.isprintable() or c in ("\n", "\t", _JOINER) else " " for c in head)
    return shown if len(text) <= limit else shown[: limit - 1].rstrip() + "…"


def rows(cells: Iterable[Sequence[str | int | None]]) -> str:
    """Rows of a CSV file (RFC 4180). Cells that a spreadsheet would take for a formula begin with `'`
    (OWASP, "CSV Injection"); an empty one stands for None."""
    written = io.StringIO()
    csv.writer(written).writerows([[_cell(cell) for cell in row] for row in cells])
    return written.getvalue()


def _cell(cell: str | int | None) -> str | int | None:
    if not isinstance(cell, str):
        return cell
    return f"'{cell}" if is_formula(cell) else cell


def is_formula(cell: str) -> bool:
    """Whether a spreadsheet would take a cell for one. It may drop the space before it."""
    return cell.startswith(_FORMULA) or cell.lstrip().startswith(_FORMULA)
