"""MkDocs' hooks: pages that are made, and links that lead out of `docs/`.

The pages of the repository work on GitHub as they are. On the site, SECURITY.md, CHANGELOG.md and some
sections of the READMEs become pages, and what is none (a folder, a source file) is named and not linked.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from scripts.site import reference

ROOT = Path(__file__).parents[2]

MOVED = {"SECURITY.md": "reference/security.md", "CHANGELOG.md": "reference/changes.md"}
"""File of the repository → page of the site."""

SECTIONS = {
    "how-to/connect.md": ("README.md", "Connect your chatbot"),
    "how-to/connect.ko.md": ("README.ko.md", "챗봇 연결하기"),
    "how-to/trigger.md": ("README.md", "Trigger it from another service"),
    "how-to/trigger.ko.md": ("README.ko.md", "다른 서비스에서 실행하기"),
    "how-to/troubleshoot.md": ("README.md", "Troubleshooting"),
    "how-to/troubleshoot.ko.md": ("README.ko.md", "문제 해결"),
}
"""Page of the site → README, and its section."""

PLACES = {
    "README.md#configuration": "reference/settings.md",
    "README.ko.md#설정": "reference/settings.md",
    "README.md#command-line": "reference/cli.md",
    "README.ko.md#명령줄": "reference/cli.md",
    "README.md#troubleshooting": "how-to/troubleshoot.md",
    "README.ko.md#문제-해결": "how-to/troubleshoot.md",
    "README.md#the-knowledge-base": "how-to/connect.md#the-knowledge-base",
    "README.ko.md#지식-베이스": "how-to/connect.md#지식-베이스",
    "README.md#tokens": "how-to/connect.md#tokens",
    "README.ko.md#토큰": "how-to/connect.md#토큰",
    "README.md": "index.md",
    "README.ko.md": "index.md",
}
"""Where the site has what stands in a README."""

_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> Any:
    _made.cache_clear()
    config.watch.extend(str(ROOT / name) for name in ("scripts/site", "README.md", "README.ko.md", *MOVED))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path in _made():
        # Not `File.generated`: the plugin for languages asks where a page lies.
        files.append(File(path, config.docs_dir, config.site_dir, config.use_directory_urls))
    return files


def on_page_read_source(page: Page, config: MkDocsConfig) -> str | None:
    return _made().get(page.file.src_uri)


@functools.cache
def _made() -> dict[str, str]:
    """The path of each page that lies nowhere → its Markdown."""
    pages = reference.pages()
    pages |= {page: (ROOT / name).read_text(encoding="utf-8") for name, page in MOVED.items()}
    return pages | {page: _section(*where) for page, where in SECTIONS.items()}


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links made fit for the site."""
    here = page.file.src_uri
    moved = {page: name for name, page in MOVED.items()} | {
        page: name for page, (name, _) in SECTIONS.items()
    }
    source = moved.get(here, f"docs/{here}")
    parts = _FENCED.split(markdown)
    parts[::2] = [_LINK.sub(lambda found: _linked(found, source, here), part) for part in parts[::2]]
    return "".join(parts)


def _section(name: str, heading: str) -> str:
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{name} has no section {heading}"
    return f"# {heading}\n{found[1]}"


def _linked(found: re.Match[str], source: str, here: str) -> str:
    """A link of `source`, a file of the repository, as the page `here` must have it."""
    text, target, anchor = found[1], found[2], found[3] or ""
    if "://" in target or target.startswith("mailto:") or (not target and source == f"docs/{here}"):
        return found[0]
    there = posixpath.normpath(posixpath.join(os.path.dirname(source), target)) if target else source
    if (place := PLACES.get(there + anchor)) is not None:
        there, _, anchor = place.partition("#")
        anchor = f"#{anchor}" if anchor else ""
    elif there in MOVED or there in PLACES:
        there = MOVED.get(there) or PLACES[there]
    elif there.startswith("docs/") and not (ROOT / there).is_dir():
        there = there.removeprefix("docs/")  # where it is missing, MkDocs says so
    else:
        return f"{text} (`{there}`)" if there not in text else text
    there = there.replace(".ko.md", ".md")  # each language finds its own
    return f"[{text}]({posixpath.relpath(there, os.path.dirname(here) or '.')}{anchor})"
