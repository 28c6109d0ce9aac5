"""The commands of docs/in-and-out.md do what it says."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.readme import ROOT, blocks

PAGE = blocks(ROOT / "docs" / "in-and-out.md")


def test_every_block_of_commands_is_run_or_says_why_not() -> None:
    assert {found.comment for found in PAGE if found.language == "sh"} == {
        "test: import", "test: export", "needs an account",
    }  # fmt: skip


async def test_votes_come_in_and_go_out_as_the_page_says(dsn: str, tmp_path: Path) -> None:
    imported = await _run("import", dsn, tmp_path)
    assert [line.split(": ", 1)[1].startswith("2 votes: 2 new") for line in imported.splitlines()] == [
        True
    ] * 2
    exported = await _run("export", dsn, tmp_path)
    assert json.loads(exported)["conversation_id"] == "chat-1"
    (score, _) = map(json.loads, (tmp_path / "scores.jsonl").read_text().splitlines())
    assert (score["name"], score["value"], score["dataType"]) == ("user_feedback", 1, "BOOLEAN")
    (annotation, _) = map(json.loads, (tmp_path / "annotations.jsonl").read_text().splitlines())
    assert (annotation["name"], annotation["result"]["score"]) == ("negative_user_feedback", 0)
    assert len(json.loads((tmp_path / "feedback.json").read_text())) == 2


async def _run(name: str, dsn: str, folder: Path) -> str:
    """What the block prints; it must succeed."""
    if (ROOT / ".env").exists():
        pytest.skip("there is a .env, whose settings would change what the commands do")
    (found,) = [one for one in PAGE if one.comment == f"test: {name}"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    env = {"PATH": path, "HOME": str(folder), "DATABASE_URL": dsn, "LANG": "C.UTF-8"}
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-e", "-c", found.text],
        cwd=folder, env=env, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)
