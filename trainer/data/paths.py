"""Paths in configurations: `${AXONNX_DATA}/…`, absolute, or relative to the current folder."""

from __future__ import annotations

import os
import typing
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel

from trainer.data.errors import DataError

VARIABLE = "AXONNX_DATA"
_PREFIX = "${" + VARIABLE + "}"


def _check(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("must be a path, is empty")
    rest = text.removeprefix(_PREFIX)
    if "${" in rest or text.startswith(("$" + VARIABLE, "~")):
        raise ValueError(f"only {_PREFIX} is expanded, and only at the start; is {text!r}")
    if rest != text and not rest.startswith("/"):
        raise ValueError(f"{_PREFIX} must be followed by /, is {text!r}")
    return text


class _Mark:
    """Tells a path from other text in a pydantic field."""


DataPath = Annotated[str, AfterValidator(_check), _Mark()]


def resolve(path: str) -> Path:
    """The path on this machine; raises DataError where `AXONNX_DATA` is needed and not set."""
    try:
        _check(path)
    except ValueError as error:
        raise DataError(f"path: {error}") from None
    if not path.startswith(_PREFIX):
        return Path(path)
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise DataError(
            f"{path}: the environment variable {VARIABLE} is not set; "
            "set it to the folder that holds the recordings"
        )
    return Path(folder + path.removeprefix(_PREFIX))


def public_path(value: Any) -> Any:
    """A path without this machine's folders: `${AXONNX_DATA}/…` kept, else the file's name.

    Of a list each; what is no text, such as None, stays as it is.
    """
    if isinstance(value, (list, tuple)):
        return [public_path(item) for item in value]
    if not isinstance(value, str) or value.startswith(_PREFIX):
        return value
    return Path(value).name


def path_keys(settings: type[BaseModel]) -> set[str]:
    """Names of the settings that are a `DataPath`, a list of them, or None instead."""
    return {
        key
        for key, field in settings.model_fields.items()
        if any(isinstance(item, _Mark) for item in field.metadata) or _marked(field.annotation)
    }


def _marked(hint: Any) -> bool:
    if any(isinstance(item, _Mark) for item in getattr(hint, "__metadata__", ())):
        return True
    return any(_marked(argument) for argument in typing.get_args(hint))
