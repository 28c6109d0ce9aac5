"""A RabbitMQ that dies, freezes, raises its alarm and loses its disk, as a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support import broker

__all__ = ["Node", "private_node"]


class Node:
    """A private node of an installed RabbitMQ; each of its lives has the same ports and the same folder.

    Attributes:
        url: of AMQP.
    """

    def __init__(self, server: Path, folder: Path, stack: ExitStack) -> None:
        self._server, self._folder = server, folder
        self._port, _, self._environment = broker.prepare(server, folder)
        # Nothing but the broker: it starts sooner.
        (folder / "enabled_plugins").write_text("[].\n")
        lines = (folder / "rabbitmq.conf").read_text().splitlines(True)
        (folder / "rabbitmq.conf").write_text(
            "".join(line for line in lines if not line.startswith("management."))
        )
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}/"
        self._output = stack.enter_context((folder / "output").open("wb"))
        if daemon := shutil.which("epmd"):
            broker.start(stack, [daemon], self._environment, self._output.fileno())
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when it speaks AMQP."""
        self._process = process = subprocess.Popen(
            [str(self._server)],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
        )

        def failed() -> str | None:
            return "see its log" if process.poll() is not None else None

        broker.wait_until(lambda: broker.speaks_amqp(self._port), "RabbitMQ", failed)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Delete its data; it must not be running."""
        assert self._process is None
        shutil.rmtree(self._folder / "data")

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    async def alarm(self, on: bool) -> None:
        """The memory alarm: it takes nothing from those who publish."""
        command = [
            str(self._server.with_name("rabbitmqctl")),
            "--node",
            self._environment["RABBITMQ_NODENAME"],
        ]
        mark = "0" if on else "0.9"
        process = await asyncio.create_subprocess_exec(
            *command,
            "set_vm_memory_high_watermark",
            mark,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        _, problem = await process.communicate()
        assert process.returncode == 0, problem.decode()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


@contextmanager
def private_node(server: Path) -> Iterator[Node]:
    """A node that runs, killed and removed at the end."""
    with ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="rabbitmq-", ignore_cleanup_errors=True)
        node = Node(server, Path(stack.enter_context(folder)), stack)
        stack.callback(node.kill)
        node.start()
        yield node
