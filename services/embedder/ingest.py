"""Taking over a folder of documents, for the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from services.embedder import store
from services.embedder.knowledge import Folder, read_folder
from shared.database import Database

__all__ = ["take_over_folder"]


async def take_over_folder(
    database: Database, app: str, root: Path, on_progress: Callable[[int, int], None] | None = None
) -> Folder:
    """Make the folder's documents the app's, as a retrain does with `KNOWLEDGE_DIR`.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such folder.
    """
    async with database.connection() as connection:
        known = await store.known_documents(connection, app, "folder")
    folder = await asyncio.to_thread(read_folder, root, on_progress, known)
    async with database.transaction() as connection:
        await store.lock(connection)
        await store.take_over(connection, app, folder)
    return folder
