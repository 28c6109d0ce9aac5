"""Taking over a folder of documents: at a retrain, and for the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from services.embedder import store
from services.embedder.knowledge import Folder, read_folder, skip
from services.embedder.reading import Reader
from services.embedder.store import CutDocument
from shared.postgres.database import Connection, Database

__all__ = ["Reading", "read", "take_over_folder"]

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Reading:
    """A folder as it was read, its new and changed documents cut into chunks."""

    folder: Folder
    documents: list[CutDocument]

    async def take_over(self, connection: Connection, app: str) -> None:
        """Make its documents the app's. The caller holds the knowledge lock."""
        await store.take_over(connection, app, self.folder, self.documents)


async def read(database: Database, app: str, root: Path, on_progress: OnProgress | None = None) -> Reading:
    """Read a folder; what is known already is not parsed again. One without a document is named
    among what was skipped.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such folder.
    """
    async with database.connection() as connection:
        known = await store.known_files(connection, app)
        overruled = await store.overruled_files(connection, app)

    def work() -> Reading:
        with Reader() as reader:
            folder = read_folder(root, on_progress, known, reader.parse)
        for source in sorted(folder.unchanged & overruled):
            left = skip(source, "document_overruled")
            folder = replace(folder, skipped=(*folder.skipped, left))
        if not (folder.documents or folder.unchanged):
            empty = skip(str(root), "folder_empty")
            folder = replace(folder, skipped=(empty, *folder.skipped))
        return Reading(folder, store.cut(folder.documents.values()))

    return await asyncio.to_thread(work)


async def take_over_folder(
    database: Database, app: str, root: Path, on_progress: OnProgress | None = None
) -> Folder:
    """Make the folder's documents the app's, as a retrain does with `KNOWLEDGE_DIR`.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such folder.
    """
    reading = await read(database, app, root, on_progress)
    async with database.transaction() as connection:
        await store.lock(connection)
        await reading.take_over(connection, app)
    return reading.folder
