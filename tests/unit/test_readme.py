"""What the READMEs and the documents say hangs together; `tests/e2e/test_readme.py` runs their commands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from scripts import config_table
from services.cli import main as cli
from tests.support.readme import ENGLISH, KOREAN, ROOT, blocks

RUNNABLE = ("sh", "python")
LEFT_OUT = {"runs this file's test too", "needs an account", "needs Docker"}
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("path", [ENGLISH, KOREAN], ids=lambda path: path.name)
def test_every_block_of_commands_is_run_or_says_why_not(path: Path) -> None:
    for found in blocks(path):
        if found.language in RUNNABLE:
            assert found.comment.startswith("test: ") or found.comment in LEFT_OUT, found.text
        if found.language == "sh":
            subprocess.run(["sh", "-n", "-c", found.text], check=True)
        if found.language == "yaml":
            assert yaml.safe_load(found.text)


def test_both_languages_have_the_same_commands() -> None:
    english, korean = (
        [(found.comment, found.language, found.commands) for found in blocks(path)]
        for path in (ENGLISH, KOREAN)
    )
    assert english == korean


def test_both_languages_have_the_same_headings_and_tables() -> None:
    def outline(path: Path) -> list[str]:
        lines = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL).splitlines()
        return [line.split()[0] for line in lines if line.startswith(("#", "|", "!["))]

    assert [line[:2] for line in outline(ENGLISH)] == [line[:2] for line in outline(KOREAN)]


def test_the_configuration_tables_are_those_of_the_settings() -> None:
    assert config_table.main(["--check"]) == 0


@pytest.mark.parametrize("path", [ENGLISH, KOREAN], ids=lambda path: path.name)
def test_every_command_is_listed(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in cli.commands:
        assert re.search(rf"^\| .*`{name}\b", text, re.MULTILINE), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        file, _, heading = target.partition("#")
        if "://" in file:
            continue
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [
                re.sub(r"[^\w가-힣 -]", "", name.lower()).replace(" ", "-") for name in headings
            ]
