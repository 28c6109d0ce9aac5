"""One JSON request over HTTP, sent again where that may help.

What is guaranteed: a token goes to the server that was named and to no other (redirects are not followed);
a call ends after `retries` + 1 attempts, and waits at most `LONGEST_WAIT` before each; every failure is a
`FeedbackLoopError`. What is not: that a request which failed without an answer has done nothing. It may
have: whatever is sent here changes nothing when it is sent again.
"""

from __future__ import annotations

import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

__all__ = ["FeedbackLoopError", "Transport"]

PASSING = {429, 502, 503, 504}
"""Statuses that may be others in a moment. A server that wakes up answers 502 through its proxy."""
LONGEST_WAIT = 30.0
"""Seconds before another attempt; who must wait longer is told so at once."""
FIRST_WAIT = 0.5
"""Seconds before the second attempt where the server does not say; doubled each time."""


class FeedbackLoopError(Exception):
    """It has not worked.

    Attributes:
        status: the HTTP status; None: there was no answer.
        field: what to mend: a field of what was sent, `authorization`, `rate`, …; empty where unknown.
        reason: what is wrong with it, in words.
        retry_after: seconds after which it may work; None where the server does not say.
    """

    def __init__(self, status: int | None, field: str, reason: str, retry_after: float | None = None) -> None:
        super().__init__(status, field, reason, retry_after)
        self.status = status
        self.field = field
        self.reason = reason
        self.retry_after = retry_after

    def __str__(self) -> str:
        said = f"{self.field}: {self.reason}" if self.field else self.reason
        return f"{self.status} {said}" if self.status else said

    @property
    def passing(self) -> bool:
        """Whether the same call may work later."""
        return self.status is None or self.status in PASSING


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """urllib would send the token along, to wherever it is sent."""

    def redirect_request(self, *given: Any, **named: Any) -> None:
        return None


class Transport:
    """Sends requests to one server, over a connection of its own each. May be shared by threads.

    Args:
        url: where the service is, `https://loop.example.com`; a path before its routes may follow.
        token: sent as `Authorization: Bearer …`.
        timeout: seconds that connecting, and each piece of an answer, may take.
        retries: how many times what failed in passing is sent again.

    Raises:
        ValueError: `url` is not one of http or https, or `token` has characters that no header has.
    """

    def __init__(self, url: str, token: str | None, timeout: float, retries: int) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
            raise ValueError(f"not the URL of a server: {url!r}")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ValueError("the token has characters that no HTTP header has")
        self._url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json", "User-Agent": "feedback-loop-client"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._timeout = timeout
        self._retries = retries
        self._opener = urllib.request.build_opener(_NoRedirects)

    def post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Any:
        """Send `body` to `path`. Returns the answer's JSON.

        Raises:
            FeedbackLoopError: no attempt has worked; it tells of the last.
            ValueError, TypeError: `body` is no JSON.
        """
        data = json.dumps(body, allow_nan=False).encode()
        request = urllib.request.Request(
            self._url + path, data, {**self._headers, **(headers or {})}, method="POST"
        )
        for attempt in range(self._retries + 1):
            try:
                return self._once(request)
            except FeedbackLoopError as error:
                wait = _wait(error, attempt)
                if not error.passing or wait > LONGEST_WAIT or attempt == self._retries:
                    raise
            time.sleep(wait)
        raise ValueError("retries must be 0 or more")

    def _once(self, request: urllib.request.Request) -> Any:
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise FeedbackLoopError(None, "", f"no answer: {reason or type(error).__name__}") from error
        try:
            return json.loads(body)
        except ValueError:
            raise FeedbackLoopError(status, "", "the answer is not JSON: is this the service?") from None


def _refusal(error: urllib.error.HTTPError) -> FeedbackLoopError:
    """What the server says about a request that it does not take; a proxy may say it in HTML."""
    try:
        said = json.loads(error.read())
    except (OSError, ValueError, http.client.HTTPException):
        said = None
    said = said if isinstance(said, dict) else {}
    after = error.headers.get("Retry-After") or ""
    return FeedbackLoopError(
        error.code,
        str(said.get("field") or ""),
        str(said.get("reason") or error.reason),
        float(after) if after.isascii() and after.isdigit() else None,
    )


def _wait(error: FeedbackLoopError, attempt: int) -> float:
    """Seconds before another attempt: what the server asks for, else longer each time, at random."""
    if error.retry_after is not None:
        return error.retry_after
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0**attempt * random.uniform(0.5, 1.0))
