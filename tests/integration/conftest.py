"""Fixtures of the integration tests: a Slack, and a notifier that posts to it soon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, TextIO

import pytest

from services.notifier.build import build
from services.notifier.poster import Timing
from shared.runtime import Runtime
from tests.support.notifying import URL
from tests.support.slack import FakeSlack

LADDER = (0.05, 0.1, 0.3, 0.6, 1.2)
TIMING = Timing(attempt=2, lease=2.2, settle=0.4)


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack() as slack:
        yield slack


@pytest.fixture
async def notifier(start: Callable[..., Any]) -> Callable[..., Any]:
    """Start a notifier: `runtime = await notifier(**slack.bot)`."""

    async def begin(stream: TextIO | None = None, timing: Timing = TIMING, **settings: Any) -> Runtime:
        builder = partial(build, stream=stream, request_timeout=0.5, timing=timing, webhook_timeout=20)
        runtime: Runtime = await start([builder], ladder=LADDER, dashboard_url=URL, **settings)
        return runtime

    return begin
