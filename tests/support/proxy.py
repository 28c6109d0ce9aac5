"""A TCP relay in front of a server, whose line a test can cut or freeze."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit, urlunsplit

__all__ = ["Proxy", "in_front_of"]


class Proxy:
    """Relays bytes both ways.

    `cut` breaks every line and refuses new ones, `freeze` leaves them open and silent, `heal` ends
    either.
    """

    def __init__(self, url: str, default_port: int) -> None:
        self._url = urlsplit(url)
        self._default_port = default_port
        self._server: asyncio.Server | None = None
        self._port = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The server's URL, by way of this proxy."""
        user = self._url.netloc.rpartition("@")[0]
        query = "sslmode=disable" if self._url.scheme.startswith("postgres") else self._url.query
        return urlunsplit(self._url._replace(netloc=f"{user}@127.0.0.1:{self._port}", query=query))

    async def heal(self) -> None:
        self._flowing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self.drop()

    async def drop(self) -> None:
        """Break the lines there are; new ones are accepted."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def freeze(self) -> None:
        self._flowing.clear()

    async def _upstream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        port = self._url.port or self._default_port
        if folder := parse_qs(self._url.query).get("host"):
            return await asyncio.open_unix_connection(f"{folder[0]}/.s.PGSQL.{port}")
        return await asyncio.open_connection(self._url.hostname, port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ends = [writer]
        try:
            await self._flowing.wait()
            upstream_reader, upstream_writer = await self._upstream()
            ends.append(upstream_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, upstream_writer))
                group.create_task(self._pump(upstream_reader, writer))
        except (asyncio.CancelledError, ExceptionGroup, OSError):
            pass  # the line is cut, or one end has hung up
        finally:
            self._tasks.discard(task)
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


@asynccontextmanager
async def in_front_of(url: str, default_port: int) -> AsyncIterator[Proxy]:
    """A proxy in front of the server that `url` names, closed at the end."""
    proxy = Proxy(url, default_port)
    await proxy.heal()
    try:
        yield proxy
    finally:
        with contextlib.suppress(OSError):
            await proxy.cut()
