"""The webhook's receiver: one call is at most one request, to the configured address and no other.

A request has a connection of its own, follows no redirect, verifies TLS and takes 15 seconds at most
(Standard Webhooks asks for 15 to 30). Of an answer only the status and `Retry-After` are read. No failure's
text holds the address: it may be a secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp

from services.notifier.notice import headers
from shared.web.outgoing import Redirected, no_redirects, traced

__all__ = ["TIMEOUT", "Endpoint", "NotTaken"]

TIMEOUT = 15.0
"""Seconds for one request; a third of them to connect."""

LONGEST_RETRY_AFTER = 600.0


class NotTaken(Exception):
    """The receiver has not said that it has the notice.

    Attributes:
        after: seconds that it asks to be left alone.
        gone: it says that it wants nothing more.
    """

    def __init__(self, reason: str, after: float = 0, gone: bool = False) -> None:
        super().__init__(reason)
        self.after = after
        self.gone = gone


class Endpoint:
    """An address and the keys that sign what it is sent.

    Attributes:
        id: a hash of the address.
        host: for people.
    """

    def __init__(self, url: str, keys: Sequence[bytes], timeout: float = TIMEOUT) -> None:
        self.id = hashlib.sha256(url.encode()).hexdigest()[:16]
        self.host = urlsplit(url).hostname or ""
        self._url = url
        self._keys = keys
        self._timeout = timeout
        self._made: aiohttp.ClientSession | None = None

    async def post(self, id: UUID, at: int, body: bytes) -> None:
        """Send a notice, once.

        Args:
            at: the time, in seconds since 1970.

        Raises:
            NotTaken: it may have it nevertheless, where no answer came.
        """
        sent = headers(str(id), at, body, self._keys) | {"Content-Type": "application/json"}
        try:
            async with self._session().post(self._url, data=body, headers=sent) as answer:
                failure = failure_of(answer.status, answer.headers.get("Retry-After", ""))
        except Redirected as error:
            raise NotTaken(str(error)) from None
        except TimeoutError:
            raise NotTaken(f"no answer within {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # whose text may hold the address
            raise NotTaken(f"cannot be reached, or ends the connection ({type(error).__name__})") from None
        if failure is not None:
            raise failure

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._made is None:
            self._made = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True),
                timeout=aiohttp.ClientTimeout(total=self._timeout, connect=self._timeout / 3),
                headers={"User-Agent": "ai-feedback-loop"},
                trust_env=True,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                middlewares=[traced, no_redirects],
            )
        return self._made


def failure_of(status: int, retry_after: str) -> NotTaken | None:
    """What an answer means; None: it has the notice."""
    if 200 <= status < 300:
        return None
    text = retry_after.strip()
    after = min(float(text), LONGEST_RETRY_AFTER) if text.isascii() and text.isdecimal() else 0.0
    return NotTaken(f"answered HTTP {status}", after, gone=status == 410)
