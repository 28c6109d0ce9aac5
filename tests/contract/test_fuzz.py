"""The HTTP interface under requests that nobody would write, held against its own description.

`FUZZ_EXAMPLES` asks for that many requests to each operation, other ones each time; without it they are
few, and always the same.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from schemathesis import Case, CheckContext, GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from shared.runtime import Runtime
from tests.support.openapi import TOKEN, furnished

Start = Callable[..., Awaitable[Runtime]]

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def no_server_error(context: CheckContext, response: Response, case: Case[Any]) -> bool | None:
    """As Schemathesis has it, but that only one reader at a time gets a file of votes."""
    busy = b"another file is being written" in response.content
    return True if busy else not_a_server_error(context, response, case)


CHECKS = [
    no_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
    ignored_auth,
]
FEW = 8
LONGEST_URL = 8000
"""Characters; more than 8,190 in a line are refused before any route sees them."""
LEFT_OUT = {
    "/dashboard/stream": "its answer does not end by itself",
    "/static/vega.js": "takes long to make, and takes no input",
}


@pytest.mark.timeout(3600 if EXAMPLES else 300)
async def test_whatever_is_asked_is_answered_as_described(start: Start, tmp_path: Path) -> None:
    url, document = await furnished(start, tmp_path)
    assert await asyncio.to_thread(asked, url, document) == []


def fits(case: Case[Any]) -> bool:
    """Whether the URL is short enough for an HTTP server to read it."""
    kwargs = case.as_transport_kwargs(base_url="http://localhost")
    prepared = requests.Request("GET", kwargs["url"], params=kwargs.get("params")).prepare()
    return len(prepared.url or "") < LONGEST_URL


def asked(url: str, document: dict[str, Any]) -> list[str]:
    """What is wrong with the answers."""
    schema = schemathesis.openapi.from_dict(document)
    wrong = []
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        if operation.path in LEFT_OUT:
            continue
        modes = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

        @settings(
            max_examples=EXAMPLES or FEW,
            database=None,
            deadline=None,
            derandomize=not EXAMPLES,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=st.one_of(modes))
        def ask(case: Case[Any]) -> None:
            assume(fits(case))
            case.call_and_validate(
                base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, checks=CHECKS, timeout=20
            )

        try:
            ask()
        except (Exception, FailureGroup) as error:
            wrong.append(f"{operation.label}: {error}")
    return wrong
