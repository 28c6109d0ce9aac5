"""What is still to be mirrored (migration 024): who is at it, what is due, what has arrived."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.mirror.langfuse import Score, on_what
from shared.postgres.database import Connection

__all__ = ["Overtaken", "Plan", "arrived", "declare", "deleted", "hold", "left", "plan", "release"]

log = logging.getLogger(__name__)

BATCH = 100
"""Changes in one request."""
LEASE = 60
"""Seconds that one process has for one request."""

# What changed while nothing was mirrored, of what is there.
_CATCH_UP = """
insert into feedback_loop.mirror_due (vote)
select m.vote from feedback_loop.mirrored m left join feedback_loop.vote v on v.id = m.vote
where v.id is null or v.updated_at > m.sent_at
"""
_HOLD = """
update feedback_loop.mirror set lease = $1, leased_until = now() + make_interval(secs => $2)
where sink = $3 and (lease = $1 or coalesce(leased_until, '-infinity') < now())
returning origin
"""
_RELEASE = "update feedback_loop.mirror set lease = null, leased_until = null, trouble = $2 where lease = $1"
# Scores that were sent a moment ago are deleted later: see `Timing.settle`.
_DUE = """
select d.id, d.vote, m.score, m.first_at, m.revision, v.id is null as gone, v.app, v.conversation_id,
       v.message_id, v.user_id, v.name, v.row_key, v.value, v.reason_code, v.comment, v.generation,
       v.created_at
from (select * from feedback_loop.mirror_due due
      where not exists (
          select from feedback_loop.mirrored young where young.vote = due.vote
            and young.sent_at > now() - make_interval(secs => $2)
            and not exists (select from feedback_loop.vote kept where kept.id = due.vote))
      order by id limit $1) d
left join feedback_loop.vote v on v.id = d.vote
left join feedback_loop.mirrored m on m.vote = d.vote
order by d.id
"""
_INTEND = """
insert into feedback_loop.mirrored as m (vote, score, first_at, revision)
select * from unnest($1::bigint[], $2::uuid[], $3::timestamptz[], $4::integer[])
on conflict (vote) do update set revision = excluded.revision, sent_at = now()
"""
_DONE = "delete from feedback_loop.mirror_due where id = any($1::bigint[])"
_LEFT = "select sink = $1 and exists (select from feedback_loop.mirror_due) from feedback_loop.mirror"


class Overtaken(Exception):
    """Another process has the lease, or votes go elsewhere."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a batch of changes comes to, by vote.

    Attributes:
        due: the marks of each.
        scores: to be sent.
        gone: to be deleted.
    """

    due: dict[int, list[int]]
    scores: dict[int, Score]
    gone: dict[int, uuid.UUID]


async def declare(connection: Connection, name: str | None) -> None:
    """Turn mirroring on or off; what was sent to another place stays there."""
    before = await connection.fetchrow("select sink, last_sink from feedback_loop.mirror for update")
    if before is None or before["sink"] == name:
        return
    if name is None:
        await connection.execute("update feedback_loop.mirror set sink = null, trouble = null")
        return
    if before["last_sink"] not in (None, name):
        log.warning("votes are mirrored to %s from now on; what %s has stays", name, before["last_sink"])
        await connection.execute("delete from feedback_loop.mirrored")
        await connection.execute("delete from feedback_loop.mirror_due")
    await connection.execute(
        "update feedback_loop.mirror set sink = $1, last_sink = $1, trouble = null", name
    )
    await connection.execute(_CATCH_UP)


async def hold(connection: Connection, lease: uuid.UUID, name: str) -> uuid.UUID:
    """Take the lease, or keep it. Returns what the ids of scores are made with.

    Raises:
        Overtaken: it cannot be had.
    """
    origin: uuid.UUID | None = await connection.fetchval(_HOLD, lease, LEASE, name)
    if origin is None:
        raise Overtaken
    return origin


async def release(connection: Connection, lease: uuid.UUID, trouble: str | None) -> None:
    await connection.execute(_RELEASE, lease, trouble)


async def left(connection: Connection, name: str) -> bool:
    """Whether something is left to send there."""
    return bool(await connection.fetchval(_LEFT, name))


async def plan(connection: Connection, origin: uuid.UUID, settle: float, comments: bool) -> Plan:
    """The next batch, noted before it is sent: what may have arrived can always be deleted."""
    found = Plan({}, {}, {})
    for row in await connection.fetch(_DUE, BATCH, settle):
        found.due.setdefault(row["vote"], []).append(row["id"])
        if not row["gone"]:
            found.scores[row["vote"]] = _score(row, origin, comments)
        elif row["score"] is not None:
            found.gone[row["vote"]] = row["score"]
    scores = found.scores.values()
    await connection.execute(
        _INTEND,
        list(found.scores),
        [score.id for score in scores],
        [score.first_at for score in scores],
        [score.revision for score in scores],
    )
    return found


async def arrived(connection: Connection, found: Plan, votes: Iterable[int]) -> None:
    """These need nothing more, unless they have changed since."""
    await connection.execute(_DONE, [id for vote in votes for id in found.due[vote]])


async def deleted(connection: Connection, found: Plan, votes: Collection[int]) -> None:
    """The scores of these are no longer there."""
    await connection.execute("delete from feedback_loop.mirrored where vote = any($1::bigint[])", list(votes))
    await arrived(connection, found, votes)


def _score(row: Any, origin: uuid.UUID, comments: bool) -> Score:
    trace, session = on_what(row["conversation_id"], row["message_id"])
    names = ("vote", "app", "conversation_id", "message_id", "user_id", "name", "row_key")
    first: datetime = row["first_at"] or row["created_at"].replace(microsecond=0)
    generation = row["generation"]
    return Score(
        id=row["score"] or uuid.uuid5(origin, repr([row[name] for name in names])),
        first_at=first,
        revision=0 if row["revision"] is None else row["revision"] + 1,
        name=row["name"],
        value=row["value"],
        trace_id=trace,
        session_id=session,
        comment=row["comment"] if comments else None,
        metadata={  # empty rather than left out: metadata are merged there
            "app": row["app"],
            "reason_code": row["reason_code"] or "",
            "message_id": row["message_id"],
            "generation": "" if generation is None else str(generation),
            "cast_at": row["created_at"].isoformat(),
        },
    )
