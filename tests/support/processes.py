"""Services as processes of their own, as an owner runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from tests.support.broker import free_ports
from tests.support.events import wait_until

__all__ = ["Process", "free_port"]

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port that is free now."""
    return free_ports(1)[0]


class Process:
    """`feedback-loop <arguments>` on a free port, in the environment given and no other settings.

    As a context it is stopped by SIGTERM at the end, and must exit with 0.
    """

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__
        self._folder = tempfile.TemporaryDirectory()  # a `.env` of the checkout must not be read
        own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", *arguments],
            env={**own, "PYTHONPATH": str(ROOT), "HOST": "127.0.0.1", "PORT": str(self.port), **environment},
            cwd=self._folder.name,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def output(self) -> str:
        """What it has printed so far, logs included."""
        self._log.seek(0)
        return self._log.read()

    async def until_ready(self) -> None:
        async def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.output()}")
            try:
                async with aiohttp.ClientSession() as session, session.get(f"{self.url}/readyz") as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        await wait_until(ready, 60)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        killed = self.process.poll() is not None
        self.process.terminate()
        try:
            code = self.process.wait(35)
        except subprocess.TimeoutExpired:
            self.kill()
            code = -9
        output = self.output()
        self._log.close()
        self._folder.cleanup()
        if error is not None:
            print(f"--- {self.process.args!r}\n{output}")
        elif not killed:
            assert code == 0, output
