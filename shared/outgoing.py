"""Calls to other hosts: each goes to the host that the settings name, and nowhere else.

Guaranteed of a session with `no_redirects`: an answer that leads elsewhere ends the call, so no token and no
body follows it, also where the library in between would. Not guaranteed: that a library asks no other host
by itself. TLS is verified as aiohttp does by default; nothing here turns that off.
"""

from __future__ import annotations

import aiohttp

__all__ = ["Redirected", "no_redirects"]


class Redirected(aiohttp.ClientError):
    """The answer leads elsewhere; where to is not said, for it may repeat what was asked."""

    def __init__(self, status: int) -> None:
        super().__init__(f"redirects (HTTP {status}): set the address to where it leads")
        self.status = status


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
