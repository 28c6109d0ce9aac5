"""Fault 14: Slack takes a message and drops the line, gives no answer or none that can be read, asks to be
left alone, is out of order, and shows its history late. No message is lost; of one message at most one
copy is known, and every further one says of itself that it may be one.
"""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import Any

from asyncpg import Record

from shared.bus.envelope import Envelope
from shared.events import ReportReady
from shared.postgres.database import Database
from tests.support.events import publish, wait_until
from tests.support.faults import Begin, Start
from tests.support.loop import LADDER, SERVICES, TIMING
from tests.support.notifying import MARK, report
from tests.support.slack import FakeSlack, Fault

BATCH = 10
"""Messages of which each meets one fault, on average."""
REPLICAS = 3
FAULTS = (
    Fault(stores=True, then="drop"),
    Fault(stores=True, then="hang"),
    Fault(stores=True, then="garble"),
    Fault(stores=True, status=500),
    Fault(stores=True, delay=0.3),
    Fault(then="drop"),
    Fault(then="hang"),
    Fault(status=500),
    Fault(status=503),
    Fault(status=429, error="ratelimited", retry_after=1),
)


async def test_a_slack_that_fails_in_any_way_loses_nothing_and_doubt_is_shown(
    campaign: Begin, start: Start, database: Database, slack: FakeSlack, loop_settings: dict[str, Any]
) -> None:
    settings = {**loop_settings, "slack_channel": "C0REPORTS"}  # a history is asked for by id
    runtimes = [await start([SERVICES["notifier"]], LADDER, **settings) for _ in range(REPLICAS)]
    with campaign(14, "Slack drops, hangs, 429, 5xx, late history", quick=20, full=1000) as fault:
        doubted = 0
        while fault.goes_on():
            slack.history_lag = _lag(fault.random)
            slack.next(*fault.random.choices(FAULTS, k=BATCH))
            events = [report() for _ in range(BATCH)]
            envelopes = await publish(fault.random.choice(runtimes).kernel, *events)
            await _dealt_with(database, envelopes)
            problems, doubts = await _wrong(database, slack, events)
            doubted += doubts
            fault.ran(BATCH - len(slack._faults), [*problems, *await _given_up(database, envelopes)])
            slack._faults.clear()
        fault.note = f"{doubted} messages in doubt"


def _lag(random: Random) -> float:
    """Seconds: none, less than the notifier waits before it posts again, or more."""
    return random.choice((0, TIMING.settle / 2, 10 * TIMING.settle))


async def _dealt_with(database: Database, envelopes: list[Envelope]) -> None:
    ids = [envelope.id for envelope in envelopes]

    async def done() -> bool:
        async with database.connection() as connection:
            found = await connection.fetchval(
                "select count(*) from feedback_loop.inbox where event_id = any($1::uuid[])", ids
            )
        return bool(found == len(ids))

    await wait_until(done, 90)


async def _given_up(database: Database, envelopes: list[Envelope]) -> list[str]:
    async with database.connection() as connection:
        rows: list[Record] = await connection.fetch(
            "select reason from feedback_loop.inbox where event_id = any($1::uuid[]) and state = 'dead'",
            [envelope.id for envelope in envelopes],
        )
    return [f"given up: {row['reason']}" for row in rows]


async def _wrong(database: Database, slack: FakeSlack, events: list[ReportReady]) -> tuple[list[str], int]:
    """What is wrong with the messages of these reports, and of how many the notifier is in doubt."""
    keys = [f"report/{event.run}" for event in events]
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select key, state, ts, uncertain_since from feedback_loop.notification"
            " where key = any($1::text[])",
            keys,
        )
    copies: dict[str, list[str]] = defaultdict(list)
    times: dict[str, set[str]] = defaultdict(set)
    for message in slack.messages:
        assert message.metadata is not None
        key = message.metadata["event_payload"]["key"]
        copies[key].append(message.text)
        times[key].add(message.ts)
    problems = [] if len(rows) == len(keys) else [f"{len(keys) - len(rows)} messages without a row"]
    for row in rows:
        texts = copies[row["key"]]
        plain = sum(not text.endswith(MARK) for text in texts)
        if row["state"] != "posted" or row["ts"] not in times[row["key"]]:
            problems.append(f"{row['key']}: {row['state']}, and not where it says")
        if plain > 1 or (len(texts) > 1 and row["uncertain_since"] is None):
            problems.append(f"{row['key']}: {len(texts)} copies, {plain} unmarked, no doubt shown")
    return problems, sum(row["uncertain_since"] is not None for row in rows)
