"""A local server that behaves like Langfuse's public API, as its source has it (github.com/langfuse/langfuse:
web/src/pages/api/public/ingestion.ts, scores/[scoreId].ts, projects/index.ts, features/public-api/server;
worker/src/services/IngestionService; packages/shared/clickhouse/migrations).

async with FakeLangfuse() as langfuse:
    langfuse.next(Fault(429, retry_after=1), Fault(0, does=True))   # what befalls the next requests, one each
    ...
    langfuse.scores                                                 # what a project shows
"""

from __future__ import annotations

import base64
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from aiohttp import web

__all__ = ["KEYS", "FakeLangfuse", "Fault"]

KEYS = ("pk-lf-1", "sk-lf-5ecret")


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls one request.

    Attributes:
        status: the answer; 0: the connection drops.
        does: whether it is done all the same.
        retry_after: seconds, as the header says.
        says: the answer's body, where it is another than Langfuse's.
    """

    status: int
    does: bool = False
    retry_after: int | None = None
    says: bytes | None = None


class FakeLangfuse:
    """One project.

    Attributes:
        requests: method and path, in order, refused ones too.
        bodies: of the requests that were let in.
        refuses: names of scores that are refused, each by itself.
    """

    url = ""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.refuses: set[str] = set()
        self._events: dict[str, dict[str, dict[str, Any]]] = {}
        self._faults: deque[Fault] = deque()
        self._runner: web.AppRunner | None = None

    def next(self, *faults: Fault) -> None:
        """What befalls the next requests, one each."""
        self._faults.extend(faults)

    @property
    def settings(self) -> dict[str, str]:
        return {
            "mirror": "langfuse",
            "mirror_url": self.url,
            "mirror_public_key": KEYS[0],
            "mirror_secret_key": KEYS[1],
        }

    @property
    def scores(self) -> list[dict[str, Any]]:
        """As the table of scores shows them: rows with the same day, name and id are one."""
        rows: dict[tuple[object, ...], dict[str, Any]] = {}
        for id, events in self._events.items():
            row: dict[str, Any] = {}
            for event in sorted(events.values(), key=lambda one: str(one["timestamp"])):
                merged = {**row.get("metadata", {}), **(event["body"].get("metadata") or {})}
                row = {
                    "timestamp": event["timestamp"],
                    **event["body"],
                    **_immutable(row),
                    "metadata": merged,
                }
            rows[row["timestamp"][:10], row["name"], id] = row
        return list(rows.values())

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/api/public/ingestion", self._ingest)
        app.router.add_delete("/api/public/scores/{id}", self._delete)
        app.router.add_get("/api/public/projects", self._projects)
        app.middlewares.append(self._middleware)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    # --- the API ------------------------------------------------------------------------

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        given = "Basic " + base64.b64encode(":".join(KEYS).encode()).decode()
        if request.headers.get("Authorization") != given:
            said = {
                "error": "UnauthorizedError",
                "message": "Invalid credentials. Confirm that you've configured",
            }
            return web.json_response(said, status=401)
        fault = self._faults.popleft() if self._faults else None
        if fault is None:
            answer: web.StreamResponse = await handler(request)
            return answer
        if fault.does:
            await handler(request)
        if not fault.status:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        if fault.says is not None:
            return web.Response(status=fault.status, body=fault.says, headers=headers)
        said = {"message": "Rate limit exceeded" if fault.status == 429 else "Internal Server Error"}
        return web.json_response(said, status=fault.status, headers=headers)

    async def _ingest(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        if not isinstance(body.get("batch"), list):
            return web.json_response({"message": "Invalid request data", "errors": ["Required"]}, status=400)
        successes, errors = [], []
        for event in body["batch"]:
            wrong = self._wrong(event)
            if wrong is None:
                # A file for each event: the same id replaces it.
                self._events.setdefault(event["body"]["id"], {})[event["id"]] = event
                successes.append({"id": event["id"], "status": 201})
            else:
                said = {"message": "Invalid request data", "error": wrong}
                errors.append({"id": event.get("id", "unknown"), "status": 400, **said})
        return web.json_response({"successes": successes, "errors": errors}, status=207)

    def _wrong(self, event: dict[str, Any]) -> str | None:
        body = event["body"]
        at = datetime.fromisoformat(event["timestamp"])
        if event["type"] != "score-create" or at.tzinfo is None or not body.get("name"):
            return "Invalid event"
        if bool(body.get("traceId")) == bool(body.get("sessionId")):
            return "Provide exactly one of the following: traceId (with optional observationId), sessionId"
        if body.get("dataType") != "BOOLEAN" or body.get("value") not in (0, 1):
            return "Value must be a number equal to either 0 or 1 for data type BOOLEAN"
        return f"refused: {body}" if body["name"] in self.refuses else None

    async def _delete(self, request: web.Request) -> web.Response:
        self._events.pop(request.match_info["id"], None)
        return web.json_response({"message": "Score deletion queued successfully"}, status=202)

    async def _projects(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "p1", "name": "shop-bot", "metadata": {}}]})


def _immutable(row: dict[str, Any]) -> dict[str, Any]:
    """What a score keeps from its first event on."""
    return {name: row[name] for name in ("id", "timestamp", "traceId") if name in row}
