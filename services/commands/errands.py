"""The commands that do one thing and end."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

import click
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.commands.console import errand, follow_build, progress_bar, request, until_handled
from services.commands.glance import connect
from services.commands.rights import RightsError, make_database_roles
from services.commands.tables import plain
from services.embedder.ingest import take_over_folder
from services.embedder.search import Question, Searcher
from shared import backtest, policy
from shared.embedding.models import make_embedder
from shared.events import Event, GenerationRequested, RetrainCompleted, RollbackRequested, Skipped
from shared.failures import Reject, Unavailable
from shared.postgres.owner_tables import read_owner_tables
from shared.postgres.roles import user
from shared.settings import Settings
from shared.web.http import fields_of
from shared.web.vote_token import VoteToken, issue

__all__ = [
    "import_votes",
    "ingest_folder",
    "make_vote_token",
    "migrate_database",
    "replay_history",
    "roll_back",
    "show_search",
    "tell",
]


async def ingest_folder(settings: Settings, path: Path, app: str) -> None:
    """Read a folder and build a generation of it, with progress."""
    console = Console()
    if settings.knowledge_dir and not _same_folder(settings.knowledge_dir, path):
        told = f"KNOWLEDGE_DIR is {settings.knowledge_dir}: the next retrain reads that one"
        console.print(Text(told, "yellow"))
    async with errand(settings) as runtime:
        with progress_bar(console) as bar:
            task = bar.add_task("Reading", total=None)
            folder = await take_over_folder(
                runtime.kernel.database,
                app,
                path,
                lambda done, total: bar.update(task, completed=done, total=total),
            )
        _name_skipped(console, folder.skipped)
        event = GenerationRequested(app=app, reason="manual", requested_by="cli")
        envelope = await request(runtime.kernel, event)
        _conclude(console, await follow_build(runtime.kernel, envelope.id, console, "Embedding"))


async def roll_back(settings: Settings, event: RollbackRequested) -> None:
    console = Console()
    async with errand(settings) as runtime:
        envelope = await request(runtime.kernel, event)
        _conclude(console, await follow_build(runtime.kernel, envelope.id, console, "Rolling back", 60))


async def tell(settings: Settings, event: Event) -> None:
    """Publish a command and let this process deal with it."""
    async with errand(settings) as runtime:
        envelope = await request(runtime.kernel, event)
        await until_handled(runtime.kernel, envelope.id)


async def import_votes(settings: Settings) -> None:
    database = await connect(settings)
    try:
        async with database.transaction() as connection:
            read = await read_owner_tables(connection)
    finally:
        await database.close()
    click.echo(f"{read.votes} votes and {read.conversations} conversations read, {read.skipped} rows skipped")


async def show_search(settings: Settings, question: str, k: int, app: str, as_json: bool) -> None:
    """Print what a search finds, with the parts of each score."""
    console = Console()
    database, embedder = await connect(settings), make_embedder(settings)
    try:
        found = await Searcher(database, embedder).search(Question(question, k, app))
    except (LookupError, Reject, Unavailable) as error:
        raise click.ClickException(str(error)) from None
    finally:
        await embedder.close()
        await database.close()
    if as_json:
        click.echo(json.dumps(found.public(), ensure_ascii=False))
    elif found.generation is None:
        console.print("There is no generation yet: `feedback-loop ingest PATH` builds one.")
    else:
        console.print(f"generation {found.generation}; score = half meaning, half words", highlight=False)
        for hit in found.results:
            parts = ", ".join(f"{name} {value:.2f}" for name, value in hit.scores.items())
            place = (
                (f"{hit.rank}. {hit.score:.2f}", "bold"),
                f" ({parts})  ",
                (plain(hit.source).plain, "cyan"),
            )
            console.print(Text.assemble(*place))
            for text in (plain(hit.heading), plain(hit.text, 200)):
                console.print(Text("   ").append_text(text))


async def migrate_database(settings: Settings, roles: bool) -> None:
    dsn_given = settings.database_url is not None
    database = await connect(settings)
    try:
        if roles:
            async with database.transaction() as connection:
                notes = await make_database_roles(connection, settings.passwords)
            users = ", ".join(map(user, settings.passwords)) or "none, as ROLE_PASSWORDS is not set"
            click.echo("\n".join([*notes, f"each service's group has its rights; users: {users}"]))
    except RightsError as error:
        raise click.ClickException(str(error)) from None
    finally:
        await database.close()
    click.echo(f"the schema is up to date ({'DATABASE_URL' if dsn_given else settings.data_dir})")


async def replay_history(settings: Settings, app: str, days: int, threshold: float | None) -> None:
    """Print what either policy would have done, day by day where they acted."""
    database = await connect(settings)
    try:
        async with database.connection() as connection:
            rows = await connection.fetch(
                "select (created_at at time zone $3)::date as day,"
                " count(*) filter (where value = 1) as likes, count(*) filter (where value = 0) as dislikes"
                " from feedback_loop.vote where app = $1 and name = 'user_feedback'"
                " and created_at > now() - make_interval(days => $2) group by 1 order by 1",
                app,
                days,
                settings.timezone,
            )
    finally:
        await database.close()
    rules = policy.Rules(
        policy="wilson",
        threshold=threshold or settings.threshold,
        min_votes=settings.min_votes,
        cooldown=timedelta(days=settings.cooldown_days),
    )
    replayed = backtest.replay([(row["day"], row["likes"], row["dislikes"]) for row in rows], rules)
    _print_backtest(replayed, rules)


def _print_backtest(replayed: list[backtest.Day], rules: policy.Rules) -> None:
    console = Console()
    if not replayed:
        console.print("There are no votes to look back on.")
        return
    table = Table("day", "👍", "👎", "ratio", "wilson", "ratio rule")
    for day in replayed:
        if "act" in (day.wilson, day.ratio_rule):
            ratio = f"{day.ratio:.0%}" if day.ratio is not None else "-"
            table.add_row(str(day.date), str(day.likes), str(day.dislikes), ratio, day.wilson, day.ratio_rule)
    summary = backtest.summarize(replayed)
    if table.row_count:
        console.print(table)
    console.print(
        f"{summary.days} days, threshold {rules.threshold:.0%}: POLICY=wilson would have retrained"
        f" {summary.wilson_retrains} times, POLICY=ratio {summary.ratio_retrains} times."
    )


def _same_folder(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _name_skipped(console: Console, skipped: tuple[Skipped, ...]) -> None:
    for entry in skipped:
        console.print(Text(f"skipped {plain(entry.source)}: {plain(entry.reason)}", "yellow"))


def _conclude(console: Console, completed: RetrainCompleted) -> None:
    """Print an outcome; what is neither promoted nor unchanged ends the command with 1."""
    counts = completed.counts
    said = f"{completed.outcome}: generation {completed.generation_after}"
    if completed.reason != "rollback":
        said += (
            f", {counts.documents} documents ({counts.added} added, {counts.changed} changed,"
            f" {counts.removed} removed), {counts.embedded} chunks embedded, {counts.reused} reused"
        )
    if completed.detail:
        said += f"; {plain(completed.detail)}"
    if completed.outcome not in ("promoted", "unchanged"):
        raise click.ClickException(said)
    console.print(said, markup=False, highlight=False)


def make_vote_token(
    settings: Settings, conversation: str, app: str, user: str, message: str | None, minutes: int
) -> str:
    """A vote token, made here.

    Raises:
        ClickException: there is no key, or what it is to say does not fit.
    """
    if not settings.vote_token_keys:
        raise click.ClickException("VOTE_TOKEN_SECRET is not set: it must be the one of the service")
    expires = int(time.time()) + minutes * 60
    try:
        token = VoteToken(
            app=app, conversation_id=conversation, message_id=message, user_id=user, exp=expires
        )
    except ValidationError as error:
        raise click.ClickException(": ".join(fields_of(error))) from None
    return issue(token, settings.vote_token_keys)
