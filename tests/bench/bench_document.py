"""The dashboard's filter `document` over a long ledger: `scripts/bench document`.

`BENCH_ROWS` votes (default 1,000,000) of the last four weeks, half of them on answers that cite documents,
half on searches that showed chunks, over 200 documents. The baseline, in the same run, looks at every vote
of the period for what its answer rests on. Beside it, what the index costs: votes, answers and searches
written one by one, with the index and without.
"""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.table import Table

from services.dashboard import figures, votes
from services.dashboard.filters import Filter, Listing
from services.dashboard.selection import Chosen, Reader, choose
from shared.settings import Settings
from tests.bench.analysing import Ledger, made, middle, postgres

ROWS = int(os.environ.get("BENCH_ROWS", 10**6))
DOCUMENTS = 200
ROUNDS = 5
WRITES = 500

_ANSWERS = """
insert into feedback_loop.conversation (app, conversation_id, question, answer, citations, answered_at)
select app, conversation_id, 'q', 'a', jsonb_build_array(
    jsonb_build_object('source', 'doc' || id % $1 || '.md', 'rank', 1),
    jsonb_build_object('source', 'doc' || id * 7 % $1 || '.md', 'rank', 2)), created_at
from feedback_loop.vote where id % 2 = 0
"""
_SEARCHES = """
insert into feedback_loop.search_log (app, conversation_id, query, generation, shown)
select app, conversation_id, 'q', 1, (select jsonb_agg(jsonb_build_object(
    'chunk', 'h' || (v.id * 11 + n) % $1, 'score', 0.5)) from generate_series(1, 5) n)
from feedback_loop.vote v where id % 2 = 1
"""
_CHUNKS = (
    "insert into feedback_loop.chunk select 'h' || n, '', 't' from generate_series(0, $1 - 1) n",
    "insert into feedback_loop.generation_chunk select 1, 'h' || n, 1, 'doc' || n || '.md', n"
    " from generate_series(0, $1 - 1) n",
)
_BASELINE = """
select count(*) from feedback_loop.dashboard_vote v
where v.app = 'default' and v.created_at >= $1 and v.created_at < $2
  and exists (select from jsonb_array_elements(v.cited || v.shown) e
              where e ->> 'source' = $3 or e ->> 'chunk' = any($4))
"""
_WRITES = {
    "a vote": "insert into feedback_loop.vote (conversation_id, value) values ('new' || $1, 0)",
    "an answer": "insert into feedback_loop.conversation (conversation_id, citations)"
    ' values (\'new\' || $1, \'[{"source": "doc1.md"}, {"source": "doc2.md"}]\')',
    "a search": "insert into feedback_loop.search_log (app, conversation_id, query, generation, shown)"
    " values ('default', 'new' || $1, 'q', 1, (select jsonb_agg(jsonb_build_object('chunk', 'h' || n))"
    " from generate_series(1, 5) n))",
}


async def filled(dsn: str) -> Ledger:
    ledger, _ = await made(dsn, 0, timedelta(0))
    now = await ledger.now()
    await ledger.cast(ROWS, now - timedelta(days=27), now)
    await ledger.value(_ANSWERS, DOCUMENTS)
    await ledger.value(_SEARCHES, DOCUMENTS)
    for statement in _CHUNKS:
        await ledger.value(statement, DOCUMENTS)
    await ledger.value("vacuum analyze")
    return ledger


async def timed(ledger: Ledger, what: str) -> tuple[float, int]:
    """The median of a reading in ms, and how many votes it found."""
    times, found = [], 0
    for _ in range(ROUNDS if what != "baseline" else 2):
        async with Reader(ledger.database).open() as (connection, now):
            chosen = await choose(connection, Filter(document="doc7.md"), now, Settings().zone)
            began = time.perf_counter()
            found = await _read(connection, chosen, what)
            times.append(time.perf_counter() - began)
    return middle(times), found


async def _read(connection: Any, chosen: Chosen, what: str) -> int:
    if what == "baseline":
        given = (chosen.span.start, chosen.span.end, chosen.filter.document, list(chosen.chunks))
        count: int = await connection.fetchval(_BASELINE, *given, timeout=600)
        return count
    if what == "count":
        return sum(day.likes + day.dislikes for day in await figures.daily(connection, chosen))
    return len((await votes.page(connection, chosen, Listing(limit=10)))["votes"])


async def written(ledger: Ledger) -> dict[str, float]:
    """The median of one write with its commit, in ms."""
    found = {}
    for what, statement in _WRITES.items():
        times = []
        for _ in range(WRITES):
            began = time.perf_counter()
            await ledger.value(statement.replace("$1", "gen_random_uuid()"))
            times.append(time.perf_counter() - began)
        found[what] = middle(times)
    return found


async def measure(dsn: str) -> Table:
    ledger = await filled(dsn)
    table = Table("what", "ms", "votes found", title=f"{ROWS:,} votes in the period")
    for what in ("baseline", "count", "page"):
        ms, found = await timed(ledger, what)
        table.add_row(what, f"{ms:,.1f}", f"{found:,}")
    indexed = await written(ledger)
    for name in ("conversation_cited", "search_log_shown"):
        await ledger.value(f"drop index feedback_loop.{name}")
    for what, ms in (await written(ledger)).items():
        table.add_row(f"{what} written, without the index", f"{ms:.2f}", "")
        table.add_row(f"{what} written, with it", f"{indexed[what]:.2f}", "")
    await ledger.database.close()
    return table


def test_document_filter() -> None:
    with postgres() as dsn:
        table = asyncio.run(measure(dsn))
    Console(width=100).print(table)
    rows = dict(zip(table.columns[0].cells, table.columns[1].cells, strict=True))
    assert float(str(rows["count"]).replace(",", "")) < float(str(rows["baseline"]).replace(",", ""))
