"""A Slack channel: through a bot, or through an incoming webhook.

One call is at most one request to post: slack_sdk's own retries are off, and every request has a
connection of its own (one kept open that the server has just closed would look like a post in doubt).
What fails is raised as `NotPosted`; neither its text nor a log line holds a token or a webhook's
address.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from services.notifier.destinations import Message, Posted
from services.notifier.failures import Down, NotPosted, Refused, Unclear, from_answer
from services.notifier.phrases import Markup
from shared.web.outgoing import Redirected, no_redirects, traced

if TYPE_CHECKING:  # slack_sdk is slow to import, and only needed where Slack is
    from slack_sdk.web.async_client import AsyncWebClient
    from slack_sdk.web.async_slack_response import AsyncSlackResponse
    from slack_sdk.webhook.async_client import AsyncWebhookClient

__all__ = ["TIMEOUT", "Bot", "Webhook"]

TIMEOUT = 10.0
"""Seconds for one request; half of them to connect."""

_PAGES, _PAGE = 5, 200
"""How far back a history is searched."""
_SKEW = timedelta(minutes=1)
"""How far Slack's clock may be behind the database's."""
_NO_THREAD = {"thread_not_found", "cannot_reply_to_message", "thread_locked", "message_not_found"}
_NO_BLOCKS = {"invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "too_many_blocks"}
"""Slack's words for blocks that it does not take: the text alone says all that must be said."""
_CODE = re.compile(r"[a-z_]{1,60}")
"""What an error code looks like; a page of HTML does not."""

log = logging.getLogger(__name__)

# slack_sdk writes whole requests to its debug log, the webhook's address among them.
_quiet = logging.getLogger("services.notifier.slack_sdk")
_quiet.setLevel(logging.WARNING)


class Bot:
    """A channel, through Slack's Web API. The token needs `chat:write`; with `channels:history` (or
    `groups:history`) a post in doubt can be looked up, with `files:write` there are pictures."""

    markup: Markup = "slack"
    threads = True
    pictures = True

    def __init__(self, token: str, channel: str, api_url: str, timeout: float = TIMEOUT) -> None:
        self.name = f"slack {channel}"
        self._token = token
        self._channel = channel
        self._api_url = api_url
        self._timeout = timeout
        self._made: AsyncWebClient | None = None

    async def send(self, message: Message) -> Posted:
        thread = message.thread
        if thread is not None and thread.ts is not None:
            try:
                return await self._post(message, thread.channel or self._channel, thread.ts)
            except Refused as error:
                if error.code not in _NO_THREAD:
                    raise
        return await self._post(message, self._channel, None)

    async def _post(self, message: Message, channel: str, thread_ts: str | None) -> Posted:
        return await _with_or_without_blocks(message, lambda one: self._post_once(one, channel, thread_ts))

    async def _post_once(self, message: Message, channel: str, thread_ts: str | None) -> Posted:
        answer = await _asked(
            self._client().chat_postMessage,
            channel=channel,
            text=message.text,
            blocks=_listed(message.blocks),
            thread_ts=thread_ts,
            unfurl_links=False,
            unfurl_media=False,
            metadata={
                "event_type": "feedback_loop",
                "event_payload": {"key": message.key, "event_id": str(message.event_id)},
            },
        )
        return Posted(answer.get("channel"), answer.get("ts"))

    async def share(self, png: bytes, title: str, thread: Posted) -> None:
        # The three steps of slack_sdk's files_upload_v2, which would repeat them at will.
        client = self._client()
        slot = await _asked(
            client.files_getUploadURLExternal, filename="trend.png", length=len(png), alt_txt=title
        )
        assert client.session is not None
        address = str(slot["upload_url"])
        if not _of_slack(address, self._api_url):
            raise Refused("an address for the picture that is not Slack's")
        try:
            async with client.session.post(address, data=png, allow_redirects=False) as answer:
                status = answer.status
        except Exception as error:
            raise Down(f"the picture could not be sent ({type(error).__name__})") from None
        if status != 200:
            raise Down(f"the picture was not taken: HTTP {status}")
        await _asked(
            client.files_completeUploadExternal,
            files=[{"id": str(slot["file_id"]), "title": title}],
            channel_id=thread.channel,
            thread_ts=thread.ts,
        )

    async def find(self, message: Message, since: datetime, channel: str | None) -> Posted | None:
        client, thread = self._client(), message.thread
        threaded = thread is not None and thread.ts is not None
        search: dict[str, Any] = {
            # Slack's history takes an id only; by a name nothing is found, as without the scope.
            "channel": (thread and thread.channel) or channel or self._channel,
            "ts": thread and thread.ts,
            "oldest": f"{(since - _SKEW).timestamp():.6f}",
            "limit": _PAGE,
            "include_all_metadata": True,
        }
        method = client.conversations_replies if threaded else client.conversations_history
        try:
            for _ in range(_PAGES):
                answer = await _asked(method, **search)
                if ts := _ts_of(message.key, answer.get("messages") or []):
                    return Posted(search["channel"], ts)
                search["cursor"] = (answer.get("response_metadata") or {}).get("next_cursor")
                if not search["cursor"]:
                    break
        except Refused:
            return None
        except (Down, Unclear) as error:
            raise Down(f"its history does not answer: {error}") from None
        return None

    async def probe(self) -> None:
        await _asked(self._client().api_test)

    async def close(self) -> None:
        if self._made is not None and self._made.session is not None:
            await self._made.session.close()

    def _client(self) -> AsyncWebClient:
        if self._made is None:
            from slack_sdk.web.async_client import AsyncWebClient

            self._made = AsyncWebClient(
                self._token,
                self._api_url,
                session=_session(self._timeout),
                retry_handlers=[],  # the default one would post again what may be there
                logger=_quiet,
            )
            self._made.proxy = None  # the session knows the proxy, and NO_PROXY too
        return self._made


class Webhook:
    """An incoming webhook: it has no threads, and no history to look up a post in doubt."""

    markup: Markup = "slack"
    threads = False
    pictures = False
    name = "slack webhook"

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        self._url = url
        self._timeout = timeout
        self._made: AsyncWebhookClient | None = None

    async def send(self, message: Message) -> Posted:
        return await _with_or_without_blocks(message, self._post_once)

    async def share(self, png: bytes, title: str, thread: Posted) -> None:
        raise NotImplementedError("a webhook takes no files")

    async def _post_once(self, message: Message) -> Posted:
        client = self._client()
        try:
            answer = await client.send(
                text=message.text,
                blocks=_listed(message.blocks),
                unfurl_links=False,
                unfurl_media=False,
            )
        except Exception as error:
            raise _failure(error) from None
        body = answer.body.strip()
        # Slack says `ok`, its lookalikes something of their own; a page comes from something between.
        if not 200 <= answer.status_code < 300 or body.startswith("<"):
            raise _from_answer(answer.status_code, body, answer)
        return Posted()

    async def find(self, message: Message, since: datetime, channel: str | None) -> Posted | None:
        return None

    async def probe(self) -> None:
        """Any answer of the webhook's host will do."""
        session = self._client().session
        assert session is not None
        try:
            async with session.get(urljoin(self._url, "/"), allow_redirects=False):
                pass
        except Exception as error:
            raise _failure(error) from None

    async def close(self) -> None:
        if self._made is not None and self._made.session is not None:
            await self._made.session.close()

    def _client(self) -> AsyncWebhookClient:
        if self._made is None:
            from slack_sdk.webhook.async_client import AsyncWebhookClient

            session = _session(self._timeout)
            self._made = AsyncWebhookClient(self._url, session=session, retry_handlers=[], logger=_quiet)
            self._made.proxy = None
        return self._made


async def _with_or_without_blocks(message: Message, post: Callable[[Message], Awaitable[Posted]]) -> Posted:
    """Post; where Slack refuses the blocks, the text alone: a report must not fail for its looks."""
    try:
        return await post(message)
    except Refused as error:
        if not message.blocks or error.code not in _NO_BLOCKS:
            raise
        log.warning("%s: posted without its blocks: Slack answered %s", message.key, error.code)
        return await post(replace(message, blocks=()))


def _listed(blocks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    return [dict(block) for block in blocks] or None


def _ts_of(key: str, messages: list[dict[str, Any]]) -> str | None:
    for message in messages:
        payload = (message.get("metadata") or {}).get("event_payload") or {}
        if payload.get("key") == key:
            return str(message["ts"])
    return None


def _of_slack(address: str, api_url: str) -> bool:
    """Whether an address that the API names is of its own host, or of one below it."""
    there, api = urlsplit(address), urlsplit(api_url)
    host, home = there.hostname or "", api.hostname or ""
    return there.scheme == api.scheme and (host == home or host.endswith(f".{home}"))


def _session(timeout: float) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True),
        timeout=aiohttp.ClientTimeout(total=timeout, connect=timeout / 2),
        trust_env=True,
        middlewares=[traced, no_redirects],  # slack_sdk would follow them, message and all
    )


async def _asked(
    method: Callable[..., Awaitable[AsyncSlackResponse]], **arguments: Any
) -> AsyncSlackResponse:
    try:
        return await method(**arguments)
    except Exception as error:
        raise _failure(error) from None


def _from_answer(status: int, text: str, answer: Any) -> NotPosted:
    code = text if _CODE.fullmatch(text) else ""
    return from_answer(status, code, answer.headers.get("Retry-After"))


def _failure(error: Exception) -> NotPosted:
    """What an exception of the client says about the post. Its own text may hold the address."""
    from slack_sdk.errors import SlackApiError, SlackRequestError

    kind = type(error).__name__
    if isinstance(error, SlackApiError):
        answer = error.response  # of slack_sdk; of aiohttp where the body was no JSON
        status = getattr(answer, "status_code", None) or getattr(answer, "status", None) or 0
        data = getattr(answer, "data", None)
        return _from_answer(status, str(data.get("error")) if isinstance(data, dict) else "", answer)
    if isinstance(
        error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.ClientHttpProxyError
    ):
        return Down(f"cannot be reached ({kind})")
    if isinstance(error, Redirected):
        return from_answer(error.status, "")
    if isinstance(error, aiohttp.InvalidURL | SlackRequestError):
        return Refused(kind)
    return Unclear(f"the connection ended before the answer ({kind})")
