"""A program in another language, with a client library of its own, asks for a run over RabbitMQ.

It is Node with `amqplib`; the tests are skipped where there is no Node, or `npm` cannot fetch the library.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from services.analyzer.build import build as analyzer
from services.collector.build import build as collector
from services.notifier.build import build as notifier
from shared.runtime import Runtime
from tests.support.events import wait_until
from tests.support.rabbit import sweep
from tests.support.slack import FakeSlack

Start = Callable[..., Awaitable[Runtime]]
Publish = Callable[[str, str], Awaitable[None]]

FOREIGN = Path(__file__).parent / "foreign"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The publisher, with its library beside it."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        pytest.skip("there is no Node with npm here")
    folder = tmp_path_factory.mktemp("foreign")
    for file in FOREIGN.iterdir():
        shutil.copy(file, folder)
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode != 0:
        pytest.skip(f"npm cannot fetch amqplib: {done.stderr.strip()[-300:]}")
    return folder / "publish.js"


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack() as slack:
        yield slack


@pytest.fixture
async def publish(
    start: Start, slack: FakeSlack, amqp_url: str, exchange: str, program: Path
) -> AsyncIterator[Publish]:
    """Publish in a form, for an app with one dislike, to services that consume and report."""
    consumers = [analyzer, notifier]
    runtime = await start([collector, *consumers], amqp_url=amqp_url, amqp_exchange=exchange, **slack.bot)
    vote = f"http://127.0.0.1:{runtime.port}/feedback"

    async def publish(form: str, app: str) -> None:
        body = {"conversation_id": "c", "feedback": "dislike", "app": app}
        async with aiohttp.ClientSession() as session, session.post(vote, json=body) as response:
            assert response.status == 200
        process = await asyncio.create_subprocess_exec(
            *("node", str(program), amqp_url, exchange, form, app),
            stderr=subprocess.PIPE,
            env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        )
        async with asyncio.timeout(60):
            _, error = await process.communicate()
        assert process.returncode == 0, error.decode()

    yield publish
    await sweep(amqp_url, runtime.kernel.bus.topology, ["analyzer", "notifier"])


@pytest.mark.parametrize("form", ["bare", "binary", "structured"])
async def test_what_node_publishes_ends_in_a_report(publish: Publish, slack: FakeSlack, form: str) -> None:
    await publish(form, f"of-{form}")
    await wait_until(lambda: slack.texts, 30)
    assert len(slack.texts) == 1
    assert "총 피드백: 1" in slack.texts[0]


async def test_an_event_that_node_publishes_twice_ends_in_one_report(
    publish: Publish, slack: FakeSlack
) -> None:
    await publish("binary", "twice")
    await publish("binary", "twice")
    await publish("binary", "another")
    await wait_until(lambda: len(slack.texts) >= 2, 30)
    assert len(slack.texts) == 2
