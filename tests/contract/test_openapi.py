"""The OpenAPI document against the routes that there are, its standard, and what the services answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator

from scripts import contracts
from services.dashboard import replies
from services.trigger.build import build as trigger
from services.up import compose
from shared.runtime import Runtime
from shared.settings import Settings
from shared.web.access import access_of
from shared.web.openapi import document
from tests.support.openapi import TOKEN, furnished

Start = Callable[..., Awaitable[Runtime]]


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return compose(Settings(_env_file=None))


@pytest.fixture(scope="module")
def described(runtime: Runtime) -> dict[str, Any]:
    return document(runtime.groups)


# --- what is described --------------------------------------------------------------------------


def test_every_route_is_described_and_every_description_has_its_route(runtime: Runtime) -> None:
    for group in runtime.groups:
        routes = {(route.method, route.path) for route in group.routes if isinstance(route, web.RouteDef)}
        assert routes == group.operations.keys(), group.name


def test_the_document_is_openapi_3_1(described: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(described).validate()


def test_the_published_document_is_up_to_date() -> None:
    assert contracts.main(["--check"]) == 0


def test_every_operation_has_a_name_of_its_own(described: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(described)]
    assert len(names) == len(set(names))


def test_who_may_call_is_what_the_routes_say(runtime: Runtime, described: dict[str, Any]) -> None:
    for group in runtime.groups:
        for route in group.routes:
            assert isinstance(route, web.RouteDef)
            access = access_of(route.handler)
            assert access is not None
            security = described["paths"][route.path][route.method.lower()]["security"]
            assert bool(security) == (access.kind != "open")
            assert ({"voteToken": []} in security) == (access.kind == "token" and access.browser)


def test_a_body_is_described_where_one_is_read(described: dict[str, Any]) -> None:
    without = {
        f"{method} {path}"
        for path, method, operation in operations(described)
        if method in ("post", "put") and "requestBody" not in operation
    }
    assert without == set()


def test_fields_carry_the_words_that_stand_beside_them(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    assert schemas["Vote"]["properties"]["chunks"]["type"] == "array"
    assert schemas["Accepted"]["properties"]["run"]["description"] == "The run that it starts, or joins."
    assert schemas["FeedbackBody"]["properties"]["reason"]["description"].startswith("The owner's field")


# --- what is answered ---------------------------------------------------------------------------

READS = [
    *("/healthz", "/readyz", "/openapi.json", "/runs", "/documents", "/search?q=topic"),
    *("/dashboard/access", "/dashboard/runs", "/dashboard/summary", "/dashboard/trend.json"),
    *("/dashboard/backtest", "/dashboard/groups", "/dashboard/votes"),
]


async def test_answers_that_are_full_have_the_fields_described_and_no_others(
    start: Start, tmp_path: Path
) -> None:
    url, described = await furnished(start, tmp_path)
    wrong = []
    async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {TOKEN}"}) as session:
        for path in READS:
            async with session.get(path) as response:
                answer = await response.json()
            operation = described["paths"][path.partition("?")[0]]["get"]
            schema = operation["responses"][str(response.status)]["content"]["application/json"]["schema"]
            wrong += [f"{path}: {error}" for error in errors(described, schema, answer)]
    assert wrong == []


def test_a_field_too_many_is_found(described: dict[str, Any]) -> None:
    # Otherwise the test above would prove nothing of additions.
    done = {"status": "ok", "message": "", "more": 1}
    assert errors(described, {"$ref": "#/components/schemas/Done"}, done)


def errors(described: dict[str, Any], schema: dict[str, Any], answer: Any) -> list[str]:
    """What of an answer does not fit its schema, fields that it does not name among it."""
    whole = {**closed(schema), "components": {"schemas": closed(described["components"]["schemas"])}}
    validator = jsonschema.Draft202012Validator(
        whole, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(answer)]


def closed(schema: Any) -> Any:
    """The schema, objects with no fields but those it names."""
    if isinstance(schema, list):
        return [closed(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        inner.setdefault("additionalProperties", False)
    return inner


def operations(described: dict[str, Any]) -> list[tuple[str, str, Any]]:
    return [
        (path, method, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]


# --- how it is served ---------------------------------------------------------------------------


@pytest.fixture
async def alone(start: Start) -> AsyncIterator[aiohttp.ClientSession]:
    """A process that runs nothing but the trigger."""
    runtime = await start([trigger])
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runtime.port}") as session:
        yield session


async def test_a_process_describes_its_own_routes(alone: aiohttp.ClientSession) -> None:
    async with alone.get("/openapi.json") as response:
        paths = (await response.json())["paths"]
    assert {"/run-feedback-loop", "/openapi.json"} <= paths.keys()
    assert "/feedback" not in paths


async def test_the_page_comes_with_a_policy_that_lets_nothing_else_in(alone: aiohttp.ClientSession) -> None:
    async with alone.get("/docs") as response:
        assert response.status == 200
        policy = response.headers["Content-Security-Policy"]
    assert policy == replies.SECURITY["Content-Security-Policy"]  # as strict as the dashboard's
    assert "unsafe" not in policy
