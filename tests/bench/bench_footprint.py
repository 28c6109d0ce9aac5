"""What `up` takes of a machine: the seconds until it serves, beside importing three libraries alone, and
memory: idle, with the model loaded, through a re-embedding, and of the process that draws charts.

`scripts/bench footprint`; the texts are KorQuAD's 964 paragraphs (`BENCH_DATA`). Each start is a process of
its own, given a running PostgreSQL whose schema is up to date. It counts as started with the first `GET
/readyz` that says so: connected, and consuming. Processor seconds are shown as well: they hardly depend on
what else the machine does. Memory is of the process `up` alone: resident (RSS), and what no other process
shares (PSS); PostgreSQL is not in it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table

from shared.charts.vega_lite import Point, trend
from tests.bench.bench_retrieval import korquad
from tests.bench.served import CORES, postgres
from tests.support.processes import ROOT, free_port

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "9"))
LIBRARIES = "import aiohttp, asyncpg, aio_pika"
PATIENCE = 600.0
IDLE, PEAK, WITH_CHART = 250, 350, 512  # MB


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds: by the clock, and of a core."""

    clock: float
    core: float


def answers(port: int, path: str, body: bytes | None = None) -> tuple[int, Any]:
    """Status and JSON; 0 where nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST" if body else "GET", path, body, headers if body else {})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except OSError:
        return 0, None
    finally:
        connection.close()


def until(reached: Callable[[], bool], pause: float = 0.002) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(pause)


@dataclass(frozen=True, slots=True)
class Up:
    """A running `up`: how long until it was live, and until it was ready."""

    port: int
    pid: int
    live: Start
    ready: Start


@contextmanager
def started(dsn: str) -> Iterator[Up]:
    """`up` as an owner starts it, in an empty folder: a `.env` of the checkout must not be read."""
    port, own = (
        free_port(),
        {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
    )
    settings = {"DATABASE_URL": dsn, "HOST": "127.0.0.1", "PORT": str(port), "LOG_LEVEL": "WARNING"}
    command = [sys.executable, "-m", "services.cli", "up"]
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env={**own, "PYTHONPATH": str(ROOT), **settings})
        try:
            until(lambda: answers(port, "/healthz")[0] == 200)
            live = Start(time.perf_counter() - began, core(process.pid))
            until(lambda: answers(port, "/readyz")[0] == 200)
            yield Up(port, process.pid, live, Start(time.perf_counter() - began, core(process.pid)))
        finally:
            process.terminate()
            assert process.wait(35) == 0


def core(pid: int) -> float:
    """Seconds of a core that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def imported() -> Start:
    """Python with the three libraries."""
    began, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", LIBRARIES], check=True, cwd=ROOT)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Start(time.perf_counter() - began, spent)


def memory(pid: int) -> tuple[float, float]:
    """RSS and PSS in MB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {name: int(kilobytes) for name, kilobytes in re.findall(r"^(Rss|Pss): +(\d+) kB", rollup, re.M)}
    return found["Rss"] / 1024, found["Pss"] / 1024


def peak(pid: int) -> float:
    """The most that was resident since `forget_peak`, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def drawn() -> float:
    """The peak of the process that draws the picture of a report, in MB, as the services run it."""
    days = [date(2026, 1, 1) + timedelta(days=day) for day in range(28)]
    points = [Point(day, 80, 20, 0.2, 0.13, 0.29) for day in days]
    spec = trend(points, [], 0.3, "en", "light", 640, 240, "negative ratio")
    child = subprocess.Popen(
        [sys.executable, "-m", "shared.charts.picture"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin and child.stdout
    child.stdin.write(json.dumps(spec).encode())
    child.stdin.close()
    assert child.stdout.read().startswith(b"\x89PNG")
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    child.stdout.close()
    return usage.ru_maxrss / 1024


def table_of_starts(rows: dict[str, list[Start]]) -> float:
    """Print a table. Returns the ratio of the processor's seconds, `up` ready ÷ libraries."""
    title = f"cold start, {ROUNDS} rounds in turn, load average {os.getloadavg()[0]:.1f}"
    shown = Table(
        "seconds", "least", "median", "of a core: least", "median", title=title, title_justify="left"
    )
    for name, starts in rows.items():
        figures = [each.clock for each in starts], [each.core for each in starts]
        shown.add_row(name, *(f"{f(n):.2f}" for n in figures for f in (min, median)))
    Console(width=110).print(shown)
    *_, ready, peer = rows.values()
    pairs = list(zip(ready, peer, strict=True))
    clock, cores = (median(a.clock / b.clock for a, b in pairs), median(a.core / b.core for a, b in pairs))
    print(f"ready ÷ libraries (median of the rounds): {clock:.2f}, of a core {cores:.2f}")
    return cores


def test_cold_start() -> None:
    """≤ 1 s and ≤ 2 × the libraries; the ratio by processor time, which neighbours do not change much."""
    live: list[Start] = []
    ready: list[Start] = []
    libraries: list[Start] = []
    with postgres() as dsn:
        os.sched_setaffinity(0, CORES)
        with started(dsn):
            pass  # migrations, and what Python compiles
        for _ in range(ROUNDS):
            with started(dsn) as up:
                live.append(up.live)
                ready.append(up.ready)
            libraries.append(imported())
    ratio = table_of_starts({"up: live": live, "up: ready": ready, LIBRARIES: libraries})
    assert min(each.clock for each in ready) <= 1
    assert ratio <= 2


def test_memory() -> None:
    """≤ 250 MB idle with the model, ≤ 350 at the peak of a re-embedding, ≤ 512 with the chart process."""
    texts = korquad().texts
    figures: dict[str, tuple[float, float, float]] = {}
    with postgres() as dsn, started(dsn) as up:
        pid = up.pid

        def note(name: str) -> None:
            figures[name] = (*memory(pid), peak(pid))

        def search() -> Any:
            return answers(up.port, "/search?q=%EB%B0%B0%EC%86%A1%EC%9D%80+%EC%96%BC%EB%A7%88%EB%82%98")

        note("started")
        search()
        time.sleep(1)
        note("idle, model loaded")
        forget_peak(pid)
        documents = [{"source": f"{n:04}.txt", "content": text} for n, text in enumerate(texts)]
        assert answers(up.port, "/documents", json.dumps(documents[: len(texts) // 2]).encode())[0] == 202
        assert answers(up.port, "/documents", json.dumps(documents[len(texts) // 2 :]).encode())[0] == 202
        until(lambda: indexed(dsn) >= len(texts), 0.5)
        note("through a re-embedding")
        forget_peak(pid)
        assert search()[1]["results"]
        time.sleep(1)
        note("searched afterwards")
    chart = drawn()
    shown = Table("MB", "RSS", "PSS", "peak RSS", title="memory of `up`", title_justify="left")
    for name, each in figures.items():
        shown.add_row(name, *(f"{n:.0f}" for n in each))
    shown.add_row("the chart process", "", "", f"{chart:.0f}")
    Console(width=110).print(shown)
    assert figures["idle, model loaded"][0] <= IDLE
    assert figures["through a re-embedding"][2] <= PEAK
    assert figures["through a re-embedding"][2] + chart <= WITH_CHART


def indexed(dsn: str) -> int:
    """Documents of the active generation, by SQL: a route would be a load of its own."""

    async def ask() -> int:
        connection = await asyncpg.connect(dsn)
        try:
            return int(
                await connection.fetchval(
                    "select count(distinct source) from feedback_loop.active_chunk where app = 'default'"
                )
            )
        finally:
            await connection.close()

    return asyncio.run(ask())
