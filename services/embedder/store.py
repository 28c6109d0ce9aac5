"""Today's documents and their chunks, in SQL.

Whoever changes documents or vectors' membership takes `lock` first: so no clean-up deletes what a
plan has just counted on, and no plan misses a document that is being written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.embedder.chunking import CHUNKER, Chunk, chunk
from services.embedder.knowledge import Folder, RawDocument
from shared.database import Connection

__all__ = ["Changes", "compare", "known_documents", "lock", "put", "remove", "take_over"]


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


async def known_documents(connection: Connection, app: str, origin: str) -> dict[str, str]:
    """Data hash by source, of documents that were cut by the present chunker."""
    rows = await connection.fetch(
        "select source, data_hash from feedback_loop.document where app = $1 and origin = $2 and chunker = $3",
        app,
        origin,
        CHUNKER,
    )
    return {row["source"]: row["data_hash"] for row in rows}


async def put(connection: Connection, app: str, origin: str, documents: Iterable[RawDocument]) -> None:
    """Write documents, replacing those of the same source."""
    for document in documents:
        chunks = chunk(document.document)
        await connection.execute(
            "insert into feedback_loop.document"
            " (app, source, title, media_type, data_hash, chunker, origin)"
            " values ($1, $2, $3, $4, $5, $6, $7)"
            " on conflict (app, source) do update set title = $3, media_type = $4, data_hash = $5,"
            "   chunker = $6, origin = $7, updated_at = now()",
            app,
            document.source,
            document.title,
            document.media_type,
            document.data_hash,
            CHUNKER,
            origin,
        )
        await _put_chunks(connection, app, document.source, chunks)


async def _put_chunks(connection: Connection, app: str, source: str, chunks: tuple[Chunk, ...]) -> None:
    hashes = [piece.hash for piece in chunks]
    await connection.execute(
        "insert into feedback_loop.chunk (hash, heading, text)"
        " select * from unnest($1::text[], $2::text[], $3::text[]) on conflict do nothing",
        hashes,
        [piece.heading for piece in chunks],
        [piece.text for piece in chunks],
    )
    await connection.execute(
        "delete from feedback_loop.document_chunk where app = $1 and source = $2", app, source
    )
    await connection.execute(
        "insert into feedback_loop.document_chunk (app, source, ordinal, chunk_hash)"
        " select $1, $2, number - 1, hash from unnest($3::text[]) with ordinality as t (hash, number)",
        app,
        source,
        hashes,
    )


async def take_over(connection: Connection, app: str, folder: Folder) -> None:
    """Make a folder's documents the app's: new and changed ones written, missing ones deleted."""
    await put(connection, app, "folder", folder.documents.values())
    # A document that cannot be read just now is not a deleted one.
    present = {*folder.documents, *folder.unchanged, *(skipped.source for skipped in folder.skipped)}
    await connection.execute(
        "delete from feedback_loop.document where app = $1 and origin = 'folder' and source <> all($2::text[])",
        app,
        list(present),
    )


async def remove(connection: Connection, app: str, source: str) -> bool:
    """Delete a document; it disappears from searches at once. Returns whether there was one."""
    return bool(
        await connection.fetchval(
            "delete from feedback_loop.document where app = $1 and source = $2 returning true", app, source
        )
    )


async def compare(connection: Connection, app: str, generation: int | None) -> Changes:
    """Today's documents beside those of a generation (None: there is none yet)."""
    today = await _contents(
        connection,
        "select source, array_agg(chunk_hash order by ordinal) as hashes"
        " from feedback_loop.document_chunk where app = $1 group by source",
        app,
    )
    shown = await _contents(
        connection,
        "select source, array_agg(chunk_hash order by ordinal) as hashes"
        " from feedback_loop.generation_chunk where generation = $1 group by source",
        generation,
    )
    return Changes(
        documents=len(today),
        added=len(today.keys() - shown.keys()),
        changed=sum(1 for source in today.keys() & shown.keys() if today[source] != shown[source]),
        removed=len(shown.keys() - today.keys()),
    )


async def _contents(connection: Connection, query: str, key: str | int | None) -> Mapping[str, list[str]]:
    return {row["source"]: row["hashes"] for row in await connection.fetch(query, key)}
