"""Which run an evaluation belongs to, and when its `as_of` is fixed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.bus.envelope import Envelope, Message, decode
from shared.bus.memory import MemoryBus
from shared.delivery import runs
from shared.delivery.outbox import Outbox
from shared.delivery.runs import Hit, Run
from shared.events import FeedbackEvaluate, LoopPaused
from shared.postgres.database import Database

WINDOW = timedelta(minutes=20)
AS_OF = datetime(2025, 10, 17, tzinfo=UTC)


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database, MemoryBus())


@pytest.fixture
def kernel(database: Database, outbox: Outbox) -> tuple[Database, Outbox]:
    return database, outbox


Kernel = tuple[Database, Outbox]


async def hit(kernel: Kernel, app: str = "shop", **given: Any) -> Run:
    database, outbox = kernel
    async with database.transaction() as connection:
        return await runs.hit(connection, outbox, Hit(app, "curl", **given), WINDOW)


async def adopt(kernel: Kernel, headers: dict[str, str], body: bytes = b'{"app": "shop"}') -> Envelope:
    return await runs.adopt(*kernel, decode(Message("feedback.evaluate", headers, body)), WINDOW)


async def fetch(kernel: Kernel, sql: str) -> list[Any]:
    async with kernel[0].connection() as connection:
        return list(await connection.fetch(sql))


def evaluation(envelope: Envelope) -> FeedbackEvaluate:
    assert isinstance(envelope.event, FeedbackEvaluate)
    return envelope.event


FOREIGN = {"ce-id": "order-1", "ce-source": "/shop"}


# --- hits -----------------------------------------------------------------------------------


async def test_a_run_and_its_event_are_one_transaction(kernel: Kernel) -> None:
    database, outbox = kernel
    with pytest.raises(RuntimeError):
        await _hit_and_fail(database, outbox)
    assert await fetch(kernel, "select from feedback_loop.run") == []
    assert await fetch(kernel, "select from feedback_loop.outbox") == []


async def _hit_and_fail(database: Database, outbox: Outbox) -> None:
    async with database.transaction() as connection:
        await runs.hit(connection, outbox, Hit("shop", "curl"), WINDOW)
        raise RuntimeError


async def test_a_new_run_judges_the_votes_up_to_now(kernel: Kernel) -> None:
    run = await hit(kernel)
    (row,) = await fetch(kernel, "select *, now() - as_of as age from feedback_loop.run")
    assert (run.id, run.as_of, run.joined, run.published) == (row["id"], row["as_of"], False, False)
    assert timedelta(0) <= row["age"] < timedelta(seconds=10)
    assert evaluation(run.envelope).as_of == row["as_of"]
    assert run.envelope.id == run.id == run.envelope.correlation


async def test_a_hit_that_joins_gets_the_event_as_it_was_first_written(kernel: Kernel) -> None:
    first = await hit(kernel, window="7d")
    second = await hit(kernel, window="24h")
    assert second.joined
    assert second.envelope == first.envelope


async def test_hits_at_once_agree(kernel: Kernel) -> None:
    found = await asyncio.gather(*(hit(kernel) for _ in range(20)))
    assert len({run.id for run in found}) == 1
    assert [run.joined for run in found].count(False) == 1


async def test_a_hit_learns_whether_its_run_is_published(kernel: Kernel) -> None:
    await hit(kernel)
    await fetch(kernel, "update feedback_loop.outbox set published_at = now()")
    assert (await hit(kernel)).published


# --- events of others -----------------------------------------------------------------------


async def test_other_types_and_the_triggers_own_events_pass_as_they_are(kernel: Kernel) -> None:
    own = (await hit(kernel)).envelope
    for envelope in (own, Envelope.root(LoopPaused(), "/x")):
        assert await runs.adopt(*kernel, envelope, WINDOW) is envelope


async def test_an_event_with_an_id_is_a_run_of_its_own(kernel: Kernel) -> None:
    joinable = await hit(kernel)
    adopted = await adopt(kernel, FOREIGN)
    assert adopted.id != joinable.id
    assert (await hit(kernel)).id == joinable.id


async def test_as_of_is_fixed_on_first_receipt(kernel: Kernel) -> None:
    first = await adopt(kernel, FOREIGN)
    await asyncio.sleep(0.01)
    second = await adopt(kernel, FOREIGN)
    assert evaluation(first).as_of is not None
    assert (second.id, second.event) == (first.id, first.event)


async def test_consumers_that_adopt_at_once_agree(kernel: Kernel) -> None:
    adopted = await asyncio.gather(*(adopt(kernel, FOREIGN) for _ in range(10)))
    assert len({(envelope.id, envelope.event) for envelope in adopted}) == 1


async def test_as_of_that_the_sender_gives_is_kept(kernel: Kernel) -> None:
    body = b'{"app": "shop", "as_of": "2025-10-17T09:00:00+09:00"}'
    assert evaluation(await adopt(kernel, FOREIGN, body)).as_of == AS_OF
    assert evaluation(await adopt(kernel, {}, body)).as_of == AS_OF


async def test_an_adopted_event_is_remembered_though_the_broker_forgets(kernel: Kernel) -> None:
    adopted = await adopt(kernel, FOREIGN)
    (row,) = await fetch(kernel, "select event_id, published_at, done_at from feedback_loop.outbox")
    assert row["event_id"] == adopted.id
    assert row["published_at"] is not None  # the sender did; the relay looks later
    assert row["done_at"] is None


async def test_an_anonymous_event_joins_the_current_run(kernel: Kernel) -> None:
    run = await hit(kernel)
    adopted = await adopt(kernel, {})
    assert (adopted.id, adopted.event, adopted.anonymous) == (run.id, run.envelope.event, False)


async def test_an_anonymous_event_starts_the_run_that_later_hits_join(kernel: Kernel) -> None:
    adopted = await adopt(kernel, {"ce-source": "/shop"})
    assert (await hit(kernel)).id == adopted.id
    assert evaluation(adopted).requested_by == "/shop"


async def test_who_asked_is_named_and_bounded(kernel: Kernel) -> None:
    named = b'{"requested_by": "two\\nlines"}'
    assert evaluation(await adopt(kernel, FOREIGN, named)).requested_by == "two lines"
    for headers in ({"ce-source": "/" + "x" * 500}, {"ce-source": "/" + "x" * 500, "ce-id": "2"}):
        by = evaluation(await adopt(kernel, headers, b'{"app": "other"}')).requested_by
        assert by.startswith("/xxx")
        assert len(by) <= 200
