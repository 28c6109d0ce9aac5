"""The collector's HTTP route that makes vote tokens, for servers whose pages vote from the browser."""

from __future__ import annotations

import time

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from services.collector.bodies import GivenId, Id, Name
from shared.settings import Settings
from shared.web import http, vote_token
from shared.web.vote_token import LONGEST, VoteToken

__all__ = ["TokensApi"]


class TokenBody(BaseModel):
    """What the token is to be good for.

    Attributes:
        message_id: the only message to vote on; None: any of the conversation.
        ttl: minutes.
    """

    model_config = ConfigDict(extra="forbid")

    app: Name = "default"
    conversation_id: GivenId
    message_id: Id | None = None
    user_id: Id = ""
    ttl: int = Field(60, ge=1, le=LONGEST)


class TokensApi:
    def __init__(self, settings: Settings) -> None:
        self._keys = settings.vote_token_keys

    async def issue(self, request: web.Request) -> web.Response:
        """`POST /vote-tokens`: a token that votes in one conversation until it expires."""
        if not self._keys:
            raise http.BadRequest("authorization", "closed until VOTE_TOKEN_SECRET is set", status=403)
        body = http.read_model(TokenBody, await http.read_json(request))
        token = VoteToken(
            app=body.app,
            conversation_id=body.conversation_id,
            message_id=body.message_id,
            user_id=body.user_id,
            exp=int(time.time()) + body.ttl * 60,
        )
        issued = {"token": vote_token.issue(token, self._keys), "expires": token.exp}
        return web.json_response(issued, status=201, headers={"Cache-Control": "no-store"})
