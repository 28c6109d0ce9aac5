"""How costs grow: `scripts/bench growth` prints a table, and draws `docs/growth.png` where `BENCH_DRAW=1`.

Votes ×10, ×100 and ×1,000 (`BENCH_ROWS` limits them) with the same new ones, new votes with the same
history, apps from 1 to 1,000 (`BENCH_APPS` limits them) evaluated one after another, and chunks ×10 under
`GET /search` (`BENCH_CHUNKS=0` leaves them out; it needs the data of `scripts/bench search`).

Evaluations are the product's handler with its commit, the folding of what is new included.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from shared.charts.picture import render_png
from shared.postgres.database import Database
from tests.bench import bench_search as searching
from tests.bench.analysing import Ledger, made, middle, postgres, timed
from tests.bench.bench_retrieval import korquad
from tests.support.events import wait_until

MOST = int(os.environ.get("BENCH_ROWS", 10**7))
HISTORY = [size for size in (10_000, 100_000, 1_000_000, 10_000_000) if size <= MOST]
NEW = (30, 300, 3_000, 30_000)
FEW = 30
APPS = [number for number in (1, 10, 100, 1_000) if number <= int(os.environ.get("BENCH_APPS", 1_000))]
OF_AN_APP = 100
CHUNKS = [1_000, 10_000] if os.environ.get("BENCH_CHUNKS") != "0" else []
SEARCHES = 100
ROUNDS = 5
PICTURE = Path(__file__).parents[2] / "docs" / "growth.png"


@dataclass(frozen=True)
class Point:
    """`ms` is the median of one unit of work: an evaluation, all apps' evaluations, a search."""

    what: str
    size: int
    ms: float


async def evaluated(ledger: Ledger, days: Sequence[datetime], new: int) -> float:
    """The median over evaluations of several days, each with so many new votes; the first only warms up."""
    times = []
    for day in days:
        await ledger.cast(new, day - timedelta(hours=1), day)
        times.append(await timed(partial(ledger.evaluate, day)))
    return middle(times[1:])


async def histories(dsn: str) -> list[Point]:
    points = []
    for size in HISTORY:
        # The year ended before the four weeks that an evaluation looks at: only history differs.
        ledger, _ = await made(dsn, size, timedelta(days=100))
        begin = await ledger.now() - timedelta(days=70)
        days = [begin + timedelta(days=n) for n in range(ROUNDS + 1)]
        points.append(Point("votes in the ledger", size, await evaluated(ledger, days, FEW)))
        if size == min(HISTORY[-1], 1_000_000):
            for part, new in enumerate(NEW, 1):
                later = [day + part * timedelta(days=ROUNDS + 3) for day in days]
                points.append(Point("new votes", new, await evaluated(ledger, later, new)))
        await ledger.database.close()
    return points


async def apps(dsn: str) -> list[Point]:
    ledger, _ = await made(dsn, 1_001, timedelta(days=2))
    now, names = await ledger.now(), [f"app{n}" for n in range(max(APPS))]
    for name in names:
        await ledger.cast(OF_AN_APP, now - timedelta(days=28), now - timedelta(days=1), name)
        await ledger.evaluate(now - timedelta(days=1), name)
    await ledger.value("vacuum analyze")
    points, as_of = [], now - timedelta(hours=23)
    for number in APPS:
        times = []
        for _ in range(ROUNDS if number <= 10 else 1):
            as_of += timedelta(hours=1)
            for name in names[:number]:
                await ledger.cast(FEW, as_of - timedelta(minutes=50), as_of, name)
            began = time.perf_counter()
            for name in names[:number]:
                await ledger.evaluate(as_of, name)
            times.append(time.perf_counter() - began)
        points.append(Point("apps", number, middle(times)))
    await ledger.database.close()
    return points


async def searched(dsn: str, served: Any, texts: list[str], vectors: Any, questions: Sequence[str]) -> float:
    """The median of one search at a time, once the service has warmed up."""
    database = Database(dsn)
    await database.connect()
    await database.migrate()
    await searching.load(database, texts, vectors)
    await database.close()
    async with aiohttp.ClientSession() as session:
        client = searching.Client(session, served.url)
        await wait_until(client.ready, 60)
        times = [await timed(partial(client.search, question)) for question in questions]
    return middle(times[10:])


def searches() -> list[Point]:
    """Each with a server of its own: the service takes a whole database."""
    points = []
    for chunks in CHUNKS:
        searching.CHUNKS = chunks
        texts, vectors = searching.chunks()
        questions = korquad().questions[:SEARCHES]
        with postgres() as dsn, searching.serving(dsn) as served:
            ms = asyncio.run(searched(dsn, served, texts, vectors, questions))
        points.append(Point("chunks", chunks, ms))
    return points


def show(points: Sequence[Point]) -> None:
    table = Table("what grows", "size", "ms", "× size", "× time")
    for point in points:
        first = next(each for each in points if each.what == point.what)
        table.add_row(
            point.what,
            f"{point.size:,}",
            f"{point.ms:,.1f}",
            f"{point.size / first.size:,.0f}",
            f"{point.ms / first.ms:.2f}",
        )
    Console(width=120).print(table)


def picture(points: Sequence[Point]) -> dict[str, Any]:
    """Time against size, both in multiples of the smallest; a straight line is what is linear."""
    first: dict[str, Point] = {}
    for point in points:
        first.setdefault(point.what, point)
    most = max(point.size / first[point.what].size for point in points)
    axes = {
        "x": {
            "field": "size",
            "type": "quantitative",
            "scale": {"type": "log"},
            "title": "size, × the smallest",
        },
        "y": {
            "field": "time",
            "type": "quantitative",
            "scale": {"type": "log"},
            "title": "time, × the smallest",
        },
    }
    values = [
        {"what": p.what, "size": p.size / first[p.what].size, "time": p.ms / first[p.what].ms} for p in points
    ]
    colour = {"field": "what", "type": "nominal", "title": None}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": 560,
        "height": 320,
        "background": "white",
        "layer": [
            {
                "data": {"values": [{"size": n, "time": n} for n in (1, most)]},
                "mark": {"type": "line", "strokeDash": [4, 4], "color": "#999"},
                "encoding": axes,
            },
            {
                "data": {"values": values},
                "mark": {"type": "line", "point": True},
                "encoding": {**axes, "color": colour},
            },
        ],
    }


async def judging(dsn: str) -> list[Point]:
    return await histories(dsn) + await apps(dsn)


def test_growth() -> None:
    """History costs next to nothing; what is new, and apps, are linear at most (so far as a busy machine
    tells)."""
    with postgres() as dsn:
        points = asyncio.run(judging(dsn))
    show(points)  # searches are skipped where their data is missing
    found = searches()
    show(found)
    points += found
    if os.environ.get("BENCH_DRAW") == "1":
        PICTURE.write_bytes(asyncio.run(render_png(picture(points), scale=1)))
    by_what = {
        what: [p for p in points if p.what == what] for what in ("votes in the ledger", "new votes", "apps")
    }
    for what, each in by_what.items():
        size, longer = each[-1].size / each[0].size, each[-1].ms / each[0].ms
        assert longer <= (1.5 if what == "votes in the ledger" else 2 * size)
