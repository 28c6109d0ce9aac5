"""Vote tokens: what they open, and what none of them is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.web.vote_token import LONGEST, BadToken, VoteToken, is_one, issue, read

KEY, OTHER = b"k" * 32, b"o" * 32
NOW = 1_764_000_000
TOKEN = VoteToken(conversation_id="chat-1", user_id="김", exp=NOW + 60)
PAYLOAD = {"aud": "feedback-loop/vote", "conversation_id": "chat-1", "exp": NOW + 60}


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def signed(head: Any, payload: Any, key: bytes = KEY) -> str:
    """A token as another program makes one, from the documented format alone."""
    text = f"{part(head)}.{part(payload)}"
    signature = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def test_what_is_issued_is_read() -> None:
    text = issue(TOKEN, [KEY])
    assert is_one(text)
    assert read(text, [KEY], NOW) == TOKEN


def test_what_another_program_signs_is_read() -> None:
    text = signed({"typ": "JWT", "alg": "HS256", "kid": "1"}, {**PAYLOAD, "iat": NOW, "message_id": "3"})
    assert is_one(text)
    assert read(text, [KEY], NOW) == VoteToken(conversation_id="chat-1", message_id="3", exp=NOW + 60)


def test_keys_are_replaced_one_after_the_other() -> None:
    old, new = issue(TOKEN, [OTHER]), issue(TOKEN, [KEY, OTHER])
    assert read(old, [KEY, OTHER], NOW) == read(new, [KEY], NOW) == TOKEN
    with pytest.raises(BadToken):
        read(old, [KEY], NOW)


@pytest.mark.parametrize(
    ("head", "change", "forged"),
    [
        ({"alg": "none"}, {}, False),
        ({"alg": "HS512"}, {}, False),
        ({}, {}, False),
        ([], {}, False),
        ({"alg": "HS256"}, {"aud": "another service"}, False),
        ({"alg": "HS256"}, {"conversation_id": ""}, False),
        ({"alg": "HS256"}, {"conversation_id": None}, False),
        ({"alg": "HS256"}, {"conversation_id": 7}, False),
        ({"alg": "HS256"}, {"exp": NOW}, False),
        ({"alg": "HS256"}, {"exp": str(NOW + 60)}, False),
        ({"alg": "HS256"}, {"exp": True}, False),
        ({"alg": "HS256"}, {"exp": NOW + LONGEST * 60 + 3600}, False),
        ({"alg": "HS256"}, {"app": "no app"}, False),
    ],
)
def test_what_is_signed_and_still_none_is_refused(head: Any, change: dict[str, Any], forged: bool) -> None:
    with pytest.raises(BadToken) as refused:
        read(signed(head, {**PAYLOAD, **change}), [KEY], NOW)
    assert refused.value.forged is forged


@pytest.mark.parametrize("text", ["", "..", "a.b.c", "eyJ..", "eyJ.é.x", "eyJ." + "x" * 10_000 + ".y"])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(BadToken) as refused:
        read(text, [KEY], NOW)
    assert refused.value.forged


def test_one_signed_without_a_signature_is_forged() -> None:
    unsigned = f"{part({'alg': 'none'})}.{part(PAYLOAD)}."
    with pytest.raises(BadToken) as refused:
        read(unsigned, [KEY], NOW)
    assert refused.value.forged


@given(st.data())
def test_a_changed_token_is_refused(data: st.DataObject) -> None:
    text = issue(TOKEN, [KEY])
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("ABCxyz019-_.="))
    changed = text[:place] + letter + text[place + 1 :]
    if changed != text:
        with pytest.raises(BadToken):
            read(changed, [KEY], NOW)


@pytest.mark.parametrize(
    ("token", "vote", "refused"),
    [
        ({}, ("default", "chat-1", "", ""), None),
        ({}, ("default", "chat-1", "3", ""), None),
        ({}, ("other", "chat-1", "", ""), "app"),
        ({}, ("default", "chat-2", "", ""), "conversation_id"),
        ({}, ("default", "chat-1", "", "kim"), "user_id"),
        ({"user_id": "kim"}, ("default", "chat-1", "", "kim"), None),
        ({"user_id": "kim"}, ("default", "chat-1", "", ""), "user_id"),
        ({"message_id": "3"}, ("default", "chat-1", "3", ""), None),
        ({"message_id": "3"}, ("default", "chat-1", "4", ""), "message_id"),
        ({"message_id": ""}, ("default", "chat-1", "4", ""), "message_id"),
    ],
)
def test_a_token_covers_its_own_votes(
    token: dict[str, str], vote: tuple[str, str, str, str], refused: str | None
) -> None:
    made = VoteToken.model_validate({"conversation_id": "chat-1", "exp": NOW, **token})
    assert made.refusal(*vote) == refused
