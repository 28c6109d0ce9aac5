"""The events as an AsyncAPI 3.0 document: what travels, under which routing key, from whom, to whom.

Made of the registry of events, of what exists on the broker (`Topology`), and of what services say of
themselves: which types they take (their registrations) and which they send (`Contract.sends`).

What is guaranteed (by tests): the document fits AsyncAPI's own schema, and the bindings are those of
AMQP 0-9-1 in version 0.3.0. What is not: which of the events a service sends in which case.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from shared.bus.port import Topology
from shared.contracts.schemas import schemas
from shared.events import REGISTRY, Event, LoopFailed

__all__ = ["Party", "document"]

AMQP = {"bindingVersion": "0.3.0"}
SENT = {"amqp": {"deliveryMode": 2, "mandatory": True, **AMQP}}
TAKEN = {"amqp": {"ack": True, **AMQP}}


@dataclass(frozen=True, slots=True)
class Party:
    """A service, as the bus sees it.

    Attributes:
        takes: types it consumes; none: it has no queue.
        announces: whether it tells of an event that it gives up.
    """

    name: str
    about: str
    takes: Sequence[type[Event]]
    sends: Sequence[type[Event]]
    announces: bool = True


def document(parties: Iterable[Party], topology: Topology) -> dict[str, Any]:
    """The AsyncAPI document."""
    parties = list(parties)
    consumers = [party for party in parties if party.takes]
    payloads, components = schemas(("in", model) for model in REGISTRY.values())
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "AI Feedback Loop",
            "version": version("ai-feedback-loop"),
            "description": (
                "Events are CloudEvents 1.0 in binary mode; the routing key is the type. Every consumer takes"
                " each event at least once, in any order. A foreign publisher may send a `feedback.evaluate`"
                " as a bare JSON body, or a CloudEvent in structured mode."
            ),
            "license": {"name": "MIT"},
            "tags": [{"name": party.name, "description": party.about} for party in parties],
        },
        "defaultContentType": "application/json",
        "servers": {"rabbitmq": _server()},
        "channels": {
            **{type: _key(type, topology) for type in REGISTRY},
            **{topology.queue(party.name): _queue(party, topology) for party in consumers},
            topology.dead: _dead(topology),
        },
        "operations": {**_sending(parties), **_taking(consumers, topology)},
        "components": {
            "messages": {
                type: _message(model, payloads["in", model]) for type, model in sorted(REGISTRY.items())
            },
            "schemas": {"Headers": HEADERS, **_draft7(dict(sorted(components.items())))},
        },
    }


def _server() -> dict[str, Any]:
    return {
        "host": "{host}",
        "protocol": "amqp",
        "protocolVersion": "0.9.1",
        "description": "The RabbitMQ of `AMQP_URL`, 3.13 or later",
        "variables": {"host": {"default": "localhost:5672"}},
    }


# --- channels -----------------------------------------------------------------------------------


def _key(type: str, topology: Topology) -> dict[str, Any]:
    exchange = {"name": topology.exchange, "type": "topic", "durable": True, "autoDelete": False}
    return {
        "address": type,
        "title": type,
        "messages": {type: _reference("components", "messages", type)},
        "bindings": {"amqp": {"is": "routingKey", "exchange": exchange, **AMQP}},
    }


def _queue(party: Party, topology: Topology) -> dict[str, Any]:
    types = sorted(model.type for model in party.takes)
    name = topology.queue(party.name)
    return {
        "address": name,
        "title": f"The queue of the {party.name}",
        "description": (
            f"Bound to the exchange `{topology.exchange}` by {', '.join(f'`{type}`' for type in types)}."
            f" What fails comes again after {', '.join(f'{delay:g}' for delay in topology.ladder)} seconds,"
            f" and then lies in `{topology.dead}`."
        ),
        "messages": {type: _reference("components", "messages", type) for type in types},
        "bindings": _queue_binding(name, topology),
    }


def _dead(topology: Topology) -> dict[str, Any]:
    return {
        "address": topology.dead,
        "title": "Dead letters",
        "description": (
            "What was given up, whole, with the headers `x-consumer`, `x-routing-key` and `x-reason`. What"
            " is no event at all lies here too."
        ),
        "messages": {type: _reference("components", "messages", type) for type in REGISTRY},
        "bindings": _queue_binding(topology.dead, topology),
    }


def _queue_binding(name: str, topology: Topology) -> dict[str, Any]:
    queue = {"name": name, "durable": True, "exclusive": False, "autoDelete": False}
    return {"amqp": {"is": "queue", "queue": queue, "x-queue-type": topology.queue_type, **AMQP}}


# --- operations ---------------------------------------------------------------------------------


def _sending(parties: Iterable[Party]) -> dict[str, Any]:
    operations = {}
    for party in parties:
        sent: list[type[Event]] = [*party.sends]
        if party.takes and party.announces:
            sent.append(LoopFailed)
        for model in sent:
            operations[f"{party.name}.sends.{model.type}"] = {
                "action": "send",
                "channel": _reference("channels", model.type),
                "summary": f"The {party.name} sends `{model.type}`",
                "tags": [{"name": party.name}],
                "messages": [_reference("channels", model.type, "messages", model.type)],
                "bindings": SENT,
            }
    return operations


def _taking(consumers: Iterable[Party], topology: Topology) -> dict[str, Any]:
    operations = {}
    for party in consumers:
        queue = topology.queue(party.name)
        for type in sorted(model.type for model in party.takes):
            operations[f"{party.name}.takes.{type}"] = {
                "action": "receive",
                "channel": _reference("channels", queue),
                "summary": f"The {party.name} takes `{type}`",
                "tags": [{"name": party.name}],
                "messages": [_reference("channels", queue, "messages", type)],
                "bindings": TAKEN,
            }
    return operations


# --- messages -----------------------------------------------------------------------------------

_TEXT = {"type": "string", "minLength": 1}
HEADERS = {
    "type": "object",
    "description": "The attributes of the CloudEvent, and where the event stands in its run",
    "required": ["ce-specversion", "ce-id", "ce-type", "ce-source"],
    "properties": {
        "ce-specversion": {"const": "1.0"},
        "ce-id": {**_TEXT, "description": "With its source, tells events apart; ours are UUIDs"},
        "ce-type": {**_TEXT, "description": "The routing key, too"},
        "ce-source": {**_TEXT, "description": "Who sent it, such as `/feedback-loop/analyzer`"},
        "ce-time": {"type": "string", "format": "date-time"},
        "ce-correlationid": {
            "type": "string",
            "format": "uuid",
            "description": "The run, or other first event, that it descends from",
        },
        "ce-causationid": {"type": "string", "format": "uuid", "description": "The event it follows from"},
        "traceparent": {"type": "string", "description": "https://www.w3.org/TR/trace-context/"},
    },
}


def _message(model: type[Event], payload: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": model.type,
        "title": model.__name__,
        "summary": inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0],
        "contentType": "application/json",
        "headers": _reference("components", "schemas", "Headers"),
        "payload": _draft7(payload),
        "correlationId": {"location": "$message.header#/ce-correlationid"},
        "bindings": {"amqp": {"messageType": model.type, **AMQP}},
    }


def _reference(*path: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(path)}


def _draft7(schema: Any) -> Any:
    """The schema in JSON Schema draft 7, AsyncAPI's own dialect: a tuple is a list of `items`."""
    match schema:
        case {"$ref": reference}:
            return {"$ref": reference}  # what stands beside a reference does not count there
        case dict():
            named = {"prefixItems": "items"}
            return {named.get(name, name): _draft7(value) for name, value in schema.items()}
        case list():
            return [_draft7(entry) for entry in schema]
    return schema
