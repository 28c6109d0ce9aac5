"""An evaluation dataset: question, answer, the chunks that the answer rests on, and the vote.

What is not guaranteed: the text of a chunk that no generation has any more, or that the answer names by its
document alone: then `text` is null.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from shared.postgres.database import Connection

__all__ = ["QUERY", "examples"]

QUERY = """
select v.app, v.conversation_id, v.message_id, v.created_at, v.value, v.reason_code, v.comment, v.generation,
       v.question, v.answer, v.cited, v.votes_on_citations,
       case when v.cited = '[]' then v.shown else v.cited end as chunks
from feedback_loop.dashboard_vote v
where ($1::text is null or v.app = $1)
  and ($2::integer is null or v.created_at > now() - make_interval(days => $2))
  and v.question <> ''
order by v.id
"""


async def examples(
    connection: Connection, votes: Sequence[Any], negative: bool
) -> AsyncIterator[dict[str, Any]]:
    """An example for each vote, in their order."""
    hashes = {chunk["chunk"] for vote in votes for chunk in vote["chunks"] if chunk.get("chunk")}
    rows = await connection.fetch(
        "select hash, heading, text from feedback_loop.chunk where hash = any($1::text[])", list(hashes)
    )
    texts = {row["hash"]: row for row in rows}
    for vote in votes:
        name = "negative_user_feedback" if negative else "user_feedback"
        yield {
            "question": vote["question"],
            "answer": vote["answer"] or None,
            "contexts": [_context(chunk, rank, vote, texts) for rank, chunk in enumerate(vote["chunks"], 1)],
            "contexts_are": "cited" if vote["cited"] else "shown",
            name: 1 - vote["value"] if negative else vote["value"],
            "reason_code": vote["reason_code"],
            "comment": vote["comment"],
            "app": vote["app"],
            "conversation_id": vote["conversation_id"],
            "message_id": vote["message_id"],
            "generation": vote["generation"],
            "created_at": vote["created_at"].isoformat(),
        }


def _context(chunk: dict[str, Any], rank: int, vote: Any, texts: dict[str, Any]) -> dict[str, Any]:
    text = texts.get(chunk.get("chunk") or "")
    votes = vote["votes_on_citations"]
    given = votes.get(chunk.get("chunk"), votes.get(chunk.get("source")))
    return {
        "rank": chunk.get("rank", rank),
        "source": chunk.get("source"),
        "chunk": chunk.get("chunk"),
        "heading": text and text["heading"],
        "text": text and text["text"],
        "vote": given,
    }
