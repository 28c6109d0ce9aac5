"""Flame graphs of what a benchmark measures: with `BENCH_FLAME=FOLDER` each draws its own there.

Sampled by py-spy (`.venv/bin/python -m pip install py-spy`; it needs the right to look into a process: root,
or its owner where the system lets them), 500 times a second, what is on a core. It stops the process for each
sample, mostly as it enters the kernel next: what does so often looks larger than it is, and the figures of
such a run are not to be told. Waiting, what called the event loop, and what took less than a 250th is left
out.

How to read it (https://www.brendangregg.com/flamegraphs.html): width is time, the order is that of names, and
a frame hangs below the one that called it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

__all__ = ["flame"]

RATE = 500
LEAST = 1 / 250
WIDTH, ROW, LETTER = 1200, 17, 6.6

COLOURS = {
    "this program": "#f4a259",
    "asyncio": "#bcd0e5",
    "asyncpg": "#a8c686",
    "aiohttp": "#e3c5e0",
    "aiormq, aio-pika": "#d9a5a0",
    "others": "#dddddd",
}
_LOOP = re.compile(r"(^|\.)(_run|_run_once) \(asyncio/(events|base_events)\.py")
_LINE = re.compile(r":\d+\)$")
_WAITING = re.compile(r"select \(selectors\.py|_worker \(concurrent/|^flame \(")

Stack = tuple[str, ...]


@contextmanager
def flame(name: str | None, pid: int | None = None) -> Iterator[None]:
    """Draw `name.svg` of what a process (None: this one) does meanwhile, if `BENCH_FLAME` names a folder;
    `name` None: draw nothing."""
    folder = os.environ.get("BENCH_FLAME")
    if not (folder and name):
        yield
        return
    spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert spy, "py-spy is missing: .venv/bin/python -m pip install py-spy"
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch, "raw")
        command = [spy, "record", "--format", "raw", "--rate", str(RATE)]
        command += ["--output", str(raw), "--pid", str(pid or os.getpid())]
        sampling = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(1)  # until it has found its way
        try:
            yield
        finally:
            sampling.send_signal(signal.SIGINT)
            _, said = sampling.communicate()
        assert raw.exists(), said.decode(errors="replace")
        stacks = read(raw.read_text())
    file = Path(folder, f"{name}.svg")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(draw(stacks, name))


def read(raw: str) -> Counter[Stack]:
    """Samples by stack, the outermost first; without lines, and without what lies below the event loop."""
    stacks: Counter[Stack] = Counter()
    for line in raw.splitlines():
        stack, _, samples = line.rpartition(" ")
        frames = [_LINE.sub(")", frame) for frame in stack.split(";")]
        if _WAITING.search(frames[-1]):
            continue
        above = max((at for at, frame in enumerate(frames) if _LOOP.search(frame)), default=-1) + 1
        stacks[tuple(frames[above:]) or ("the event loop",)] += int(samples)
    return stacks


@dataclass(slots=True)
class _Frame:
    samples: int = 0
    called: dict[str, _Frame] = field(default_factory=dict)


def draw(stacks: Mapping[Stack, int], title: str) -> str:
    """An SVG."""
    root = _Frame()
    for stack, samples in stacks.items():
        root.samples += samples
        at = root
        for name in stack:
            at = at.called.setdefault(name, _Frame())
            at.samples += samples
    boxes = list(_boxes(root, 0.0, 0, root.samples))
    height = (max((depth for _, _, depth, _ in boxes), default=0) + 3) * ROW
    head = f"{title}: {root.samples:,} samples"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
            f' font-family="monospace" font-size="11">',
            f'<rect width="{WIDTH}" height="{height}" fill="#fff"/><text x="4" y="13">{escape(head)}</text>',
            *_legend(),
            *(_box(*box, root.samples) for box in boxes),
            "</svg>\n",
        ]
    )


def _boxes(frame: _Frame, x: float, depth: int, all: int) -> Iterator[tuple[str, float, int, int]]:
    """Name, where it begins, how deep it is and its samples, of all that were called."""
    for name, called in sorted(frame.called.items()):
        if called.samples >= LEAST * all:
            yield name, x, depth, called.samples
            yield from _boxes(called, x, depth + 1, all)
        x += WIDTH * called.samples / all


def _box(name: str, x: float, depth: int, samples: int, all: int) -> str:
    width, y = WIDTH * samples / all, (depth + 2) * ROW
    shown = name[: int(width / LETTER)] if width > 3 * LETTER else ""
    text = f'<text x="{x + 2:.1f}" y="{y + 12}">{escape(shown)}</text>' if shown else ""
    return (
        f'<g><title>{escape(name)} {samples / all:.1%}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}"'
        f' height="{ROW - 1}" fill="{COLOURS[_whose(name)]}"/>{text}</g>'
    )


def _legend() -> Iterator[str]:
    x = 4.0
    for whose, colour in COLOURS.items():
        yield f'<rect x="{x}" y="{ROW + 3}" width="9" height="9" fill="{colour}"/>'
        yield f'<text x="{x + 13}" y="{ROW + 12}">{whose}</text>'
        x += 30 + len(whose) * LETTER


def _whose(name: str) -> str:
    file = name.rpartition("(")[2]
    if re.match(r"(services|shared)/", file):
        return "this program"
    top = file.partition("/")[0]
    return {"asyncio": "asyncio", "asyncpg": "asyncpg", "aiohttp": "aiohttp"}.get(
        top, "aiormq, aio-pika" if top in ("aiormq", "aio_pika", "pamqp") else "others"
    )
