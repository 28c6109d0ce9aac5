"""Diagrams: Mermaid in the pages, pictures on the site.

A page's Mermaid block is drawn once, by `python -m scripts.site.diagrams`, into `docs/diagrams/`, under the
digest of its text: so readers need no script, builds no browser, and a picture cannot be of another text.
Drawing needs the Chromium of the tests, and `mermaid.min.js` of the npm package `mermaid` (11.x).

    npm pack mermaid@11 && tar -xzf mermaid-11.*.tgz package/dist/mermaid.min.js
    python -m scripts.site.diagrams package/dist/mermaid.min.js
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "diagrams"
OPTIONS = {
    "startOnLoad": False,
    "htmlLabels": False,
    "fontFamily": "sans-serif",
    "theme": "neutral",
    "state": {"htmlLabels": False},
    "flowchart": {"htmlLabels": False},
    "sequence": {"useMaxWidth": True},
}
DRAW = """async ([text, id, options]) => {
    mermaid.initialize(options);
    return (await mermaid.render(id, text)).svg;
}"""


def fence(source: str, language: str, css_class: str, options: Any, md: Any, **_: Any) -> str:
    """The block's picture, for `pymdownx.superfences`.

    Raises:
        SystemExit: it has not been drawn.
    """
    path = picture(source)
    if not path.exists():
        raise SystemExit(f"diagrams: {path.name} is missing: python -m scripts.site.diagrams --help")
    return f'<div class="{css_class}">{path.read_text(encoding="utf-8")}</div>'


def picture(source: str) -> Path:
    return FOLDER / f"{_digest(source)}.svg"


def sources() -> list[str]:
    """The text of every Mermaid block of the pages."""
    pages = sorted(DOCS.rglob("*.md"))
    blocks = [
        re.findall(r"^```mermaid\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
        for page in pages
    ]
    return [block.strip() for found in blocks for block in found]


def draw(script: Path) -> None:
    """Draw what has no picture yet; drop pictures that no page shows."""
    from playwright.sync_api import sync_playwright

    from tests.support.browser import prepare

    wanted = {picture(source): source for source in sources()}
    for path in set(FOLDER.glob("*.svg")) - set(wanted):
        path.unlink()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=prepare(), args=["--no-sandbox"])
        page = browser.new_page()
        page.add_script_tag(path=script)
        for path, source in wanted.items():
            if not path.exists():
                svg = page.evaluate(DRAW, [source, f"d{_digest(source)}", OPTIONS])
                path.write_text(svg + "\n", encoding="utf-8")
                print(f"{path.name} drawn")
        browser.close()


def _digest(source: str) -> str:
    return hashlib.sha256(source.strip().encode()).hexdigest()[:12]


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        raise SystemExit(__doc__)
    draw(Path(sys.argv[1]))
