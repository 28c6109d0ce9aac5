"""A connection to RabbitMQ that sends together what is written at the same time.

aiormq writes each frame by itself, and each write is a call to the kernel: of what an event costs, 3 to 8 %.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from aio_pika import RobustConnection
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

__all__ = ["Connection"]


class Connection(RobustConnection):
    """A robust connection whose writer is a `_Writer`."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.kwargs["transport_factory"] = _Transport()


class _Transport(TransportFactory):
    async def create(self, url: URL, **settings: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        own = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await own.create(url, **settings)
        return reader, cast(asyncio.StreamWriter, _Writer(writer))


class _Writer:
    """Keeps what is written until the end of this turn of the event loop. All else is the writer's own."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._kept: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._kept:
            asyncio.get_running_loop().call_soon(self._send)
        self._kept.append(data)

    async def drain(self) -> None:
        self._send()
        await self._writer.drain()

    def write_eof(self) -> None:
        self._send()
        self._writer.write_eof()

    def close(self) -> None:
        self._send()
        self._writer.close()

    def _send(self) -> None:
        if self._kept:
            self._writer.write(b"".join(self._kept))
            self._kept.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)
