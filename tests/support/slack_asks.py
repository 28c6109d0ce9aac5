"""Requests as Slack makes them: signed, as forms."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp

from shared.runtime import Runtime

__all__ = ["SECRET", "USER", "Answer", "asks", "presses", "pressing", "sends", "signed"]

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
USER, NAME = "U0JIN", "jin"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str
    """The JSON's `text`, where it is JSON with one; else the body."""


def signed(body: bytes, at: object = None, secret: str = SECRET) -> dict[str, str]:
    """The headers that Slack would send with a body; `at` in seconds since 1970 (None: now)."""
    timestamp = str(int(time.time()) if at is None else at)
    digest = hmac.new(secret.encode(), b"v0:" + timestamp.encode() + b":" + body, hashlib.sha256)
    return {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": timestamp,
        "X-Slack-Signature": f"v0={digest.hexdigest()}",
    }


async def sends(runtime: Runtime, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{runtime.port}{path}", data=body, headers=headers) as answer,
    ):
        text = await answer.text()
        said = json.loads(text) if answer.content_type == "application/json" else {}
        return Answer(answer.status, said.get("text", text))


async def asks(runtime: Runtime, text: str = "", user: str = USER) -> Answer:
    """`/ai-report text`."""
    body = urlencode({"command": "/ai-report", "text": text, "user_id": user, "user_name": NAME}).encode()
    return await sends(runtime, "/slack/commands", body, signed(body))


def pressing(action: str, value: str, response_url: str, user: str = USER, name: str = NAME) -> bytes:
    """The body of a button's press."""
    payload: dict[str, Any] = {
        "type": "block_actions",
        "user": {"id": user, "username": name, "name": name, "team_id": "T0TEAM"},
        "actions": [{"type": "button", "action_id": action, "block_id": "do", "value": value}],
        "response_url": response_url,
    }
    return urlencode({"payload": json.dumps(payload)}).encode()


async def presses(
    runtime: Runtime, action: str, value: str, response_url: str, user: str = USER, name: str = NAME
) -> Answer:
    """Somebody presses a button."""
    body = pressing(action, value, response_url, user, name)
    return await sends(runtime, "/slack/interactions", body, signed(body))
