"""An embeddings API of OpenAI's form.

What is guaranteed: an answer is used only if it is whole (one finite vector per text, all as long as
ever). Failures are `Unavailable` where waiting may help, and `Reject`, naming the setting to look
at, where it will not. The key is in no error and no `repr`, and no redirect carries it elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
import numpy as np
import yarl

from shared.embedding.texts import SAMPLE, encodable
from shared.embedding.vectors import Vectors, unit
from shared.failures import Reject, Unavailable
from shared.settings import SettingsError
from shared.web.outgoing import TooLarge, traced, whole

__all__ = ["OpenAIEmbedder"]

LARGEST = 64 * 1024 * 1024
"""Bytes of an answer; 128 vectors of 10,000 numbers take some 25 MB."""
_MOST_INPUTS = 128
_URGENT_PATIENCE = 4.0
_ADVICE: Mapping[int, str] = {
    400: "look at OPENAI_EMBEDDING_MODEL",
    401: "look at OPENAI_API_KEY",
    403: "look at OPENAI_API_KEY and what it may use",
    404: "look at OPENAI_BASE_URL and OPENAI_EMBEDDING_MODEL",
    413: "lower EMBEDDING_BATCH",
    422: "lower EMBEDDING_BATCH, or look at OPENAI_EMBEDDING_MODEL",
}


class _Transient(Exception):
    """The API may answer a later attempt; `after` is the wait in seconds that it asks for."""

    def __init__(self, reason: str, after: float = 0) -> None:
        super().__init__(reason)
        self.after = after


class OpenAIEmbedder:
    """`POST {base_url}/embeddings` of OpenAI, Ollama, TEI, vLLM and others.

    After a timeout, a failed connection, 408, 425, 429 or 5xx it tries again, after growing, jittered
    waits or what `Retry-After` says; no attempt begins later than `patience` after the first.
    """

    name = "openai"

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        model: str,
        session_factory: Callable[[], aiohttp.ClientSession] = aiohttp.ClientSession,
        *,
        batch: int = 128,
        expected_dimensions: int | None = None,
        patience: float = 20,
        timeout: float = 60,
    ) -> None:
        """Nothing is connected yet; the session that `session_factory` makes is closed with this.

        Args:
            batch: texts in one request, 128 at most.
            expected_dimensions: what its vectors must have; None: what the first answer has.
            patience: seconds (an urgent call has 4 at most).
            timeout: of one request, in seconds; to connect it has 5.

        Raises:
            SettingsError: the URL or the key cannot be one.
        """
        self.model = f"openai/{model}"
        self._remote_model = model
        self._url = _endpoint(base_url)
        self._key = (api_key or "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise SettingsError("OPENAI_API_KEY: has a line break or a character outside ASCII")
        self._batch = min(batch, _MOST_INPUTS)
        self._dimensions = expected_dimensions
        self._patience = patience
        self._timeout = aiohttp.ClientTimeout(total=timeout, connect=5)
        self._session_factory = session_factory
        self._session: aiohttp.ClientSession | None = None

    async def dimensions(self) -> int:
        return self._dimensions or (await self.embed([SAMPLE])).shape[1]

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        if not texts:
            return np.empty((0, await self.dimensions()), np.float32)
        patience = min(_URGENT_PATIENCE, self._patience) if urgent else self._patience
        starts = range(0, len(texts), self._batch)
        parts = [await self._persist(texts[start : start + self._batch], patience) for start in starts]
        return np.concatenate(parts)

    async def check(self) -> None:
        await self._persist([SAMPLE], patience=0)

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    async def _persist(self, texts: Sequence[str], patience: float) -> Vectors:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        backoff = 0.5
        while True:
            try:
                return await self._request(texts)
            except _Transient as error:
                wait = max(random.uniform(0.5, 1) * backoff, error.after)
                if loop.time() + wait > deadline:
                    raise Unavailable("embedding API", f"{self._url}: {error}", self._probe) from None
            await asyncio.sleep(wait)
            backoff = min(8.0, 2 * backoff)

    async def _probe(self) -> None:
        # A refusal is an answer: the API is there again, and the next call says what is wrong.
        with suppress(Reject):
            await self._request([SAMPLE])

    async def _request(self, texts: Sequence[str]) -> Vectors:
        if self._session is None:
            self._session = self._session_factory()
        call = self._session.post(
            self._url,
            json={
                "model": self._remote_model,
                "input": [encodable(text) for text in texts],
                "encoding_format": "float",
            },
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=self._timeout,
            allow_redirects=False,
            middlewares=(traced,),
        )
        try:
            async with call as response:
                if response.status != 200:
                    raise self._failure(response, await response.content.read(4096))
                body = await whole(response, LARGEST)
        except TooLarge as error:
            raise Reject(f"embedding API: {error}: look at OPENAI_BASE_URL") from None
        except TimeoutError:
            raise _Transient("no answer in time") from None
        except aiohttp.ClientError as error:
            raise _Transient(f"{type(error).__name__}: {error}") from None
        return self._same_dimensions(_read_vectors(body, len(texts)))

    def _failure(self, response: aiohttp.ClientResponse, body: bytes) -> Exception:
        status = response.status
        if status in (408, 425, 429) or status >= 500:
            return _Transient(
                f"{status} {self._said(body)}", _seconds(response.headers.get("Retry-After", ""))
            )
        if 300 <= status < 400:
            return Reject(f"{self._url} redirects ({status}): set OPENAI_BASE_URL to where it leads")
        # What is said about a refused key may repeat it.
        said = "" if status in (401, 403) else f" {self._said(body)}"
        advice = _ADVICE.get(status, "look at OPENAI_BASE_URL")
        return Reject(f"embedding API answered {status}{said}: {advice}")

    def _said(self, body: bytes) -> str:
        text = " ".join(body.decode("utf-8", "replace").split())
        with suppress(ValueError, LookupError, TypeError):
            text = " ".join(str(json.loads(body)["error"]["message"]).split())
        return (text.replace(self._key, "***") if self._key else text)[:200]

    def _same_dimensions(self, vectors: Vectors) -> Vectors:
        found = vectors.shape[1]
        if self._dimensions is None:
            self._dimensions = found
        if found != self._dimensions:
            raise Reject(
                f"{self._remote_model} gives {found} dimensions, before it gave {self._dimensions}:"
                " look at OPENAI_EMBEDDING_MODEL; another model needs another name"
            )
        return vectors


def _endpoint(base_url: str) -> yarl.URL:
    try:
        url = yarl.URL(base_url.strip())
        if (
            url.scheme not in ("http", "https")
            or not url.host
            or url.user
            or url.password
            or url.query_string
        ):
            raise ValueError
        return url / "embeddings"
    except ValueError:
        raise SettingsError(
            "OPENAI_BASE_URL: must be an http:// or https:// address without user, password and query"
        ) from None


def _read_vectors(body: bytes, count: int) -> Vectors:
    try:
        rows = sorted(json.loads(body)["data"], key=lambda row: int(row["index"]))
        if [row["index"] for row in rows] != list(range(count)):
            raise ValueError(f"{len(rows)} vectors for {count} texts")
        matrix = np.array([row["embedding"] for row in rows], dtype=np.float64)
        if matrix.ndim != 2:
            raise ValueError("an embedding is no list of numbers")
        return unit(matrix)
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise Reject(f"embedding API answered no embeddings ({reason}): look at OPENAI_BASE_URL") from None


def _seconds(retry_after: str) -> float:
    """`Retry-After` (seconds, or a date) as a wait in seconds; 0 where it says nothing."""
    with suppress(ValueError):
        return max(0.0, float(retry_after))
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    return 0.0
