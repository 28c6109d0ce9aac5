"""Requests that Slack signs: which are taken, and what they say.

What is guaranteed: only a request whose body Slack has signed within the last five minutes is taken
(https://docs.slack.dev/authentication/verifying-requests-from-slack), and none of them twice, whichever
replica it reaches. Addresses that a request names are only used where they are Slack's own.
"""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web
from pydantic import BaseModel, Field

from shared.postgres.database import Database
from shared.web.http import BadRequest, read_body, read_model

__all__ = ["Asked", "Interaction", "Press", "Signatures", "User", "asked", "interaction", "trusted"]

LIMIT = 256 * 1024
"""Bytes of a request: a press of a button brings the whole message along."""

_REPLIES = {"hooks.slack.com", "hooks.slack-gov.com"}

_TAKE = """
with forgotten as (
    delete from feedback_loop.slack_request where received_at < now() - interval '1 hour'
)
insert into feedback_loop.slack_request (signature) values ($1) on conflict do nothing returning true
"""


class Asked(BaseModel):
    """A slash command."""

    command: str = ""
    text: str = ""
    user_id: str


class User(BaseModel):
    id: str
    name: str = ""
    username: str = ""

    @property
    def shown(self) -> str:
        return self.name or self.username or self.id


class Press(BaseModel):
    """A button: which one, and the value it was posted with."""

    action_id: str
    value: str = ""


class Interaction(BaseModel):
    """What somebody did in a message: Slack tells of one press, and of no more than a block has buttons."""

    type: str
    user: User
    actions: list[Press] = Field([], max_length=25)
    response_url: str = ""


class Signatures:
    """Checks requests against the app's signing secret."""

    def __init__(self, secret: str, database: Database) -> None:
        # Slow to import; here, once, it costs no request its three seconds.
        from slack_sdk.signature import SignatureVerifier

        self._verifier = SignatureVerifier(secret)
        self._database = database

    async def body(self, request: web.Request) -> bytes:
        """The request's body.

        Raises:
            BadRequest: it is not signed, or too long ago (401); taken already (409); too large (413).
        """
        body = await read_body(request)
        signature = request.headers.get("X-Slack-Signature", "")
        try:
            valid = self._verifier.is_valid(body, request.headers.get("X-Slack-Request-Timestamp"), signature)
        except (ValueError, TypeError, OverflowError):  # no number, no UTF-8, no ASCII
            valid = False
        if not valid:
            raise BadRequest("signature", "not signed by Slack within the last five minutes", status=401)
        async with self._database.connection() as connection:
            if not await connection.fetchval(_TAKE, signature):
                raise BadRequest("signature", "this request has been taken already", status=409)
        return body


def asked(body: bytes) -> Asked:
    """The slash command that a form is.

    Raises:
        BadRequest: it is none.
    """
    return read_model(Asked, _form(body))


def interaction(body: bytes) -> Interaction:
    """What the field `payload` says.

    Raises:
        BadRequest: it says nothing that can be read.
    """
    try:
        payload = json.loads(_form(body).get("payload", ""))
    except (ValueError, RecursionError):
        raise BadRequest("payload", "not JSON") from None
    return read_model(Interaction, payload)


def _form(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=100))
    except ValueError:
        raise BadRequest("body", "not a form") from None


def trusted(url: str, api_url: str) -> bool:
    """Whether an answer may be sent there: one of Slack's own hosts, or that of `SLACK_API_URL`."""
    try:
        parts, api = urlsplit(url), urlsplit(api_url)
        slack = parts.scheme == "https" and parts.hostname in _REPLIES and parts.port in (None, 443)
        same = (parts.scheme, parts.hostname, parts.port) == (api.scheme, api.hostname, api.port)
    except ValueError:
        return False
    return slack or same
