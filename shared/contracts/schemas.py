"""JSON Schemas of what travels, from the models that read it, with the words that stand beside their fields.

What is guaranteed: two models of one name stay apart; a description is the docstring under a field, or its
line in the `Attributes:` of its class, and is written nowhere else.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

__all__ = ["REFERENCE", "Direction", "schemas"]

Direction = Literal["in", "out"]
"""What others send may leave out what has a default; what is answered has every field."""

REFERENCE = "#/components/schemas/"
"""Where OpenAPI and AsyncAPI both keep schemas."""

_MODES: Mapping[Direction, Literal["validation", "serialization"]] = {
    "in": "validation",
    "out": "serialization",
}
_BOUNDS = ("ge", "gt", "le", "lt")
_LINE = re.compile(r"    ((?:\w+, )*\w+): (.+)")


def schemas(
    wanted: Iterable[tuple[Direction, Any]],
) -> tuple[Mapping[tuple[Direction, Any], dict[str, Any]], dict[str, Any]]:
    """The schema of each type wanted (its key is the pair), and what these refer to, by name."""
    inputs = [(key, _MODES[key[0]], TypeAdapter(key[1])) for key in dict.fromkeys(wanted)]
    found, shared = TypeAdapter.json_schemas(
        inputs, ref_template=REFERENCE + "{model}", schema_generator=_Generator
    )
    named = {name: _plain(schema) for name, schema in shared.get("$defs", {}).items()}
    return {key: _plain(schema) for (key, _), schema in found.items()}, named


def _plain(schema: Any) -> Any:
    """Without what pydantic says of bounds of times, for which JSON Schema has no words."""
    match schema:
        case dict():
            timed = str(schema.get("format", "")).startswith("date")
            return {name: _plain(value) for name, value in schema.items() if not (timed and name in _BOUNDS)}
        case list():
            return [_plain(entry) for entry in schema]
    return schema


class _Generator(GenerateJsonSchema):
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - as the base has it

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # a field's name says as much

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        return _worded(super().model_schema(schema), schema["cls"])

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        return _worded(super().dataclass_schema(schema), schema["cls"])


def _worded(found: JsonSchemaValue, model: type[Any]) -> JsonSchemaValue:
    """The schema of a model, its fields described."""
    found.pop("title", None)
    words: dict[str, str] = {}
    summary = inspect.cleandoc(model.__doc__ or "").partition("\n\nAttributes:")[0]
    if summary and not summary.startswith(f"{model.__name__}("):  # what a dataclass says without one
        found["description"] = " ".join(summary.split())
    else:
        found.pop("description", None)
    for base in reversed(model.__mro__):
        if dataclasses.is_dataclass(base) or (issubclass(base, BaseModel) and base is not BaseModel):
            words |= _attributes(base.__doc__ or "") | _docstrings(base)
    for name, text in words.items():
        field = getattr(model, "model_fields", {}).get(name)
        at = found.get("properties", {}).get((field and field.alias) or name)
        if at is not None:
            at.setdefault("description", text[0].upper() + text[1:])
    return found


def _attributes(doc: str) -> dict[str, str]:
    """The `Attributes:` of a docstring, by name; one line may be of several."""
    _, _, listed = inspect.cleandoc(doc).partition("\nAttributes:\n")
    joined = re.sub(r"\n {5,}", " ", listed.partition("\n\n")[0])
    found = (_LINE.fullmatch(line) for line in joined.splitlines())
    return {name: line[2] for line in found if line for name in line[1].split(", ")}


def _docstrings(model: type[Any]) -> dict[str, str]:
    """The docstrings under a class's fields, by name."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    except (OSError, TypeError, SyntaxError):  # made at run time
        return {}
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match after:
                case ast.Expr(ast.Constant(str() as text)):
                    found[field.target.id] = " ".join(text.split())
    return found
