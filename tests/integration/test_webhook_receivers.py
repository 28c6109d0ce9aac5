"""The receivers of docs/webhook.md, run as they stand there."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
import pytest

from services.notifier.build import build
from shared.events import LoopResumed, RetrainCompleted
from tests.support.events import publish, wait_until
from tests.support.notifying import settled
from tests.support.processes import free_port
from tests.support.readme import ROOT, blocks
from tests.support.receiver import SECRET

PROGRAMS = {"receiver.py": sys.executable, "receiver.mjs": shutil.which("node")}
"""Name of the example → what runs it."""


@contextmanager
def running(program: str, path: Path, environment: dict[str, str], output: BinaryIO) -> Iterator[None]:
    """The example as a process, killed at the end."""
    process = subprocess.Popen([program, str(path)], env=environment, stdout=output)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def example(name: str) -> str:
    (found,) = [one for one in blocks(ROOT / "docs" / "webhook.md") if one.comment == f"test: {name}"]
    return found.text


@pytest.mark.parametrize("name", PROGRAMS)
async def test_example_takes_what_is_signed_once_and_nothing_else(
    name: str, start: Callable[..., Any], tmp_path: Path
) -> None:
    program = PROGRAMS[name]
    if program is None:
        pytest.skip("there is no Node here")
    (tmp_path / name).write_text(example(name), encoding="utf-8")
    port, printed = free_port(), tmp_path / "printed"
    environment = {"PATH": os.environ["PATH"], "PORT": str(port), "WEBHOOK_SECRET": SECRET}
    with ExitStack() as stack:
        output = stack.enter_context(printed.open("wb"))
        stack.enter_context(running(program, tmp_path / name, environment, output))
        url = f"http://127.0.0.1:{port}/"
        await wait_until(lambda: _status(url, {}), 60)
        runtime = await start([partial(build, stream=io.StringIO())], webhook_url=url, webhook_secret=SECRET)
        events = [RetrainCompleted(outcome="promoted", reason="feedback", ratio=0.25), LoopResumed()]
        for event in events:
            await settled(runtime, *await publish(runtime.kernel, event), by="webhook")
        forged = {"webhook-id": "x", "webhook-timestamp": "1", "webhook-signature": "v1,eA=="}
        assert await _status(url, forged) == 401
    said = printed.read_text(encoding="utf-8").replace("None", "null").splitlines()
    assert said == ["retrain.completed 0.25", "loop.resumed null"]


async def _status(url: str, headers: dict[str, str]) -> int | None:
    """What a request that nobody has signed is answered; None: nobody is there."""
    try:
        async with aiohttp.ClientSession() as http, http.post(url, data=b"{}", headers=headers) as answer:
            return answer.status
    except aiohttp.ClientError:
        return None
