"""`feedback-loop import FILE`: votes that were cast elsewhere, into the ledger.

What is guaranteed: a file is imported as a whole or not at all, and every row that is wrong is named with its
line and field before anything is written; importing it again changes nothing; when a vote was cast is kept;
a vote that was cast here later is not touched. What is not: that two rows with one key (app, conversation,
message, user, name) stay two votes: the later one stands, unless the file tells them apart by `row_key`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console

from services.collector import ledger
from services.commands.console import progress_bar
from services.commands.glance import connect
from services.commands.transfer.entries import Entry, Unfit
from services.commands.transfer.formats import FORMATS, Wanted
from services.commands.transfer.rows import Unreadable, rows_of
from shared.postgres.database import Connection, despite_conflicts
from shared.requester import printable
from shared.settings import Settings

__all__ = ["Order", "import_file"]

BATCH = 1000
MOST_TOLD = 10
"""Rows that are wrong, told of one file."""
LONGEST = 500
"""Characters that are told of one row."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be imported.

    Attributes:
        format: a key of `FORMATS`; CSV and JSON are told apart by the file.
        dry_run: only say what would become of it.
    """

    path: Path
    format: str
    wanted: Wanted
    dry_run: bool = False


@dataclass(slots=True)
class _Counts:
    """Rows that are votes, are others, are about the same vote as another; and what became of the votes."""

    votes: int = 0
    others: int = 0
    repeated: int = 0
    new: int = 0
    changed: int = 0
    answers: int = 0


class _DryRun(Exception):
    """Ends the transaction without a trace."""


@dataclass(slots=True)
class _Wrong(Exception):
    """Rows that are no votes: line and reason of each that is told."""

    rows: list[tuple[int, str]] = field(default_factory=list)
    more: int = 0

    def add(self, line: int, reason: str) -> None:
        if len(self.rows) < MOST_TOLD:
            self.rows.append((line, reason))
        else:
            self.more += 1


async def import_file(settings: Settings, order: Order) -> None:
    """Import a file and print what became of its votes."""
    console = Console(highlight=False, soft_wrap=True, stderr=True)
    try:
        counted = _check(order)
        counts = await _write(settings, order, counted, console)
    except _Wrong as wrong:
        # A field's name may come from the file.
        told = [printable(f"{order.path}:{line}: {reason}", LONGEST) for line, reason in wrong.rows]
        more = [f"… and {wrong.more} more rows"] if wrong.more else []
        raise click.ClickException("\n".join([*told, *more, "nothing was imported"])) from None
    except Unreadable as error:
        raise click.ClickException(f"{order.path}: {error}\nnothing was imported") from None
    click.echo(_said(order, counts))


def _check(order: Order) -> _Counts:
    """Read the file once, before anything is written.

    Raises:
        _Wrong: the rows that are no votes.
    """
    counts, wrong, read = _Counts(), _Wrong(), FORMATS[order.format].read
    for line, row in rows_of(order.path):
        try:
            found = read(row, order.wanted)
        except Unfit as error:
            wrong.add(line, str(error))
        else:
            counts.votes += found is not None
            counts.others += found is None
    if wrong.rows:
        raise wrong
    return counts


async def _write(settings: Settings, order: Order, counted: _Counts, console: Console) -> _Counts:
    """Write the votes in one transaction; again where another one got in its way."""
    database = await connect(settings)

    async def once() -> _Counts:
        counts = _Counts(counted.votes, counted.others)
        with suppress(_DryRun):
            async with database.transaction() as connection:
                await _all(connection, order, counts, console)
                if order.dry_run:
                    raise _DryRun
        return counts

    try:
        return await despite_conflicts(once)
    finally:
        await database.close()


async def _all(connection: Connection, order: Order, counts: _Counts, console: Console) -> None:
    with progress_bar(console) as bar:
        task = bar.add_task("Importing", total=counts.votes)
        for batch in _batches(order):
            await _one(connection, batch, counts)
            bar.advance(task, len(batch))


def _batches(order: Order) -> Iterator[list[tuple[int, Entry]]]:
    read = FORMATS[order.format].read
    batch: list[tuple[int, Entry]] = []
    for line, row in rows_of(order.path):
        if (found := read(row, order.wanted)) is not None:
            batch.append((line, found))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


async def _one(connection: Connection, batch: list[tuple[int, Entry]], counts: _Counts) -> None:
    late = await ledger.from_the_future(connection, [entry.vote.created_at for _, entry in batch])
    if late:
        raise _Wrong(
            [(batch[n][0], "created_at: is more than 5 minutes in the future") for n in sorted(late)]
        )
    latest: dict[object, Entry] = {}
    for _, entry in batch:
        before = latest.get(entry.key)
        if before is None or not _later(before, entry):
            latest[entry.key] = entry
    answers = {entry.answer.key: entry.answer for entry in latest.values() if entry.answer is not None}
    unknown = await ledger.unknown_conversations(connection, list(answers.values()))
    if unknown:
        await ledger.record_conversations(connection, unknown)
    entered = await ledger.enter(connection, {entry.key: entry.vote for entry in latest.values()})
    counts.repeated += len(batch) - len(latest)
    counts.new += entered.new
    counts.changed += entered.changed
    counts.answers += len(unknown)


def _later(one: Entry, other: Entry) -> bool:
    """Whether the vote of `one` was cast after that of `other`, as far as the file says."""
    first, second = one.vote.created_at, other.vote.created_at
    return first is not None and second is not None and first > second


def _said(order: Order, counts: _Counts) -> str:
    same = counts.votes - counts.new - counts.changed - counts.repeated
    said = (
        f"{order.path}: {counts.votes} votes: {counts.new} new, {counts.changed} changed,"
        f" {same} there already or replaced since"
    )
    if counts.repeated:
        said += f"; {counts.repeated} rows are about a vote that another row is about"
    if counts.others:
        said += f"; {counts.others} rows are no votes"
    if counts.answers:
        said += f"; {counts.answers} answers recorded"
    return f"{said} (dry run: nothing was imported)" if order.dry_run else said
