"""The envelope against the CloudEvents SDK, and every type against its golden JSON."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.rabbitmq import (
    RabbitMQMessage,
    from_binary,
    from_structured,
    to_binary,
    to_structured,
)
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.bus.envelope import (
    STRUCTURED,
    Envelope,
    InvalidMessage,
    Message,
    decode,
    encode,
    event_id,
    from_json,
    to_json,
)
from shared.events import REGISTRY, Event, FeedbackEvaluate, GenerationBuilt, LoopPaused, derived

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("*.json"))
RUN = uuid.UUID("5b0d2f9e-6c1a-4e0b-9a55-0d7f3c1e8a10")
FORMAT = JSONFormat()


def golden(path: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return stored


# --- golden JSON: what was once written parses for ever -------------------------------------


def test_every_type_has_golden_json() -> None:
    assert {golden(path)["type"] for path in FILES} >= set(REGISTRY)


def test_no_golden_json_is_of_a_forgotten_type() -> None:
    assert {golden(path)["type"] for path in FILES} <= set(REGISTRY)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_json_reads_as_it_was_written(path: Path) -> None:
    stored = golden(path)
    again = json.loads(to_json(from_json(stored)))
    assert _without_additions(again, stored) == stored


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_json_is_valid_to_the_sdk(path: Path) -> None:
    assert FORMAT.read(CloudEvent, path.read_bytes()).get_type() == golden(path)["type"]


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_golden_json_fills_every_field(name: str) -> None:
    # A field that golden JSON does not show could be renamed without a test failing.
    data = golden(GOLDEN / f"{name}.json")["data"]
    unset = {field for field, info in REGISTRY[name].model_fields.items() if field not in data}
    assert not {field for field in unset if REGISTRY[name].model_fields[field].is_required()}
    assert all(value is not None for value in data.values())


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_unknown_fields_are_ignored(name: str) -> None:
    stored = golden(GOLDEN / f"{name}.json")
    stored["data"]["a_field_of_the_future"] = {"a": 1}
    stored["anextension"] = "of the future"
    assert from_json(stored) == from_json(golden(GOLDEN / f"{name}.json"))


def _without_additions(value: Any, like: Any) -> Any:
    """`value` without the fields that `like` has not: a type may grow."""
    if isinstance(value, dict) and isinstance(like, dict):
        return {name: _without_additions(value[name], like[name]) for name in like if name in value}
    if isinstance(value, list) and isinstance(like, list) and len(value) == len(like):
        return [_without_additions(*pair) for pair in zip(value, like, strict=True)]
    return value


# --- the SDK as an oracle -------------------------------------------------------------------


def _envelope(**given: Any) -> Envelope:
    event = FeedbackEvaluate(app="shop", as_of=datetime(2025, 10, 17, tzinfo=UTC), requested_by="민지 👎")
    fields: dict[str, Any] = {"id": RUN, "event": event, "source": "/상점", "correlation": RUN} | given
    return Envelope(**fields)


def test_the_sdk_reads_what_we_write() -> None:
    envelope = _envelope(cause=uuid.uuid4())
    message = encode(envelope)
    read = from_binary(RabbitMQMessage(dict(message.headers), "application/json", message.body), FORMAT)
    assert read.get_id() == str(RUN)
    assert read.get_type() == "feedback.evaluate"
    assert read.get_source() == "/상점"
    assert read.get_time() == envelope.time
    assert read.get_specversion() == "1.0"
    assert read.get_data() == json.loads(envelope.event.model_dump_json())
    assert read.get_extension("correlationid") == str(RUN)


def test_the_sdk_reads_our_structured_form() -> None:
    envelope = _envelope()
    body = to_json(envelope).encode()
    read = from_structured(RabbitMQMessage({}, STRUCTURED, body), FORMAT)
    assert (read.get_id(), read.get_source(), read.get_time()) == (str(RUN), "/상점", envelope.time)


def _foreign(data: Any, **attributes: Any) -> CloudEvent:
    required = {"id": "order 1", "source": "/상점", "type": "feedback.evaluate"}
    return CloudEvent({**required, "datacontenttype": "application/json", **attributes}, data)


@pytest.mark.parametrize("write", [to_binary, to_structured])
def test_we_read_what_the_sdk_writes(write: Any) -> None:
    time = datetime(2025, 10, 17, 9, tzinfo=UTC)
    sent: RabbitMQMessage = write(_foreign({"app": "shop", "window": "7d"}, time=time), FORMAT)
    headers = {**sent.headers, "content-type": sent.content_type or ""}
    envelope = decode(Message("feedback.evaluate", headers, sent.body))
    assert envelope.event == FeedbackEvaluate(app="shop", window="7d")
    assert envelope.id == event_id("/상점", "order 1")
    assert (envelope.source, envelope.time, envelope.anonymous) == ("/상점", time, False)


def test_we_read_structured_data_that_the_sdk_wrote_as_base64() -> None:
    event = _foreign(b'{"app": "shop"}', datacontenttype="application/octet-stream")
    sent = to_structured(event, FORMAT)
    assert b"data_base64" in sent.body
    envelope = decode(Message("", {"content-type": STRUCTURED}, sent.body))
    assert envelope.event == FeedbackEvaluate(app="shop")


# --- the envelope is filled in --------------------------------------------------------------


def test_a_bare_body_is_typed_by_its_routing_key_and_anonymous() -> None:
    envelope = decode(Message("feedback.evaluate", {}, b'{"app": "shop"}'))
    assert envelope.event == FeedbackEvaluate(app="shop")
    assert envelope.anonymous


def test_an_empty_body_has_the_defaults() -> None:
    assert decode(Message("feedback.evaluate", {}, b"")).event == FeedbackEvaluate()


def test_only_an_evaluation_may_be_anonymous() -> None:
    with pytest.raises(InvalidMessage, match="neither ce-id nor message_id"):
        decode(Message("loop.paused", {}, b"{}"))


def test_header_names_and_content_types_have_no_case() -> None:
    upper = decode(Message("", {"CE-Type": "loop.paused", "Ce-Id": "1"}, b"{}"))
    assert upper.event == LoopPaused()
    body = to_json(_envelope()).encode()
    assert decode(Message("", {"Content-Type": "Application/CloudEvents+JSON"}, body)).id == RUN


def test_an_id_that_is_no_uuid_is_folded_with_its_source() -> None:
    assert event_id("/a", "1") == event_id("/a", "1")
    assert event_id("/a", "1") != event_id("/b", "1")
    assert event_id("/a", str(RUN)) == RUN


def test_a_time_without_offset_is_utc() -> None:
    envelope = decode(Message("loop.paused", {"ce-id": "1", "ce-time": "2025-10-17T09:00:00"}, b"{}"))
    assert envelope.time == datetime(2025, 10, 17, 9, tzinfo=UTC)


LARGE_GENERATION = b'{"generation": 9223372036854775808, "batch": 0}'
LARGE_BATCH = b'{"generation": 1, "batch": 2147483648}'


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        ({}, b"{", "not JSON"),
        ({}, b"\xff\xfe\xff", "not JSON"),
        ({}, b"[" * 100_000, "not JSON"),
        ({}, b'{"scheduled": NaN}', "NaN is no JSON"),
        ({}, b"[]", "valid dictionary"),
        ({}, b"null", "valid dictionary"),
        ({}, b'{"app": ""}', "app: "),
        ({}, b'{"app": "two words"}', "app: "),
        ({}, b'{"window": "a while"}', "window: "),
        ({}, b'{"as_of": "yesterday"}', "as_of: "),
        ({}, b'{"as_of": "2025-10-17T09:00:00"}', "as_of: "),
        ({}, b'{"as_of": "0001-01-01T00:00:00+14:00"}', "as_of: "),
        ({}, b'{"requested_by": "\\u0000"}', r"U\+0000"),
        ({}, b'{"requested_by": "\\ud800"}', "requested_by: "),
        ({"ce-type": "embedding.requested", "ce-id": "1"}, LARGE_GENERATION, "generation: "),
        ({"ce-type": "embedding.requested", "ce-id": "1"}, LARGE_BATCH, "batch: "),
        ({"ce-type": "rollback.requested", "ce-id": "1"}, b'{"to_generation": -1}', "to_generation: "),
        ({"ce-type": "x.y"}, b"{}", "unknown event type 'x.y'"),
        ({"ce-source": "\x00"}, b"{}", "'source' holds control"),
        ({"ce-id": "\udcff"}, b"{}", "'id' holds control"),
        ({"ce-time": "noon"}, b"{}", "time: "),
        ({"ce-time": "0001-01-01T00:00:00+14:00"}, b"{}", "time: "),
        ({"content-type": STRUCTURED}, b"[]", "is a JSON object"),
        ({"content-type": STRUCTURED}, b'{"id": "1"}', "needs the attribute 'source'"),
        (
            {"content-type": STRUCTURED},
            b'{"id": "1", "source": "s", "type": "loop.paused", "specversion": "1.0", "data_base64": "%"}',
            "data_base64: ",
        ),
        ({"ce-type": "retrain.completed", "ce-id": "1"}, b"{}", "outcome: Field required"),
        (
            {"ce-type": "retrain.completed", "ce-id": "1"},
            b'{"outcome": "failed", "reason": "manual", "seconds": 1e999}',
            "seconds: ",
        ),
        (
            {"ce-type": "retrain.completed", "ce-id": "1"},
            b'{"outcome": "failed", "reason": "manual", "gate": {"a": %s}}' % (b"[" * 300 + b"]" * 300),
            "data: ",
        ),
    ],
)
def test_what_is_no_event_is_refused_with_a_reason(headers: dict[str, str], body: bytes, reason: str) -> None:
    with pytest.raises(InvalidMessage, match=reason):
        decode(Message("feedback.evaluate", headers, body))


# --- properties -----------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)
attributes = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=50)
# Offsets rather than named zones: Python calls no two times equal where a zone's clocks go back.
offsets = st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=offsets)  # noqa: DTZ001
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        FeedbackEvaluate,
        app=st.text("aZ09_.-가é", min_size=1, max_size=64),
        as_of=st.none() | times,
        window=st.none() | st.just("since_last") | st.from_regex(r"[1-9][0-9]{0,4}[mhd]", fullmatch=True),
        requested_by=texts,
        scheduled=st.booleans(),
    ),
    st.builds(LoopPaused, why=texts, requested_by=texts, until=st.none() | times),
    st.builds(
        GenerationBuilt, generation=st.integers(0, 2**63 - 1), chunks=st.integers(), batches=st.integers()
    ),
)
envelopes = st.builds(
    Envelope,
    id=st.uuids(),
    event=events,
    source=attributes,
    correlation=st.uuids(),
    cause=st.none() | st.uuids(),
    time=times,
    traceparent=st.none() | attributes,
)


@given(envelopes)
def test_an_envelope_survives_the_wire_and_the_outbox(envelope: Envelope) -> None:
    assert decode(encode(envelope)) == envelope
    assert from_json(json.loads(to_json(envelope))) == envelope


@given(envelopes)
def test_writing_again_gives_the_same_bytes(envelope: Envelope) -> None:
    message = encode(envelope)
    assert encode(decode(message)) == message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = sorted({field for model in REGISTRY.values() for field in model.model_fields})
bodies = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(fields), json_values, max_size=4).map(
        lambda value: json.dumps(value).encode()
    ),
    st.sampled_from(FILES).map(lambda path: json.dumps(golden(path)["data"]).encode()),
)
headers = st.dictionaries(
    st.sampled_from(
        ["ce-id", "ce-type", "ce-source", "ce-time", "ce-correlationid", "content-type", "traceparent"]
    )
    | st.text(max_size=10),
    st.sampled_from([STRUCTURED, *REGISTRY]) | st.text(max_size=30),
    max_size=6,
)


@settings(max_examples=200)
@given(st.sampled_from(sorted(REGISTRY)) | st.text(max_size=20), headers, bodies)
def test_whatever_comes_is_an_event_that_can_be_written_or_is_invalid(
    routing_key: str, headers: dict[str, str], body: bytes
) -> None:
    try:
        envelope = decode(Message(routing_key, headers, body))
    except InvalidMessage:
        return
    if not envelope.anonymous:
        assert decode(encode(envelope)).id == envelope.id
    to_json(envelope).encode()


@given(st.uuids(), attributes, attributes, attributes)
def test_a_derived_id_depends_on_every_part(cause: uuid.UUID, consumer: str, type: str, key: str) -> None:
    id = derived(cause, consumer, type, key)
    assert id == derived(cause, consumer, type, key)
    others = {
        derived(uuid.uuid5(cause, "other"), consumer, type, key),
        derived(cause, consumer + "x", type, key),
        derived(cause, consumer, type + "x", key),
        derived(cause, consumer, type, key + "x"),
    }
    assert id not in others
    assert len(others) == 4


def test_a_built_generation_has_one_id_whichever_batch_came_last() -> None:
    built = GenerationBuilt(generation=4, chunks=1, batches=1)
    assert built.identity(uuid.uuid4(), "embedder") == built.identity(uuid.uuid4(), "another")
    other = GenerationBuilt(generation=5, chunks=1, batches=1)
    assert built.identity(RUN, "embedder") != other.identity(RUN, "embedder")
