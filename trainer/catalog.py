"""What can be named in a config: models and data sets, their settings, as tables."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

from rich.table import Table

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
    for key, field in schema.get("properties", {}).items():
        kind, bounds = describe(field, schema.get("$defs", {}))
        default = json.dumps(field["default"]) if "default" in field else "(required)"
        table.add_row(key, kind, default, bounds)
    return table


def purpose(registry: Registry, name: str) -> str:
    """The docstring of one name; raises UnknownNameError."""
    return inspect.getdoc(registry.get(name)) or ""


def describe(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[str, str]:
    """Type and range of one property of a JSON schema, for a person to read."""
    if "$ref" in field:
        return describe(definitions[field["$ref"].rsplit("/", 1)[-1]], definitions)
    if "anyOf" in field or "oneOf" in field:
        options = [
            describe(option, definitions) for option in field.get("anyOf", field.get("oneOf"))
        ]
        kinds = " or ".join(dict.fromkeys(kind for kind, _ in options))
        return kinds, " or ".join(bounds for _, bounds in options if bounds)
    if "enum" in field or "const" in field:
        values = field.get("enum", [field.get("const")])
        return "choice", " | ".join(map(str, values))
    if "properties" in field:
        keys = ", ".join(
            f"{key}: {describe(value, definitions)[0]}"
            for key, value in field["properties"].items()
        )
        return f"{{{keys}}}", ""
    bounds = ", ".join(f"{sign} {field[key]}" for key, sign in _BOUNDS if key in field)
    kind = str(field.get("type", "any"))
    if kind == "array" and "items" in field:
        kind = f"list of {describe(field['items'], definitions)[0]}"
    return kind, bounds
