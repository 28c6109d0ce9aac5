"""Everything that reads what others wrote: it gives what it promises, or refuses by its own exception."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from services.collector.bodies import Conversation, FeedbackBody, KeyBody
from services.collector.tokens_api import TokenBody
from services.collector.votes import VOTES, reason_code_of, vote_of
from services.dashboard.commands_api import CommandBody
from services.dashboard.filters import Filter, Listing, What, gathered
from services.embedder.documents_api import NewDocument
from services.embedder.search_api import SearchBody
from services.notifier import signed
from services.trigger.app import HitBody, RunsQuery
from shared.bus.envelope import (
    STRUCTURED,
    Envelope,
    InvalidMessage,
    Message,
    decode,
    encode,
    from_json,
    to_json,
)
from shared.events import REGISTRY
from shared.web import vote_token
from shared.web.http import BadRequest, read_model

GOLDEN = [
    json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "golden").glob("*.json"))
]
ODD = st.sampled_from(
    ["", "\0", "\ud800", "\u202e", "👎", " ", "NaN", "0" * 400, "like", "9999-12-31T23:59:59-12:00"]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ODD | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | ODD, inner, max_size=3),
    max_leaves=6,
)


def fitting(model: type[BaseModel], given: object) -> BaseModel | None:
    """The model of a body; None where it is refused, as it must be: by field and reason, with 422."""
    try:
        return read_model(model, given)
    except BadRequest as error:
        return None if error.status == 422 and error.field and error.reason else pytest.fail(repr(error))


def read(message: Message) -> Envelope | None:
    """The event in a message; None where it is refused. What is taken in can be written again."""
    try:
        envelope = decode(message)
    except InvalidMessage:
        return None
    stored = json.loads(to_json(envelope).encode())
    if not envelope.anonymous:
        assert decode(encode(envelope)) == decode(encode(from_json(stored)))
    return envelope


# --- events -------------------------------------------------------------------------------------

ATTRIBUTES = ["id", "source", "type", "specversion", "time", "correlationid", "causationid", "traceparent"]


@st.composite
def spoiled(draw: st.DrawFn) -> dict[str, Any]:
    """An event of golden JSON in structured form, one or two of its values replaced."""
    event = json.loads(json.dumps(draw(st.sampled_from(GOLDEN))))
    for _ in range(draw(st.integers(1, 2))):
        data = event.get("data")
        place = data if data and isinstance(data, dict) and draw(st.booleans()) else event
        place[draw(st.sampled_from(sorted(place)))] = draw(VALUES)
    return dict(event)


@given(spoiled())
def test_a_structured_event_is_read_or_refused(event: dict[str, Any]) -> None:
    read(Message("", {"content-type": STRUCTURED}, json.dumps(event).encode()))


@given(spoiled(), st.sampled_from(sorted(REGISTRY)))
def test_a_binary_event_is_read_or_refused(event: dict[str, Any], routing_key: str) -> None:
    data = event.pop("data", None)
    headers = {f"ce-{name}": str(value) for name, value in event.items()}
    read(Message(routing_key, headers, json.dumps(data).encode()))


@given(st.dictionaries(st.sampled_from([*ATTRIBUTES, "data_base64", "data"]), VALUES), st.binary(max_size=40))
def test_data_in_base64_is_read_or_refused(event: dict[str, Any], data: bytes) -> None:
    given = {"id": "1", "source": "/s", "type": "feedback.evaluate", "specversion": "1.0", **event}
    for text in (base64.b64encode(data).decode(), given.get("data_base64", "x")):
        body = json.dumps({**given, "data_base64": text}).encode()
        read(Message("", {"content-type": STRUCTURED}, body))


TIRING = [b"[" * 100_000, b'{"a":' * 100_000, b'"' + b"\\u0000" * 100_000, b"9" * 100_000]


@pytest.mark.parametrize("body", TIRING, ids=["arrays", "objects", "text", "digits"])
@pytest.mark.parametrize("headers", [{}, {"content-type": STRUCTURED}])
def test_a_body_that_is_made_to_tire_is_refused(body: bytes, headers: dict[str, str]) -> None:
    assert read(Message("feedback.evaluate", headers, body)) is None


# --- votes --------------------------------------------------------------------------------------


@given(VALUES)
def test_a_vote_is_one_of_the_known_words_or_refused(value: Any) -> None:
    try:
        assert vote_of(value) in (None, 0, 1)
    except ValueError:
        assert str(value).strip().lower() not in VOTES


@given(st.sampled_from(sorted(VOTES)), st.text(" \t\r\n", max_size=3), st.booleans())
def test_a_word_for_a_vote_has_no_case_and_no_outer_space(word: str, space: str, upper: bool) -> None:
    assert vote_of(space + (word.upper() if upper else word) + space) == VOTES[word]


@given(st.text(st.characters()))
def test_any_reason_has_a_code_or_none(text: str) -> None:
    assert reason_code_of(text) is None or reason_code_of(text.upper().lower()) is not None


# --- bodies and queries -------------------------------------------------------------------------

MODELS = [
    *(FeedbackBody, KeyBody, Conversation, TokenBody, NewDocument, SearchBody, CommandBody, HitBody),
    *(RunsQuery, Filter, Listing, What),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@settings(max_examples=40)
@given(st.data())
def test_a_body_fits_or_is_refused_by_field_and_reason(model: Any, data: st.DataObject) -> None:
    names = [field.alias or name for name, field in model.model_fields.items()]
    given = data.draw(st.dictionaries(st.sampled_from(names), VALUES, max_size=4) | VALUES)
    fitting(model, given)


@given(st.dictionaries(st.sampled_from(list(FeedbackBody.model_fields)), VALUES, max_size=3), VALUES)
def test_a_vote_that_is_taken_can_be_kept(given: dict[str, Any], value: Any) -> None:
    body = fitting(FeedbackBody, {"conversation_id": "c", "feedback": value, **given})
    assert body is None or (isinstance(body, FeedbackBody) and body.change().key == body.key)


@given(
    st.lists(st.tuples(st.sampled_from(["reason", "app", "from", "x"]), st.text(st.characters(), max_size=9)))
)
def test_any_query_is_a_filter_or_refused(pairs: list[tuple[str, str]]) -> None:
    fitting(Filter, gathered(pairs))


# --- what Slack and browsers bring --------------------------------------------------------------


@given(st.binary(max_size=200) | VALUES.map(lambda value: urlencode({"payload": json.dumps(value)}).encode()))
def test_a_form_of_slack_is_read_or_refused(body: bytes) -> None:
    for reader in (signed.asked, signed.interaction):
        with suppress(BadRequest):
            reader(body)


@given(st.text(st.characters(), max_size=200) | st.lists(st.text("eyJ.-_0aZ="), max_size=4).map(".".join))
def test_a_vote_token_is_read_or_refused(text: str) -> None:
    with pytest.raises(vote_token.BadToken):
        vote_token.read(text, [b"k" * 32], 0)
