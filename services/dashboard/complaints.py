"""What dislikes have in common: complaint groups with a quote each, and questions no document answers."""

from __future__ import annotations

from typing import Any

from services.dashboard.selection import Chosen, where
from shared.postgres.database import Connection
from shared.requester import printable

__all__ = ["gaps", "groups"]

MOST_GROUPS, MOST_GAPS = 10, 5
LONGEST = 200

Row = dict[str, Any]


async def groups(connection: Connection, chosen: Chosen) -> list[Row]:
    """The groups with the most dislikes of the filter, whichever group is filtered; the quote is the
    latest comment (empty where there is none). A user nobody knows counts once for each conversation."""
    conditions, given = where(chosen.without("group"))
    longest = f"${len(given) + 1}"
    rows = await connection.fetch(
        "select l.id, l.label, count(*) as votes,"
        " count(distinct coalesce(nullif(v.user_id, ''), 'conversation/' || v.conversation_id)) as users,"
        f" (array_agg(left(v.comment, {longest}) order by v.created_at desc, v.id desc)"
        "   filter (where v.comment is not null))[1] as quote"
        " from feedback_loop.dashboard_vote v"
        " join feedback_loop.complaint_of_vote k on k.vote = v.id"
        " join feedback_loop.complaint_group_label l on l.id = k.group_id"
        f" where {conditions} group by 1, 2 order by 3 desc, 1 limit {MOST_GROUPS}",
        *given,
        4 * LONGEST,
    )
    return [
        {
            **row,
            "label": printable(row["label"], LONGEST),
            "quote": printable(row["quote"] or "", LONGEST),
        }
        for row in rows
    ]


async def gaps(connection: Connection, chosen: Chosen) -> list[str]:
    """Questions of the filter's dislikes that nothing in the knowledge base is near, asked most first."""
    conditions, given = where(chosen)
    rows = await connection.fetch(
        "select min(v.question) as question from feedback_loop.dashboard_vote v"
        " join feedback_loop.complaint_of_vote k on k.vote = v.id and k.cause = 'coverage_gap'"
        f" where {conditions} and v.question <> ''"
        " group by feedback_loop.same_question(left(v.question, 2000))"
        f" order by count(*) desc, 1 limit {MOST_GAPS}",
        *given,
    )
    return [printable(row["question"], LONGEST) for row in rows]
