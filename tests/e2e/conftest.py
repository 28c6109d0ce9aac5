"""Fixtures of the end-to-end tests: a browser, and the loop as the README starts it."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator

import pytest

from tests.support.browser import chromium, tabs
from tests.support.commands import Background, answer, environment, free_ports

__all__ = ["chromium", "loop", "tabs"]


@pytest.fixture(scope="session")
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
