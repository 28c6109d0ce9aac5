"""Files of rows: CSV (RFC 4180), a JSON object on each line, or one JSON array.

What is guaranteed: every row comes with the line that it begins on, and what cannot be read is told by that
line; what `csv_line` writes is read back as it was, and no cell of it is a formula to a spreadsheet (OWASP,
"CSV Injection"). A JSON array is held in memory as a whole, all else row by row.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from services.commands.transfer.entries import Unfit
from services.dashboard.text import BOM, is_formula

__all__ = ["BOM", "Unreadable", "csv_line", "parsed", "rows_of"]

WRAPPERS = ("data", "items", "scores", "annotations")
"""Where APIs that list things have the list."""
LONGEST_CELL = 16 * 1024 * 1024
"""Characters. Python's own limit is 131,072, which an answer may pass."""


class Unreadable(Exception):
    """A file that is none of these from `line` on."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line


def rows_of(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of a file, each with its line.

    Raises:
        Unreadable: it is neither UTF-8 nor of these forms.
        OSError: it cannot be opened.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            start = file.read(1)
            while start.isspace():
                start = file.read(1)
            file.seek(0)
            if start == "[":
                yield from _array(file)
            elif start == "{":
                yield from _lines(file)
            elif start:
                yield from _csv(file)
    except UnicodeDecodeError as error:
        raise Unreadable(1, f"the file is not UTF-8 ({error.reason} at byte {error.start})") from None


def _csv(file: IO[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(file, strict=True)
    head: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            begins, line = line, reader.line_num + 1
            if not cells:
                continue
            if head is None:
                head = [cell.strip() for cell in cells]
            elif len(cells) != len(head):
                raise Unreadable(begins, f"{len(cells)} cells, but the head of the file names {len(head)}")
            else:
                yield begins, dict(zip(head, map(_unguarded, cells), strict=True))
    except csv.Error as error:
        raise Unreadable(line, f"not CSV: {error}") from None


def _lines(file: IO[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """A JSON object on each line; or one object that has the list in it, on as many lines as it likes."""
    for number, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            if number == 1:
                file.seek(0)
                yield from _array(file)
                return
            raise Unreadable(number, f"not JSON: {error}") from None
        listed = _listed(row) if number == 1 else None
        if listed is not None:
            yield from ((1, one) for one in listed)
        elif isinstance(row, dict):
            yield number, row
        else:
            raise Unreadable(number, "must be a JSON object")


def _array(file: IO[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    text = file.read()
    decoder = json.JSONDecoder()
    if not text.lstrip().startswith("["):
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Unreadable(getattr(error, "lineno", 1), f"not JSON: {error}") from None
        listed = _listed(whole)
        yield from ((1, one) for one in ([whole] if listed is None else listed))
        return
    at, line, counted = text.index("[") + 1, 1, 0
    while True:
        while at < len(text) and (text[at].isspace() or text[at] == ","):
            at += 1
        line, counted = line + text.count("\n", counted, at), at
        if text[at : at + 1] == "]":
            return
        try:
            row, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise Unreadable(line, f"not JSON: {error}") from None
        if not isinstance(row, dict):
            raise Unreadable(line, "must be a JSON object")
        yield line, row


def _listed(whole: Any) -> list[Any] | None:
    """The list in what an API answers; None where it is one row."""
    for name in WRAPPERS if isinstance(whole, dict) else ():
        found = whole.get(name)
        if isinstance(found, list) and all(isinstance(one, dict) for one in found):
            return found
    return None


# --- CSV as it is written ------------------------------------------------------------------


def csv_line(cells: Iterable[object]) -> str:
    """One line of CSV. What is neither text nor a number is written as JSON, None as an empty cell."""
    written = io.StringIO()
    csv.writer(written).writerow([_guarded(_text(cell)) for cell in cells])
    return written.getvalue()


def _text(cell: object) -> str:
    if cell is None or cell in ({}, []):
        return ""
    return json.dumps(cell, ensure_ascii=False) if isinstance(cell, dict | list) else str(cell)


def _is_guarded(cell: str) -> bool:
    """Whether a cell is written with a `'` before it: a formula, or what would be read back as one."""
    return is_formula(cell.lstrip("'"))


def _guarded(cell: str) -> str:
    return f"'{cell}" if _is_guarded(cell) else cell


def _unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _is_guarded(cell[1:]) else cell


def parsed(name: str, cell: Any) -> Any:
    """A cell that holds JSON, as CSV files have it.

    Raises:
        Unfit: it does not.
    """
    if not isinstance(cell, str) or not cell.strip():
        return cell or None
    try:
        return json.loads(cell)
    except (ValueError, RecursionError) as error:
        raise Unfit(name, f"not JSON: {error}") from None
