"""What benchmarks over HTTP have in common: PostgreSQL, servers and load, each in a process of its own.

Servers have the first of the machine's cores to themselves, as far as nobody else uses it; PostgreSQL and the
load share the second. PostgreSQL is the embedded one as it comes: what is committed is on the disk.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.embedded import start_postgres, stop_postgres
from shared.runtime import Builder, Runtime, running
from shared.settings import Settings
from tests.support.processes import free_port

__all__ = ["Served", "loading", "postgres", "product", "serving"]

CORES = sorted(os.sched_getaffinity(0))
_SPAWN = multiprocessing.get_context("spawn")

Serve = Callable[[str, int], Awaitable[object]]
"""Serves on a port, given a database; returns when it does."""


@dataclass(frozen=True, slots=True)
class Served:
    port: int
    pid: int

    def cpu(self) -> float:
        """Seconds of a core that the server has taken so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def postgres() -> Iterator[str]:
    """The DSN of a PostgreSQL."""
    folder = Path(tempfile.mkdtemp(prefix="fl-bench-"))
    os.sched_setaffinity(0, CORES[1:] or CORES)  # also for what is started from here
    try:
        yield asyncio.run(start_postgres(folder))
    finally:
        asyncio.run(stop_postgres(folder))
        shutil.rmtree(folder, ignore_errors=True)
        os.sched_setaffinity(0, CORES)


@contextmanager
def serving(serve: Serve, dsn: str) -> Iterator[Served]:
    """A server in a process of its own. `serve` must be importable."""
    port = free_port()
    process = _SPAWN.Process(target=_run, args=(serve, dsn, port), daemon=True)
    process.start()
    try:
        assert process.pid is not None
        _until_open(port)
        yield Served(port, process.pid)
    finally:
        process.terminate()
        process.join(30)


@contextmanager
def loading() -> Iterator[ProcessPoolExecutor]:
    """Where load comes from: one process."""
    with ProcessPoolExecutor(1, mp_context=_SPAWN) as pool:
        yield pool


async def product(dsn: str, port: int, *builders: Builder) -> None:
    """These services, as they are without further settings."""
    settings = Settings(_env_file=None, database_url=dsn, port=port, host="127.0.0.1")
    async with running(Runtime(settings, builders)):
        await asyncio.Event().wait()


def _run(serve: Serve, dsn: str, port: int) -> None:
    os.sched_setaffinity(0, CORES[:1])

    async def forever() -> None:
        await serve(dsn, port)
        await asyncio.Event().wait()

    asyncio.run(forever())


def _until_open(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
