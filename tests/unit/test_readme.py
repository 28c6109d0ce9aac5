"""What the READMEs and the documents say hangs together; `tests/e2e/test_readme.py` runs their commands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from scripts import config_table
from scripts.site import hooks, reference
from services.cli import main as cli
from tests.support.readme import ENGLISH, KOREAN, PAGES, ROOT, blocks

RUNNABLE = ("sh", "bash", "python", "sql")
LEFT_OUT = {
    "a signature",
    "needs Docker",
    "needs a cluster",
    "needs a newer version",
    "needs a collector",  # the tests of traces have one
    "needs a receiver",  # tests/integration/test_webhook.py has one
    "needs an account",
    "needs an administrator",  # tests/integration/test_roles.py does the same
    "runs this file's test too",
}
TESTS = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py")))
MADE = {f"docs/{page}" for page in (*reference.pages(), *hooks.MOVED.values(), *hooks.SECTIONS)}
TRANSLATED = [path for path in PAGES if path.name.endswith(".ko.md")]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_of_commands_is_run_or_says_why_not(path: Path) -> None:
    assert path.read_text(encoding="utf-8").count("\n```") == 2 * len(blocks(path)), (
        "a block without language"
    )
    for found in blocks(path):
        _, tested, name = found.comment.partition("test: ")
        if found.language in RUNNABLE:
            assert tested or found.comment in LEFT_OUT, found.text
        if tested and found.language in RUNNABLE:
            assert f'"{name}"' in TESTS or f'"{found.comment}"' in TESTS, f"no test runs {name}"
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


def test_what_is_run_is_the_same_wherever_it_stands() -> None:
    commands: dict[str, str] = {}
    for path in PAGES:
        for found in blocks(path):
            if found.comment.startswith("test: ") and found.language != "sql":
                assert commands.setdefault(found.comment, found.commands) == found.commands, found.comment


@pytest.mark.parametrize("path", TRANSLATED, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_translation_has_the_headings_and_commands_of_its_original(path: Path) -> None:
    original = path.with_name(path.name.replace(".ko.md", ".md"))
    outlines = [
        (
            re.findall(r"^#+(?= )", text, re.MULTILINE),
            [(found.comment, found.language) for found in blocks(page)],
            len(re.findall(r"^\|", text, re.MULTILINE)),
        )
        for page in (original, path)
        for text in [page.read_text(encoding="utf-8")]
    ]
    assert outlines[0] == outlines[1]


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
        if there.relative_to(ROOT).as_posix() in MADE:
            continue  # by scripts/site at each build, which is strict about links
        assert there.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [
                re.sub(r"[^\w가-힣 -]", "", name.lower()).replace(" ", "-") for name in headings
            ]
