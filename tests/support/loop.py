"""The whole loop under faults: its services, apps that have something to retrain for, and what must be
true of them in the end.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from asyncpg import Record

from services.analyzer.build import build as analyzer
from services.collector.build import build as collector
from services.embedder import store
from services.embedder.build import build as embedder
from services.embedder.knowledge import RawDocument
from services.embedder.parsing import parse
from services.notifier.build import build as notifier
from services.notifier.handlers import Notifier
from services.notifier.pictures import Pictures
from services.notifier.poster import Timing
from services.trigger.build import build as trigger
from shared.postgres.database import Database
from shared.runtime import Builder, Kernel, Service
from tests.support.embedder import Bigrams, article
from tests.support.events import wait_until
from tests.support.slack import FakeSlack

__all__ = [
    "DISLIKES", "LADDER", "SERVICES", "backlog", "check_apps", "check_slack", "check_votes", "furnish",
    "settle", "settled",
]  # fmt: skip

LADDER = (0.05, 0.1, 0.3, 0.6, 1.2, 2.4, 2.5)
"""Short, and with some rungs more: an outcome waits seconds for its report, which cost attempts here."""
TIMING = Timing(attempt=2, lease=2.2, settle=0.4)
"""The notifier's leases: short, for tests wait for those that died with their process."""
DISLIKES = 30
"""Of each furnished app: surely over the threshold."""
BATCHES = 3
"""Of each furnished app's first generation, with `EMBEDDING_BATCH` 2."""


def _embedder(kernel: Kernel) -> Service:
    return embedder(kernel, Bigrams())


class _NoPictures(Pictures):
    """Promised by nobody, and slow to draw."""

    def __init__(self) -> None:
        pass

    async def offer(self, *arguments: Any) -> None:
        pass


def _notifier(kernel: Kernel) -> Service:
    service = notifier(kernel, request_timeout=1, timing=TIMING)
    assert isinstance(service.deps, Notifier)
    return replace(service, deps=replace(service.deps, pictures=_NoPictures()))


SERVICES: Mapping[str, Builder] = {
    "trigger": trigger,
    "collector": collector,
    "analyzer": analyzer,
    "embedder": _embedder,
    "notifier": _notifier,
}


async def furnish(database: Database, apps: Iterable[str], chunks: int = 2 * BATCHES) -> None:
    """Give apps a document of their own, not yet embedded, and dislikes that call for a retrain."""
    async with database.transaction() as connection:
        for app in apps:
            data = article(app, chunks).encode()
            source = PurePosixPath(f"{app}.md").name
            raw = RawDocument(source, "text/markdown", uuid.uuid4().hex, parse(source, data))
            await store.put(connection, app, "api", store.cut([raw]))
            await connection.execute(
                "insert into feedback_loop.vote (app, conversation_id, value)"
                " select $1, 'c' || n, 0 from generate_series(1, $2::int) n",
                app,
                DISLIKES,
            )


_OPEN = """
select o.type, c.consumer, o.published_at is not null as published, o.publishes, a.failures, a.deliveries,
       a.next_at - now() as again_in, now() - o.created_at as age
from feedback_loop.outbox o join feedback_loop.consumer c on c.type = o.type
left join feedback_loop.attempt a on a.event_id = o.event_id and a.consumer = c.consumer
where o.done_at is null
  and not exists (select from feedback_loop.inbox i
                  where i.consumer = c.consumer and i.event_id = o.event_id)
order by o.created_at limit 10
"""


async def settled(database: Database) -> bool:
    """Whether every event is dealt with by all who take it."""
    return not await _open(database)


async def settle(database: Database, seconds: float) -> None:
    """Wait until every event is dealt with by all who take it.

    Raises:
        AssertionError: some are not within so many seconds; the text says what is known of them.
    """
    try:
        await wait_until(lambda: settled(database), seconds)
    except AssertionError:
        left = "\n".join(str(dict(row)) for row in await _open(database))
        raise AssertionError(f"not settled within {seconds:g} s:\n{left}") from None


async def backlog(database: Database) -> int:
    """How many events somebody has yet to deal with; ten are many."""
    return len(await _open(database))


async def _open(database: Database) -> list[Record]:
    async with database.connection() as connection:
        return list(await connection.fetch(_OPEN))


_STATE = """
select app,
  (select count(*) from feedback_loop.run r where r.app = apps.app) as runs,
  (select count(*) from feedback_loop.decision d where d.app = apps.app) as decisions,
  (select count(*) from feedback_loop.retrain t
   where t.app = apps.app and t.outcome = 'promoted') as retrains,
  (select count(*) from feedback_loop.retrain t where t.app = apps.app and t.finished_at is null) as open,
  (select count(*) from feedback_loop.generation g where g.app = apps.app) as generations,
  (select coalesce(min(g.state), '') from feedback_loop.generation g where g.app = apps.app) as state,
  (select count(*) from feedback_loop.active_generation a where a.app = apps.app) as active,
  (select count(*) from feedback_loop.active_chunk a where a.app = apps.app) as shown,
  (select count(*) from feedback_loop.document_chunk c where c.app = apps.app) as chunks,
  (select count(*) from feedback_loop.promotion p where p.app = apps.app) as promotions,
  (select coalesce(string_agg(i.consumer || ', ' || i.type || ': ' || i.reason, '; '), '')
   from feedback_loop.run r join feedback_loop.inbox i on i.correlation = r.id
   where r.app = apps.app and i.state = 'dead') as dead,
  (select jsonb_object_agg(e.type, e.count) from
    (select o.type, count(*) from feedback_loop.run r join feedback_loop.outbox o on o.correlation = r.id
     where r.app = apps.app group by o.type) e) as events
from unnest($1::text[]) as apps (app)
"""
_ONCE = {
    "runs": 1,
    "decisions": 1,
    "retrains": 1,
    "open": 0,
    "generations": 1,
    "state": "promoted",
    "active": 1,
    "promotions": 1,
    "dead": "",
}
_EVENTS = {
    "feedback.evaluate": 1,
    "retrain.requested": 1,
    "embedding.requested": BATCHES,
    "generation.built": 1,
    "retrain.completed": 1,
}


async def check_apps(database: Database, apps: Sequence[str]) -> list[str]:
    """What is wrong with furnished apps of which each was triggered: one run, one decision, one retrain,
    one whole generation, no event twice, none given up."""
    async with database.connection() as connection:
        rows = await connection.fetch(_STATE, apps)
    problems = []
    for row in rows:
        found = {name: row[name] for name in _ONCE}
        if found != _ONCE or row["events"] != _EVENTS or not 0 < row["shown"] == row["chunks"]:
            problems.append(f"{row['app']}: {dict(row)}")
    return problems


async def check_slack(database: Database, slack: FakeSlack, kinds: Mapping[str, int]) -> list[str]:
    """What is wrong with the messages, of which there should be so many of each kind: none lost, none
    twice but where doubt is shown."""
    texts = Counter(
        str(message.metadata["event_payload"]["key"]) for message in slack.messages if message.metadata
    )
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select key, kind, state, uncertain_since from feedback_loop.notification"
            " where kind = any($1::text[])",
            list(kinds),
        )
    problems = [f"{row['key']}: {row['state']}" for row in rows if row["state"] != "posted"]
    doubted = {row["key"] for row in rows if row["uncertain_since"] is not None}
    problems += [f"{key}: {count} times" for key, count in texts.items() if count > 1 and key not in doubted]
    problems += [f"{row['key']}: recorded, and not there" for row in rows if not texts[row["key"]]]
    posted = Counter(row["kind"] for row in rows)
    problems += [
        f"{posted[kind]} messages {kind!r}, not {count}"
        for kind, count in kinds.items()
        if posted[kind] != count
    ]
    return problems


async def check_votes(database: Database, accepted: Mapping[tuple[str, str], int]) -> list[str]:
    """What is wrong with votes: (app, conversation) -> the value that was accepted last."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select app, conversation_id, array_agg(value) as values from feedback_loop.vote"
            " where app = any($1::text[]) group by 1, 2",
            sorted({app for app, _ in accepted}),
        )
    found: dict[tuple[str, str], Any] = {(row["app"], row["conversation_id"]): row["values"] for row in rows}
    return [
        f"vote {key}: {found.get(key)}, not {value}"
        for key, value in accepted.items()
        if found.get(key) != [value]
    ]
