"""Both of Render's Blueprints, held against the fields that its "Blueprint YAML Reference" documents.

Written down from that page as of 2026-11: which fields a service of each type may have, which values they
take, and what a variable may refer to. Not checked: that Render's own validator agrees, and that the account
may have the plans. Nothing here was deployed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click
import pytest
import yaml

from services.cli import main as cli
from shared.settings import Settings
from tests.unit.test_deploy_files import SETTINGS, settings_from

ROOT = Path(__file__).parents[2]
BLUEPRINTS = {"free": ROOT / "render.yaml", "paid": ROOT / "deploy" / "render-paid.yaml"}

ROOT_FIELDS = {"services", "databases", "envVarGroups", "projects", "ungrouped", "previews"}
EVERY_SERVICE = {"type", "name", "runtime", "plan", "region", "envVars", "buildFilter", "autoDeployTrigger"}
FROM_GIT = {"repo", "branch", "rootDir", "dockerCommand", "dockerContext", "dockerfilePath"}
OF_TYPE = {
    "web": {"healthCheckPath", "domains", "maxShutdownDelaySeconds", "numInstances", "scaling", "disk"},
    "pserv": {"maxShutdownDelaySeconds", "numInstances", "scaling", "disk"},
    "worker": {"maxShutdownDelaySeconds", "numInstances", "scaling", "disk"},
    "cron": {"schedule"},
}
PLANS = {
    "web": {"free", "starter", "standard", "pro", "pro plus", "pro max", "pro ultra"},
    "pserv": {"starter", "standard", "pro", "pro plus", "pro max", "pro ultra"},
    "worker": {"starter", "standard", "pro", "pro plus", "pro max", "pro ultra"},
    "cron": {"starter", "standard", "pro", "pro plus"},
}
REGIONS = {"oregon", "ohio", "virginia", "frankfurt", "singapore"}
PROPERTIES = {"host", "port", "hostport"}
"""Of a service that has an address: a web or a private one."""

OWN = {"RABBITMQ_HOST", "RABBITMQ_PASSWORD"}
"""Variables that only an address names."""


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


def read(name: str) -> dict[str, Any]:
    blueprint: dict[str, Any] = yaml.safe_load(BLUEPRINTS[name].read_text(encoding="utf-8"))
    return blueprint


def services(name: str) -> dict[str, dict[str, Any]]:
    listed = read(name)["services"]
    found = {service["name"]: service for service in listed}
    assert len(found) == len(listed)
    return found


def variables(service: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The variables of a service, without those of its groups."""
    return {entry["key"]: entry for entry in service["envVars"] if "key" in entry}


OURS = [
    pytest.param(name, service, id=f"{name}-{service}")
    for name in BLUEPRINTS
    for service, content in services(name).items()
    if content["runtime"] == "docker"
]


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_has_documented_fields_only(name: str) -> None:
    assert set(read(name)) <= ROOT_FIELDS
    for service in services(name).values():
        kind, source = service["type"], {"docker": FROM_GIT, "image": {"image"}}[service["runtime"]]
        assert set(service) <= EVERY_SERVICE | OF_TYPE[kind] | source, service["name"]
        assert service["plan"] in PLANS[kind]
        assert service["region"] in REGIONS
        assert ("schedule" in service) == (kind == "cron")
        assert 1 <= service.get("maxShutdownDelaySeconds", 30) <= 300
        assert service.get("healthCheckPath", "/healthz") == "/healthz"
        if service["runtime"] == "image":
            assert set(service["image"]) <= {"url", "creds"}
        if "disk" in service:
            assert {"name", "mountPath"} <= set(service["disk"]) <= {"name", "mountPath", "sizeGB"}
            assert "numInstances" not in service, "a service with a disk cannot be scaled"


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_variable_has_one_source_that_is_there(name: str) -> None:
    blueprint, all_services = read(name), services(name)
    groups = {group["name"]: group for group in blueprint.get("envVarGroups", ())}
    for group in groups.values():  # a group cannot ask for a value, nor refer to one
        assert all(set(entry) in ({"key", "value"}, {"key", "generateValue"}) for entry in group["envVars"])
    for service in all_services.values():
        for entry in service["envVars"]:
            if "fromGroup" in entry:
                assert set(entry) == {"fromGroup"} and entry["fromGroup"] in groups
                continue
            ((source, value),) = [(key, value) for key, value in entry.items() if key != "key"]
            if source == "fromService":
                _refers(value, all_services)
            elif source == "sync":
                assert value is False, "`sync: true` is no field of Render's"
            elif source == "generateValue":
                assert value is True
            else:
                assert source == "value" and isinstance(value, str)


def _refers(reference: dict[str, str], all_services: dict[str, dict[str, Any]]) -> None:
    """What `fromService` names is there, and has it."""
    there = all_services[reference["name"]]
    assert reference["type"] == there["type"]
    if "property" in reference:
        assert set(reference) == {"name", "type", "property"}
        assert reference["property"] in PROPERTIES and there["type"] in ("web", "pserv")
    else:
        assert set(reference) == {"name", "type", "envVarKey"}
        assert reference["envVarKey"] in variables(there)


@pytest.mark.parametrize(("name", "service"), OURS)
def test_the_environment_is_known_valid_and_holds_no_secret(
    name: str, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, groups = services(name)[service], read(name).get("envVarGroups", ())
    given = variables(content)
    for entry in content["envVars"]:
        for group in groups:
            if entry.get("fromGroup") == group["name"]:
                given |= variables(group)
    assert set(given) <= SETTINGS | OWN
    secret = {name.upper() for name, field in Settings.model_fields.items() if "Secret" in str(field)}
    fixed = {key: entry["value"] for key, entry in given.items() if "value" in entry}
    assert {key for key in fixed if key in secret} <= {"AMQP_URL"}
    assert "AMQP_URL" not in fixed or fixed["AMQP_URL"].count("${") == 2
    for key in OWN:
        monkeypatch.setenv(key, "value")
    settings_from({key: value for key, value in fixed.items() if key in SETTINGS})


@pytest.mark.parametrize(("name", "service"), OURS)
def test_the_command_is_one_of_ours(name: str, service: str) -> None:
    command = services(name)[service].get("dockerCommand", "feedback-loop up").split()
    assert command.pop(0) == "feedback-loop"
    found = cli.commands[command.pop(0)]
    found.make_context("feedback-loop", command)  # raises where an argument does not fit
    assert isinstance(found, click.Command)


def test_the_paid_services_are_all_there_once() -> None:
    ran = [
        part
        for service in services("paid").values()
        if (command := service.get("dockerCommand", "")).startswith("feedback-loop run ")
        for part in command.split()[2:]
    ]
    assert sorted(ran) == sorted(path.parent.name for path in (ROOT / "services").glob("*/build.py"))


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_tokens_that_keep_strangers_out_are_made(name: str) -> None:
    made = {
        key
        for service in services(name).values()
        if service["runtime"] == "docker"
        for key, entry in variables(service).items()
        if entry.get("generateValue")
    }
    assert made == {"TRIGGER_TOKEN", "API_TOKEN", "ADMIN_TOKEN", "VOTE_TOKEN_SECRET"}


def test_the_cron_job_runs_at_nine_in_seoul_with_the_triggers_token() -> None:
    cron = services("paid")["feedback-loop-daily"]
    minute, hour, *days = cron["schedule"].split()
    assert ((int(hour) + 9) % 24, int(minute), days) == (9, 0, ["*", "*", "*"])
    assert variables(cron)["TRIGGER_TOKEN"]["fromService"]["envVarKey"] == "TRIGGER_TOKEN"
    assert "--scheduled" in cron["dockerCommand"]


def test_the_brokers_data_are_on_its_disk_under_a_name_that_stays() -> None:
    broker = services("paid")["feedback-loop-rabbitmq"]
    assert broker["disk"]["mountPath"] == "/var/lib/rabbitmq"
    assert variables(broker)["RABBITMQ_NODENAME"]["value"].endswith("@localhost")
    assert re.fullmatch(r"docker\.io/library/rabbitmq:\d+", broker["image"]["url"])


def test_an_address_takes_a_base64_password_from_another_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_HOST", "feedback-loop-rabbitmq-abcd")
    monkeypatch.setenv("RABBITMQ_PASSWORD", "B0jr/hAPO+7pg=@:#?")
    value = variables(services("paid")["feedback-loop-analyzer"])["AMQP_URL"]["value"]
    url = settings_from({"AMQP_URL": value}).amqp_url
    assert url is not None
    parts = urlsplit(url.get_secret_value())
    assert (parts.hostname, parts.port) == ("feedback-loop-rabbitmq-abcd", 5672)
    assert unquote(parts.password or "") == "B0jr/hAPO+7pg=@:#?"


def test_an_address_that_names_what_is_not_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(ValueError, match="NOT_THERE"):
        settings_from({"DATABASE_URL": "postgresql://loop:${NOT_THERE}@host/db"})
