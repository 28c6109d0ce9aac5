"""The command `feedback-loop`."""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from shared.settings import Settings, SettingsError, load
from shared.telemetry.logs import configure_logs

if TYPE_CHECKING:
    from shared.events import Event

__all__ = ["main"]

NAMES = ("trigger", "collector", "analyzer", "embedder", "notifier", "dashboard")


class _Failed(click.ClickException):
    """An errand that did not work out: one line, no traceback."""


def _settings(**overrides: object) -> Settings:
    try:
        settings = load(**overrides)
    except SettingsError as error:
        raise _Failed(f"the configuration does not fit:\n{error}") from None
    configure_logs(settings.log_format, settings.log_level)
    return settings


@contextmanager
def _importing() -> Iterator[None]:
    """Imports leave next to nothing for the garbage collector, and it would take a tenth of a cold start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run a command to its end; an interruption or a database that is away is no traceback."""
    from shared.bus.port import BusError
    from shared.postgres.database import DatabaseUnavailable

    try:
        asyncio.run(work)
    except TimeoutError:
        raise _Failed("it took too long; `feedback-loop doctor` says what is missing") from None
    except (SettingsError, DatabaseUnavailable, BusError, OSError) as error:
        raise _Failed(str(error)) from None
    except KeyboardInterrupt:
        raise _Failed("interrupted; what was begun goes on where it stood at the next start") from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ai-feedback-loop")
def main() -> None:
    """Judge the votes of a RAG chatbot, re-embed when that can help, report to Slack.

    Settings come from the environment and from `.env`; the README lists them.
    """


@main.command()
@click.option("--sample", is_flag=True, help="Load the sample knowledge base and its conversations first.")
def up(sample: bool) -> None:
    """Run all services in this process, on one port."""
    with _importing():
        from services.up import compose
        from shared.process import serve

    settings = _settings()

    async def run_all() -> None:
        runtime = compose(settings)
        if sample:
            from services.commands.demo.story import load_sample

            runtime.when_ready(lambda: load_sample(runtime))
        await serve(runtime)

    _run(run_all())


@main.command()
@click.argument("service", type=click.Choice(NAMES), nargs=-1, required=True)
def run(service: tuple[str, ...]) -> None:
    """Run one service (with RabbitMQ between them), or several in one process on one port."""
    with _importing():
        from shared.process import run_alone

        names = dict.fromkeys(service)
        builders = [importlib.import_module(f"services.{name}.build").build for name in names]
    run_alone(*builders)


@main.command()
def demo() -> None:
    """Tell the whole story in two minutes, on the embedded database: needs no account, keeps nothing."""
    from services.commands.demo.story import tell

    configure_logs(level="WARNING", loud=("services.analyzer", "services.notifier"))
    _run(tell())


@main.command()
@click.option("--url", help="Where the trigger runs  [default: TRIGGER_URL, or http://localhost:$PORT]")
@click.option("--app", help="Which app  [default: every app with votes]")
@click.option("--scheduled", is_flag=True, help="The next scheduled report counts from here.")
@click.option(
    "--retry-for", default=0, show_default=True, type=click.IntRange(0, 60), metavar="MINUTES",
    help="Try again for so long where it cannot be reached, or not now.",
)  # fmt: skip
def trigger(url: str | None, app: str | None, scheduled: bool, retry_for: int) -> None:
    """Start a run now, as the scheduler does."""
    from services.commands.calls import hit

    _run(hit(_settings(), url, app, scheduled, timedelta(minutes=retry_for)))


@main.command()
@click.option("--url", help="Where the service runs: its public https:// address.")
@click.option("--daily", is_flag=False, flag_value="09:00", metavar="TIME", help="[default: 09:00]")
@click.option("--weekly", metavar="DAY@TIME", help="Such as mon@09:00.")
@click.option("--hourly", is_flag=True, help="At every full hour.")
@click.option("--weekends", is_flag=False, flag_value="09:00", metavar="TIME", help="Saturday and Sunday.")
@click.option("--token-from-env", is_flag=True, help="Give cron-job.org TRIGGER_TOKEN; else it asks.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--remove", is_flag=True, help="Delete the jobs.")
@click.option("--show", is_flag=True, help="Only show the jobs, their last results and next times.")
def schedule(**chosen: Any) -> None:
    """Make or update the jobs at cron-job.org: the warm-up, and the trigger with its two repeats."""
    from services.commands.schedule.command import Wish, schedule_jobs

    _run(schedule_jobs(_settings(log_level="WARNING"), Wish(**chosen)))


@main.command()
@click.option("--app", help="Which app  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def status(app: str | None, as_json: bool) -> None:
    """Where each app stands: last verdict and why, votes of a week, generation, what is open."""
    from services.commands import overview, tables
    from services.commands.glance import look

    settings = _settings(log_level="WARNING")
    cooldown = timedelta(days=settings.cooldown_days)
    _run(look(settings, lambda db: overview.status(db, cooldown, app), tables.show_status, as_json))


@main.command()
@click.option("--app", help="Which app  [default: all]")
@click.option("--days", type=click.IntRange(1, 3650), help="Of the last so many days  [default: any]")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, with each run's explanation.")
def runs(app: str | None, days: int | None, limit: int, as_json: bool) -> None:
    """The latest runs: where each stands, and what it decided."""
    from services.commands import overview, tables
    from services.commands.glance import look

    settings = _settings(log_level="WARNING")
    _run(look(settings, lambda db: overview.runs(db, app, days, limit), tables.show_runs, as_json))


@main.command()
@click.option("--app", help="Which app  [default: all]")
@click.option("--rated", type=click.Choice(["down", "up"]), help="Only 👎, or only 👍.")
@click.option("--reason", "reasons", multiple=True, help="Only with this reason; may be given again.")
@click.option("--comment", is_flag=True, help="Only with a comment.")
@click.option("--days", default=28, show_default=True, type=click.IntRange(1, 3650))
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, with answer, user and generation.")
def votes(
    app: str | None,
    rated: Literal["down", "up"] | None,
    reasons: tuple[str, ...],
    comment: bool,
    days: int,
    limit: int,
    as_json: bool,
) -> None:
    """The latest votes: what was asked, and what the user says."""
    from services.commands import overview, tables
    from services.commands.glance import look

    chosen = overview.VoteFilter(app, rated, reasons, comment, days)
    settings = _settings(log_level="WARNING")
    _run(look(settings, lambda db: overview.votes(db, chosen, limit), tables.show_votes, as_json))


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--app", default="default", show_default=True)
def ingest(path: Path, app: str) -> None:
    """Take over a folder of documents and build a generation of them."""
    from services.commands.errands import ingest_folder

    _run(ingest_folder(_settings(log_level="WARNING"), path, app))


@main.command()
@click.argument("question")
@click.option("-k", default=5, show_default=True, type=click.IntRange(1, 100), help="How many results.")
@click.option("--app", default="default", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="What GET /search answers.")
def search(question: str, k: int, app: str, as_json: bool) -> None:
    """Search the active generation, and show why each hit is there."""
    from services.commands.errands import show_search

    _run(show_search(_settings(log_level="WARNING"), question, k, app, as_json))


FORMATS = ("csv", "jsonl", "langfuse", "phoenix", "openwebui")


@main.command("import")
@click.argument("path", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMATS), default="jsonl", help="[default: csv or jsonl]")
@click.option("--app", help="Which app  [default: as the file says, else default]")
@click.option("--score", default="user_feedback", show_default=True, help="Scores of this name are votes.")
@click.option("--dry-run", is_flag=True, help="Only say what would become of it.")
def import_(path: Path | None, form: str, app: str | None, score: str, dry_run: bool) -> None:
    """Read the votes of a file: all of them or none; again, and nothing changes.

    Without PATH: read new votes from the tables feedback_log and conversation_log, now.
    """
    if path is None:
        from services.commands.errands import import_votes

        if app or dry_run:
            raise click.UsageError("name the file to import")
        _run(import_votes(_settings()))
        return
    from services.commands.transfer.formats import Wanted
    from services.commands.transfer.importing import Order, import_file

    order = Order(path, form, Wanted(app, score), dry_run)
    _run(import_file(_settings(log_level="WARNING"), order))


@main.command("export")
@click.option("--format", "form", type=click.Choice([*FORMATS, "dataset"]), default="csv", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="[default: print it]")
@click.option("--app", help="Which app  [default: all]")
@click.option("--days", type=click.IntRange(1, 3650), help="Of the last so many days  [default: any]")
@click.option("--negative", is_flag=True, help="1 = 👎, as negative_user_feedback.")
def export(form: str, output: Path | None, app: str | None, days: int | None, negative: bool) -> None:
    """Write the votes to a file of another system's form, or as an evaluation dataset."""
    from services.commands.transfer.exporting import Request, export_votes

    request = Request(form, output, app, days, negative)
    _run(export_votes(_settings(log_level="WARNING"), request))


@main.command()
@click.option(
    "--to",
    "generation",
    type=click.IntRange(1, 2**63 - 1),
    help="Which generation  [default: the one before]",
)
@click.option("--app", default="default", show_default=True)
@click.option("--why", default="", help="Said in Slack.")
def rollback(generation: int | None, app: str, why: str) -> None:
    """Make an earlier generation the active one again."""
    from services.commands.errands import roll_back
    from shared.events import RollbackRequested

    event = RollbackRequested(app=app, to_generation=generation, why=why, requested_by="cli")
    _run(roll_back(_settings(log_level="WARNING"), event))


@main.command()
@click.option("--app", default="default", show_default=True)
@click.option("--why", default="", help="Said in Slack.")
def pause(app: str, why: str) -> None:
    """Stop retraining; reports go on."""
    from shared.events import LoopPaused

    _tell(LoopPaused(app=app, why=why, requested_by="cli"), "retraining is paused")


@main.command()
@click.option("--app", default="default", show_default=True)
@click.option("--why", default="", help="Said in Slack.")
def resume(app: str, why: str) -> None:
    """Lift a pause, and close the breaker after retrains that did not help."""
    from shared.events import LoopResumed

    _tell(LoopResumed(app=app, why=why, requested_by="cli"), "retraining may go on")


def _tell(event: Event, done: str) -> None:
    from services.commands.errands import tell

    _run(tell(_settings(log_level="WARNING"), event))
    click.echo(done)


@main.group(invoke_without_command=True)
@click.pass_context
def webhook(context: click.Context) -> None:
    """How the webhook of WEBHOOK_URL does; `test` and `enable` it."""
    from services.commands.webhook import show_webhook

    if context.invoked_subcommand is None:
        _run(show_webhook(_settings(log_level="WARNING")))


@webhook.command("test")
def webhook_test() -> None:
    """Send a test message, once; if it is taken, a webhook that was switched off is on again."""
    from services.commands.webhook import test_webhook

    _run(test_webhook(_settings(log_level="ERROR")))


@webhook.command("enable")
def webhook_enable() -> None:
    """Switch the webhook on again, without a test."""
    from services.commands.webhook import enable_webhook

    _run(enable_webhook(_settings(log_level="WARNING")))


@main.command()
@click.option("--user", "person", required=True, metavar="ID", help="As your bot names the user.")
@click.option("--app", help="Which app  [default: all]")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def forget(person: str, app: str | None, dry_run: bool) -> None:
    """Remove a person's votes, comments and conversations, and what was learned from their questions."""
    from services.commands.privacy import forget_person

    if not person.strip():
        raise click.BadParameter("is empty", param_hint="--user")
    _run(forget_person(_settings(log_level="WARNING"), person, app, dry_run))


@main.command()
@click.option("--days", default=90, show_default=True, type=click.IntRange(1, 3650))
@click.option("--app", default="default", show_default=True)
@click.option(
    "--threshold", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="[default: THRESHOLD]"
)
def backtest(days: int, app: str, threshold: float | None) -> None:
    """What either policy would have done on the stored votes."""
    from services.commands.errands import replay_history

    _run(replay_history(_settings(), app, days, threshold))


@main.command("vote-token")
@click.argument("conversation")
@click.option("--app", default="default", show_default=True)
@click.option("--user", default="", help="Whose votes they are  [default: nobody's]")
@click.option("--message", help="The only answer to vote on  [default: any of the conversation]")
@click.option("--minutes", default=60, show_default=True, type=click.IntRange(1, 7 * 24 * 60))
def vote_token(conversation: str, app: str, user: str, message: str | None, minutes: int) -> None:
    """Make a token that lets a browser vote in one conversation. Needs VOTE_TOKEN_SECRET, no connection."""
    from services.commands.errands import make_vote_token

    click.echo(make_vote_token(_settings(log_level="WARNING"), conversation, app, user, message, minutes))


@main.command()
@click.option("--roles", is_flag=True, help="Also make a role with its rights for each service.")
@click.option("--print", "printed", is_flag=True, help="Only print the SQL for these roles.")
def migrate(roles: bool, printed: bool) -> None:
    """Bring the database's schema up to date."""
    from services.commands.errands import migrate_database
    from services.commands.rights import as_sql

    if printed:
        click.echo("\n".join(as_sql()))
    else:
        _run(migrate_database(_settings(), roles))


@main.command()
@click.option("--fix", is_flag=True, help="Make RabbitMQ's queues, and a user for each service, instead.")
def doctor(fix: bool) -> None:
    """Check database, pgvector, broker, topology, Slack and embedder; say what to do about each."""
    from services.commands.doctor import examine, mend

    settings = _settings(log_level="ERROR")
    if not asyncio.run(mend(settings) if fix else examine(settings)):
        sys.exit(1)


if __name__ == "__main__":
    main()
