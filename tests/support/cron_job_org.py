"""A local server that behaves like cron-job.org's REST API, as its open source has it
(github.com/pschlan/cron-job.org: api/lib/RESTDispatcher.php, api/resources/Job.php, docs/source).

Its own clock: `sleep` moves it on, so no test waits for a rate limit. For a client in a process of its
own: `FakeCronJobOrg(real_time=True)`.

async with FakeCronJobOrg() as cron:
    cron.next(Fault(500))              # what befalls the next requests, one each
    ...
    cron.jobs                          # the account
"""

from __future__ import annotations

import copy
import functools
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from types import TracebackType
from typing import Any, Self
from zoneinfo import ZoneInfo

from aiohttp import web

__all__ = ["KEY", "FakeCronJobOrg", "Fault"]

KEY = "5ecret-api-key-of-cron-job-org"
START = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)

RATES: Mapping[str, tuple[tuple[int, int], ...]] = {"PUT": ((1, 1), (5, 60))}
RATE = ((5, 1),)
"""Requests and seconds; per method and kind of resource, in fixed windows."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls one request.

    Attributes:
        status: the answer; 0: the connection drops.
        does: whether it is done all the same.
        text: the answer's body.
    """

    status: int
    does: bool = False
    text: str = ""


@functools.cache
def known_zones() -> frozenset[str]:
    """As PHP's `DateTimeZone::listIdentifiers()`: no names kept for old times' sake."""
    lines = resources.files("tzdata").joinpath("zoneinfo", "zone.tab").read_text().splitlines()
    return frozenset({line.split("\t")[2] for line in lines if not line.startswith("#")} | {"UTC"})


class FakeCronJobOrg:
    """One account.

    Attributes:
        jobs: by id, as the API gives them in detail.
        requests: `PUT /jobs` and so on, in order, refused ones too.
        quota: requests a day.
        now: by its clock.
        forbidden: the key may not be used from here.
        some_failed: what the list says of its being whole.
    """

    def __init__(self, real_time: bool = False) -> None:
        self.jobs: dict[int, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.quota = 100
        self.forbidden = False
        self.some_failed = False
        self._real_time = real_time
        self._begun = time.monotonic()
        self._moved = timedelta()
        self.slept: list[float] = []
        self._histories: dict[int, list[dict[str, Any]]] = {}
        self._counts: Counter[tuple[object, ...]] = Counter()
        self._faults: deque[Fault | None] = deque()
        self._runner: web.AppRunner | None = None
        self._last_id = 100

    # --- the test's side ----------------------------------------------------------------

    url = ""

    @property
    def now(self) -> datetime:
        passed = time.monotonic() - self._begun if self._real_time else 0
        return START + self._moved + timedelta(seconds=passed)

    @property
    def settings(self) -> dict[str, str]:
        return {"cron_job_org_api_key": KEY, "cron_job_org_api_url": self.url}

    @property
    def changes(self) -> list[str]:
        """The requests that change something."""
        return [request for request in self.requests if not request.startswith("GET")]

    def next(self, *faults: Fault | None) -> None:
        """What befalls the next requests, one each; None: nothing."""
        self._faults.extend(faults)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._moved += timedelta(seconds=seconds)

    def add(self, **job: Any) -> int:
        """A job as the API makes it of these fields."""
        self._last_id += 1
        self.jobs[self._last_id] = _created(self._last_id, job)
        return self._last_id

    def ran(self, id: int, status: int, http_status: int, text: str = "") -> None:
        """The job was executed now."""
        entry = {"jobId": id, "date": int(self.now.timestamp()), "status": status, "httpStatus": http_status}
        self._histories.setdefault(id, []).insert(0, {**entry, "statusText": text, "headers": None})

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    # --- the API ------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        fault = self._faults.popleft() if self._faults else None
        if fault and not fault.does:
            return self._broken(request, fault)
        status, answer = self._answer(request, await request.read())
        if fault:
            return self._broken(request, fault)
        # Errors have no body.
        return web.json_response(answer) if status == 200 else web.Response(status=status)

    def _broken(self, request: web.Request, fault: Fault) -> web.Response:
        if not fault.status:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=fault.status or 500, text=fault.text, headers={"Location": "/elsewhere"})

    def _answer(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        """The order of the checks is the dispatcher's: route, key, rate, quota, fields."""
        found = self._route(request)
        if found is None:
            return 404, None
        name, act, id = found
        if request.headers.get("Authorization", "") != f"Bearer {KEY}":
            return 401, None
        if self.forbidden:
            return 403, None
        seconds = int(self.now.timestamp())
        for most, window in RATES.get(request.method, RATE):
            if not self._within(most, (name, window, seconds // window)):
                return 429, None
        if not self._within(self.quota, ("quota", seconds // 86400)):
            return 429, None
        # Any other type, also with a charset, and the body is ignored.
        sent = json.loads(body) if request.headers.get("Content-Type") == "application/json" else {}
        return act(id, sent.get("job") if isinstance(sent, dict) else None)

    def _within(self, most: int, window: tuple[object, ...]) -> bool:
        """Only what is let through counts."""
        if self._counts[window] >= most:
            return False
        self._counts[window] += 1
        return True

    def _route(self, request: web.Request) -> tuple[str, Callable[[int, Any], tuple[int, Any]], int] | None:
        match [request.method, *request.path_qs.strip("/").split("/")]:
            case ["GET", "jobs"]:
                return "GetJobs", self._list, 0
            case ["PUT", "jobs"]:
                return "CreateJob", self._create, 0
            case ["GET", "jobs", id] if id.isdigit():
                return "GetJobDetails", self._details, int(id)
            case ["PATCH", "jobs", id] if id.isdigit():
                return "PatchJob", self._patch, int(id)
            case ["DELETE", "jobs", id] if id.isdigit():
                return "DeleteJob", self._delete, int(id)
            case ["GET", "jobs", id, "history"] if id.isdigit():
                return "GetJobHistory", self._history, int(id)
        return None

    def _list(self, _: int, __: Any) -> tuple[int, Any]:
        details = ("auth", "notification", "extendedData")
        listed = [
            {key: value for key, value in self._public(job).items() if key not in details}
            for job in self.jobs.values()
        ]
        return 200, {"jobs": listed, "someFailed": self.some_failed}

    def _create(self, _: int, job: Any) -> tuple[int, Any]:
        if not isinstance(job, dict) or not job.get("url"):
            return 400, None
        return 200, {"jobId": self.add(**job)}

    def _details(self, id: int, _: Any) -> tuple[int, Any]:
        return (200, {"jobDetails": self._public(self.jobs[id])}) if id in self.jobs else (404, None)

    def _patch(self, id: int, job: Any) -> tuple[int, Any]:
        if not isinstance(job, dict):
            return 400, None
        if id not in self.jobs:
            return 404, None
        _update(self.jobs[id], job)
        return 200, []  # an empty PHP array

    def _delete(self, id: int, _: Any) -> tuple[int, Any]:
        return (200, []) if self.jobs.pop(id, None) else (404, None)

    def _history(self, id: int, _: Any) -> tuple[int, Any]:
        if id not in self.jobs:
            return 404, None
        coming = self._next(self.jobs[id]) if self.jobs[id]["enabled"] else None
        predictions = [coming] if coming else []
        return 200, {"history": self._histories.get(id, []), "predictions": predictions}

    def _public(self, job: Mapping[str, Any]) -> dict[str, Any]:
        shown = copy.deepcopy(dict(job))
        shown["extendedData"]["headers"] = shown["extendedData"]["headers"] or []
        return {**shown, "nextExecution": self._next(job)}

    def _next(self, job: Mapping[str, Any]) -> int | None:
        """The next minute that the schedule names, within eight days."""
        schedule = job["schedule"]
        local = self.now.astimezone(ZoneInfo(schedule["timezone"])).replace(second=0, microsecond=0)
        for minutes in range(1, 8 * 1440):
            at = local + timedelta(minutes=minutes)
            named = {"hours": at.hour, "minutes": at.minute, "wdays": at.isoweekday() % 7}
            if all({-1, value} & set(schedule[key]) for key, value in named.items()):
                return int(at.timestamp())
        return None


def _created(id: int, fields: Mapping[str, Any]) -> dict[str, Any]:
    """With the defaults that the documentation names: switched off, and at no time at all."""
    job: dict[str, Any] = {
        "jobId": id,
        "enabled": False,
        "title": "",
        "saveResponses": False,
        "url": "",
        "lastStatus": 0,
        "lastDuration": 0,
        "lastExecution": 0,
        "type": 0,
        "requestTimeout": -1,
        "redirectSuccess": False,
        "folderId": 0,
        "schedule": {
            "timezone": "UTC", "expiresAt": 0,
            "hours": [], "mdays": [], "minutes": [], "months": [], "wdays": [],
        },
        "requestMethod": 0,
        "auth": {"enable": False, "user": "", "password": ""},
        "notification": {
            "onFailure": False, "onFailureCount": 1, "onSuccess": False, "onDisable": False,
            "onSslCertExpiry": False, "onSslCertExpirySeconds": 604800,
        },
        "extendedData": {"headers": {}, "body": ""},
    }  # fmt: skip
    _update(job, fields)
    return job


BOUNDS = {"hours": (0, 23), "mdays": (1, 31), "minutes": (0, 59), "months": (1, 12), "wdays": (0, 6)}


def _update(job: dict[str, Any], fields: Mapping[str, Any]) -> None:
    """Only what is given, part by part; headers as a whole; what does not fit is mended in silence."""
    for name in ("enabled", "saveResponses", "requestMethod", "requestTimeout", "redirectSuccess"):
        if fields.get(name) is not None:
            job[name] = type(job[name])(fields[name])
    for name in ("title", "url"):
        if fields.get(name) is not None:
            job[name] = str(fields[name]).strip()
    for name, value in (fields.get("notification") or {}).items():
        job["notification"][name] = max(1, value) if name == "onFailureCount" else value
    headers = (fields.get("extendedData") or {}).get("headers")
    if headers is not None:
        job["extendedData"]["headers"] = {
            key.strip(): value.strip() for key, value in headers.items() if value
        }
    for name, value in (fields.get("schedule") or {}).items():
        if name in BOUNDS:
            low, high = BOUNDS[name]
            job["schedule"][name] = [-1] if -1 in value else list({min(high, max(low, one)) for one in value})
        elif name != "timezone" or value in known_zones():
            job["schedule"][name] = value
