"""The scripts that a newcomer meets first, and the lock that they install from."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix)
LOCK = (ROOT / "requirements.lock").read_text()
# In two parts each, or this file would be the first to name them.
HOSTS = ["pypi" + ".org", "pythonhosted" + ".org", "debian" + ".org", "ubuntu" + ".com", "npmjs" + ".org"]


def project_files() -> Iterator[Path]:
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if name == ".ci" or not (name.startswith((".", "__")) or name.endswith(".egg-info"))
        ]
        yield from (Path(folder, name) for name in names if name != ".env")


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci/run"], ids=lambda path: path.name)
def test_script_is_executable_posix_shell(script: Path) -> None:
    assert os.access(script, os.X_OK)
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/sh"
    # Not in the first line, where `sh scripts/NAME` would not see it.
    assert "set -e" in lines or (lines[-1].startswith("exec ") and len(lines) == 2)
    subprocess.run(["sh", "-n", script], check=True)


def test_no_file_names_a_package_index() -> None:
    named = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in project_files()
        for host in HOSTS
        if host.encode() in path.read_bytes()
    ]
    assert named == []


def test_lock_is_nothing_but_pins() -> None:
    for line in LOCK.splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; [^/]+)?|\s*#[^/]*", line), line


def test_lock_has_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
    ]
    pins = re.findall(r"^([a-z0-9-]+)==([\w.]+)", LOCK, flags=re.MULTILINE)
    for requirement in map(Requirement, wanted):
        found = [version for name, version in pins if name == requirement.name.lower()]
        assert found, f"{requirement} is not in requirements.lock: run scripts/lock"
        assert all(requirement.specifier.contains(version) for version in found), requirement


def test_a_broker_that_is_given_is_used_as_it_is() -> None:
    command = [str(ROOT / "scripts/with-rabbitmq"), "sh", "-c", 'echo "$TEST_AMQP_URL"; exit 7']
    environment = {**os.environ, "TEST_AMQP_URL": "amqp://elsewhere/"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("amqp://elsewhere/\n", 7)


@pytest.fixture
def fetch_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """scripts/fetch_pip.py as a module, on a machine where pip is not configured."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    spec = importlib.util.spec_from_file_location("fetch_pip", ROOT / "scripts/fetch_pip.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def an_index(folder: Path, **wheels: str) -> Path:
    """A package index in files; each wheel's content is its name, each link carries the given suffix."""
    (folder / "simple/pip").mkdir(parents=True)
    (folder / "files").mkdir()
    links = ""
    for version, suffix in wheels.items():
        name = f"pip-{version.replace('_', '.')}-py3-none-any.whl"
        (folder / "files" / name).write_text(name)
        links += f'<a href="../../files/{name}{suffix}>{name}</a>\n'
    (folder / "simple/pip/index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    return folder / "simple"


def test_pip_comes_from_the_configured_index(
    fetch_pip: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wheels = {
        "9_1": '"',
        "25_0": '"',
        "25_1rc1": '"',
        "26_0": '" data-yanked=""',
        "27_0": '" data-requires-python=">=3.99"',
    }
    monkeypatch.setenv("PIP_INDEX_URL", an_index(tmp_path / "index", **wheels).as_uri())
    assert fetch_pip.main(str(tmp_path)) == 0
    wheel = Path(capsys.readouterr().out.strip())
    assert wheel == tmp_path / "pip-25.0-py3-none-any.whl"
    assert wheel.read_text() == wheel.name


def test_a_wheel_with_another_hash_is_passed_over(fetch_pip: ModuleType, tmp_path: Path) -> None:
    right = hashlib.sha256(b"pip-25.0-py3-none-any.whl").hexdigest()
    index = an_index(tmp_path / "index", **{"25_0": f'#sha256={right}"', "25_1": f'#sha256={"0" * 64}"'})
    wheel = fetch_pip.from_configuration(tmp_path, {"index-url": index.as_uri()})
    assert wheel.name == "pip-25.0-py3-none-any.whl"


def test_pip_conf_is_read_and_the_environment_overrides_it(
    fetch_pip: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = file:///first\nfind_links = /a\n  /b\n[install]\ncert = c\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_INDEX_URL", "file:///second")
    options = fetch_pip.configuration()
    assert options["index-url"] == "file:///second"
    assert options["find-links"].split() == ["/a", "/b"]
    assert options["cert"] == "c"


def test_a_folder_of_wheels_is_enough(fetch_pip: ModuleType, tmp_path: Path) -> None:
    an_index(tmp_path, **{"25_0": '"', "24_0": '"'})
    wheel = fetch_pip.from_configuration(tmp_path, {"find-links": str(tmp_path / "files"), "no-index": "1"})
    assert wheel.name == "pip-25.0-py3-none-any.whl"


def test_without_any_place_it_says_what_helps(
    fetch_pip: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetch_pip, "from_debian", lambda folder: None)
    assert fetch_pip.main(str(tmp_path)) == 1
    assert "PIP_INDEX_URL" in capsys.readouterr().err


def test_a_password_in_an_address_is_never_printed(
    fetch_pip: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = "http://user:hunter2@127.0.0.1:9/simple"  # nothing listens on the discard port
    assert fetch_pip.from_configuration(tmp_path, {"index-url": address}) is None
    assert "127.0.0.1" in (printed := capsys.readouterr().err)
    assert "hunter2" not in printed
