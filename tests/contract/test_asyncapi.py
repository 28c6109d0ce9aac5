"""The AsyncAPI document against its standard's own schema, the registry, and the code that sends events."""

from __future__ import annotations

import ast
import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from scripts import contracts
from services.up import SERVICES, compose
from shared.bus.envelope import encode, from_json
from shared.bus.port import Topology
from shared.contracts import asyncapi
from shared.events import REGISTRY, FeedbackEvaluate, LoopFailed
from shared.runtime import Runtime

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((Path(__file__).parent / "schemas" / "asyncapi-3.0.0.json").read_text(encoding="utf-8"))
"""AsyncAPI's own, as published in the package `@asyncapi/specs` (Apache License 2.0)."""
GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return compose(contracts.settings())


@pytest.fixture(scope="module")
def described(runtime: Runtime) -> dict[str, Any]:
    # As other programs read it.
    whole: dict[str, Any] = json.loads(json.dumps(asyncapi.document(runtime.parties, Topology())))
    return whole


def wrong(document: dict[str, Any]) -> list[str]:
    return [error.json_path for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(document)]


# --- the standard -------------------------------------------------------------------------------


def test_the_document_fits_asyncapis_own_schema(described: dict[str, Any]) -> None:
    assert wrong(described) == []


def test_a_binding_of_another_version_does_not(described: dict[str, Any]) -> None:
    # Otherwise the test above would prove nothing of bindings.
    broken = copy.deepcopy(described)
    broken["channels"]["feedback.evaluate"]["bindings"]["amqp"]["bindingVersion"] = "9.9.9"
    assert wrong(broken)


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    for reference in references(described):
        at: Any = described
        for part in reference.removeprefix("#/").split("/"):
            assert part in at, reference
            at = at[part]


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return [*own, *(found for entry in value.values() for found in references(entry))]
    return [found for entry in value for found in references(entry)] if isinstance(value, list) else []


def test_the_published_document_is_up_to_date() -> None:
    assert contracts.main(["--check"]) == 0


# --- the registry and the broker ----------------------------------------------------------------


def test_every_type_has_a_channel_and_a_message(described: dict[str, Any]) -> None:
    kinds = {name: channel["bindings"]["amqp"]["is"] for name, channel in described["channels"].items()}
    keys = {name for name, kind in kinds.items() if kind == "routingKey"}
    assert keys == set(REGISTRY) == described["components"]["messages"].keys()


def test_every_consumer_has_its_queue_and_takes_what_it_registered(
    runtime: Runtime, described: dict[str, Any]
) -> None:
    topology = Topology()
    for service in runtime.services:
        taken = {registration.event.type for registration in service.registrations}
        channel = described["channels"].get(topology.queue(service.name), {"messages": {}})
        assert channel["messages"].keys() == taken
        assert taken == {
            operation["messages"][0]["$ref"].rpartition("/")[2]
            for operation in described["operations"].values()
            if operation["action"] == "receive" and operation["tags"] == [{"name": service.name}]
        }


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_json_fits_its_payload_and_headers(path: Path, described: dict[str, Any]) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))
    message = described["components"]["messages"][stored["type"]]
    components = {"components": described["components"]}
    jsonschema.Draft7Validator({**message["payload"], **components}).validate(stored["data"])
    headers = dict(encode(from_json(stored)).headers)
    jsonschema.Draft7Validator({**message["headers"], **components}).validate(headers)


def test_what_is_no_evaluation_does_not_fit(described: dict[str, Any]) -> None:
    payload = described["components"]["messages"][FeedbackEvaluate.type]["payload"]
    validator = jsonschema.Draft7Validator({**payload, "components": described["components"]})
    assert not validator.is_valid({"window": "a while"})


# --- who sends ----------------------------------------------------------------------------------

COMMANDS = {
    *("feedback.evaluate", "generation.requested", "rollback.requested", "loop.paused", "loop.resumed"),
    "webhook.test",
}
"""What `shared/commands.py` makes, of which a service may offer some."""


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_says_that_it_sends_what_its_code_makes(name: str, runtime: Runtime) -> None:
    parties = (name, "webhook") if name == "notifier" else (name,)  # which is the notifier's
    said = {model.type for party in runtime.parties if party.name in parties for model in party.sends}
    made = {model.type for model in REGISTRY.values() if model.__name__ in called(ROOT / "services" / name)}
    assert made <= said
    # The rest is made in `shared`: commands, and the trigger's runs.
    assert said - made <= (COMMANDS if name in ("dashboard", "notifier", "trigger") else set())
    assert LoopFailed.type not in said


def called(folder: Path) -> set[str]:
    """Names that are called in a folder's modules, contracts left out."""
    return {
        node.func.id
        for path in folder.rglob("*.py")
        if path.name != "operations.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def test_every_type_is_sent_by_someone(described: dict[str, Any]) -> None:
    sent = {
        operation["channel"]["$ref"].rpartition("/")[2]
        for operation in described["operations"].values()
        if operation["action"] == "send"
    }
    assert sent == set(REGISTRY)
