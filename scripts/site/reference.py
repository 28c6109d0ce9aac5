"""The reference's pages, made of the code: settings, command line, HTTP, events.

They are made anew at every build and kept nowhere, so they cannot be out of date.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from scripts import config_table
from scripts.contracts import contracts
from services.cli import main as cli

__all__ = ["pages"]

Json = Mapping[str, Any]


def pages() -> dict[str, str]:
    """The page's path → its Markdown."""
    documents = contracts()
    return {
        "reference/settings.md": _settings("en"),
        "reference/settings.ko.md": _settings("ko"),
        "reference/cli.md": _cli(),
        "reference/http.md": _http(documents["openapi.json"]),
        "reference/events.md": _events(documents["asyncapi.json"]),
    }


# --- settings -----------------------------------------------------------------------------------

SETTINGS = {
    "en": (
        "# Settings\n\nEnvironment variables, or a file `.env`. Made from `shared/settings.py`;"
        " a value that does not fit ends the start with a line that says why.\n\n"
    ),
    "ko": (
        "# 설정\n\n환경 변수 또는 `.env` 파일로 설정합니다. 이 표는 `shared/settings.py`에서 만들어집니다."
        " 값이 맞지 않으면 시작할 때 이유를 한 줄로 알려 드립니다.\n\n"
    ),
}


def _settings(language: str) -> str:
    return SETTINGS[language] + config_table.table(language) + "\n"


# --- command line -------------------------------------------------------------------------------


def _cli() -> str:
    intro = "# Command line\n\n`feedback-loop COMMAND --help` says the same. " + (cli.help or "").replace(
        "the README lists them", "[they are listed here](settings.md)"
    )
    return "\n\n".join([intro, *(_command(name, cli.commands[name]) for name in sorted(cli.commands))]) + "\n"


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"feedback-loop {name}")
    usage = command.get_usage(context).removeprefix("Usage: ")
    rows = [
        record
        for parameter in command.get_params(context)
        if (record := parameter.get_help_record(context)) and "--help" not in record[0]
    ]
    options = _table(("Option", "Meaning"), ((f"`{given}`", _cell(says)) for given, says in rows))
    return "\n\n".join(
        [f"## {name}", command.help or "", f"```text\n{usage}\n```", *([options] if rows else [])]
    )


# --- HTTP ---------------------------------------------------------------------------------------


def _http(document: Json) -> str:
    parts = [
        "# HTTP",
        "Made from the routes, as is the OpenAPI 3.1 document: [openapi.json](../contracts/openapi.json),"
        " also at `/openapi.json` of every service, and as a page to try at `/docs`. Who may call what,"
        " and how often, is a [table of its own](security.md#who-may-call-what).",
    ]
    for tag in document["tags"]:
        parts += [f"## {tag['name']}", tag["description"]]
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    parts += _operation(document, f"{method.upper()} {path}", operation)
    return "\n\n".join(part for part in parts if part) + "\n"


def _operation(document: Json, route: str, operation: Json) -> Iterator[str]:
    yield f"### `{route}`"
    yield f"{operation['summary']}. {operation['description']}".strip()
    opened = [f"`{name}`" if name.isupper() else name for entry in operation["security"] for name in entry]
    yield f"Opened by {', '.join(opened)}." if opened else "Open to everyone."
    if parameters := operation.get("parameters"):
        rows = (
            (f"`{entry['name']}`", entry["in"], _kind(entry["schema"]), _cell(entry.get("description", "")))
            for entry in parameters
        )
        yield _table(("Parameter", "In", "Type", "Meaning"), rows)
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"Body, `{media}`:"
        yield _fields(content["schema"], document)
    answers = (
        (f"`{status}`", _cell(_resolved(answer, document)["description"]))
        for status, answer in operation["responses"].items()
    )
    yield _table(("Answer", "When"), answers)


# --- events -------------------------------------------------------------------------------------


def _events(document: Json) -> str:
    parts = [
        "# Events",
        document["info"]["description"],
        "Made from the registry of events, as is the AsyncAPI 3.0 document:"
        " [asyncapi.json](../contracts/asyncapi.json).",
        "## Headers",
        _fields({"$ref": "#/components/schemas/Headers"}, document),
    ]
    for type_, message in document["components"]["messages"].items():
        parts += [
            f"## `{type_}`",
            message["summary"],
            f"Sent by: {_parties(document, 'sends', type_)}. Taken by: {_parties(document, 'takes', type_)}.",
            _fields(message["payload"], document),
        ]
    parts += ["## Queues", _queues(document)]
    return "\n\n".join(parts) + "\n"


def _parties(document: Json, does: str, type_: str) -> str:
    suffix = f".{does}.{type_}"
    return ", ".join(
        name.removesuffix(suffix) for name in document["operations"] if name.endswith(suffix)
    ) or ("other programs" if does == "sends" else "nobody")


def _queues(document: Json) -> str:
    rows = (
        (f"`{channel['address']}`", _cell(channel["description"]))
        for channel in document["channels"].values()
        if channel["bindings"]["amqp"]["is"] == "queue"
    )
    return _table(("Queue", "Takes"), rows)


# --- schemas ------------------------------------------------------------------------------------


def _fields(schema: Json, document: Json) -> str:
    """The members of an object as a table; of anything else its type."""
    resolved = _resolved(schema, document)
    if not resolved.get("properties"):
        return f"{_kind(schema)}."
    required = resolved.get("required", ())
    rows = (
        (f"`{name}`", _kind(member), "yes" if name in required else "", _cell(_meaning(member, document)))
        for name, member in resolved["properties"].items()
    )
    return _table(("Field", "Type", "Required", "Meaning"), rows)


def _meaning(member: Json, document: Json) -> str:
    says = str(member.get("description") or _resolved(member, document).get("description", ""))
    says = says.partition("\n\n")[0]
    if member.get("default") not in (None, "", [], {}):
        says += f" (default: `{json.dumps(member['default'], ensure_ascii=False)}`)"
    return says.strip()


def _kind(schema: Json) -> str:
    """What a value may be, in a few words."""
    match schema:
        case {"$ref": str() as reference}:
            return f"`{reference.rpartition('/')[2]}`"
        case {"const": value}:
            return f"`{json.dumps(value)}`"
        case {"enum": list() as values}:
            return " or ".join(f"`{json.dumps(value, ensure_ascii=False)}`" for value in values)
        case {"anyOf": list() as kinds} | {"oneOf": list() as kinds}:
            return " or ".join(dict.fromkeys(_kind(kind) for kind in kinds))
        case {"allOf": [one]}:
            return _kind(one)
        case {"type": "array", "items": dict() as items}:
            return f"list of {_kind(items)}"
        case {"type": list() as types}:
            return " or ".join(types)
        case {"type": str() as type_, "format": str() as form}:
            return f"{type_} ({form})"
        case {"type": str() as type_}:
            return type_
    return "anything"


def _resolved(schema: Json, document: Json) -> Json:
    while "$ref" in schema:
        target: Any = document
        for name in schema["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        schema = target
    return schema


# --- Markdown -----------------------------------------------------------------------------------


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
