"""Readers: one file per family of formats, each registering its formats on import.

A reader is a function `(path, options) -> Recording` that reads headers, not data, and imports its
library inside: a format whose extra is not installed costs nothing until it is opened.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from recording.contract import Recording


class Options(BaseModel):
    """What a user may say about a file, beside what the file says; formats add their own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject: str | None = None
    session: str | None = None
    site: str | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _one_of_several(cls, value: Any, info: ValidationInfo) -> Any:
        """One name stands for a list of one: `--option behavior=force`."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        members = (annotation,) if get_origin(annotation) is tuple else get_args(annotation)
        several = any(get_origin(one) is tuple for one in members) and str not in members
        return (value,) if isinstance(value, str) and several else value


@dataclass(frozen=True)
class Format:
    """A file format: how it is known, what it needs, how it is opened.

    matches: whether a path with these first bytes (b"" for a folder) is of this format; extra: the
    extra that brings its library, "" where numpy and scipy do; rank: formats are asked in rising
    order, those found by content before those found by name alone; one_file: whether everything is
    in one file, so that a service may take it from a stranger; belongs: whether a file of this
    format is a part of another one beside it, such as the samples beside a header; title: what it
    is called in a sentence.
    """

    name: str
    suffixes: tuple[str, ...]
    matches: Callable[[Path, bytes], bool]
    open: Callable[[Path, Any], Recording]
    extra: str = ""
    options: type[Options] = Options
    rank: int = 0
    one_file: bool = False
    belongs: Callable[[Path], bool] | None = None
    title: str = ""


FORMATS: dict[str, Format] = {}


def beside(*companions: str, main: str) -> Callable[[Path], bool]:
    """Whether a file with one of these suffixes has one of the same stem and suffix `main`."""

    def belongs(path: Path) -> bool:
        return path.suffix.lower() in companions and path.with_suffix(main).is_file()

    return belongs


def register(format: Format) -> None:
    """Add a format; raises ValueError where its name is taken."""
    if format.name in FORMATS:
        raise ValueError(f"format {format.name!r} is registered already")
    FORMATS[format.name] = format


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
# Kept in order of rank, then name: the order in which formats are asked.
for _name in sorted(FORMATS, key=lambda name: (FORMATS[name].rank, name)):
    FORMATS[_name] = FORMATS.pop(_name)
