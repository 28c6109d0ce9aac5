"""What the day's evaluation costs where the ledger has a year: `scripts/bench analysis`.

Ledgers of 10,000, 1,000,000 and 10,000,000 votes (`BENCH_ROWS` limits them), and each in its turn:

- the owner's query, `sum(case …)` over all rows;
- a rollup read with plain SQL, four weeks of quarters of an hour: what reading it can cost at best;
- the same count by the product: the day's, and the lineage's of four weeks;
- the product's evaluation, its handler with commit, ten times two days in a row: with the day's share of the
  year (27 to 27,397 new votes) that nobody has counted yet; the next day with its share, counted up to the
  last quarter of an hour, as the collector does while votes come; again with nothing new, and with 27 new
  ones (the same novelty everywhere).

Then an evaluation over 100,000 votes with nothing new, before and after each has a question and a search, and
every third is on a chunk too.

Casting is not timed, nor what the collector counts; what is counted within the evaluation is.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from rich.console import Console
from rich.table import Table

from services.analyzer.votes import Window, count, lineage
from tests.bench.analysing import DAYS, Ledger, made, middle, postgres, timed
from tests.bench.flame import flame

SIZES = (10_000, 1_000_000, 10_000_000)
ROUNDS = 9
FEW = 27
"""Votes a day in the smallest ledger."""

OWNERS = "select sum(case when value = 0 then 1 else 0 end)::float8 / count(*) from feedback_loop.vote"
PLAIN = """
select sum(dislikes) from feedback_loop.vote_count where app = 'default' and at > $1
"""

Times = dict[str, list[float]]


def sizes() -> list[int]:
    most = int(os.environ.get("BENCH_ROWS", SIZES[-1]))
    return [size for size in SIZES if size <= most]


async def around(ledger: Ledger, day: datetime, times: Times) -> None:
    """Everything once, of one ledger, on the day that ends then and on the day before."""

    async def take(name: str, do: Callable[[], Awaitable[object]]) -> None:
        times[name].append(await timed(do))

    async def evaluate(name: str, at: datetime = day) -> None:
        await take(f"evaluation, new: {name}", lambda: ledger.evaluate(at))

    daily, yesterday, quarter = ledger.votes // DAYS, day - timedelta(days=1), day - timedelta(minutes=15)
    await ledger.cast(daily, yesterday - timedelta(days=1), yesterday)
    await evaluate("a day's votes", yesterday)
    await ledger.cast(daily - daily // 96, yesterday, quarter)
    await ledger.fold()
    await ledger.cast(daily // 96, quarter, day)
    await evaluate("a day's votes, counted as they came")
    await evaluate("nothing")
    await ledger.cast(FEW, day - timedelta(minutes=1), day)
    await evaluate(f"{FEW} votes")
    async with ledger.database.transaction("repeatable_read") as connection:
        of = await lineage(connection, "default")
        week, month = day - timedelta(days=7), day - timedelta(days=28)
        # The first finds its way, as the evaluation's first window does.
        await count(connection, "default", Window(week, day))
        before = day - timedelta(days=1)
        await take("count of a day", lambda: count(connection, "default", Window(before, day)))
        await take("count of 4 weeks, lineage", lambda: count(connection, "default", Window(month, day, of)))
    await take("rollup, 4 weeks, plain SQL", lambda: ledger.value(PLAIN, month))
    await take("owner's query", lambda: ledger.value(OWNERS))


async def measure(dsn: str) -> dict[int, Times]:
    ledgers = []
    for size in sizes():
        ledger, took = await made(dsn, size, timedelta(days=2 * ROUNDS + 2))
        print(
            f"{size:,} votes loaded in {took['loaded']:.0f} s, folded in {took['folded']:.1f} s", flush=True
        )
        ledgers.append(ledger)
    found: dict[int, Times] = {ledger.votes: defaultdict(list) for ledger in ledgers}
    now = await ledgers[0].now()
    gc.freeze()  # as `shared.process` does
    with flame("analysis"):
        for turn in range(ROUNDS + 1):
            for ledger in ledgers:  # the first time only warms up
                times = found[ledger.votes] if turn else defaultdict[str, list[float]](list)
                await around(ledger, now - timedelta(days=2 * (ROUNDS - turn)), times)
    for ledger in ledgers:
        await ledger.database.close()
    return found


def show(found: dict[int, Times]) -> None:
    small, large = min(found), max(found)
    table = Table("ms (median)", *(f"{size:,}" for size in found), f"{large:,} / {small:,}", "owner's /")
    owner = middle(found[large]["owner's query"])
    for name in found[small]:
        each = [middle(times[name]) for times in found.values()]
        row = [f"{ms:.2f}" for ms in each]
        table.add_row(name, *row, f"{each[-1] / each[0]:.2f} ×", f"{owner / each[-1]:,.0f} ×")
    Console(width=150).print(table)


def test_analysis() -> None:
    """Both counts are ≥ 500 × faster than the owner's query over ten million votes.

    That history alone costs nothing is for `bench_growth`: here a day's dislikes grow with it; up to 1,000
    of them are sorted.
    """
    with postgres() as dsn:
        found = asyncio.run(measure(dsn))
    show(found)
    large = found[max(found)]
    for name in ("count of a day", "count of 4 weeks, lineage"):
        assert middle(large["owner's query"]) >= 500 * middle(large[name]) or max(found) < SIZES[-1]


def test_answers() -> None:
    """What questions, searches and votes on chunks add to an evaluation; it is only told."""

    async def measure(dsn: str) -> None:
        ledger, _ = await made(dsn, 100_000, timedelta(days=1))
        now = await ledger.now()

        async def tell(what: str) -> None:
            times = [await timed(lambda: ledger.evaluate(now)) for _ in range(2 * ROUNDS)][ROUNDS:]
            print(f"an evaluation, {what}: {middle(times):.1f} ms")

        await tell("votes alone")
        await ledger.answer()
        await tell("with questions, searches and votes on chunks")
        await ledger.database.close()

    with postgres() as dsn:
        asyncio.run(measure(dsn))
