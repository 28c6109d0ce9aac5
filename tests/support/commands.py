"""Running the commands of the READMEs and the documents, as a newcomer does."""

from __future__ import annotations

import atexit
import functools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.curl import folder_with_curl
from tests.support.readme import ROOT, block

__all__ = [
    "Background",
    "answer",
    "environment",
    "free_ports",
    "hits",
    "lines",
    "run",
    "run_text",
    "runs",
    "until",
    "until_run",
]


def environment(**given: str) -> dict[str, str]:
    """What a newcomer's shell has, and `given`."""
    if (ROOT / ".env").exists():
        pytest.skip("there is a .env: its settings, such as Slack's, would change what the commands do")
    own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**own, "PATH": _path(), "HOST": "127.0.0.1", **given}


@functools.cache
def _path() -> str:
    """PATH, with a `curl` where the machine has none."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = os.environ.get("PATH", os.defpath)
    return path if folder_with_curl(folder) is None else os.pathsep.join([str(folder), path])


def run(name: str, env: dict[str, str], cwd: Path = ROOT) -> str:
    """What the block prints; it must succeed."""
    found = block(f"test: {name}")
    return run_text(found.text, env, cwd, found.language)


def run_text(text: str, env: dict[str, str], cwd: Path = ROOT, language: str = "sh") -> str:
    """What the commands print; they must succeed."""
    command = [sys.executable, "-c"] if language == "python" else ["sh", "-e", "-c"]
    done = subprocess.run(
        [*command, text], cwd=cwd, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Background:
    """A block that goes on until it is stopped, as Ctrl-C does: all of its processes."""

    def __init__(self, name: str, env: dict[str, str]) -> None:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            ["sh", "-c", block(f"test: {name}").text],
            cwd=ROOT, env=env, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def output(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def until(self, what: str, check: Callable[[], object], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not check():
            assert self._process.poll() is None, self.output()
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s\n{self.output()}"
            time.sleep(0.1)

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._signal(signal.SIGTERM)
            self._process.wait(30)
            # The shell is gone first; those it started finish what they have in hand.
            deadline = time.monotonic() + 15
            while self._signal(0) and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            self._signal(signal.SIGKILL)
            self._log.close()

    def _signal(self, number: int) -> bool:
        """To every process of the block; False where none is left."""
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return False
        return True


def free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    # In any order: other workers, and other checkouts, look for some at the same time.
    for first in random.sample(range(20000, 30000, count), 200):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


def answer(url: str, data: bytes | None = None) -> Any:
    """The JSON answer; None where there is none, or no 200."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=30) as response:
            return json.loads(response.read())
    except (urllib.error.URLError, ConnectionError):
        return None


def runs(env: dict[str, str]) -> dict[str, Any]:
    """The runs so far: who asked, and the run."""
    return {run["requested_by"]: run for run in answer(f"{env['URL']}/runs")["runs"]}


def until(check: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def hits(env: dict[str, str]) -> int:
    """How often a run was asked for so far, whichever it became or joined."""
    return sum(run["hits"] for run in answer(f"{env['URL']}/runs")["runs"])


def until_run(env: dict[str, str], requested_by: str, hits: int = 1) -> None:
    until(lambda: runs(env).get(requested_by, {}).get("hits", 0) >= hits)


def lines(printed: str) -> list[str]:
    """Answers of `curl`, which ends none with a new line, one by one."""
    return printed.replace("}{", "}\n{").splitlines()
