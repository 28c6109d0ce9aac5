"""`feedback-loop export`: the ledger as a file.

What is guaranteed: what is exported is the ledger at one moment, read through a cursor; a file that is named
is there as a whole or not at all. What is not: that whoever reads a pipe may take as long as they like: the
server ends a transaction that waits for a minute, and the command then fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click
from rich.console import Console

from services.commands.console import progress_bar
from services.commands.glance import connect
from services.commands.transfer import dataset
from services.commands.transfer.formats import COLUMNS, FORMATS
from services.commands.transfer.rows import BOM, csv_line
from shared.postgres.database import Connection
from shared.settings import Settings

__all__ = ["Request", "export_votes"]

BATCH = 1000

_VOTES = """
select v.app, v.conversation_id, v.message_id, v.user_id, v.name, v.value, v.reason_code, v.comment,
       v.citations, v.generation, v.source, v.metadata, v.created_at, v.row_key,
       nullif(c.question, '') as question, nullif(c.answer, '') as answer,
       nullif(c.citations, '[]') as cited, c.answered_at
from feedback_loop.vote v
left join feedback_loop.conversation c using (app, conversation_id, message_id)
where ($1::text is null or v.app = $1)
  and ($2::integer is null or v.created_at > now() - make_interval(days => $2))
order by v.id
"""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be exported.

    Attributes:
        format: a key of `FORMATS`, or `dataset`.
        path: where to; None: standard output.
        app: None: all.
        days: of the last so many; None: of any time.
        negative: 1 = 👎, under another name.
    """

    format: str
    path: Path | None = None
    app: str | None = None
    days: int | None = None
    negative: bool = False


async def export_votes(settings: Settings, request: Request) -> None:
    """Write the file, and say how many votes it has."""
    written = 0
    database = await connect(settings)
    try:
        with _file(request.path) as file, progress_bar(_console(request)) as bar:
            task = bar.add_task("Exporting", total=None)
            async with database.transaction("repeatable_read") as connection:
                async for text, votes in _parts(connection, request):
                    file.write(text)
                    written += votes
                    bar.update(task, completed=written)
            bar.update(task, total=written)
    except BrokenPipeError:
        return  # whoever reads has had enough
    finally:
        await database.close()
    click.echo(f"{written} votes exported", err=True)


async def _parts(connection: Connection, request: Request) -> AsyncIterator[tuple[str, int]]:
    """Pieces of the file, each with how many votes are in it."""
    if request.format == "csv":
        yield BOM + csv_line(COLUMNS), 0
    query = dataset.QUERY if request.format == "dataset" else _VOTES
    separator = "["
    async for batch in _batches(connection, query, request.app, request.days):
        if request.format == "dataset":
            rows = [row async for row in dataset.examples(connection, batch, request.negative)]
        else:
            write = FORMATS[request.format].write
            rows = [write(vote, request.negative) for vote in batch]
        if request.format == "csv":
            yield "".join(csv_line(row[name] for name in COLUMNS) for row in rows), len(rows)
        elif request.format == "openwebui":  # it exports an array
            yield separator + "\n" + ",\n".join(map(_json, rows)), len(rows)
            separator = ","
        else:
            yield "".join(_json(row) + "\n" for row in rows), len(rows)
    if request.format == "openwebui":
        yield ("[]\n" if separator == "[" else "\n]\n"), 0


async def _batches(
    connection: Connection, query: str, app: str | None, days: int | None
) -> AsyncIterator[list[dict[str, Any]]]:
    cursor = await connection.cursor(query, app, days)
    while rows := await cursor.fetch(BATCH):
        yield [dict(row) for row in rows]


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


@contextmanager
def _file(path: Path | None) -> Iterator[IO[str]]:
    """Where to write; a file gets its name when it is whole."""
    if path is None:
        # Of its own: line breaks and letters as they are, whatever the terminal's are.
        with open(sys.stdout.fileno(), "w", encoding="utf-8", newline="", closefd=False) as file:
            yield file
        return
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _console(request: Request) -> Console:
    return Console(stderr=True, quiet=request.path is None)
