#!/usr/bin/env python3
"""The changelog's section of a version, for its release: scripts/release_notes.py 0.1.0

Ends with 1 where pyproject.toml has another version, or the changelog no section of it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def notes(version: str) -> str:
    """What stands under `## [version]`.

    Raises:
        SystemExit: there is none, it is empty, or the project's version is another.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if project != version:
        raise SystemExit(f"pyproject.toml says {project}, the tag says {version}")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|\Z)", changelog, re.M | re.S)
    if section is None or not section[1].strip():
        raise SystemExit(f"CHANGELOG.md has no section [{version}]: rename [Unreleased], with the date")
    return section[1].strip()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    print(notes(sys.argv[1]))
