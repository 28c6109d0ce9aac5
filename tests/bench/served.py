"""What benchmarks over HTTP have in common: PostgreSQL, servers and load, each in a process of its own.

Servers have the first of the machine's cores to themselves, as far as nobody else uses it; PostgreSQL and the
load share the second. PostgreSQL is the embedded one as it comes: what is committed is on the disk.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.postgres.embedded import start_postgres, stop_postgres
from shared.runtime import Builder, Runtime, running
from shared.settings import Settings
from tests.support.processes import free_port

__all__ = ["Served", "loading", "postgres", "product", "serving"]

CORES = sorted(os.sched_getaffinity(0))
"""What this process may use when it starts; in a process started from `postgres()`, one is left of them."""
_SPAWN = multiprocessing.get_context("spawn")

Serve = Callable[[str, int], Awaitable[object]]
"""Serves on a port, given a database; returns when it does."""


@dataclass(frozen=True, slots=True)
class Served:
    port: int
    pid: int

    def cpu(self) -> float:
        """Seconds of a core that the server's main thread has taken so far."""
        # Nanoseconds on the processor first: https://docs.kernel.org/scheduler/sched-stats.html
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9


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
    process = _SPAWN.Process(target=_run, args=(serve, dsn, port, CORES[:1]), daemon=True)
    process.start()
    try:
        assert process.pid is not None
        _until_ready(port)
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
    """These services, as they are, but for how much one caller may send: all the load is of one."""
    settings = Settings(_env_file=None, database_url=dsn, port=port, host="127.0.0.1", rate_limit=1_000_000)
    async with running(Runtime(settings, builders)):
        gc.freeze()  # as `shared.process` does
        await asyncio.Event().wait()


def _run(serve: Serve, dsn: str, port: int, cores: list[int]) -> None:
    os.sched_setaffinity(0, cores)

    async def forever() -> None:
        await serve(dsn, port)
        await asyncio.Event().wait()

    asyncio.run(forever())


def _until_ready(port: int) -> None:
    """Until it answers, and not that it is not ready; a peer need not know the question."""
    deadline = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status != 503:
                return
        except OSError:
            pass
        finally:
            connection.close()
        assert time.monotonic() < deadline, "the server is not ready after a minute"
        time.sleep(0.05)
