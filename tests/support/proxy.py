"""A TCP relay in front of a server, whose line a test can cut or freeze."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from urllib.parse import parse_qs, urlsplit, urlunsplit

from tests.support.processes import free_port

__all__ = ["LOOP", "CommitCutter", "Proxy", "cutting_commits", "in_front_of"]


class Proxy:
    """Relays bytes both ways.

    `cut` breaks every line and refuses new ones, `freeze` leaves them open and silent, `heal` ends
    either.
    """

    def __init__(self, url: str, default_port: int) -> None:
        self._url = urlsplit(url)
        self._default_port = default_port
        self._server: asyncio.Server | None = None
        self._port = free_port()  # another one than its own clients may get while it is cut
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


LOOP = "loop"
"""What connections through the proxy are called."""
_COMMIT = re.compile(rb"Q\0\0\0.commit;?\0", re.IGNORECASE | re.DOTALL)
"""PostgreSQL's message Query: type, length (4 octets, itself included), text, NUL."""
_SYNC = b"S\0\0\0\4"
"""With it a statement of the extended protocol ends, and commits where no transaction is open."""
_READY = b"Z\0\0\0\5"
"""The server's ReadyForQuery; one octet follows: I where no transaction is open."""
_OFTEN, _SELDOM = 0.25, 0.03
"""How often a COMMIT is cut, and a statement that may commit by itself: most of those only read."""


class CommitCutter(Proxy):
    """In front of PostgreSQL: cuts the line of a client that commits, so that it cannot know whether it has.

    Attributes:
        left: how many cuts are left to make.
        cuts: how many were made in a COMMIT, and `alone` in a statement that may commit by itself.
    """

    def __init__(self, url: str, random: Random) -> None:
        super().__init__(url, 5432)
        self.left = self.cuts = self.alone = 0
        self._random = random
        self._server_of: dict[asyncio.StreamWriter, asyncio.StreamReader] = {}
        self._deaf: set[asyncio.StreamReader] = set()
        self._idle: set[asyncio.StreamReader] = set()

    @property
    def url(self) -> str:
        """With a name by which the server tells its connections from others."""
        return f"{super().url}&application_name={LOOP}"

    async def _upstream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await super()._upstream()
        self._server_of[writer] = reader
        return reader, writer

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = self._server_of.get(writer)
        try:
            while data := await reader.read(65536):
                if reader in self._deaf:  # the commit is done, and its answer lost
                    raise ConnectionResetError
                if server is None:
                    if data[-6:-1] == _READY:
                        (self._idle.add if data.endswith(b"I") else self._idle.discard)(reader)
                elif self.left and self._is_cut(data, server):
                    self.left -= 1
                    if self._random.random() < 0.3:  # the commit itself is lost
                        raise ConnectionResetError
                    self._deaf.add(server)
                writer.write(data)
                await writer.drain()
            raise ConnectionResetError
        finally:
            self._server_of.pop(writer, None)
            self._deaf.discard(reader)
            self._idle.discard(reader)

    def _is_cut(self, data: bytes, server: asyncio.StreamReader) -> bool:
        """Whether to cut the line on which these bytes go to the server."""
        if _COMMIT.search(data):
            cut = self._random.random() < _OFTEN
            self.cuts += cut
        else:
            cut = data.endswith(_SYNC) and server in self._idle and self._random.random() < _SELDOM
            self.alone += cut
        return cut


@asynccontextmanager
async def cutting_commits(url: str, random: Random) -> AsyncIterator[CommitCutter]:
    """A proxy in front of the PostgreSQL that `url` names, closed at the end."""
    proxy = CommitCutter(url, random)
    await proxy.heal()
    try:
        yield proxy
    finally:
        with contextlib.suppress(OSError):
            await proxy.cut()
