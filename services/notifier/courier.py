"""Takes notices to the webhook: at least once, each attempt under the same id, so that a receiver who has an
id already may forget the notice.

What is remembered in PostgreSQL: which notices it has, how many in a row it has not taken after all their
attempts, and whether it is switched off. After five it is, and at once where it answers 410 Gone (Standard
Webhooks). A switched-off webhook is sent nothing, and nothing is kept for it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from uuid import UUID

from services.notifier.endpoint import Endpoint, NotTaken
from services.notifier.notice import Notice
from shared.events import WebhookDisabled
from shared.postgres.database import Connection, Database

__all__ = ["CONSUMER", "MOST_FAILURES", "Courier"]

log = logging.getLogger(__name__)

CONSUMER = "webhook"
MOST_FAILURES = 5

_SEEN = """
insert into feedback_loop.webhook (endpoint, host) values ($1, $2)
on conflict (endpoint) do update set seen_at = now()
"""
_STAND = """
select exists (select from feedback_loop.webhook where endpoint = $1 and disabled_at is not null) as disabled,
       coalesce((select failures from feedback_loop.attempt
                 where consumer = $2 and event_id = $3), 0) as tries
"""
_ATTEMPT = """
insert into feedback_loop.webhook_message as m (id, key, event_id) values ($1, $2, $3)
on conflict (id) do update set attempts = m.attempts + 1, attempted_at = now()
where m.delivered_at is null and m.failed_at is null
returning extract(epoch from now())::bigint
"""
_DELIVERED = """
with it as (update feedback_loop.webhook_message set delivered_at = now(), failure = null where id = $2)
update feedback_loop.webhook set delivered_at = now(), failures = 0 where endpoint = $1
"""
_GIVEN_UP = "update feedback_loop.webhook_message set failed_at = now(), failure = $2 where id = $1"
_COUNT = """
update feedback_loop.webhook
set failures = failures + $2,
    disabled_at = case when $3 or failures + $2 >= $4 then coalesce(disabled_at, now()) end,
    disabled_reason = case when $3 or failures + $2 >= $4 then coalesce(disabled_reason, $5) end
where endpoint = $1 and disabled_at is null
returning failures, disabled_at is not null as disabled
"""
_TESTED = """
update feedback_loop.webhook
set tested_at = now(), test_failure = $2::text,
    failures = case when $2 is null then 0 else failures end,
    disabled_at = case when $2 is not null then disabled_at end,
    disabled_reason = case when $2 is not null then disabled_reason end
where endpoint = $1
"""


class Courier:
    """Of one endpoint; any number of replicas may be on their way."""

    def __init__(self, database: Database, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._database = database

    async def begin(self) -> None:
        """Note the endpoint, and forget what was sent long ago."""
        async with self._database.connection() as connection:
            await connection.execute(_SEEN, self.endpoint.id, self.endpoint.host)
            await connection.execute(
                "delete from feedback_loop.webhook_message where attempted_at < now() - interval '90 days'"
            )

    async def stand(self, event: UUID) -> tuple[bool, int]:
        """Whether the webhook is switched off, and how often the event has failed so far."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_STAND, self.endpoint.id, CONSUMER, event)
        assert row is not None
        return row["disabled"], row["tries"]

    async def deliver(self, notice: Notice, key: str, event: UUID) -> NotTaken | None:
        """Send a notice, unless it is delivered or given up already. Returns why it is not taken."""
        async with self._database.connection() as connection:
            at = await connection.fetchval(_ATTEMPT, notice.id, key, event)
        if at is None:
            return None
        try:
            await self.endpoint.post(notice.id, at, notice.json_bytes())
        except NotTaken as failure:
            log.warning("the webhook has not taken %s: %s", key, failure)
            return failure
        async with self._database.connection() as connection:
            await connection.execute(_DELIVERED, self.endpoint.id, notice.id)
        return None

    async def give_up(
        self, connection: Connection, failures: Mapping[UUID, NotTaken]
    ) -> WebhookDisabled | None:
        """Note notices that will not be sent again, in the caller's transaction. Returns what is to be told
        where that has switched the webhook off."""
        for id, failure in failures.items():
            await connection.execute(_GIVEN_UP, id, str(failure))
        gone = any(failure.gone for failure in failures.values())
        reason = str(list(failures.values())[-1])
        row = await connection.fetchrow(_COUNT, self.endpoint.id, len(failures), gone, MOST_FAILURES, reason)
        if row is None or not row["disabled"]:
            return None
        log.error("the webhook is switched off: %s (`feedback-loop webhook test` switches it on)", reason)
        return WebhookDisabled(host=self.endpoint.host, reason=reason, failures=row["failures"])

    async def test(self, notice: Notice, at: int) -> None:
        """Send a notice once, note what came of it, and switch the webhook on where it takes that."""
        failure = None
        try:
            await self.endpoint.post(notice.id, at, notice.json_bytes())
        except NotTaken as error:
            failure = str(error)
        log.info("the webhook was tested: %s", failure or "taken")
        async with self._database.connection() as connection:
            await connection.execute(_TESTED, self.endpoint.id, failure)
