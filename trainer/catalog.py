"""What can be named in a config: models, data sets and steps, their settings, as tables."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from recording.errors import RecordingError
from recording.preparation import STEPS
from recording.preparation.catalog import describe_steps
from trainer.registry import Registry

_BOUNDS = (
    ("minimum", "≥"),
    ("exclusiveMinimum", ">"),
    ("maximum", "≤"),
    ("exclusiveMaximum", "<"),
)


def names_table(registry: Registry) -> Table:
    """Every name with its purpose."""
    table = Table(registry.kind, "purpose")
    for name in registry.names():
        table.add_row(name, registry.summary(name))
    return table


def settings_table(registry: Registry, name: str) -> Table:
    """The settings of one name: type, default, range; raises UnknownNameError."""
    schema = registry.settings(name).model_json_schema()
    table = Table("setting", "type", "default", "range", title=f"{registry.kind} {name}")
    for row in rows("", schema, schema.get("$defs", {})):
        table.add_row(*row)
    return table


def steps_table() -> Table:
    """Every step of a preparation with its purpose."""
    table = Table("step", "purpose")
    for name, line, _ in describe_steps():
        table.add_row(name, line)
    return table


def step_table(name: str) -> Table:
    """The settings of one step and their defaults; raises RecordingError for an unknown one."""
    found = {step: settings for step, _, settings in describe_steps()}
    if name not in found:
        raise RecordingError(f"no step {name!r}; valid: {', '.join(found)}")
    table = Table("setting", "default", title=f"step {name}")
    for key, default in found[name].items():
        table.add_row(key, default if default == "(required)" else json.dumps(default))
    return table


def step_purpose(name: str) -> str:
    """The docstring of one step."""
    return inspect.getdoc(STEPS[name]) or ""


def rows(
    prefix: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]
) -> list[tuple[str, str, str, str]]:
    """One row for each property of a JSON schema, sections as `section.key`.

    A section that comes in several forms (a split) has one row for each key of each form.
    """
    found = []
    for key, field in schema.get("properties", {}).items():
        sections = [form for form in forms(field, definitions) if "properties" in form]
        for form in sections:
            found += rows(f"{prefix}{key}.", form, definitions)
        if not sections:
            kind, bounds = describe(field, definitions)
            fallback = "" if "const" in field else "(required)"
            default = json.dumps(field["default"]) if "default" in field else fallback
            found.append((f"{prefix}{key}", kind, default, bounds))
    return found


def forms(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The alternatives of a property, references followed."""
    if "$ref" in field:
        return [definitions[field["$ref"].rsplit("/", 1)[-1]]]
    options = field.get("anyOf", field.get("oneOf", [field]))
    return [field] if options == [field] else [f for o in options for f in forms(o, definitions)]


def purpose(registry: Registry, name: str) -> str:
    """The docstring of one name; raises UnknownNameError."""
    return inspect.getdoc(registry.get(name)) or ""


def describe(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[str, str]:
    """Type and range of one property of a JSON schema, for a person to read."""
    options = forms(field, definitions)
    if len(options) > 1:
        described = [describe(option, definitions) for option in options]
        kinds = " or ".join(dict.fromkeys(kind for kind, _ in described))
        return kinds, " or ".join(bounds for _, bounds in described if bounds)
    field = options[0]
    if "enum" in field or "const" in field:
        values = field.get("enum", [field.get("const")])
        return "choice", " | ".join(map(str, values))
    bounds = ", ".join(f"{sign} {field[key]}" for key, sign in _BOUNDS if key in field)
    kind = str(field.get("type", "any"))
    if kind == "array" and "items" in field:
        kind = f"list of {describe(field['items'], definitions)[0]}"
    return kind, bounds
