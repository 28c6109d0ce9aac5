"""What the benchmarks of analysis share: a server, ledgers of any size, and the evaluation, timed."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from services.analyzer import handlers
from services.analyzer.comments import Listener
from shared.bus.envelope import Envelope
from shared.delivery.work import UnitOfWork
from shared.embedding.use_model import UseEmbedder
from shared.events import FeedbackEvaluate, Report
from shared.policy import Rules
from shared.postgres.database import Database
from shared.postgres.embedded import start_postgres, stop_postgres
from shared.postgres.folding import fold

DAYS = 365
RULES = Rules(policy="wilson", threshold=0.9, min_votes=20, cooldown=timedelta(days=7))
"""With which nothing is retrained."""

# Every fifth is a 👎; every second names its generation; of the 👎 half have a reason. No comments: what it
# takes to embed them is the model's, 2,000 an evaluation at most.
_VOTES = """
insert into feedback_loop.vote (app, conversation_id, user_id, value, generation, reason_code, created_at)
select $1, $2 || n, 'u' || n % 5000, (n % 5 <> 0)::int, case when n % 2 = 0 then $3::bigint end,
       case n % 20 when 0 then 'wrong' when 10 then 'source' end,
       $4::timestamptz + ($5::timestamptz - $4::timestamptz) * ((n - 0.5) / $6::float8)
from generate_series(1, $6::bigint) n
"""


# 3,000 questions, asked again and again; eight chunks shown for each.
_ANSWERS = """
insert into feedback_loop.conversation (app, conversation_id, question, answer, answered_at)
select app, conversation_id, 'What is the answer to question number ' || id % 3000 || ', please?',
       repeat('It is this. ', 40), created_at
from feedback_loop.vote
"""
_SEARCHES = """
insert into feedback_loop.search_log (app, conversation_id, query, shown, generation, searched_at)
select app, conversation_id, 'question ' || id % 3000, (
           select jsonb_agg(jsonb_build_object('chunk', md5((id % 3000 + k)::text), 'score', .5, 'dense', .6,
                                               'lexical', .7))
           from generate_series(1, 8) k), 1, created_at
from feedback_loop.vote
"""
_CITED = """
update feedback_loop.vote set citations = jsonb_build_object(md5((id % 3000 + 1)::text), 1) where id % 3 = 0
"""


@contextmanager
def postgres() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="fl-bench-"))
    try:
        yield asyncio.run(start_postgres(folder))
    finally:
        asyncio.run(stop_postgres(folder))
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Ledger:
    """A database with votes over a year."""

    database: Database
    votes: int

    async def value(self, query: str, *given: object, timeout: float = 3600) -> Any:
        async with self.database.connection() as connection:
            return await connection.fetchval(query, *given, timeout=timeout)

    async def cast(self, number: int, since: datetime, until: datetime, app: str = "default") -> None:
        """Votes, spread evenly, as a batch of the collector's would come."""
        if number:
            name = f"{app}/{since.isoformat()}/{until.isoformat()}/"
            await self.value(_VOTES, app, name, 1, since, until, number)

    async def evaluate(self, as_of: datetime, app: str = "default") -> Report:
        """Judge as the router would have it done: one handler, one commit."""
        listener = Listener(self.database, UseEmbedder)
        deps = handlers.Deps(self.database, RULES, "24h", listener)
        event = FeedbackEvaluate(app=app, as_of=as_of)
        async with UnitOfWork(self.database, Envelope.root(event, "bench"), "analyzer") as work:
            said = (await handlers.evaluate(event, work, deps))[0]
        assert isinstance(said, Report)
        return said

    async def answer(self) -> None:
        """What was asked, searched and answered before each vote; of every third, a vote on a chunk too."""
        for statement in (_ANSWERS, _SEARCHES, _CITED, "vacuum analyze"):
            await self.value(statement)
        await self.fold()

    async def fold(self) -> None:
        """Count all that is not counted yet."""
        while await fold(self.database, "default"):
            pass

    async def now(self) -> datetime:
        moment: datetime = await self.value("select now()")
        return moment


async def made(dsn: str, votes: int, ago: timedelta) -> tuple[Ledger, dict[str, float]]:
    """A database of its own with so many votes of the year that ended then; what that took, in seconds."""
    name = f"votes_{votes}"
    server = await asyncpg.connect(dsn)
    await server.execute(f"create database {name}")
    await server.close()
    database = Database(urlunsplit(urlsplit(dsn)._replace(path=f"/{name}")))
    await database.connect()
    await database.migrate()
    ledger, took = Ledger(database, votes), dict[str, float]()
    end = await ledger.now() - ago
    await ledger.value(
        "with g as (insert into feedback_loop.model (name, dimensions, table_name) values ('m', 1, 'none')"
        " returning id) insert into feedback_loop.generation"
        " (app, model, chunker, reason, state, chunks, batches, remaining, counts, starts_anew)"
        " select 'default', id, '', 'documents', 'promoted', 1, 0, 0, '{}', false from g"
    )
    await ledger.value(
        "with p as (insert into feedback_loop.promotion (app, generation, kind, promoted_at)"
        " values ('default', 1, 'promotion', now() - interval '200 days'))"
        " insert into feedback_loop.active_generation values ('default', 1)"
    )
    took["loaded"] = await timed(lambda: ledger.cast(votes, end - timedelta(days=DAYS), end))
    await ledger.value("vacuum analyze")
    took["folded"] = await timed(ledger.fold)
    await ledger.value("vacuum analyze")
    return ledger, took


async def timed(do: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await do()
    return time.perf_counter() - began


def middle(times: Sequence[float]) -> float:
    """The median, in ms."""
    return 1000 * statistics.median(times)
