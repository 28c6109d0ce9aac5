"""The HTTP server of a process: what stands around every route.

What is guaranteed: a connection that has not sent the whole header of a request within `HEADER_TIME`
seconds of its first byte (or, at first, of its opening) is cut; one that sends the beginning of a header
behind a whole request, within `KEPT_ALIVE`. Nothing of a request that cannot be read as HTTP reaches the log:
it may hold a token (with a stray control character, say), and whoever sends such requests would fill it.
What is not: how many connections there are at once; that is for whatever stands in front, or for the system's
limit of open files.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any, cast

from aiohttp import web, web_response
from aiohttp.http_exceptions import HttpProcessingError

from shared.delivery.sight import Sight
from shared.settings import Settings
from shared.web import cors, http
from shared.web.access import Guard
from shared.web.serving import seen

__all__ = ["serve"]

log = logging.getLogger(__name__)

HEADER_TIME = 30.0
"""Seconds; as long as cron-job.org waits for its answer."""
KEPT_ALIVE = 130.0
"""Seconds a connection may idle between two requests: longer than proxies let it, so that none sends a
request into a connection that is just being closed."""


async def serve(
    routes: Iterable[web.AbstractRouteDef],
    settings: Settings,
    guard: Guard,
    sight: Sight,
    shutdown: float = 5,
) -> web.AppRunner:
    """Bind the port and answer.

    Args:
        shutdown: seconds that requests in hand get at the end.

    Raises:
        OSError: the port is taken.
    """
    # aiohttp names its version and Python's, also in answers that no middleware sees.
    web_response.SERVER_SOFTWARE = "feedback-loop"  # type: ignore[attr-defined]
    app = web.Application(
        middlewares=[seen(sight, _header_read), http.errors, guard.strangers],
        client_max_size=http.SMALL_BODY,
    )
    if settings.origins:
        app.on_response_prepare.append(cors.marker(settings))
    app.add_routes(routes)
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=shutdown,
        handler_cancellation=False,
        keepalive_timeout=KEPT_ALIVE,
        logger=_Discreet(log, {}),
    )
    await runner.setup()
    await _Listener(runner, settings.host, settings.port).start()
    return runner


class _Discreet(logging.LoggerAdapter[logging.Logger]):
    """What aiohttp logs, without the words of those whom it does not understand."""

    def exception(self, msg: object, *args: object, **given: Any) -> None:
        self.error(msg, *args, **{"exc_info": True, **given})

    def error(self, msg: object, *args: object, **given: Any) -> None:
        cause = given.get("exc_info")
        cause = cause[1] if isinstance(cause, tuple) else sys.exception() if cause is True else cause
        # A caller that is gone before it is told to go on with its body is no error of ours, either.
        if isinstance(cause, HttpProcessingError | web.RequestPayloadError | ConnectionError):
            self.debug("a request that cannot be read: %s", type(cause).__name__)
        else:
            super().error(msg, *args, **given)


class _Connection(asyncio.Protocol):
    """aiohttp's protocol, which knows of no deadline for a header, behind one."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None  # when the header began that is being waited for
        self._handling = False

    def begin(self) -> None:
        """A header has been read: what comes now belongs to the request."""
        self._handling, self._since = True, None

    def end(self) -> None:
        self._handling = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._since = self._loop.time()
        self._look()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._since is None and not self._handling:
            self._since = self._loop.time()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def _look(self) -> None:
        """Cut a connection whose header takes too long, else look again. A timer for each request would cost
        more than one for each connection."""
        assert self._transport is not None
        now = self._loop.time()
        due = (now if self._since is None else self._since) + HEADER_TIME
        if due <= now:
            self._transport.abort()
        else:
            self._alarm = self._loop.call_at(due, self._look)


class _Listener(web.BaseSite):
    """Like `web.TCPSite`, with a deadline for headers (see `_Connection`)."""

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        super().__init__(runner)
        self._host = host
        self._port = port

    @property
    def name(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        await super().start()
        server = self._runner.server
        assert server is not None
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(server()), self._host, self._port, backlog=self._backlog
        )


def _header_read(request: web.Request) -> Callable[[], None]:
    """Tell the request's `_Connection` that it begins. Returns what tells it that the request has ended."""
    connection = request.transport and request.transport.get_protocol()
    if not isinstance(connection, _Connection):
        return _nobody
    connection.begin()
    return connection.end


def _nobody() -> None:
    """There is no connection any more, or it is a test's."""
