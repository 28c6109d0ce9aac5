"""`scripts/audit` finds what is affected, and says what it cannot look into."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts.audit import LOCK, pinned

ROOT = Path(__file__).parents[2]
VERSION = str(pinned(LOCK)["aiohttp"])


def audit(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.audit", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def database(folder: Path, affected: object, **more: object) -> Path:
    """A clone that knows of one hole in aiohttp."""
    (folder / "vulns" / "aiohttp").mkdir(parents=True)
    advisory = {"id": "PYSEC-1", "modified": "2026-01-02T00:00:00Z", "aliases": ["CVE-1"]}
    text = yaml.safe_dump({**advisory, "affected": affected, **more})
    (folder / "vulns" / "aiohttp" / "PYSEC-1.yaml").write_text(text)
    return folder


def events(*events: dict[str, str]) -> list[object]:
    return [{"ranges": [{"type": "GIT", "events": []}, {"type": "ECOSYSTEM", "events": [*events]}]}]


@pytest.mark.parametrize(
    "affected",
    [
        pytest.param([{"versions": ["0.1", VERSION]}], id="listed"),
        pytest.param(events({"introduced": "0"}), id="every version"),
        pytest.param(events({"introduced": "0"}, {"fixed": "9999"}), id="not yet fixed"),
        pytest.param(events({"fixed": "1.0"}, {"introduced": "0"}, {"introduced": VERSION}), id="once more"),
        pytest.param(events({"introduced": "0"}, {"last_affected": VERSION}), id="the last one"),
    ],
)
def test_a_pinned_version_that_is_affected_is_named(tmp_path: Path, affected: object) -> None:
    done = audit(database(tmp_path, affected))
    assert (done.returncode, done.stderr) == (1, "")
    assert f"aiohttp {VERSION}: PYSEC-1 CVE-1" in done.stdout


@pytest.mark.parametrize(
    ("affected", "more"),
    [
        pytest.param([{"versions": ["0.1"]}], {}, id="not listed"),
        pytest.param(events({"introduced": "0"}, {"fixed": VERSION}), {}, id="fixed"),
        pytest.param(events({"introduced": "9999"}), {}, id="not yet introduced"),
        pytest.param(events({"introduced": "0"}, {"last_affected": "0.1"}), {}, id="after the last one"),
        pytest.param([{"versions": [VERSION]}], {"withdrawn": "2026-01-03T00:00:00Z"}, id="withdrawn"),
    ],
)
def test_another_version_and_what_was_withdrawn_are_not(
    tmp_path: Path, affected: object, more: dict[str, object]
) -> None:
    done = audit(database(tmp_path, affected, **more))
    assert (done.returncode, done.stderr) == (0, "")
    assert ": 0 of them" in done.stdout


def test_a_folder_that_is_no_clone_is_said_to_be_none(tmp_path: Path) -> None:
    done = audit(tmp_path)
    assert done.returncode == 2
    assert "no folder vulns" in done.stderr and "Traceback" not in done.stderr
