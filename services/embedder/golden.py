"""The golden set: questions, and the documents that they should find."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.settings import SettingsError

__all__ = ["GoldenSet", "read_golden_set"]

GoldenSet = Mapping[str, Sequence[str]]
"""Question -> sources of which one should be found."""


def read_golden_set(path: Path | None) -> GoldenSet:
    """The golden set of a file: a line of JSON per question, `{"question", "sources": [...]}`.

    Raises:
        SettingsError: the file cannot be read, or a line of it is none; the text names it.
    """
    if path is None:
        return {}
    golden: dict[str, Sequence[str]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise SettingsError(f"GOLDEN_SET: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            golden[str(entry["question"])] = [str(source) for source in entry["sources"]]
        except (ValueError, KeyError, TypeError):
            raise SettingsError(
                f'GOLDEN_SET: line {number} of {path} is not {{"question": …, "sources": […]}}'
            ) from None
    return golden
