"""Today's documents and their chunks, in SQL.

Whoever changes documents or vectors' membership takes `lock` first: so no clean-up deletes what a
plan has just counted on, and no plan misses a document that is being written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.embedder.chunking import CHUNKER, Chunk, chunk
from services.embedder.knowledge import Folder, RawDocument
from shared.postgres.database import Connection

__all__ = [
    "Changes",
    "CutDocument",
    "compare",
    "cut",
    "known_files",
    "lock",
    "overruled_files",
    "put",
    "remove",
    "take_over",
]


@dataclass(frozen=True, slots=True)
class CutDocument:
    """A document with its chunks, ready to be written."""

    raw: RawDocument
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """How today's documents differ from those that a generation shows, in documents."""

    documents: int
    added: int
    changed: int
    removed: int

    @property
    def none(self) -> bool:
        return not (self.added or self.changed or self.removed)


async def lock(connection: Connection) -> None:
    """One writer of knowledge at a time, until the transaction ends."""
    await connection.execute("select pg_advisory_xact_lock(hashtext('feedback_loop.knowledge'))")


async def known_files(connection: Connection, app: str) -> dict[str, str]:
    """Data hash by source, of a folder's files that need no reading while they stay as they are: their
    documents were cut by the present chunker, or deleted or replaced over the API."""
    rows = await connection.fetch(
        "select f.source, f.data_hash from feedback_loop.folder_file f"
        " left join feedback_loop.document d on d.app = f.app and d.source = f.source and d.origin = 'folder'"
        " where f.app = $1 and (d.chunker = $2 or d.id is null)",
        app,
        CHUNKER,
    )
    return {row["source"]: row["data_hash"] for row in rows}


async def overruled_files(connection: Connection, app: str) -> set[str]:
    """Sources of a folder's files whose documents were deleted or replaced over the API since."""
    rows = await connection.fetch(
        "select f.source from feedback_loop.folder_file f where f.app = $1"
        " and not exists (select from feedback_loop.document d"
        "   where d.app = f.app and d.source = f.source and d.origin = 'folder')",
        app,
    )
    return {row["source"] for row in rows}


def cut(documents: Iterable[RawDocument]) -> list[CutDocument]:
    """Chunk documents; a large one takes seconds, so this belongs into a thread."""
    return [CutDocument(document, chunk(document.document)) for document in documents]


async def put(connection: Connection, app: str, origin: str, documents: Sequence[CutDocument]) -> None:
    """Write documents, replacing those of the same source."""
    await connection.executemany(
        "insert into feedback_loop.document (app, source, title, media_type, data_hash, chunker, origin)"
        " values ($1, $2, $3, $4, $5, $6, $7)"
        " on conflict (app, source) do update set title = $3, media_type = $4, data_hash = $5,"
        "   chunker = $6, origin = $7, updated_at = now()",
        [
            (app, raw.source, raw.title, raw.media_type, raw.data_hash, CHUNKER, origin)
            for raw in (document.raw for document in documents)
        ],
    )
    await connection.executemany(
        "insert into feedback_loop.chunk (hash, heading, text) values ($1, $2, $3) on conflict do nothing",
        [(piece.hash, piece.heading, piece.text) for document in documents for piece in document.chunks],
    )
    await connection.execute(
        "delete from feedback_loop.document_chunk where app = $1 and source = any($2::text[])",
        app,
        [document.raw.source for document in documents],
    )
    await connection.executemany(
        "insert into feedback_loop.document_chunk (app, source, ordinal, chunk_hash) values ($1, $2, $3, $4)",
        [
            (app, document.raw.source, piece.ordinal, piece.hash)
            for document in documents
            for piece in document.chunks
        ],
    )


async def take_over(
    connection: Connection, app: str, folder: Folder, documents: Sequence[CutDocument]
) -> None:
    """Make a folder's documents the app's: new and changed ones written, missing ones deleted.

    Args:
        documents: those of `folder.documents`, cut.
    """
    if not (folder.documents or folder.unchanged):
        return  # more likely a mount that failed than everything deleted; its reader names it
    await put(connection, app, "folder", documents)
    await connection.executemany(
        "insert into feedback_loop.folder_file (app, source, data_hash) values ($1, $2, $3)"
        " on conflict (app, source) do update set data_hash = $3",
        [(app, raw.source, raw.data_hash) for raw in folder.documents.values()],
    )
    # What cannot be read just now, or lies in a folder that cannot, is not deleted.
    present = [*folder.documents, *folder.unchanged]
    skipped = [skipped.source for skipped in folder.skipped]
    for table, condition in (("document", "origin = 'folder'"), ("folder_file", "true")):
        await connection.execute(
            f"delete from feedback_loop.{table} t"
            f" where app = $1 and {condition} and source <> all($2::text[])"
            " and not exists (select from unnest($3::text[]) skipped"
            "   where t.source = skipped or starts_with(t.source, skipped || '/'))",
            app,
            present,
            skipped,
        )


async def remove(connection: Connection, app: str, source: str) -> bool:
    """Delete a document; it disappears from searches at once. Returns whether there was one."""
    return bool(
        await connection.fetchval(
            "delete from feedback_loop.document where app = $1 and source = $2 returning true", app, source
        )
    )


async def compare(connection: Connection, app: str, generation: int | None) -> Changes:
    """Today's documents beside those of a generation (None: there is none yet).

    A document that was deleted and came again has changed: a generation does not show it (it shows
    documents, not names), however alike they are.
    """
    row = await connection.fetchrow(
        "with today as (select d.source, d.id, array_agg(c.chunk_hash order by c.ordinal) as hashes"
        "   from feedback_loop.document d join feedback_loop.document_chunk c using (app, source)"
        "   where d.app = $1 group by d.source, d.id),"
        " shown as (select source, document as id, array_agg(chunk_hash order by ordinal) as hashes"
        "   from feedback_loop.generation_chunk where generation = $2 group by source, document)"
        " select count(t.id) as documents,"
        "   count(*) filter (where s.id is null) as added,"
        "   count(*) filter (where t.id is null) as removed,"
        "   count(*) filter (where (t.id, t.hashes) <> (s.id, s.hashes)) as changed"
        " from today t full join shown s using (source)",
        app,
        generation,
    )
    assert row is not None
    return Changes(row["documents"], row["added"], row["changed"], row["removed"])
