"""`feedback-loop forget`: what the loop has of one person, removed.

What is guaranteed: all of it goes in one transaction or not at all (`shared/migrations/015_privacy.sql`
says what goes, and that the owner's own tables do not bring it back), and with it each past question of
theirs that nobody else has asked, out of what search has learned. What is not: what has left the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from rich.console import Console
from rich.table import Table

from services.commands.glance import connect
from shared.mirror.langfuse import SinkError
from shared.mirror.mirror import make_mirror
from shared.postgres.database import Connection, Database, despite_conflicts
from shared.postgres.owner_tables import read_owner_tables
from shared.settings import Settings

__all__ = ["BEYOND", "forget", "forget_person"]

WITHIN = 600.0
"""Seconds."""

BEYOND = (
    "Not removed: messages in Slack (they cannot be recalled), dead letters in RabbitMQ, backups, and your"
    " own tables feedback_log and conversation_log, which are only read: from now on without this person's"
    " rows. Processes that search know what they have loaded until they restart or the next promotion."
)

# What a vote was on, or what was asked in the person's conversations.
_QUESTIONS = """
select p.app, t.question from feedback_loop.person_conversation($1, $2) p
cross join lateral (
    select c.question from feedback_loop.conversation c
    where c.app = p.app and c.conversation_id = p.conversation_id and (p.alone or c.user_id = $1)
    union select l.query from feedback_loop.search_log l
    where p.alone and l.app = p.app and l.conversation_id = p.conversation_id
    union select j.question from feedback_loop.vote v join feedback_loop.judged_answer j using (id)
    where v.app = p.app and v.conversation_id = p.conversation_id and v.user_id = $1) t
where t.question <> ''
"""

_STILL_ASKED = """
select distinct question from feedback_loop.judged_answer
where app = any($1::text[]) and feedback_loop.same_question(question) = any(
    select feedback_loop.same_question(q) from unnest($2::text[]) q)
"""


class _DryRun(Exception):
    """Ends the transaction without a trace."""


async def forget_person(settings: Settings, person: str, app: str | None, dry_run: bool) -> None:
    """Remove a person, of one app or of all, and print what was removed; `dry_run`: only print it."""
    database = await connect(settings)

    async def once() -> dict[str, int]:
        removed: dict[str, int] = {}
        with suppress(_DryRun):
            async with database.transaction() as connection:
                removed = await forget(connection, person, app)
                if dry_run:
                    raise _DryRun
        return removed

    try:
        removed = await despite_conflicts(once)  # such as with whoever writes of the person meanwhile
        mirrored = None if dry_run else await _forget_there(settings, database)
    finally:
        await database.close()
    _print(removed, dry_run)
    if mirrored is not None:
        Console(highlight=False, soft_wrap=True, markup=False).print(mirrored)


async def _forget_there(settings: Settings, database: Database) -> str | None:
    """Delete the scores of votes that are gone where votes are mirrored to, and say whether that is done."""
    mirror = make_mirror(settings, database)
    if settings.mirror == "off":
        sent = "select exists (select from feedback_loop.mirrored)"
        async with database.connection() as connection:
            left = await connection.fetchval(sent)
        return "Scores that were mirrored once stay there: MIRROR is off." if left else None
    try:
        waiting = await mirror.drain() is not None
        why = "what was sent a minute ago is deleted a little later" if waiting else None
    except SinkError as error:
        why = str(error)
    finally:
        await mirror.close()
    if why is None:
        return "The scores of these votes are deleted in Langfuse too."
    return f"The scores are not deleted in Langfuse yet ({why}): the running services do it."


async def forget(connection: Connection, person: str, app: str | None = None) -> dict[str, int]:
    """Remove a person, of one app or of all, in the caller's transaction.

    Returns:
        How many rows were removed or stripped, by table.
    """
    from services.embedder import learned  # numpy is slow to import
    from services.embedder.learning.credit import normal

    await read_owner_tables(connection)  # what is not read yet could not be linked later
    asked = await connection.fetch(_QUESTIONS, person, app, timeout=WITHIN)
    rows = await connection.fetch("select * from feedback_loop.forget($1, $2)", person, app, timeout=WITHIN)
    removed = {row["table"]: row["rows"] for row in rows}
    apps = sorted({row["app"] for row in asked})
    still = await connection.fetch(_STILL_ASKED, apps, [row["question"] for row in asked], timeout=WITHIN)
    kept = {normal(row["question"]) for row in still}
    gone = {row["question"] for row in asked if normal(row["question"]) not in kept}
    removed["learned, past questions"] = await learned.forget(connection, apps, gone)
    return removed


def _print(removed: Mapping[str, int], dry_run: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    table = Table("of the table", "would be removed" if dry_run else "removed")
    for what, count in removed.items():
        table.add_row(what, str(count))
    console.print(table)
    if not any(removed.values()):
        console.print("Nothing is known of this person.")
    console.print(BEYOND)
    if not dry_run:
        console.print("What was learned from their votes is fitted anew at the next retrain.")
