"""What comments mean: read, embedded and grouped, before the evaluation's transaction opens.

What is guaranteed: an evaluation never fails for it. Where nothing can be embedded, comments wait for the
next evaluation, and the report has the groups that are known. What is not: that a group counts a comment
that was written, or changed, while this was under way; it waits too.

Comments go to the process's embedding model: with `EMBEDDER=openai`, to that API. A vector is kept as
long as its comment is looked at, so each comment goes there once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from services.analyzer.complaints import LEAST, clean, digest, group_id, label, still_said
from shared.failures import Reject, Unavailable
from shared.postgres.database import Connection, Database, is_unavailable

if TYPE_CHECKING:
    from services.analyzer.grouping import Matrix
    from shared.embedding.models import Embedder

__all__ = ["MOST_COMMENTS", "Comment", "Heard", "Listener", "Membership"]

log = logging.getLogger(__name__)

MOST_COMMENTS = 2_000
"""Comments that are compared: the newest."""

MOST_GROUPS = 200
"""Groups that a comment can join: those seen last."""

CORE = 10
"""Comments that a group is known by when nobody has made another for long: the nearest to its centre."""

PATIENCE = 120.0
"""Seconds that embedding may take; what is not embedded then waits for the next evaluation."""

BATCH = 100

# `limit 1` (ids are unique) keeps each vote a look-up by its key: joined, where the planner knows little of
# the analyzer's own tables, all votes ever would be read.
_COMMENTS = """
with recent as (
  select id from feedback_loop.vote
  where app = $1 and name = 'user_feedback' and value = 0 and comment is not null
    and created_at > $2 and created_at <= $3
  order by created_at desc, id desc limit $4
), latest as (
  select id from feedback_loop.complaint_group where app = $1 and reason_code is null
  order by seen_at desc, id limit $5
), core as (
  select x.vote as id from feedback_loop.complaint_vector x
  join feedback_loop.complaint c on c.vote = x.vote and c.group_id in (select id from latest)
  where x.core
)
select v.id as vote, v.comment, v.user_id, c.said, l.id as group_id, g.label,
       v.id in (select id from core) as core
from (select id from recent union select id from core) these
cross join lateral (
  select o.id, left(o.comment, 2000) as comment, o.created_at, j.user_id
  from feedback_loop.vote o join feedback_loop.judged_answer j on j.id = o.id
  where o.id = these.id and o.value = 0 limit 1) v
left join feedback_loop.complaint c on c.vote = v.id
left join latest l on l.id = c.group_id
left join feedback_loop.complaint_group g on g.id = l.id
order by v.created_at desc, v.id desc
"""


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment as it was read.

    Attributes:
        said: its digest.
        group: the group that it is in already, with this wording.
        label: of that group.
        core: its group is known by it.
    """

    vote: int
    user: str
    text: str
    said: str
    group: str | None
    label: str | None
    core: bool


@dataclass(frozen=True, slots=True)
class Membership:
    """That a comment, worded so, is in a group; `near` as `complaints.Complaint` has it."""

    said: str
    group: str
    near: int


@dataclass(frozen=True, slots=True)
class Heard:
    """What was found out. Empty where there is nothing to compare, or nothing could be embedded.

    Attributes:
        groups: vote → its group.
        labels: of groups that are new, and of those that need another one.
        vectors: vote → digest and vector of its comment, where that is not stored yet.
        core: votes whose vectors are to be kept.
        looked_at: votes whose vectors are still of use.
        joined: votes that are in a group now, and were in none.
        model: that the vectors are of.
    """

    groups: Mapping[int, Membership] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    vectors: Mapping[int, tuple[str, bytes]] = field(default_factory=dict)
    core: frozenset[int] = frozenset()
    looked_at: frozenset[int] = frozenset()
    joined: frozenset[int] = frozenset()
    model: str = ""


class Listener:
    """Reads and groups comments.

    Args:
        embedder: makes, or gets, the model; called when there is something to embed.
    """

    def __init__(self, database: Database, embedder: Callable[[], Embedder]) -> None:
        self._database = database
        self._embedder = embedder
        self._anchors: dict[str, Matrix] = {}

    async def hear(self, app: str, start: datetime, end: datetime, run: UUID) -> Heard:
        """The groups of the comments on dislikes cast in `(start, end]`; new ones are the run's."""
        async with self._database.connection() as connection:
            comments = await _read(connection, app, start, end)
        if len(comments) < LEAST:
            return Heard()
        try:
            model = self._embedder()
            anchors = await self._anchors_of(model)
            async with self._database.connection() as connection:
                stored = await _stored(connection, comments, model.model)
            fresh = await _embed(model, [one for one in comments if one.vote not in stored])
            return await asyncio.to_thread(_group, comments, stored, fresh, anchors, model.model, run)
        except Exception as error:  # whatever a model may raise: votes are judged without it
            if is_unavailable(error):
                raise
            known = isinstance(error, Unavailable | Reject | TimeoutError)
            why = str(error) or type(error).__name__
            log.warning("complaints are not grouped by what they say: %s", why, exc_info=not known)
        return Heard()

    async def _anchors_of(self, embedder: Embedder) -> Matrix:
        if embedder.model not in self._anchors:
            from services.analyzer.grouping import ANCHORS  # numpy is slow to import

            async with asyncio.timeout(PATIENCE):
                self._anchors[embedder.model] = await embedder.embed(ANCHORS)
        return self._anchors[embedder.model]


async def _read(connection: Connection, app: str, start: datetime, end: datetime) -> list[Comment]:
    """Comments that say something, the newest first, and those that groups are known by."""
    rows = await connection.fetch(_COMMENTS, app, start, end, MOST_COMMENTS, MOST_GROUPS)
    comments = []
    for row in rows:
        text = clean(row["comment"])
        said = digest(text)
        kept = row["said"] == said
        if text:
            comments.append(
                Comment(
                    vote=row["vote"],
                    user=row["user_id"],
                    text=text,
                    said=said,
                    group=row["group_id"] if kept else None,
                    label=row["label"] if kept else None,
                    core=row["core"] and kept,
                )
            )
    return comments


async def _stored(connection: Connection, comments: Sequence[Comment], model: str) -> dict[int, bytes]:
    """Vectors that are of the comments as they are now."""
    said = {one.vote: one.said for one in comments}
    rows = await connection.fetch(
        "select vote, said, vector from feedback_loop.complaint_vector"
        " where vote = any($1::bigint[]) and model = $2",
        list(said),
        model,
    )
    return {row["vote"]: row["vector"] for row in rows if row["said"] == said[row["vote"]]}


async def _embed(embedder: Embedder, comments: Sequence[Comment]) -> dict[int, bytes]:
    """Vectors of comments, as many as there is time for."""
    vectors: dict[int, bytes] = {}
    try:
        async with asyncio.timeout(PATIENCE):
            for first in range(0, len(comments), BATCH):
                batch = comments[first : first + BATCH]
                rows = await embedder.embed([one.text for one in batch])
                for one, row in zip(batch, rows, strict=True):
                    vectors[one.vote] = row.astype("<f4").tobytes()
    except TimeoutError:
        log.warning("%d of %d comments embedded in %g s", len(vectors), len(comments), PATIENCE)
    return vectors


def _group(
    comments: Sequence[Comment],
    stored: Mapping[int, bytes],
    fresh: Mapping[int, bytes],
    anchors: Matrix,
    model: str,
    run: UUID,
) -> Heard:
    """Group what has a vector. Runs in a thread: thousands of comments take seconds."""
    import numpy as np

    from services.analyzer import grouping

    vectors = {**stored, **fresh}
    known = [one for one in comments if one.vote in vectors]
    if not known:
        return Heard()
    matrix = np.array([np.frombuffer(vectors[one.vote], "<f4") for one in known], np.float32)
    said = [grouping.Said(one.vote, one.user, one.text, one.group) for one in known]
    found = grouping.group(said, grouping.features([one.text for one in said], matrix, anchors))
    by_vote = {one.vote: one for one in known}
    groups: dict[int, Membership] = {}
    members: dict[str, list[Comment]] = {}
    for name, ones in found.items():
        id = group_id(run, name) if isinstance(name, int) else name
        members[id] = [by_vote[one.vote] for one in ones]
        groups |= {one.vote: Membership(one.said, id, near) for near, one in enumerate(members[id])}
    core = _new_core(members)
    writing = {vote: vectors[vote] for vote in {*fresh, *core}}
    return Heard(
        groups=groups,
        labels=_labels(members, known),
        vectors={vote: (by_vote[vote].said, vector) for vote, vector in writing.items()},
        core=core,
        looked_at=frozenset(by_vote),
        joined=frozenset(vote for vote in groups if by_vote[vote].group is None),
        model=model,
    )


def _new_core(members: Mapping[str, Sequence[Comment]]) -> frozenset[int]:
    """The nearest to the centre, of groups that are known by nothing yet, or no longer."""
    return frozenset(
        one.vote for ones in members.values() if not any(one.core for one in ones) for one in ones[:CORE]
    )


def _labels(members: Mapping[str, Sequence[Comment]], everything: Sequence[Comment]) -> dict[str, str]:
    """Labels of the groups that have none whose words are still said."""
    labels = {}
    for id, ones in members.items():
        kept = next((one.label for one in ones if one.label), None)
        if kept is None or not still_said(kept, (one.text for one in ones)):
            here = {one.vote for one in ones}
            others = [one.text for one in everything if one.vote not in here]
            labels[id] = label([(one.user, one.text) for one in ones], others)
    return labels
