"""Workflows, issue forms and release notes, checked without an account anywhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))


def follows(schema: str, document: Any) -> None:
    vendored = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / schema
    content = json.loads(vendored.read_text())
    jsonschema.validators.validator_for(content)(content).validate(document)


def read(path: Path) -> Any:
    # YAML 1.1 reads the key `on` as true.
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_follows_the_schema(path: Path) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8").replace("\non:", '\n"on":'))
    follows("github-workflows.json", document)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_an_issue_form_follows_the_schema(path: Path) -> None:
    follows("github-issue-forms.json", yaml.safe_load(path.read_text(encoding="utf-8")))


def test_the_updates_follow_their_schema() -> None:
    follows("dependabot.json", yaml.safe_load((GITHUB / "dependabot.yml").read_text()))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_scripts_that_are_there(path: Path) -> None:
    named = re.findall(r"scripts/[\w.-]+", path.read_text(encoding="utf-8"))
    assert named
    assert not [name for name in named if not (ROOT / name).is_file()]


def test_the_tests_meet_both_brokers_and_both_systems() -> None:
    jobs = read(GITHUB / "workflows" / "test.yml")["jobs"]
    assert jobs["linux"]["strategy"]["matrix"]["rabbitmq"] == ["3.13", "4"]
    assert any("macos" in job["runs-on"] for job in jobs.values())


def notes(version: str, root: Path) -> subprocess.CompletedProcess[str]:
    script = root / "scripts" / "release_notes.py"
    return subprocess.run([sys.executable, script, version], capture_output=True, text=True, check=False)


@pytest.fixture
def released(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "release_notes.py").write_bytes(
        (ROOT / "scripts" / "release_notes.py").read_bytes()
    )
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-01-31\n\n### Added\n\n- A thing.\n\n"
        "## [1.2.2]\n- Old.\n"
    )
    return tmp_path


def test_release_notes_are_the_changelogs_section(released: Path) -> None:
    assert notes("1.2.3", released).stdout == "### Added\n\n- A thing.\n"


def test_a_tag_that_is_not_the_version_is_no_release(released: Path) -> None:
    done = notes("1.2.4", released)
    assert done.returncode == 1 and "pyproject.toml says 1.2.3" in done.stderr


def test_a_version_without_a_section_is_no_release(released: Path) -> None:
    (released / "CHANGELOG.md").write_text("## [Unreleased]\n\n- Soon.\n")
    done = notes("1.2.3", released)
    assert done.returncode == 1 and "no section [1.2.3]" in done.stderr
