"""Verdicts on promotions: seven days after one, its votes are compared with its predecessor's.

What is guaranteed: each promotion that feedback drove gets one verdict at most, however many
evaluations look at once; so it is rolled back by itself at most once, and a person who goes back to it
has the last word. Database time decides when it is due. What is not: a verdict on a generation that
others have replaced meanwhile. Documents that changed since do not replace it: their generations inherit.
"""

from __future__ import annotations

import logging
from uuid import UUID

from services.analyzer.aftermath import DUE, LONGEST, compare
from services.analyzer.votes import Lineage, Window, count, earlier, lineage
from shared import policy
from shared.events import Aftermath
from shared.postgres.database import Connection

__all__ = ["judge"]

log = logging.getLogger(__name__)

_PROMOTED = """
select g.id, g.base, p.promoted_at, now() as now
from feedback_loop.generation g
join (
    select generation, min(promoted_at) as promoted_at from feedback_loop.promotion
    where generation = $1 and kind = 'promotion' group by generation
) p on p.generation = g.id
where g.starts_anew and g.base is not null
  and not exists (select from feedback_loop.verdict v where v.generation = g.id)
"""


async def judge(
    connection: Connection, app: str, line: Lineage, rules: policy.Rules, run: UUID
) -> Aftermath | None:
    """Compare and record, where a verdict on what is active is due; None where none is.

    Args:
        line: the active generation's lineage; its oldest is the one that feedback drove, if any did.
    """
    if not line.generations:
        return None
    row = await connection.fetchrow(_PROMOTED, line.generations[-1])
    if row is None or row["now"] - row["promoted_at"] < DUE:
        return None
    promoted, until = row["promoted_at"], min(row["now"], row["promoted_at"] + LONGEST)
    predecessor = await lineage(connection, app, row["base"])
    start = earlier(promoted, LONGEST)
    then, now = await count(
        connection, app, Window(start, promoted, predecessor), Window(promoted, until, line)
    )
    before = policy.evidence("before", start, promoted, then.likes, then.dislikes, policy.Z95)
    after = policy.evidence("after", promoted, until, now.likes, now.dislikes, policy.Z95)
    aftermath = compare(row["id"], row["base"], before, after, rules.min_votes)
    if aftermath is not None:
        await _record(connection, app, run, aftermath)
        log.info("generation %d: %s (%s)", row["id"], aftermath.verdict, aftermath.sentence)
    return aftermath


async def _record(connection: Connection, app: str, run: UUID, aftermath: Aftermath) -> None:
    before, after = aftermath.before, aftermath.after
    await connection.execute(
        "insert into feedback_loop.verdict (generation, app, previous, run, verdict, sentence, before_start,"
        " promoted_at, after_end, before_likes, before_dislikes, after_likes, after_dislikes)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
        # With the row of an evaluation at the same time unseen, it is a conflict to the router.
        " on conflict (generation) do nothing",
        aftermath.generation,
        app,
        aftermath.previous,
        run,
        aftermath.verdict,
        aftermath.sentence,
        before.start,
        after.start,
        after.end,
        before.likes,
        before.dislikes,
        after.likes,
        after.dislikes,
    )
