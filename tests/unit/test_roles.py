"""What services may do in the database, held against the SQL that they contain."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.up import SERVICES
from shared.events import REGISTRY
from shared.postgres.roles import ROLES, permissions, statements
from shared.runtime import Runtime
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
MIGRATIONS = ROOT / "shared" / "migrations"
USE = re.compile(r"\b(insert into|update|delete from|from|join|using) feedback_loop\.(\w+)(?!\w*\()", re.I)
NEEDS = {"insert into": "insert", "update": "update", "delete from": "delete"}
KERNEL = {
    *("attempt", "consumer", "inbox", "migration", "mirror", "mirror_due", "mirrored", "outbox", "run"),
}
"""Tables that the code in `shared` uses, in every service's name."""
ELSEWHERE = {("folder_file", "delete")}
"""Where the table's name stands in a variable."""


def _texts(folder: Path) -> Iterator[str]:
    """The string constants of a service's modules; what an f-string inserts is left out."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "?" for part in node.values)
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def _used(service: str) -> set[tuple[str, str]]:
    """Each table or view that a service's statements name, and the privilege that this needs."""
    found = set()
    for text in _texts(ROOT / "services" / service):
        for verb, name in USE.findall(text):
            found.add((name, NEEDS.get(verb.lower(), "select")))
        for statement in re.findall(r"insert into feedback_loop\.(\w+).*?\bdo update\b", text, re.S | re.I):
            found.add((statement, "update"))
    return found


def _given(service: str) -> set[tuple[str, str]]:
    return {
        (table, privilege)
        for table, privileges in ROLES[service].tables.items()
        for privilege in re.findall(r"[a-z]+(?= \(|,|$)", re.sub(r"\([^)]*\)", "()", privileges))
    }


@pytest.mark.parametrize("service", ROLES)
def test_what_a_service_does_in_the_database_is_what_it_may(service: str) -> None:
    assert _used(service) <= _given(service)


@pytest.mark.parametrize("service", ROLES)
def test_a_service_may_write_nothing_that_it_never_writes(service: str) -> None:
    """Of what the kernel does not need."""
    unused = {
        (table, privilege)
        for table, privilege in _given(service) - _used(service)
        if table not in KERNEL and privilege != "select"
    }
    assert unused <= ELSEWHERE


@pytest.mark.parametrize("service", sorted(set(ROLES) - {"collector"}))
def test_only_the_collector_may_write_votes(service: str) -> None:
    assert not {privilege for table, privilege in _given(service) if table == "vote"} - {"select"}


@pytest.mark.parametrize("service", ROLES)
def test_what_was_granted_before_is_taken_away_first(service: str) -> None:
    verbs = [statement.partition(" ")[0] for statement in statements(service)]
    assert verbs == sorted(verbs, key=["revoke", "drop", "create", "grant"].index)


@pytest.mark.parametrize("service", ROLES)
def test_a_service_may_write_the_events_that_it_says_it_sends(service: str) -> None:
    (built,) = Runtime(Settings(_env_file=None), [SERVICES[service]]).services
    sent = {event.type for event in built.contract.sends}
    assert sent <= set(ROLES[service].emits) <= set(REGISTRY)


@pytest.mark.parametrize("service", ROLES)
def test_no_service_may_declare_anything_on_the_broker(service: str) -> None:
    assert permissions(service, "feedback-loop").configure == "^$"


def test_a_consumer_may_read_its_own_queue_alone() -> None:
    read = re.compile(permissions("analyzer", "feedback-loop").read)
    assert read.search("feedback-loop.analyzer")
    assert not read.search("feedback-loop.embedder")
    assert not read.search("feedback-loop.dead")
    assert not read.search("feedback-loop.analyzer.copy")


def test_a_dot_in_the_exchange_s_name_stands_for_itself() -> None:
    write = re.compile(permissions("trigger", "my.loop").write)
    assert write.search("my.loop")
    assert not write.search("my-loop")
