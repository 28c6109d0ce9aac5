"""TLS with certificates of our own: relays that end it in front of a server.

authority = Authority(folder, "localhost")
authority.file                            # what a client must trust
async with amqps(url, authority) as port: ...
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import trustme

__all__ = ["Authority", "amqps", "postgres_tls"]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""https://www.postgresql.org/docs/current/protocol-message-formats.html"""


class Authority:
    """A certificate authority, and a certificate that it issued to a host.

    Attributes:
        file: the authority's own certificate, PEM.
    """

    def __init__(self, folder: Path, host: str = "localhost") -> None:
        authority = trustme.CA()
        self._issued = authority.issue_cert(host)
        self.file = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.file))

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._issued.configure_cert(context)
        return context


@asynccontextmanager
async def amqps(url: str, authority: Authority) -> AsyncIterator[int]:
    """TLS in front of a broker; gives the port of localhost to connect to."""
    parts = urlsplit(url)
    async with _relay(
        authority, b"", lambda: asyncio.open_connection(parts.hostname, parts.port or 5672)
    ) as port:
        yield port


@asynccontextmanager
async def postgres_tls(dsn: str, authority: Authority) -> AsyncIterator[int]:
    """TLS in front of a PostgreSQL (the embedded one is built without), which whoever does not ask for is
    turned away; gives the port of localhost to connect to."""
    parts = urlsplit(dsn)

    def upstream() -> Awaitable[Streams]:
        port = parts.port or 5432
        if folder := parse_qs(parts.query).get("host"):
            return asyncio.open_unix_connection(f"{folder[0]}/.s.PGSQL.{port}")
        return asyncio.open_connection(parts.hostname, port)

    async with _relay(authority, SSL_REQUEST, upstream) as port:
        yield port


@asynccontextmanager
async def _relay(
    authority: Authority, asks: bytes, upstream: Callable[[], Awaitable[Streams]]
) -> AsyncIterator[int]:
    """`asks`: what a client sends in the clear before TLS begins; the answer is `S`."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(connection: socket.socket) -> None:
        connection.setblocking(False)
        if asks:
            if await loop.sock_recv(connection, len(asks)) != asks:
                connection.close()
                return
            await loop.sock_sendall(connection, b"S")
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, connection, ssl=authority.context()
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        server_reader, server_writer = await upstream()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, server_writer))
                group.create_task(_pump(server_reader, writer))
        finally:
            writer.transport.abort()
            server_writer.transport.abort()

    async def accept() -> None:
        while True:
            connection, _ = await loop.sock_accept(listener)
            tasks.add(asyncio.create_task(_quietly(serve(connection))))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        tasks.add(asyncio.create_task(accept()))
        try:
            yield int(listener.getsockname()[1])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _quietly(work: Awaitable[None]) -> None:
    with contextlib.suppress(OSError, ExceptionGroup):  # one end has hung up, or trusts us not
        await work


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError
