"""A local server that behaves like Slack where the notifier can tell, with faults on demand.

async with FakeSlack() as slack:
    slack.next(Fault(stores=True, then="drop"))     # posted, but the answer never arrives
    ...
    slack.texts                                     # what the channel shows, in order
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web

from tests.support.processes import free_port
from tests.support.slack_blocks import problems

__all__ = ["FakeSlack", "Fault", "Picture", "Stored"]

CHANNEL, CHANNEL_ID = "#reports", "C0REPORTS"
TOKEN = "xoxb-5ecret-bot-token"
WEBHOOK_PATH = "/services/T0TEAM/B0HOOK/5ecretwebhook"
LONGEST_TEXT = 40_000


@dataclass(frozen=True, slots=True)
class Stored:
    """A message that the channel has."""

    ts: str
    text: str
    thread_ts: str | None
    metadata: Mapping[str, Any] | None
    body: Mapping[str, Any]
    """The request's JSON as it came."""
    by: Literal["bot", "webhook"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that was shared into a thread."""

    png: bytes
    title: str
    thread_ts: str


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls one post.

    Attributes:
        stores: whether the message reaches the channel all the same.
        then: `answer` with `status` and `error`; `drop` the connection; `hang`; `garble` the answer.
        delay: seconds before anything is answered (a slow Slack, with `stores` and no error).
    """

    stores: bool = False
    then: Literal["answer", "drop", "hang", "garble"] = "answer"
    status: int = 200
    error: str | None = None
    retry_after: int | None = None
    delay: float = 0


class FakeSlack:
    """One workspace with one channel, one bot in it and one webhook. Blocks that Slack would not take are
    refused as Slack refuses them; leaving the context then fails, because the notifier makes do without.

    Attributes:
        messages: what the channel has, oldest first.
        calls: the name of every API method called, in order (`webhook` for the webhook).
        history_lag: seconds that a new message is missing from the history.
        history_error: what the history answers instead, such as `missing_scope`.
        page: most messages in one answer of the history.
        pictures: what was shared, in order.
        files_error: what the methods for files answer instead, such as `missing_scope`.
        upload_url: where pictures are said to be sent to, instead of here.
        replies: what was sent to a `response_url`, in order.
        problems: what was wrong with blocks.
    """

    def __init__(self) -> None:
        self.messages: list[Stored] = []
        self.calls: list[str] = []
        self.history_lag = 0.0
        self.history_error: str | None = None
        self.page = 100
        self.pictures: list[Picture] = []
        self.files_error: str | None = None
        self.upload_url: str | None = None
        self.replies: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self._uploads: dict[str, bytes] = {}
        self._faults: deque[Fault] = deque()
        self._always: Fault | None = None
        self._runner: web.AppRunner | None = None
        self._port = free_port()
        self._closing = asyncio.Event()

    # --- the test's side ----------------------------------------------------------------

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/api/"

    @property
    def webhook_url(self) -> str:
        return f"http://127.0.0.1:{self._port}{WEBHOOK_PATH}"

    @property
    def response_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/actions/T0TEAM/1/5ecret"

    @property
    def bot(self) -> dict[str, str]:
        """Settings of a notifier that posts as the bot."""
        return {"slack_bot_token": TOKEN, "slack_channel": CHANNEL, "slack_api_url": self.api_url}

    @property
    def webhook(self) -> dict[str, str]:
        """Settings of a notifier that posts through the webhook."""
        return {"slack_webhook_url": self.webhook_url}

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.messages]

    def next(self, *faults: Fault) -> None:
        """What befalls the next posts, one fault each."""
        self._faults.extend(faults)

    def always(self, fault: Fault | None) -> None:
        """What befalls every post from now on; None: nothing any more."""
        self._always = fault

    async def go_away(self) -> None:
        """Stop listening: connections are refused."""
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def come_back(self) -> None:
        """Listen (again, on the same port)."""
        self._closing = asyncio.Event()
        app = web.Application()
        app.add_routes(
            [
                web.route("*", "/api/chat.postMessage", self._post_message),
                web.route("*", "/api/conversations.history", self._history),
                web.route("*", "/api/conversations.replies", self._replies),
                web.route("*", "/api/conversations.info", self._info),
                web.route("*", "/api/auth.test", self._auth_test),
                web.route("*", "/api/api.test", self._api_test),
                web.route("*", "/api/files.getUploadURLExternal", self._upload_url),
                web.route("*", "/api/files.completeUploadExternal", self._complete_upload),
                web.post("/upload/{id}", self._upload),
                web.post("/actions/{path:.*}", self._reply),
                web.post("/services/{path:.*}", self._webhook),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()

    async def __aenter__(self) -> Self:
        await self.come_back()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.go_away()
        if kind is None:
            assert self.problems == []

    # --- posting ------------------------------------------------------------------------

    async def _post_message(self, request: web.Request) -> web.StreamResponse:
        self.calls.append("chat.postMessage")
        body = await request.json()
        error = self._refuses(request) or self._bad_message(body)
        if error:
            return _error(error)

        def store() -> web.StreamResponse:
            return web.json_response({"ok": True, "channel": CHANNEL_ID, "ts": self._store(body, "bot")})

        return await self._befall(request, store)

    async def _webhook(self, request: web.Request) -> web.StreamResponse:
        self.calls.append("webhook")
        if request.path != WEBHOOK_PATH:
            return web.Response(status=404, text="no_service")
        body = await request.json()
        if not body.get("text"):
            return web.Response(status=400, text="no_text")
        if self._bad_blocks(body):
            return web.Response(status=400, text="invalid_blocks")

        def store() -> web.StreamResponse:
            self._store(body, "webhook")
            return web.Response(text="ok")

        return await self._befall(request, store)

    async def _befall(self, request: web.Request, store: Any) -> web.StreamResponse:
        fault = self._faults.popleft() if self._faults else self._always
        if fault is None:
            return store()  # type: ignore[no-any-return]
        answer = store() if fault.stores else None
        await asyncio.sleep(fault.delay)
        if fault.then == "drop":
            assert request.transport is not None
            request.transport.abort()
        elif fault.then == "hang":
            await self._closing.wait()
        elif fault.then == "garble":
            if request.path == WEBHOOK_PATH:
                return web.Response(text="<html>a proxy's page</html>", content_type="text/html")
            return web.Response(text='{"ok": tr', content_type="application/json")
        elif answer is not None and fault.status == 200 and not fault.error:
            return answer  # type: ignore[no-any-return]
        headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after is not None else None
        if request.path == WEBHOOK_PATH and fault.error:  # where the API says 200 and ok: false
            status = 500 if fault.error == "internal_error" else 403
            return web.Response(status=max(status, fault.status), text=fault.error, headers=headers)
        if not fault.error:
            return web.Response(status=fault.status, headers=headers)
        return web.json_response({"ok": False, "error": fault.error}, status=fault.status, headers=headers)

    def _bad_message(self, body: Mapping[str, Any]) -> str | None:
        if body.get("channel") not in (CHANNEL, CHANNEL_ID):
            return "channel_not_found"
        if not body.get("text"):
            return "no_text"
        if len(body["text"]) > LONGEST_TEXT:
            return "msg_too_long"
        if self._bad_blocks(body):
            return "invalid_blocks"
        parents = [message.ts for message in self.messages if message.thread_ts is None]
        if body.get("thread_ts") is not None and body["thread_ts"] not in parents:
            return "thread_not_found"
        metadata = body.get("metadata", {"event_type": "none", "event_payload": {}})
        if not isinstance(metadata.get("event_type"), str) or not isinstance(
            metadata.get("event_payload"), dict
        ):
            return "invalid_metadata_format"
        return None

    def _bad_blocks(self, body: Mapping[str, Any]) -> bool:
        found = problems(body) if body.get("blocks") else []
        self.problems += found
        return bool(found)

    # --- files, and answers to what people press ----------------------------------------

    async def _upload_url(self, request: web.Request) -> web.StreamResponse:
        self.calls.append("files.getUploadURLExternal")
        query = {**request.query, **await request.post()}
        if error := self._refuses(request) or self.files_error:
            return _error(error)
        if not query.get("filename") or not int(str(query.get("length", "0"))):
            return _error("invalid_arguments")
        id = f"F0{len(self._uploads)}"
        self._uploads[id] = b"?" * int(str(query["length"]))
        url = self.upload_url or f"http://127.0.0.1:{self._port}/upload/{id}"
        return web.json_response({"ok": True, "upload_url": url, "file_id": id})

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        self.calls.append("upload")
        id, body = request.match_info["id"], await request.read()
        if len(body) != len(self._uploads.get(id, b"")):
            return web.Response(status=400)
        self._uploads[id] = body
        return web.Response(text=f"OK - {len(body)}")

    async def _complete_upload(self, request: web.Request) -> web.StreamResponse:
        self.calls.append("files.completeUploadExternal")
        query = {**request.query, **await request.post()}
        if error := self._refuses(request) or self.files_error:
            return _error(error)
        parents = [message.ts for message in self.messages if message.thread_ts is None]
        if query.get("channel_id") != CHANNEL_ID or query.get("thread_ts") not in parents:
            return _error("invalid_channel")
        for file in json.loads(str(query["files"])):
            picture = Picture(self._uploads[file["id"]], file["title"], str(query["thread_ts"]))
            self.pictures.append(picture)
        return web.json_response({"ok": True, "files": []})

    async def _reply(self, request: web.Request) -> web.StreamResponse:
        self.calls.append("response_url")
        body = await request.json()
        if not body.get("text") or self._bad_blocks(body):
            return web.json_response({"ok": False, "error": "invalid_blocks"}, status=400)
        self.replies.append(body)
        return web.json_response({"ok": True})

    def _store(self, body: Mapping[str, Any], by: Literal["bot", "webhook"]) -> str:
        latest = float(self.messages[-1].ts) if self.messages else 0.0
        ts = f"{max(time.time(), latest + 0.000_01):.6f}"
        self.messages.append(
            Stored(ts, body["text"], body.get("thread_ts"), body.get("metadata"), dict(body), by)
        )
        return ts

    # --- reading ------------------------------------------------------------------------

    async def _history(self, request: web.Request) -> web.StreamResponse:
        self.calls.append("conversations.history")
        shown = [message for message in self.messages if message.thread_ts is None]
        return self._list(request, shown)

    async def _replies(self, request: web.Request) -> web.StreamResponse:
        self.calls.append("conversations.replies")
        ts = request.query.get("ts")
        shown = [message for message in self.messages if ts in (message.ts, message.thread_ts)]
        return self._list(request, shown) if shown else _error("thread_not_found")

    def _list(self, request: web.Request, messages: list[Stored]) -> web.StreamResponse:
        query = request.query
        error = self._refuses(request) or self.history_error
        if not error and query.get("channel") != CHANNEL_ID:  # a name will not do
            error = "channel_not_found"
        if error:
            return _error(error)
        with_metadata = query.get("include_all_metadata") in ("1", "true")
        latest = time.time() - self.history_lag
        shown = [m for m in reversed(messages) if float(query.get("oldest", "0")) < float(m.ts) <= latest]
        start = int(query.get("cursor") or 0)
        size = min(int(query.get("limit", "100")), self.page)
        more = start + size < len(shown)
        return web.json_response(
            {
                "ok": True,
                "messages": [_shown(message, with_metadata) for message in shown[start : start + size]],
                "has_more": more,
                "response_metadata": {"next_cursor": str(start + size) if more else ""},
            }
        )

    async def _info(self, request: web.Request) -> web.StreamResponse:
        self.calls.append("conversations.info")
        if error := self._refuses(request):
            return _error(error)
        if request.query.get("channel") != CHANNEL_ID:
            return _error("channel_not_found")
        channel = {"id": CHANNEL_ID, "name": CHANNEL[1:], "is_member": True, "is_archived": False}
        return web.json_response({"ok": True, "channel": channel})

    async def _auth_test(self, request: web.Request) -> web.StreamResponse:
        self.calls.append("auth.test")
        if error := self._refuses(request):
            return _error(error)
        return web.json_response({"ok": True, "team": "Hanbit", "user": "feedback-loop", "bot_id": "B0BOT"})

    async def _api_test(self, request: web.Request) -> web.StreamResponse:
        self.calls.append("api.test")
        return web.json_response({"ok": True})

    def _refuses(self, request: web.Request) -> str | None:
        given = request.headers.get("Authorization")
        if given is None:
            return "not_authed"
        return None if given == f"Bearer {TOKEN}" else "invalid_auth"


def _error(code: str) -> web.Response:
    return web.json_response({"ok": False, "error": code})


def _shown(message: Stored, with_metadata: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": "message", "ts": message.ts, "text": message.text}
    if message.thread_ts:
        shown["thread_ts"] = message.thread_ts
    if with_metadata and message.metadata:
        shown["metadata"] = dict(message.metadata)
    return shown
