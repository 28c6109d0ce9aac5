"""A webhook's receiver, with faults on demand.

async with Receiver() as receiver:
    receiver.next(Fault(status=500), Fault(takes=True, then="drop"))
    ...
    receiver.notices                    # what it took, each id once
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.processes import free_port

__all__ = ["SECRET", "Fault", "Receiver"]

SECRET = "whsec_" + b64encode(b"a key of thirty-two bytes, 5ecret").decode()
PATH = "/hooks/5ecretpath"


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls one request.

    Attributes:
        takes: whether the receiver has the notice all the same.
        then: `answer` with `status`; `drop` the connection; `hang`.
    """

    takes: bool = False
    then: Literal["answer", "drop", "hang"] = "answer"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Receiver:
    """Verifies each request with the library of Standard Webhooks, and forgets what it has already.

    Attributes:
        ids: the `webhook-id` of every request, in order.
        taken: id → notice, in the order of their arrival.
        elsewhere: requests to another path, such as one that a redirect leads to.
        secret: what it verifies with.
    """

    def __init__(self, secret: str = SECRET) -> None:
        self.ids: list[str] = []
        self.taken: dict[str, dict[str, Any]] = {}
        self.raw: list[tuple[dict[str, str], bytes]] = []
        self.elsewhere = 0
        self.secret = secret
        self._faults: deque[Fault] = deque()
        self._always: Fault | None = None
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}{PATH}"

    @property
    def settings(self) -> dict[str, str]:
        """Settings of a notifier that sends here."""
        return {"webhook_url": self.url, "webhook_secret": self.secret}

    @property
    def notices(self) -> list[dict[str, Any]]:
        return list(self.taken.values())

    @property
    def types(self) -> list[str]:
        return [notice["type"] for notice in self.notices]

    def next(self, *faults: Fault) -> None:
        """What befalls the next requests, one fault each."""
        self._faults.extend(faults)

    def always(self, fault: Fault | None) -> None:
        """What befalls every request from now on; None: nothing any more."""
        self._always = fault

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes([web.post(PATH, self._receive), web.route("*", "/{path:.*}", self._stray)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        assert self._runner is not None
        await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        sent = {name.lower(): value for name, value in request.headers.items()}
        self.ids.append(sent.get("webhook-id", ""))
        self.raw.append((sent, body))
        fault = self._faults.popleft() if self._faults else self._always
        if fault is None or fault.takes:
            try:
                notice = Webhook(self.secret).verify(body, sent)
            except WebhookVerificationError as error:
                return web.Response(status=401, text=str(error))
            self.taken.setdefault(sent["webhook-id"], notice)
        if fault is None:
            return web.Response(status=204)
        if fault.then == "drop":
            assert request.transport is not None
            request.transport.abort()
        elif fault.then == "hang":
            await self._closing.wait()
        return web.Response(status=fault.status, headers=fault.headers)

    async def _stray(self, request: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response()
