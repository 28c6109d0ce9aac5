"""The deploy files, checked without a container engine and without an account anywhere."""

from __future__ import annotations

import json
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from shared.postgres.roles import ROLES
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
SETTINGS = {name.upper() for name in Settings.model_fields}
THIRD_PARTY = {"postgres", "rabbitmq", "prometheus", "grafana"}  # their environment is not ours
PASSWORDS = {
    "POSTGRES_PASSWORD",
    "RABBITMQ_PASSWORD",
    "GRAFANA_PASSWORD",
    *(f"{name.upper()}_PASSWORD" for name in ROLES),
}
COMPOSE_ONLY = PASSWORDS | {"BIND"}  # explained at the top of the file


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


def interpolated(value: object) -> str:
    """What Compose makes of a value when none of its variables is set."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", r"\2", str(value))


def settings_from(values: dict[str, str]) -> Settings:
    return Settings(_env_file=None, **{name.lower(): value for name, value in values.items()})  # type: ignore[arg-type]


def test_compose_follows_the_compose_specification(compose: dict[str, Any]) -> None:
    schemas = resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((schemas / "compose-spec.json").read_text())
    jsonschema.validators.validator_for(schema)(schema).validate(compose)


def test_compose_environment_is_known_and_valid(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if name not in THIRD_PARTY:
            assert set(service["environment"]) <= SETTINGS | PASSWORDS, name
            settings_from({key: interpolated(value) for key, value in service["environment"].items()})


def test_compose_interpolates_only_variables_that_are_explained() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"\$\{?(\w+)", text)) <= SETTINGS | COMPOSE_ONLY
    assert text.count("${") == len(re.findall(r"\$\{\w+:-[^}]+\}", text)), "each needs a default"


def test_compose_runs_every_service_once_the_schema_is_there(compose: dict[str, Any]) -> None:
    ours = {name: service for name, service in compose["services"].items() if name not in THIRD_PARTY}
    assert ours.pop("migrate")["command"] == "feedback-loop migrate --roles"
    assert ours.pop("broker")["command"] == "feedback-loop doctor --fix"
    assert set(ours) == {path.parent.name for path in (ROOT / "services").glob("*/build.py")}
    for name, service in ours.items():
        assert service["command"] == f"feedback-loop run {name}"
        assert {dependency: how["condition"] for dependency, how in service["depends_on"].items()} == {
            "postgres": "service_healthy",
            "rabbitmq": "service_healthy",
            "migrate": "service_completed_successfully",
            "broker": "service_completed_successfully",
        }


@pytest.mark.parametrize("name", ROLES)
def test_compose_runs_each_service_as_its_own_user(compose: dict[str, Any], name: str) -> None:
    environment = {
        key: interpolated(value) for key, value in compose["services"][name]["environment"].items()
    }
    settings = settings_from(environment)
    assert settings.database_url is not None and settings.amqp_url is not None
    for url in (settings.database_url, settings.amqp_url):
        parts = urlsplit(url.get_secret_value())
        assert parts.username == f"feedback_{name}"
        for errand in ("migrate", "broker"):
            given = interpolated(compose["services"][errand]["environment"]["ROLE_PASSWORDS"])
            assert settings_from({"ROLE_PASSWORDS": given}).passwords[name] == parts.password
    assert not settings.amqp_declare
    assert not settings.passwords and not settings.rabbitmq_management_url


def test_compose_gives_no_password_of_its_own_to_a_service(compose: dict[str, Any]) -> None:
    """`.env` reaches every container, so what is only for Compose is blanked."""
    for name in ROLES:
        environment = compose["services"][name]["environment"]
        blank = PASSWORDS | {"ROLE_PASSWORDS", "RABBITMQ_MANAGEMENT_URL"}
        assert {environment[password] for password in blank} == {""}


def test_compose_opens_no_port_to_everyone_by_default(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for port in service.get("ports", []):
            assert interpolated(port).startswith("127.0.0.1:")


def test_env_example_shows_every_setting_with_its_default(tmp_path: Path) -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    shown = [match[1] for line in lines if (match := re.match(r"#(\w+)=", line))]
    assert shown == [name.upper() for name in Settings.model_fields]
    for name, field in Settings.model_fields.items():
        assert lines[
            lines.index(next(line for line in lines if line.startswith(f"#{name.upper()}="))) - 1
        ] == (f"# {field.description}")
    active = tmp_path / ".env"
    active.write_text("\n".join(re.sub(r"^#(?=\w+=)", "", line) for line in lines))
    assert Settings(_env_file=active) == Settings(_env_file=None)


def test_dockerfile_runs_the_command_as_an_ordinary_user() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    *_, final = re.split(r"^FROM ", text, flags=re.MULTILINE)
    instructions = dict(line.split(" ", 1) for line in final.splitlines()[1:] if line and line[0].isupper())
    assert instructions["USER"] not in ("root", "0")
    assert json.loads(instructions["CMD"]) == ["feedback-loop", "up"]
    assert "feedback-loop" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    program, option, code = json.loads(instructions["HEALTHCHECK"].partition(" CMD ")[2])
    assert (program, option) == ("python", "-c")
    compile(code, "HEALTHCHECK", "exec")
    assert "/healthz" in code
