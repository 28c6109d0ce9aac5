"""What the analyzer's tests share: votes and generations by SQL, evaluations by event."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncpg import Record

from shared.bus.envelope import Envelope, from_json
from shared.events import Event, FeedbackEvaluate, Report
from shared.runtime import Kernel
from tests.support.events import publish, wait_until

__all__ = ["DAY", "HOUR", "MOMENT", "NINE", "Loop"]

NINE = datetime(2025, 10, 17, 0, 0, tzinfo=UTC)  # 09:00 in Seoul
MOMENT, HOUR, DAY = timedelta(microseconds=1), timedelta(hours=1), timedelta(days=1)

_VOTE = """
insert into feedback_loop.vote
    (app, conversation_id, user_id, name, value, generation, created_at)
select $1, coalesce($2, gen_random_uuid()::text), 'user-' || n, $3, (n <= $4)::int, $6, $7
from generate_series(1, $4::int + $5::int) n
"""


@dataclass(frozen=True, slots=True)
class Loop:
    """A running analyzer, and the database beneath it."""

    kernel: Kernel

    async def rows(self, query: str, *arguments: object) -> list[Record]:
        async with self.kernel.database.connection() as connection:
            return list(await connection.fetch(query, *arguments))

    # --- what is there to judge ---------------------------------------------------------

    async def cast(
        self,
        likes: int,
        dislikes: int,
        at: datetime = NINE - HOUR,
        *,
        app: str = "default",
        conversation: str | None = None,
        name: str = "user_feedback",
        generation: int | None = None,
    ) -> None:
        """Votes of so many users, each on an answer of its own (or all on `conversation`)."""
        await self.rows(_VOTE, app, conversation, name, likes, dislikes, generation, at)

    async def answer(self, conversation: str, at: datetime, generation: int | None = None) -> None:
        await self.rows(
            "insert into feedback_loop.conversation (conversation_id, answered_at, generation)"
            " values ($1, $2, $3)",
            conversation,
            at,
            generation,
        )

    async def promote(
        self, at: datetime, base: int | None = None, *, anew: bool = False, app: str = "default"
    ) -> int:
        """A new generation, active from `at` on; `anew`: feedback drove it. Returns its number."""
        await self.rows(
            "insert into feedback_loop.model (name, dimensions, table_name) values ('m', 3, 'vector_m')"
            " on conflict do nothing"
        )
        [row] = await self.rows(
            "insert into feedback_loop.generation (app, model, chunker, base, reason, state, chunks, batches,"
            " remaining, counts, starts_anew)"
            " select $1, id, 'c', $2, case when $3 then 'feedback' else 'documents' end, 'promoted',"
            " 1, 1, 0, '{}', $3 from feedback_loop.model returning id",
            app,
            base,
            anew,
        )
        await self.activate(row["id"], at, app=app)
        return int(row["id"])

    async def activate(
        self, generation: int, at: datetime, kind: str = "promotion", *, app: str = "default"
    ) -> None:
        """Move the pointer."""
        await self.rows(
            "insert into feedback_loop.active_generation values ($1, $2, $3)"
            " on conflict (app) do update set generation = $2, promoted_at = $3",
            app,
            generation,
            at,
        )
        await self.rows(
            "insert into feedback_loop.promotion (app, generation, kind, promoted_at)"
            " values ($1, $2, $3, $4)",
            app,
            generation,
            kind,
            at,
        )

    async def retrained(self, ended: timedelta, before: float, *, app: str = "default") -> None:
        """A retrain that feedback drove and that ended so long ago, after two hours."""
        await self.rows(
            "insert into feedback_loop.retrain"
            " (id, app, run, ratio_before, requested_at, finished_at, outcome)"
            " values ($1, $2, $1, $3, now() - $4::interval - interval '2 hours', now() - $4::interval,"
            " 'promoted')",
            uuid.uuid4(),
            app,
            before,
            ended,
        )

    async def now(self) -> datetime:
        """The database's time."""
        [row] = await self.rows("select now()")
        return row["now"]  # type: ignore[no-any-return]

    # --- judging ------------------------------------------------------------------------

    async def evaluate(self, as_of: datetime = NINE, **fields: Any) -> Report:
        """Publish a `feedback.evaluate` and return what it ended in."""
        [envelope] = await publish(self.kernel, FeedbackEvaluate(as_of=as_of, **fields))
        return await self.conclusion(envelope.id)

    async def conclusion(self, run: uuid.UUID) -> Report:
        """The one event that the run ends in."""

        async def decided() -> list[Event]:
            told = [envelope.event for envelope in await self.conclusions(run)]
            return [event for event in told if isinstance(event, Report)]

        [event] = await wait_until(decided)
        assert isinstance(event, Report)
        return event

    async def conclusions(self, run: uuid.UUID) -> list[Envelope]:
        rows = await self.rows(
            "select envelope from feedback_loop.outbox where correlation = $1 and producer = 'analyzer'", run
        )
        return [from_json(row["envelope"]) for row in rows]

    async def tell(self, *told: Event) -> list[Envelope]:
        """Publish events and wait until the analyzer has dealt with them, one after the other."""
        envelopes = []
        for event in told:
            envelopes += await publish(self.kernel, event)
            await self.handled(*envelopes)
        return envelopes

    async def handled(self, *envelopes: Envelope) -> None:
        ids = [envelope.id for envelope in envelopes]

        async def done() -> bool:
            rows = await self.rows(
                "select from feedback_loop.inbox where consumer = 'analyzer' and event_id = any($1::uuid[])",
                ids,
            )
            return len(rows) == len(ids)

        await wait_until(done)
