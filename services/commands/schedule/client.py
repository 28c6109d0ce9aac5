"""cron-job.org's REST API (https://docs.cron-job.org/rest-api.html), as far as the jobs need it.

What is guaranteed: what was refused for its rate is asked again, over a minute at most, which is the
API's longest window of a rate; reading, changing and deleting are asked again a few times where the
network or the server fails; errors say what to do, and never hold the key. What is not: that a job
whose creation got no answer was not made. It is not created again; a second run of the command finds
it. The API says neither how long to wait nor whether a rate or the day's quota is used up.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import aiohttp
from pydantic import BaseModel, TypeAdapter

from shared.requester import printable

__all__ = ["CronJobOrg", "CronJobOrgError"]

WAITS = (1.1, 5, 20, 40)
"""Seconds before each further attempt."""
FEW = 2
"""How many of them where the network or the server fails."""

REFUSED = {
    400: "it does not accept the job; does the address begin with https://, and is it public?",
    401: "the API key is not valid: CRON_JOB_ORG_API_KEY, from https://console.cron-job.org/settings",
    403: "the API key may not be used from this machine's address: see its IP restriction in the console",
    404: "there is no such job any more; run the command again",
    409: "it conflicts with something that exists already; look at the jobs in the console",
    422: "its firewall rejects the job",
    429: "too many requests, also after a minute: the day's quota (100, for sustaining members 5,000) may be"
    " used up. It begins anew at 00:00 UTC; run the command again then, it goes on where it stopped",
}


class _Schedule(BaseModel):
    timezone: str
    hours: list[int]
    minutes: list[int]
    wdays: list[int]


class _Job(BaseModel):
    """What is read of a job; the rest may have any form."""

    jobId: int
    title: str
    url: str
    schedule: _Schedule
    nextExecution: int | None = None


class _History(BaseModel):
    history: list[dict[str, Any]]
    predictions: list[int] = []


_JOBS = TypeAdapter(list[_Job])


class CronJobOrgError(Exception):
    """The API did not do it; the message is for people."""


class CronJobOrg:
    """The account that the key opens.

    Args:
        url: without a slash at the end.
        say: told of longer waits.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        key: str,
        say: Callable[[str], None] = lambda said: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._session, self._url, self._say, self._sleep = session, url, say, sleep
        self._headers = {"Authorization": f"Bearer {key}"}

    async def jobs(self) -> list[Mapping[str, Any]]:
        """Every job of the account, without details.

        Raises:
            CronJobOrgError: it fails, or the list is not whole (what is missing would be made again).
        """
        answer = await self._ask("GET", "/jobs", has="jobs")
        if answer.get("someFailed"):
            raise CronJobOrgError("cron-job.org cannot list all jobs at the moment; try again later")
        with _as_documented():
            _JOBS.validate_python(answer["jobs"])
        return list(answer["jobs"])

    async def job(self, id: int) -> Mapping[str, Any]:
        """A job with its details."""
        job = (await self._ask("GET", f"/jobs/{id}", has="jobDetails"))["jobDetails"]
        with _as_documented():
            _Job.model_validate(job)
        return dict(job)

    async def history(self, id: int) -> Mapping[str, Any]:
        """`history`: the last executions, newest first; `predictions`: the next ones."""
        answer = await self._ask("GET", f"/jobs/{id}/history", has="history")
        with _as_documented():
            _History.model_validate(answer)
        return answer

    async def create(self, fields: Mapping[str, Any]) -> int:
        with _as_documented():
            return int((await self._ask("PUT", "/jobs", fields, has="jobId"))["jobId"])

    async def update(self, id: int, fields: Mapping[str, Any]) -> None:
        await self._ask("PATCH", f"/jobs/{id}", fields)

    async def delete(self, id: int) -> None:
        """Delete a job, or find that it is gone."""
        await self._ask("DELETE", f"/jobs/{id}", gone=True)

    async def _ask(
        self,
        method: str,
        path: str,
        fields: Mapping[str, Any] | None = None,
        *,
        has: str | None = None,
        gone: bool = False,
    ) -> dict[str, Any]:
        """The answer, in which there is the field `has`; `gone`: 404 is as good as 200."""
        creates = method == "PUT"
        for number, wait in enumerate((*WAITS, None)):
            status, said = await self._send(method, path, fields)
            if status == HTTPStatus.OK or (gone and status == HTTPStatus.NOT_FOUND):
                return _parsed(said, has)
            failed = status is None or status >= 500
            again = status == HTTPStatus.TOO_MANY_REQUESTS or (failed and number < FEW and not creates)
            if wait is None or not again:
                break
            if wait >= 5:
                trouble = "does not answer" if failed else "asks to wait"
                self._say(f"cron-job.org {trouble}: again in {wait:.0f} s")
            await self._sleep(wait)
        doubt = ". Whether it made the job is not known; run the command again, it finds out"
        raise CronJobOrgError(f"cron-job.org: {_reason(status, said)}{doubt if creates and failed else ''}")

    async def _send(self, method: str, path: str, fields: Mapping[str, Any] | None) -> tuple[int | None, str]:
        """The answer's status and text; None and the fault where there is no answer."""
        try:
            async with self._session.request(
                method,
                self._url + path,
                headers=self._headers,
                json=None if fields is None else {"job": fields},
                allow_redirects=False,  # the key is for nobody else
                middlewares=(_once,),
                timeout=aiohttp.ClientTimeout(total=30),
            ) as response:
                return response.status, await response.text(errors="replace")
        except TimeoutError:
            return None, f"no answer from {self._url} within 30 s"
        except (aiohttp.ClientError, ValueError) as error:  # ValueError: a key that no header can carry
            return None, f"cannot reach {self._url}: {error}"


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """aiohttp repeats a PUT by itself where the connection drops. Here, each one makes a job."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(str(error)) from error


def _reason(status: int | None, said: str) -> str:
    if status is None:
        return printable(said, 200)
    if status in REFUSED:
        return f"{status}, {REFUSED[status]}"
    if status >= 500:
        return f"{status}, it has trouble of its own; try again later"
    return f"{status}, which it should not answer; is CRON_JOB_ORG_API_URL right?"


def _parsed(text: str, has: str | None) -> dict[str, Any]:
    with _as_documented():
        answer = json.loads(text or "{}") or {}  # PHP gives an empty object as []
        if not isinstance(answer, dict) or (has and has not in answer):
            raise ValueError(has)
        return answer


@contextmanager
def _as_documented() -> Iterator[None]:
    """Raises CronJobOrgError where what is read within has another form (ValidationError is a ValueError)."""
    try:
        yield
    except (ValueError, TypeError, RecursionError):
        raise CronJobOrgError("what answers is not cron-job.org; is CRON_JOB_ORG_API_URL right?") from None
