"""The documentation's site: built strictly, its reference complete, nothing fetched from elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.contracts import contracts
from scripts.site import diagrams
from services.cli import main as cli
from shared.settings import Settings
from tests.support.readme import ROOT

OUTSIDE = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?(https?:)?//[^"'\s>]+""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. `--strict`: a link, an anchor or a page of the navigation that is missing ends it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "SITE_URL": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def words(page: Path) -> str:
    return re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))


@pytest.mark.timeout(600)
def test_the_reference_has_every_setting_command_route_and_event(site: Path) -> None:
    reference, documents = site / "reference", contracts()
    for path, names in {
        "settings": [name.upper() for name in Settings.model_fields],
        "cli": [f"feedback-loop {name}" for name in cli.commands],
        "http": [
            f"{method.upper()} {path}"
            for path, methods in documents["openapi.json"]["paths"].items()
            for method in methods
        ],
        "events": list(documents["asyncapi.json"]["components"]["messages"]),
        "security": ["Vote tokens"],
    }.items():
        text = words(reference / path / "index.html")
        assert not [name for name in names if name not in text], path
    assert "환경 변수" in words(site / "ko" / "reference" / "settings" / "index.html")


@pytest.mark.timeout(600)
def test_no_page_asks_another_server(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        found = [match[0] for match in OUTSIDE.finditer(page.read_text(encoding="utf-8"))]
        assert not [one for one in found if 'rel="canonical"' not in one], page
        assert "class=mermaid" not in page.read_text(encoding="utf-8")  # its script would come from a CDN


@pytest.mark.timeout(600)
def test_the_search_knows_korean(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert set(index["config"]["lang"]) == {"en", "ko"}
    assert [entry for entry in index["docs"] if "재임베딩" in entry["text"]]
    assert (site / "ko" / "tutorial" / "index.html").exists()


def test_every_diagram_has_its_picture_and_no_other() -> None:
    wanted = {diagrams.picture(source) for source in diagrams.sources()}
    assert wanted == set(diagrams.FOLDER.glob("*.svg"))
