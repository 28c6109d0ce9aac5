"""The faults' frame: `campaign` counts, and the table is printed at the end (see tests/support/faults.py)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.bus.port import Topology
from tests.support import faults
from tests.support.faults import Begin
from tests.support.loop import LADDER, SERVICES
from tests.support.rabbit import sweep
from tests.support.slack import FakeSlack

_made_here: list[Path] = []


def pytest_configure() -> None:
    # Workers of pytest-xdist are started after this, and inherit both variables.
    faults.seed()
    if faults.ROWS not in os.environ:
        handle, name = tempfile.mkstemp(prefix="faults-", suffix=".jsonl")
        os.close(handle)
        os.environ[faults.ROWS] = name
        _made_here.append(Path(name))


def pytest_unconfigure() -> None:
    for file in _made_here:
        file.unlink(missing_ok=True)
        os.environ.pop(faults.ROWS, None)
    _made_here.clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = faults.rows_of(Path(os.environ[faults.ROWS]))
    if rows:
        terminalreporter.section("faults")
        for line in faults.table(rows):
            terminalreporter.write_line(line)


@pytest.fixture
def campaign() -> Begin:
    """Begin a campaign: `with campaign(number, fault, quick=…, full=…) as fault`."""
    return faults.begin


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack() as slack:
        yield slack


@pytest.fixture
async def loop_settings(
    dsn: str, amqp_url: str, exchange: str, slack: FakeSlack
) -> AsyncIterator[dict[str, Any]]:
    """Settings for every service of the loop, over RabbitMQ and towards the test's Slack."""
    yield {
        "database_url": dsn,
        "port": 0,
        "host": "127.0.0.1",
        "amqp_url": amqp_url,
        "amqp_exchange": exchange,
        "embedding_batch": 2,
        "dashboard_url": "https://loop.example.com",
        **slack.bot,
    }
    await sweep(amqp_url, Topology(exchange, ladder=LADDER), SERVICES)
