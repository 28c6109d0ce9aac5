"""Calls to other hosts: each goes to the host that the settings name, and nowhere else.

Guaranteed of a session with `no_redirects`: an answer that leads elsewhere ends the call, so no token and no
body follows it, also where the library in between would. Not guaranteed: that a library asks no other host
by itself. TLS is verified as aiohttp does by default; nothing here turns that off.

A session with `traced` makes each call a span, where the step that calls is one. The trace ends there: other
people's services are not told of it.
"""

from __future__ import annotations

import aiohttp

from shared.telemetry.tracing import here, span

__all__ = ["Redirected", "TooLarge", "no_redirects", "traced", "whole"]


class Redirected(aiohttp.ClientError):
    """The answer leads elsewhere; where to is not said, for it may repeat what was asked."""

    def __init__(self, status: int) -> None:
        super().__init__(f"redirects (HTTP {status}): set the address to where it leads")
        self.status = status


class TooLarge(aiohttp.ClientError):
    """The answer has more bytes than any that is meant."""

    def __init__(self, most: int) -> None:
        super().__init__(f"its answer is larger than {most} bytes")


async def whole(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body of an answer.

    Raises:
        TooLarge: it has more than `most` bytes, unpacked; the rest is not read.
    """
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > most:
            response.close()
            raise TooLarge(most)
    return bytes(body)


async def no_redirects(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A client middleware.

    Raises:
        Redirected: the answer is one of the statuses that clients follow.
    """
    response = await send(request)
    if response.status in (301, 302, 303, 307, 308):
        response.close()
        raise Redirected(response.status)
    return response


async def traced(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """A client middleware. Path and query stay out of the span: a webhook's are its secret."""
    place = here()
    if place.tracer is None:
        return await send(request)
    attributes: dict[str, str | int] = {
        "http.request.method": request.method,
        "server.address": request.url.host or "",
        "server.port": request.url.port or 0,
    }
    with span(
        place.tracer, "client", request.method, place.traceparent, attributes, place.run, place.event
    ) as made:
        response = await send(request)
        made.note({"http.response.status_code": response.status})
        if response.status >= 400:
            made.fail(str(response.status))
        return response
