"""A proxy that reads AMQP 0-9-1 frames, so that a test can lose the broker's confirms.

A frame is: type (1 octet), channel (2), size (4), payload, 0xCE; a method's payload begins with class
and method (2 octets each). What a broker sends as Basic.Ack (60, 80) is a publisher confirm, always.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from tests.support.proxy import Proxy

__all__ = ["ConfirmLoser", "losing_confirms"]

_METHOD = 1
_BASIC_ACK = struct.pack(">HH", 60, 80)


class ConfirmLoser(Proxy):
    """Relays everything; confirms only while it is told to.

    Attributes:
        confirms: `pass`; `drop` them (the publisher waits in vain); `cut` the line instead of the next
            one, and pass what comes after.
        lost: how many confirm frames never arrived (one frame may confirm several messages).
    """

    def __init__(self, url: str) -> None:
        super().__init__(url, 5672)
        self.confirms: Literal["pass", "drop", "cut"] = "pass"
        self.lost = 0
        self._from_broker: set[asyncio.StreamReader] = set()

    async def _upstream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await super()._upstream()
        self._from_broker.add(reader)
        return reader, writer

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reader not in self._from_broker:
            await super()._pump(reader, writer)
        try:
            while True:
                header = await reader.readexactly(7)
                kind, _, size = struct.unpack(">BHI", header)
                rest = await reader.readexactly(size + 1)
                if kind == _METHOD and rest.startswith(_BASIC_ACK) and self._lose():
                    continue
                writer.write(header + rest)
                await writer.drain()
        except asyncio.IncompleteReadError:
            raise ConnectionResetError from None
        finally:
            self._from_broker.discard(reader)

    def _lose(self) -> bool:
        if self.confirms == "pass":
            return False
        self.lost += 1
        if self.confirms == "cut":
            self.confirms = "pass"
            raise ConnectionResetError
        return True


@asynccontextmanager
async def losing_confirms(url: str) -> AsyncIterator[ConfirmLoser]:
    """A proxy in front of the broker that `url` names, closed at the end."""
    proxy = ConfirmLoser(url)
    await proxy.heal()
    try:
        yield proxy
    finally:
        await proxy.cut()
