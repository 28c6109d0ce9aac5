"""Vote tokens: what a browser may hold. One can vote in one conversation, for a while, and nothing else.

A vote token is a JSON Web Token (RFC 7519) signed with HMAC-SHA256 (`HS256`), so any JWT library makes
one. Its payload, with `iat` and others ignored:

    {"aud": "feedback-loop/vote", "app": "default", "conversation_id": "chat-1",
     "message_id": "3", "user_id": "kim", "exp": 1764000000}

`aud`, `conversation_id` and `exp` (seconds since 1970, at most seven days ahead) must be there; `app` is
`default` where it is absent. A vote must name just this app, conversation and user, no user where the
token names none; and this message, if the token names one. The key is one of those in
`VOTE_TOKEN_SECRET`: the first signs here, all are taken, so a key is replaced by putting a new one first.

What is guaranteed: nothing without a key makes or alters a token; the algorithm is never the token's
choice; signatures are compared in constant time. What is not: that a token is used once, or by whom it
was made for. It expires by the clock of the process: issuers elsewhere have no other in common with it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

__all__ = ["LONGEST", "BadToken", "VoteToken", "is_one", "issue", "read"]

LONGEST = 7 * 24 * 60
"""Minutes that a token may be good for."""
SKEW = 60
"""Seconds by which an issuer's clock may be ahead."""
LARGEST = 4096
"""Characters of a token."""

Id = Annotated[str, Field(max_length=200)]


class BadToken(Exception):
    """It opens nothing; the text says why.

    Attributes:
        forged: no key of ours has signed it, as far as can be told.
    """

    def __init__(self, reason: str, *, forged: bool = False) -> None:
        super().__init__(reason)
        self.forged = forged


class VoteToken(BaseModel):
    """What a token says."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    aud: Literal["feedback-loop/vote"] = "feedback-loop/vote"
    app: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")] = "default"
    conversation_id: Annotated[Id, Field(min_length=1)]
    message_id: Id | None = None
    user_id: Id = ""
    exp: int

    def refusal(self, app: str, conversation_id: str, message_id: str, user_id: str) -> str | None:
        """The field of a vote that this token does not cover; None where it covers the vote."""
        pairs = {
            "app": (self.app, app),
            "conversation_id": (self.conversation_id, conversation_id),
            "message_id": (message_id if self.message_id is None else self.message_id, message_id),
            "user_id": (self.user_id, user_id),
        }
        return next((name for name, (mine, given) in pairs.items() if mine != given), None)


def is_one(text: str) -> bool:
    """Whether this looks like a vote token, right or not: other tokens of ours may not."""
    return text.startswith("eyJ") and text.count(".") == 2


def issue(token: VoteToken, keys: Sequence[bytes]) -> str:
    """The token as text, signed with the first key."""
    head = _encode(b'{"alg":"HS256","typ":"JWT"}')
    payload = token.model_dump_json(exclude_none=True)
    signed = f"{head}.{_encode(payload.encode())}"
    return f"{signed}.{_encode(_signature(signed, keys[0]))}"


def read(text: str, keys: Sequence[bytes], now: float) -> VoteToken:
    """What a token says.

    Args:
        now: seconds since 1970.

    Raises:
        BadToken: it is none, or not signed by any of the keys, or its time is over or too long.
    """
    if len(text) > LARGEST or not text.isascii():
        raise BadToken("the vote token cannot be read", forged=True)
    signed, _, signature = text.rpartition(".")
    right = [hmac.compare_digest(_encode(_signature(signed, key)), signature) for key in keys]
    if not any(right):
        raise BadToken("the vote token is not signed by VOTE_TOKEN_SECRET", forged=True)
    head, _, payload = signed.partition(".")
    try:
        token = VoteToken.model_validate_json(_decode(payload))
        algorithm = json.loads(_decode(head))["alg"]
    except ValidationError as error:
        raise BadToken(f"the vote token's {error.errors()[0]['loc']} does not fit") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BadToken("the vote token cannot be read") from None
    if algorithm != "HS256":
        raise BadToken("the vote token's algorithm is not HS256")
    if token.exp <= now:
        raise BadToken("the vote token has expired")
    if token.exp > now + LONGEST * 60 + SKEW:
        raise BadToken("the vote token is good for more than seven days")
    return token


def _signature(signed: str, key: bytes) -> bytes:
    return hmac.digest(key, signed.encode(), hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
