"""The README's commands do what it says.

A fenced block is run when the comment before it says `test: NAME`; `tests/unit/test_readme.py` checks
that every other block of commands says what it needs that a test does not have.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cron_job_org import FakeCronJobOrg
from tests.support.curl import folder_with_curl
from tests.support.readme import ROOT, block

_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")


# --- running them -----------------------------------------------------------------------------


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


def run(name: str, env: dict[str, str]) -> str:
    """What the block prints; it must succeed."""
    found = block(f"test: {name}")
    command = [sys.executable, "-c"] if found.language == "python" else ["sh", "-e", "-c"]
    done = subprocess.run(
        [*command, found.text], cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=False
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

    def until(self, what: str, check: Callable[[], object], seconds: float = 60) -> None:
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
    for first in range(20000, 30000, count):
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


# --- what the commands do ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def loop(amqp_url: str) -> Iterator[dict[str, str]]:
    """`scripts/up --sample` on a free port, over RabbitMQ; the environment of those who talk to it."""
    port = str(free_ports(1))
    folder = tempfile.mkdtemp(prefix="fl-readme-")
    env = environment(
        PORT=port,
        DATA_DIR=folder,
        URL=f"http://127.0.0.1:{port}",
        AMQP_URL=amqp_url,
        AMQP_EXCHANGE=f"t-{uuid.uuid4().hex[:10]}",
        RABBITMQ_API=os.environ.get("TEST_RABBITMQ_API", ""),
    )
    try:
        with Background("up", env) as up:
            up.until("ready", lambda: answer(f"{env['URL']}/readyz"))
            yield env
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def runs(env: dict[str, str]) -> dict[str, Any]:
    """The runs so far: who asked, and the run."""
    return {run["requested_by"]: run for run in answer(f"{env['URL']}/runs")["runs"]}


def until(check: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def until_run(env: dict[str, str], requested_by: str, hits: int = 1) -> None:
    until(lambda: runs(env).get(requested_by, {}).get("hits", 0) >= hits)


def test_demo_shows_the_reports_that_the_readme_shows() -> None:
    printed = _DATE.sub("DATE", run("demo", environment()))
    assert _DATE.sub("DATE", block("output: demo").text) in printed
    assert "Done." in printed


def test_a_vote_and_a_hit_lead_to_a_run(loop: dict[str, str]) -> None:
    recorded, started, listed = run("try", loop).replace("}{", "}\n{").splitlines()
    assert json.loads(recorded) == {"status": "ok", "message": "Feedback recorded."}
    assert started == '{"status": "Feedback loop started"}'
    assert json.loads(listed)["runs"][0]["requested_by"] == "curl"


def test_votes_are_cast_replaced_taken_back_and_sent_in_batches(loop: dict[str, str]) -> None:
    said = [json.loads(line) for line in run("bot", loop).replace("}{", "}\n{").splitlines()]
    assert [one.get("message", one.get("recorded")) for one in said] == [
        "Feedback recorded.",
        "Feedback recorded.",
        "Feedback retracted.",
        2,
        "Conversation recorded.",
    ]


def test_documents_are_posted_listed_searched_and_deleted(loop: dict[str, str]) -> None:
    until(lambda: answer(f"{loop['URL']}/search?q=book")["generation"], 60)  # the sample is embedded
    posted, listed, found, deleted = run("documents", loop).replace("}{", "}\n{").splitlines()
    assert json.loads(posted)["status"] == "ok"
    assert "faq/returns.md" in [document["source"] for document in json.loads(listed)["documents"]]
    assert len(json.loads(found)["results"]) == 3
    assert json.loads(deleted)["status"] == "ok"


def test_an_aio_pika_publisher_sends_a_message_twice_and_gets_one_run(loop: dict[str, str]) -> None:
    for _ in range(2):
        run("aio-pika", loop)
    until_run(loop, "nightly-import")
    assert [run["requested_by"] for run in answer(f"{loop['URL']}/runs")["runs"]].count("nightly-import") == 1


def test_rabbitmqs_http_api_takes_the_event(loop: dict[str, str]) -> None:
    if not loop["RABBITMQ_API"]:
        pytest.skip("this RabbitMQ has no management plugin: TEST_RABBITMQ_API is not set")
    before = {name: run["hits"] for name, run in runs(loop).items()}
    assert json.loads(run("rabbitmq-http", loop)) == {"routed": True}
    # It joins the run under way, whoever started it; else it makes one.
    current = next((name for name in before if name in ("curl", "wiki")), "wiki")
    until_run(loop, current, before.get(current, 0) + 1)


def test_an_event_over_http_makes_a_run_of_its_own(loop: dict[str, str]) -> None:
    accepted = json.loads(run("events", loop))
    assert accepted["status"] == "accepted"
    assert answer(f"{loop['URL']}/runs/{accepted['run']}")["requested_by"] == "wiki"


def test_the_commands_that_look_find_something(loop: dict[str, str]) -> None:
    printed = run("cli", loop)
    assert "✘" not in printed
    assert "POLICY=wilson would have retrained" in " ".join(printed.split())
    for shown in ("7 days", "reason, cause"):  # status, votes
        assert shown in printed


async def test_the_jobs_at_cron_job_org_are_made() -> None:
    async with FakeCronJobOrg(real_time=True) as cron:
        given = {name.upper(): value for name, value in cron.settings.items()}
        env = environment(**given, TRIGGER_TOKEN="t0ken")
        printed = await asyncio.to_thread(run, "schedule", env)
    assert "daily 09:00 09:05 09:15" in printed
    assert [job["url"].rpartition("/")[2] for job in cron.jobs.values()] == ["healthz", "run-feedback-loop"]


async def test_services_started_one_by_one_report_together(dsn: str, amqp_url: str, exchange: str) -> None:
    port = free_ports(6)
    env = environment(PORT=str(port), DATABASE_URL=dsn, AMQP_URL=amqp_url, AMQP_EXCHANGE=exchange)
    with Background("services", env) as services:
        ready = [f"http://127.0.0.1:{each}/readyz" for each in range(port, port + 6)]
        services.until("ready", lambda: all(answer(url) for url in ready))
        assert answer(f"http://127.0.0.1:{port}/run-feedback-loop") == {"status": "Feedback loop started"}
        services.until("the report", lambda: "🧠 AI Feedback Loop Report" in services.output())
