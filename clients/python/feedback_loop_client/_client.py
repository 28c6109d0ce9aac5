"""The calls. Each one may be sent again: votes and conversations have keys, an evaluation joins its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from feedback_loop_client._transport import Transport

__all__ = ["FeedbackLoop", "Found", "Hit", "VoteToken"]

Id = str | int
Value = Literal["like", "dislike"]
"""👍 or 👎; True and False are taken too."""


@dataclass(frozen=True)
class Hit:
    """A chunk of a document that was found.

    Attributes:
        rank: from 1.
        score: compares with others of the same search only.
        source: the document's name.
        chunk: names the chunk: to be cited.
    """

    rank: int
    score: float
    source: str
    heading: str
    text: str
    chunk: str


@dataclass(frozen=True)
class Found:
    """What a search found, the best first, in `generation`; None where nothing is embedded yet."""

    generation: int | None
    results: list[Hit]


@dataclass(frozen=True)
class VoteToken:
    """What a browser may hold, until `expires` (seconds since 1970)."""

    token: str
    expires: int


class FeedbackLoop:
    """A service to send votes to. May be shared by threads; nothing is kept open between calls.

    Every call raises `FeedbackLoopError` where the service does not do what is asked. `app` is `default`
    where it is not named; ids are text or whole numbers.

    Args:
        url: where the service is, `https://loop.example.com`.
        token: `API_TOKEN`, or `TRIGGER_TOKEN` to evaluate; `ADMIN_TOKEN` opens all of it, a vote token its
            own votes; None where the service is open.
        timeout: seconds that connecting, and each piece of an answer, may take.
        retries: how many times a call is sent again after 429, 502, 503, 504 or no answer: as late as the
            server asks for (`Retry-After`), up to 30 s.

    Raises:
        ValueError: `url` is no URL of a server, or `token` cannot be sent.
    """

    def __init__(
        self, url: str, token: str | None = None, *, timeout: float = 10.0, retries: int = 2
    ) -> None:
        self._transport = Transport(url, token, timeout, max(0, retries))

    def vote(
        self,
        conversation_id: Id,
        value: Value | bool | None,
        *,
        message_id: Id | None = None,
        user_id: Id | None = None,
        reason: str | None = None,
        comment: str | None = None,
        citations: Mapping[str, Value | bool | None] | None = None,
        app: str | None = None,
        generation: int | None = None,
        created_at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Cast a vote, or replace it: there is one of each user on each message.

        Args:
            value: None leaves the vote that is there and adds the rest to it (`retract` takes it back).
            reason: a word such as `wrong`, `outdated`, `incomplete`, `irrelevant`; others count as comment.
            citations: votes on what the answer cites: a chunk's hash or a document's name → the vote;
                None takes that one back.
            generation: of the knowledge that answered; else the service says which.
            created_at: when it was cast, with its offset; else now.
        """
        extras = {"reason": reason, "comment": comment, "generation": generation, "created_at": created_at}
        body = _body(_key(app, conversation_id, message_id, user_id), feedback=value, **extras)
        self._transport.post("/feedback", _body(body, citations=citations, metadata=metadata))

    def retract(
        self,
        conversation_id: Id,
        *,
        message_id: Id | None = None,
        user_id: Id | None = None,
        app: str | None = None,
    ) -> None:
        """Take a vote back; it need not be there."""
        body = _key(app, conversation_id, message_id, user_id)
        self._transport.post("/feedback", {**body, "feedback": None})

    def conversation(
        self,
        conversation_id: Id,
        question: str | None = None,
        answer: str | None = None,
        *,
        message_id: Id | None = None,
        user_id: Id | None = None,
        citations: Sequence[str | Mapping[str, Any]] | None = None,
        app: str | None = None,
        generation: int | None = None,
        answered_at: datetime | None = None,
    ) -> None:
        """Record an answer, so that votes on it are understood. What is None stays as it is recorded.

        Args:
            citations: what it cites, the best first: a chunk's hash, a document's name, or both as
                `{"source": …, "chunk": …}`.
            generation: of the knowledge that answered.
            answered_at: with its offset; else now.
        """
        texts = {"question": question, "answer": answer, "citations": citations}
        body = _body(_key(app, conversation_id, message_id, user_id), **texts)
        given = _body(body, generation=generation, answered_at=answered_at)
        self._transport.post("/conversations", given)

    def evaluate(
        self,
        app: str | None = None,
        window: str | None = None,
        *,
        as_of: datetime | None = None,
        requested_by: str = "feedback-loop-client",
        event_id: str | None = None,
    ) -> str:
        """Have an app's votes judged (the CloudEvent `feedback.evaluate`). Returns the run's id at once: the
        work happens behind it.

        Args:
            window: what the report counts: `24h`, `7d`, `since_last`; else what the service is set to.
            as_of: votes up to then count, with its offset; else up to now.
            requested_by: who asks, as the report shows it.
            event_id: with one, a run of its own, and the same run for the same id and `requested_by`;
                without, the app's run that is under way, if there is one.
        """
        headers = {"ce-specversion": "1.0", "ce-type": "feedback.evaluate"}
        # CloudEvents percent-encodes what is not ASCII in HTTP headers.
        headers["ce-source"] = quote(f"/{requested_by}", safe="/:@")
        if event_id:
            headers["ce-id"] = quote(event_id, safe="/:@")
        body = _body({}, app=app, window=window, as_of=as_of, requested_by=requested_by)
        return str(self._transport.post("/events", body, headers)["run"])

    def search(
        self,
        q: str,
        k: int = 10,
        *,
        app: str | None = None,
        conversation_id: Id | None = None,
        message_id: Id | None = None,
    ) -> Found:
        """Search an app's documents.

        Args:
            k: how many chunks, up to 100.
            conversation_id: with it, what is shown is remembered for a vote on that conversation's message.
        """
        ids = {"conversation_id": conversation_id, "message_id": message_id}
        found = self._transport.post("/search", _body({"q": q, "k": k}, app=app, **ids))
        names = Hit.__dataclass_fields__
        return Found(found["generation"], [Hit(**{n: hit[n] for n in names}) for hit in found["results"]])

    def vote_token(
        self,
        conversation_id: Id,
        *,
        message_id: Id | None = None,
        user_id: Id | None = None,
        app: str | None = None,
        ttl: int | None = None,
    ) -> VoteToken:
        """Make a token with which a browser may vote in this conversation, and do nothing else.

        Args:
            message_id: the only message to vote on; None: any of the conversation.
            user_id: whose votes they are; None: nobody's.
            ttl: minutes, at most seven days; else an hour.
        """
        body = _body(_key(app, conversation_id, message_id, user_id), ttl=ttl)
        made = self._transport.post("/vote-tokens", body)
        return VoteToken(made["token"], made["expires"])


def _key(app: str | None, conversation_id: Id, message_id: Id | None, user_id: Id | None) -> dict[str, Any]:
    ids = {"message_id": message_id, "user_id": user_id}
    return _body({"conversation_id": conversation_id}, app=app, **ids)


def _body(body: Mapping[str, Any], **given: Any) -> dict[str, Any]:
    """`body` with what is given, which is what is not None. Times as text."""
    said = {name: value for name, value in given.items() if value is not None}
    return {**body, **{n: v.isoformat() if isinstance(v, datetime) else v for n, v in said.items()}}
