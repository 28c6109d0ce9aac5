"""Scores of Langfuse, over its public API (https://api.reference.langfuse.com).

As its source has it (github.com/langfuse/langfuse): scores are written by `POST /api/public/ingestion`
(`web/src/pages/api/public/ingestion.ts`), up to 4.5 MB of events that are each accepted or refused (207), and
deleted by `DELETE /api/public/scores/{id}` (202). Events of one score are merged in the order of their
timestamps, and the score keeps the first of these (`worker/src/services/IngestionService`); rows are
replaced by (day, name, id) (`packages/shared/clickhouse/migrations`), so a score whose day changed would be
there twice. Therefore all events of a score lie within one second: its first, and some milliseconds.

What is guaranteed: calls go to the one address that is configured, over TLS that is verified, and follow no
redirect; nothing that is answered is told, for it may repeat a key or what people wrote, and no more than
`LARGEST` of it is kept. What is not: when Langfuse shows what it has accepted.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from shared.requester import printable
from shared.web.outgoing import Redirected, TooLarge, no_redirects, whole

__all__ = ["Langfuse", "Score", "SinkError", "event"]

TIMEOUT = 20.0
"""Seconds for one request."""
LARGEST = 1024 * 1024
"""Bytes of an answer; of a batch it takes some 20,000."""
MOST_REVISIONS = 999
_TRACE = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Score:
    """A vote as Langfuse is told of it.

    Attributes:
        id: the same for the same vote, however often it is sent.
        first_at: its time there, the same whatever becomes of the vote; whole seconds.
        revision: grows with each change.
        trace_id, session_id: what it is on; one of them.
    """

    id: uuid.UUID
    first_at: datetime
    revision: int
    name: str
    value: int
    trace_id: str | None
    session_id: str | None
    comment: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


class _Judged(BaseModel):
    """What became of one event."""

    id: str
    status: int


class _Judgement(BaseModel):
    successes: list[_Judged] = []
    errors: list[_Judged] = []


class _Project(BaseModel):
    name: str


class _Projects(BaseModel):
    data: list[_Project]


AnswerT = TypeVar("AnswerT", bound=BaseModel)


class SinkError(Exception):
    """It was not done, or may not have been.

    Attributes:
        passing: whether it may work later without anybody's doing.
        retry_after: seconds to wait before; None where it does not say.
    """

    def __init__(self, reason: str, passing: bool = True, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.passing, self.retry_after = passing, retry_after


def on_what(conversation_id: str, message_id: str) -> tuple[str | None, str | None]:
    """The trace, where the message is named by one (W3C: 32 hexadecimal digits), else the session."""
    return (message_id, None) if _TRACE.fullmatch(message_id) else (None, conversation_id)


def event(score: Score) -> dict[str, Any]:
    """The event that makes the score what it is now."""
    at = score.first_at.astimezone(UTC) + timedelta(milliseconds=min(score.revision, MOST_REVISIONS))
    return {
        "id": str(uuid.uuid5(score.id, str(score.revision))),
        "type": "score-create",
        "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "body": {
            "id": str(score.id),
            "name": score.name,
            "value": score.value,
            "dataType": "BOOLEAN",
            "traceId": score.trace_id,
            "sessionId": score.session_id,
            "comment": score.comment,  # null takes away what it was
            "metadata": score.metadata,
        },
    }


class Langfuse:
    """A project of Langfuse.

    Args:
        url: without the path of the API.
        public_key, secret_key: of the project; sent as HTTP Basic.
    """

    kind = "langfuse"

    def __init__(self, url: str, public_key: str, secret_key: str, timeout: float = TIMEOUT) -> None:
        self._url = url.rstrip("/")
        keys = base64.b64encode(f"{public_key}:{secret_key}".encode()).decode()
        self._headers = {"Authorization": f"Basic {keys}"}
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """What it is and where, without keys."""
        return f"{self.kind} {self._url}"

    async def send(self, scores: Sequence[Score]) -> set[uuid.UUID]:
        """Write scores. Returns those that Langfuse will never take as they are.

        Raises:
            SinkError: it failed as a whole, or for some of them; what was taken may be sent again.
        """
        events = {one["id"]: (score, one) for score in scores for one in [event(score)]}
        body = {"batch": [one for _, one in events.values()]}
        answer = _read(_Judgement, await self._ask("POST", "/api/public/ingestion", body))
        taken = {one.id for one in answer.successes}
        refused = {events[one.id][0].id for one in answer.errors if one.id in events and one.status == 400}
        missing = [id for id, (score, _) in events.items() if id not in taken and score.id not in refused]
        if missing:
            raise SinkError(f"it did not take {len(missing)} of {len(events)} scores")
        return refused

    async def delete(self, id: uuid.UUID) -> None:
        """Delete a score, or find that it is not there.

        Raises:
            SinkError: it was not deleted.
        """
        await self._ask("DELETE", f"/api/public/scores/{id}", gone=True)

    async def project(self) -> str:
        """The name of the keys' project.

        Raises:
            SinkError: it does not answer, or the keys open none.
        """
        found = _read(_Projects, await self._ask("GET", "/api/public/projects")).data
        return printable(found[0].name, 100) if found else "?"

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, method: str, path: str, body: object = None, gone: bool = False) -> bytes:
        """The answer's body; `gone`: 404 is as good as 2xx."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                middlewares=[no_redirects],
                connector=aiohttp.TCPConnector(force_close=True),  # calls are minutes apart
            )
        try:
            async with self._session.request(
                method, self._url + path, json=body, allow_redirects=False
            ) as response:
                if response.status < 300:
                    return await whole(response, LARGEST)
                if gone and response.status == 404:
                    return b""
                raise _failure(response)
        except Redirected as error:
            raise SinkError(f"{error}: MIRROR_URL", passing=False) from None
        except TooLarge as error:
            raise SinkError(str(error)) from None
        except TimeoutError:
            raise SinkError(f"no answer from {self._url} within {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SinkError(f"cannot reach {self._url}: {type(error).__name__}") from None


def _read(model: type[AnswerT], body: bytes) -> AnswerT:
    try:
        return model.model_validate_json(body)
    except ValidationError:
        raise SinkError("what answers is not Langfuse: is MIRROR_URL right?") from None


def _failure(response: aiohttp.ClientResponse) -> SinkError:
    """What a status means; the body may repeat what was sent, so it is not told."""
    status = response.status
    after = response.headers.get("Retry-After", "")
    wait = float(after) if after.isascii() and after.isdigit() else None
    if status == 401:
        return SinkError("it does not know the keys: MIRROR_PUBLIC_KEY, MIRROR_SECRET_KEY (HTTP 401)", False)
    if status == 403:
        return SinkError("the keys may not write scores, or ingestion is suspended (HTTP 403)", False)
    if status == 429:
        return SinkError("too many requests (HTTP 429)", retry_after=wait)
    if status >= 500:
        return SinkError(f"it fails (HTTP {status})", retry_after=wait)
    return SinkError(f"it refuses the request: is MIRROR_URL right? (HTTP {status})", False)
