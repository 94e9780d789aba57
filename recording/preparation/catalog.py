"""What steps there are, as data: for the command and the documentation."""

from __future__ import annotations

import inspect
from typing import Any

from recording.preparation.steps import STEPS

Settings = dict[str, Any]


def describe_steps() -> list[tuple[str, str, Settings]]:
    """Name, first line of the docstring and settings with defaults of every step, by name.

    A setting that must be given has the default "(required)"; what training fills in is left out.
    """
    return [(name, _first_line(name), _settings(name)) for name in sorted(STEPS)]


def _first_line(name: str) -> str:
    return (inspect.getdoc(STEPS[name]) or "").partition("\n")[0]


def _settings(name: str) -> Settings:
    return {
        key: "(required)" if field.is_required() else _plain(field.default)
        for key, field in STEPS[name].model_fields.items()
        if key not in ("step", "medians")
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
