"""The HTTP interface as an OpenAPI 3.1 document, made of the routes themselves.

A service describes its routes in a table, `operations.py`, beside the code that answers them. Who may call
a route, and how large a body may be, is what its `Guard` says (`access.py`).

What is guaranteed (by tests): every route is described, every description has its route, and what running
services answer fits. What is not: that every request the document allows is taken; some rules, such as
"a date in the past", are sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

from aiohttp import web
from pydantic import BaseModel

from shared.contracts.answers import Problem, Unavailable
from shared.contracts.contract import Answer, Operation, Operations
from shared.contracts.schemas import REFERENCE, Direction, schemas
from shared.web.access import Access, access_of

__all__ = ["Group", "document"]


class Refusal(NamedTuple):
    """An answer that many routes give, and its name in the document."""

    name: str
    answer: Answer


REFUSALS = {
    304: Refusal("NotModified", Answer("Not modified")),
    400: Refusal("Unreadable", Answer("Not JSON, or otherwise not to be read", Problem)),
    401: Refusal("Unknown", Answer("The token, or the signature, is missing or wrong", Problem)),
    403: Refusal("Closed", Answer("Closed until a token is set, or not for this one", Problem)),
    404: Refusal("Missing", Answer("There is no such thing", Problem)),
    408: Refusal("Slow", Answer("The body has not arrived in time", Problem)),
    409: Refusal("Taken", Answer("This request has been taken already", Problem)),
    413: Refusal("Large", Answer("The body is too large", Problem)),
    415: Refusal("Foreign", Answer("Another content type than these", Problem)),
    422: Refusal("Unfit", Answer("A field does not fit", Problem)),
    429: Refusal("Often", Answer("Too many requests", Problem, headers={"Retry-After": "Seconds to wait"})),
    503: Refusal("Unavailable", Answer("Not now; the same request may work later", Unavailable)),
}

OPENED_BY = {
    "trigger": ("TRIGGER_TOKEN", "ADMIN_TOKEN"),
    "vote": ("API_TOKEN", "ADMIN_TOKEN"),
    "read": ("READ_TOKEN", "API_TOKEN", "ADMIN_TOKEN"),
    "admin": ("ADMIN_TOKEN",),
}
"""Scope → the settings whose tokens open it, as `access.py` has it."""


@dataclass(frozen=True, slots=True)
class Group:
    """The routes of one service, and what they do."""

    name: str
    about: str
    routes: Sequence[web.AbstractRouteDef]
    operations: Operations


def document(groups: Iterable[Group]) -> dict[str, Any]:
    """The OpenAPI document of these routes; a route that nothing describes is left out."""
    groups = list(groups)
    described = [entry for group in groups for entry in _described(group)]
    found, components = schemas(wanted for _, _, operation, _ in described for wanted in _types(operation))
    writer = _Writer(found, components)
    paths: dict[str, Any] = {}
    for group, route, operation, access in described:
        written = writer.operation(route, operation, access)
        paths.setdefault(route.path, {})[route.method.lower()] = {"tags": [group.name], **written}
    referred = _referred([paths, writer.refusals()], components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AI Feedback Loop",
            "version": version("ai-feedback-loop"),
            "description": "Votes in, a daily judgement of them, better retrieval, and a report in Slack.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": group.name, "description": group.about} for group in groups],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in sorted(components.items()) if name in referred},
            "responses": writer.refusals(),
            "securitySchemes": _schemes(),
        },
    }


def _described(group: Group) -> Iterator[tuple[Group, web.RouteDef, Operation, Access]]:
    for route in group.routes:
        assert isinstance(route, web.RouteDef)
        operation, access = group.operations.get((route.method, route.path)), access_of(route.handler)
        if operation is not None and access is not None:
            yield group, route, operation, access


def _types(operation: Operation) -> Iterator[tuple[Direction, Any]]:
    yield from (("out", answer.model) for answer in operation.answers.values() if answer.model is not None)
    taken = (operation.query, operation.headers, *operation.path.values(), *operation.bodies.values())
    yield from (("in", kind) for kind in taken if kind is not None)
    yield from (("out", Problem), ("out", Unavailable))


def _referred(value: Any, components: Mapping[str, Any]) -> set[str]:
    """The names of the components that something refers to, directly or by others."""
    names, waiting = set[str](), [value]
    while waiting:
        match waiting.pop():
            case {"$ref": str() as reference, **others} if reference.startswith(REFERENCE):
                name = reference.removeprefix(REFERENCE)
                if name not in names:
                    names.add(name)
                    waiting.append(components[name])
                waiting += others.values()
            case dict() as members:
                waiting += members.values()
            case list() as members:
                waiting += members
    return names


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes single operations, from the schemas of everything that they name."""

    found: Mapping[tuple[Direction, Any], dict[str, Any]]
    components: Mapping[str, Any]

    def operation(self, route: web.RouteDef, operation: Operation, access: Access) -> dict[str, Any]:
        parameters = [
            *(
                {"name": name, "in": "path", "required": True, "schema": self.found["in", kind]}
                for name, kind in operation.path.items()
            ),
            *self._parameters(operation.query, "query"),
            *self._parameters(operation.headers, "header"),
        ]
        written: dict[str, Any] = {
            "operationId": _id(route),
            "summary": operation.summary,
            "description": _sentences(operation, access),
        }
        if parameters:
            written["parameters"] = parameters
        if operation.bodies:
            content = {media: {"schema": self.found["in", kind]} for media, kind in operation.bodies.items()}
            written["requestBody"] = {"required": operation.needs_body, "content": content}
        written["responses"] = self._responses(operation, access)
        written["security"] = _security(access)
        return written

    def _parameters(self, model: type[BaseModel] | None, place: str) -> Iterator[dict[str, Any]]:
        if model is None:
            return
        schema = self.found["in", model]
        if "$ref" in schema:
            schema = self.components[schema["$ref"].removeprefix(REFERENCE)]
        for name, given in schema["properties"].items():
            its = _without_null(given)
            written = {"name": name, "in": place, "required": name in schema.get("required", ())}
            if "description" in its:
                written["description"] = its.pop("description")
            yield {**written, "schema": its}

    def _responses(self, operation: Operation, access: Access) -> dict[str, Any]:
        answers = {status: self._response(answer) for status, answer in operation.answers.items()}
        for status in {*operation.fails, *_refusals(operation, access)} - answers.keys():
            answers[status] = {"$ref": f"#/components/responses/{REFUSALS[status].name}"}
        return {str(status): answer for status, answer in sorted(answers.items())}

    def refusals(self) -> dict[str, Any]:
        return {refusal.name: self._response(refusal.answer) for refusal in REFUSALS.values()}

    def _response(self, answer: Answer) -> dict[str, Any]:
        written: dict[str, Any] = {"description": answer.description}
        if answer.headers:
            written["headers"] = {
                name: {"description": said, "schema": {"type": "string"}}
                for name, said in answer.headers.items()
            }
        if answer.model is not None:
            written["content"] = {answer.media: {"schema": self.found["out", answer.model]}}
        return written


def _refusals(operation: Operation, access: Access) -> Iterator[int]:
    """What may be refused because of who calls, how often, and with what body."""
    if access.rate != "none":
        yield 429
    if access.kind == "token":
        yield from (401, 403)
    if access.kind == "slack":
        yield from (401, 403, 409)
    if operation.bodies:
        yield from (400, 408, 413, 422)
        if access.kind != "slack":
            yield 415


def _sentences(operation: Operation, access: Access) -> str:
    parts = [operation.description] if operation.description else []
    if operation.bodies:
        parts.append(f"A body has at most {access.body:,} bytes.")
    if access.personal:
        parts.append("Shows what people wrote: in production it is never open.")
    return " ".join(parts)


def _id(route: web.RouteDef) -> str:
    words = "".join(letter if letter.isalnum() else " " for letter in route.path).split()
    return "_".join([route.method.lower(), *(words or ["page"])])


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter's schema: it is there or not, and never null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    if rest.get("default", ...) is None:
        del rest["default"]
    if len(kinds) == 1:
        return {**kinds[0], **rest}
    return {**rest, "anyOf": kinds} if kinds else rest


# --- who may call -------------------------------------------------------------------------------


def _security(access: Access) -> list[dict[str, list[str]]]:
    if access.kind == "slack":
        return [{"slack": [], "slackTime": []}]
    if access.scope is None:
        return []
    named = [*OPENED_BY[access.scope], *(["voteToken"] if access.browser else [])]
    return [{name: []} for name in named]


def _schemes() -> dict[str, Any]:
    tokens = {
        name: {"type": "http", "scheme": "bearer", "description": f"The token set as `{name}`. {said}"}
        for name, said in {
            "TRIGGER_TOKEN": "Where it is not set, runs are open to everyone.",
            "API_TOKEN": "Where it is not set, votes are open to everyone.",
            "READ_TOKEN": "Where it is not set, figures are open to everyone; people's words in development.",
            "ADMIN_TOKEN": "Opens everything; where it is not set, `API_TOKEN` stands for it.",
        }.items()
    }
    slack = {"type": "apiKey", "in": "header"}
    return {
        **tokens,
        "voteToken": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A token of `POST /vote-tokens`: it votes in one conversation, for a while.",
        },
        "slack": {**slack, "name": "X-Slack-Signature", "description": "Slack signs its requests."},
        "slackTime": {**slack, "name": "X-Slack-Request-Timestamp", "description": "When it did."},
    }
