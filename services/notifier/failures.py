"""Why a message is not known to be posted, and what that asks for.

The question that decides is whether it *may* be posted nevertheless (`maybe`): Slack has no
idempotency key, so a message sent twice is there twice. An answer below 500 settles it. A 5xx does
not: Slack's documents say of `internal_error` and `fatal_error` that part of the work may be done.

Pure: an answer in, a failure out. No failure's text holds an address: a webhook's is its secret.
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.requester import printable

__all__ = ["ADVICE", "Busy", "Down", "NotPosted", "Refused", "TooEarly", "Unclear", "from_answer"]

MISSING_RETRY_AFTER, LONGEST_RETRY_AFTER = 30.0, 600.0


class NotPosted(Exception):
    """The message is not known to be posted; `maybe` says whether it may be."""

    maybe = False


class Refused(NotPosted):
    """Slack will not take it until a person mends something; the text says what."""

    def __init__(self, code: str) -> None:
        advice = ADVICE.get(code, "run `feedback-loop doctor`")
        super().__init__(f"Slack answered {code}: {advice}")
        self.code = code


class Busy(NotPosted):
    """Slack asks to be left alone for `after` seconds."""

    def __init__(self, after: float) -> None:
        super().__init__(f"asks to be left alone for {after:g} s")
        self.after = after


class Down(NotPosted):
    """Slack cannot be reached, or is out of order."""

    def __init__(self, reason: str, maybe: bool = False) -> None:
        super().__init__(reason)
        self.maybe = maybe


class Unclear(NotPosted):
    """It was sent, and no answer that can be read came back."""

    maybe = True


class TooEarly(NotPosted):
    """It may be posted, and Slack's history may not show it for another `after` seconds."""

    def __init__(self, after: float) -> None:
        super().__init__("it may be posted, and the history may not show it yet")
        self.after = after


_TOKEN = "make a new bot token (https://api.slack.com/apps → OAuth & Permissions) and set SLACK_BOT_TOKEN"
_CHANNEL = "set SLACK_CHANNEL to a channel that exists; invite the bot where it is private"
_WEBHOOK = "make a new webhook (https://api.slack.com/apps → Incoming Webhooks) and set SLACK_WEBHOOK_URL"
_RIGHTS = "add the scope chat:write to the Slack app and install it again"
_LIVE = "the channel is archived: set SLACK_CHANNEL to one that is not"
_POLICY = "the workspace does not let the bot post there: ask its administrator or set another SLACK_CHANNEL"

ADVICE: Mapping[str, str] = {
    "not_authed": _TOKEN,
    "invalid_auth": _TOKEN,
    "account_inactive": _TOKEN,
    "token_revoked": _TOKEN,
    "token_expired": _TOKEN,
    "not_allowed_token_type": _TOKEN,
    "missing_scope": _RIGHTS,
    "no_permission": _RIGHTS,
    "channel_not_found": _CHANNEL,
    "not_in_channel": "invite the bot to the channel: /invite @its-name",
    "is_archived": _LIVE,
    "channel_is_archived": _LIVE,
    "restricted_action": _POLICY,
    "action_prohibited": _POLICY,
    "posting_to_general_channel_denied": _POLICY,
    "no_service": _WEBHOOK,
    "no_service_id": _WEBHOOK,
    "no_team": _WEBHOOK,
    "invalid_token": _WEBHOOK,
    "HTTP 404": "check SLACK_WEBHOOK_URL or SLACK_API_URL",
}
"""What a person can do about each of Slack's error codes."""

_RATE = {"ratelimited", "rate_limited", "message_limit_exceeded"}
_BROKEN = {"internal_error", "fatal_error"}
_NOT_TAKEN = {"service_unavailable", "request_timeout", "team_added_to_org"}


def from_answer(status: int, code: str, retry_after: str | None = None) -> NotPosted:
    """The failure that an answer means.

    Args:
        status: of HTTP.
        code: Slack's error, such as `not_in_channel`; empty where the answer had none.
        retry_after: the header `Retry-After`, in seconds.
    """
    shown = printable(code, 80) or f"HTTP {status}"
    if status == 429 or code in _RATE:
        return Busy(_seconds(retry_after))
    if code in _NOT_TAKEN or status == 503:
        return Down(f"answered {shown}")
    if code in _BROKEN or status >= 500:
        return Down(f"answered {shown}", maybe=True)
    if status == 408 or (status < 300 and not code):
        return Unclear("an answer that cannot be read")
    return Refused(shown)


def _seconds(retry_after: str | None) -> float:
    text = (retry_after or "").strip()
    return min(float(text), LONGEST_RETRY_AFTER) if text.isdecimal() else MISSING_RETRY_AFTER
