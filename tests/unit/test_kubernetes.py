"""The Kubernetes manifests, held against Kubernetes' API types and against what the services are.

The types are `lightkube-models`, dataclasses made of Kubernetes' own OpenAPI description. Not checked: what
only a cluster knows, such as admission or quotas. Nothing here was applied to one.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.cli import main as cli
from services.up import SERVICES, compose
from shared.settings import Settings
from tests.unit.test_deploy_files import SETTINGS, settings_from

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
MODELS = {
    "Namespace": "core_v1",
    "Service": "core_v1",
    "Deployment": "apps_v1",
    "CronJob": "batch_v1",
    "Ingress": "networking_v1",
    "HorizontalPodAutoscaler": "autoscaling_v2",
}
KUSTOMIZE = {
    *("apiVersion", "kind", "namespace", "resources", "images"),
    *("configMapGenerator", "secretGenerator"),
}


@pytest.fixture(autouse=True)
def _types_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The types are made for a client, whose base class they ask for; the client is not wanted here."""
    base = types.ModuleType("lightkube.core.schema")
    vars(base).update(dataclass=dataclasses.dataclass, field=dataclasses.field, DictMixin=object)
    monkeypatch.setitem(sys.modules, "lightkube.core", types.ModuleType("lightkube.core"))
    monkeypatch.setitem(sys.modules, "lightkube.core.schema", base)


def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """(kind, name) → the manifest, of every file that the kustomization names."""
    found = {}
    for name in KUSTOMIZATION["resources"]:
        for content in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")):
            key = content["kind"], content["metadata"]["name"]
            assert key not in found
            found[key] = content
    return found


MANIFESTS = manifests()


def container(kind: str, name: str) -> dict[str, Any]:
    spec = MANIFESTS[kind, name]["spec"]
    spec = spec["jobTemplate"]["spec"] if kind == "CronJob" else spec
    (found,) = spec["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def problems(value: Any, kind: Any, where: str) -> list[str]:
    """What of a manifest does not fit the type: unknown and missing fields, values of another type."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        kinds = [option for option in typing.get_args(kind) if option is not type(None)]
        return min((problems(value, option, where) for option in kinds), key=len)
    if typing.get_origin(kind) is list:
        if not isinstance(value, list):
            return [f"{where}: a list is wanted"]
        (entry,) = typing.get_args(kind)
        return [found for at, one in enumerate(value) for found in problems(one, entry, f"{where}[{at}]")]
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _of_fields(value, kind, where)
    if typing.get_origin(kind) is dict or kind is dict:
        return [] if isinstance(value, dict) else [f"{where}: a mapping is wanted"]
    if kind in (str, int, bool, float):
        return [] if type(value) is kind else [f"{where}: {kind.__name__} is wanted, not {value!r}"]
    return [f"{where}: empty"] if value is None else []  # one of Kubernetes' open types


def _of_fields(value: Any, kind: type, where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: a mapping is wanted"]
    hints = typing.get_type_hints(kind)
    wanted = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    found = [f"{where}.{name}: no such field" for name in value.keys() - hints.keys()]
    found += [f"{where}.{name}: missing" for name in wanted - value.keys()]
    for name in value.keys() & hints.keys():
        found += problems(value[name], hints[name], f"{where}.{name}")
    return found


@pytest.mark.parametrize("key", MANIFESTS, ids="-".join)
def test_a_manifest_fits_kubernetes_types(key: tuple[str, str]) -> None:
    content = MANIFESTS[key]
    module = MODELS[content["kind"]]
    kind = getattr(importlib.import_module(f"lightkube.models.{module}"), content["kind"])
    assert content["apiVersion"].rpartition("/")[2] == module.rpartition("_")[2]
    assert not problems(content, kind, content["kind"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda pod: pod.update(restartpolicy="Never"), "restartpolicy: no such field"),
        (lambda pod: pod["containers"][0].update(ports="8080"), "a list is wanted"),
        (lambda pod: pod["containers"][0].pop("name"), "name: missing"),
        (lambda pod: pod.update(terminationGracePeriodSeconds="30"), "int is wanted"),
    ],
    ids=["unknown", "type", "missing", "text"],
)
def test_what_does_not_fit_is_noticed(change: Any, said: str) -> None:
    models = importlib.import_module("lightkube.models.apps_v1")
    content = yaml.safe_load(yaml.safe_dump(MANIFESTS["Deployment", "trigger"]))
    change(content["spec"]["template"]["spec"])
    assert said in "\n".join(problems(content, models.Deployment, "Deployment"))


def test_every_service_runs_behind_its_name() -> None:
    for name in SERVICES:
        deployment, service = MANIFESTS["Deployment", name], MANIFESTS["Service", name]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
        assert container("Deployment", name)["args"] == ["feedback-loop", "run", name]
    assert {name for kind, name in MANIFESTS if kind == "Deployment"} == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_probes_limits_and_rights(name: str) -> None:
    found = container("Deployment", name)
    assert {kind: found[kind]["httpGet"]["path"] for kind in found if kind.endswith("Probe")} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert found["resources"]["requests"].keys() >= {"cpu", "memory"}
    assert "memory" in found["resources"]["limits"]
    assert found["securityContext"]["readOnlyRootFilesystem"] is True
    assert MANIFESTS["Deployment", name]["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"]


def test_the_environment_is_known_and_valid() -> None:
    (given,) = KUSTOMIZATION["configMapGenerator"]
    fixed = dict(entry.split("=", 1) for entry in given["literals"])
    lines = (FOLDER / "secret.env.example").read_text(encoding="utf-8").splitlines()
    secret = dict(line.split("=", 1) for line in lines)
    assert set(fixed) | set(secret) <= SETTINGS
    settings = settings_from({**fixed, **{key: value for key, value in secret.items() if value}})
    assert settings.production and settings.amqp_url is not None
    hidden = {name.upper() for name, field in Settings.model_fields.items() if "Secret" in str(field)}
    assert not hidden & set(fixed)


def test_the_schedule_calls_the_trigger_at_nine_in_seoul() -> None:
    spec = MANIFESTS["CronJob", "daily"]["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("0 9 * * *", "Asia/Seoul")
    program, command, *arguments = container("CronJob", "daily")["args"]
    assert program == "feedback-loop"
    chosen = cli.commands[command].make_context("feedback-loop", arguments).params
    patience = spec["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    assert chosen["scheduled"] and chosen["retry_for"] * 60 < patience
    literals = KUSTOMIZATION["configMapGenerator"][0]["literals"]
    assert "TRIGGER_URL=http://trigger" in literals and ("Service", "trigger") in MANIFESTS


def test_the_address_leads_each_route_to_the_service_that_answers_it() -> None:
    (rule,) = MANIFESTS["Ingress", "feedback-loop"]["spec"]["rules"]
    paths = {entry["path"]: entry["backend"]["service"]["name"] for entry in rule["http"]["paths"]}
    assert set(paths.values()) <= set(SERVICES)

    def leads(path: str) -> str:
        fitting = [one for one in paths if one == "/" or path == one or path.startswith(f"{one}/")]
        return str(paths[max(fitting, key=len)])

    for group in compose(Settings(_env_file=None)).groups:
        if group.name != "process":  # every process answers these
            for route in group.routes:
                assert leads(getattr(route, "path", "")) == group.name, route


def test_the_kustomization_names_every_file() -> None:
    assert set(KUSTOMIZATION) <= KUSTOMIZE
    there = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(KUSTOMIZATION["resources"]) == there
    assert {image["name"] for image in KUSTOMIZATION["images"]} == {
        container(kind, name)["image"] for kind, name in MANIFESTS if kind in ("Deployment", "CronJob")
    }
    assert KUSTOMIZATION["secretGenerator"][0]["envs"] == ["secret.env"]
