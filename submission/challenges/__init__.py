"""Challenges, one small file each.

A module of this package holds a `Challenge` called CHALLENGE; its file's presence registers it.
The entry point that goes into the zip is text in `submission/templates`, never imported here.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy.typing as npt
from pydantic import AfterValidator, BaseModel

from artifact import Manifest
from submission.errors import ConfigError

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
RowShapes = dict[str, tuple[int | None, ...]]
Call = Literal["array", "mapping"]
ARRAY_KEY = "arr_0"  # what numpy.savez calls an array without a name
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def plain_name(text: str) -> str:
    """`text`, where it may become part of a file's name; else ValueError."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no name: letters, digits, - and _ are")
    return text


def plain_file(text: str) -> str:
    """`text`, where it names a file of one folder, never one elsewhere; else ValueError."""
    if not _FILE.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no file name: letters, digits, -, _ and . are")
    return text


Name = Annotated[str, AfterValidator(plain_name)]
FileName = Annotated[str, AfterValidator(plain_file)]


@dataclass(frozen=True)
class TestSet:
    """One file the challenge predicts: who it belongs to, its name, the prediction's name."""

    __test__ = False  # for pytest: no test class
    name: str
    subject: str
    input: str
    output: str


@dataclass(frozen=True)
class Challenge:
    """What a challenge asks of a submission.

    `call` says how `predict` is called and files are laid out: "array" is one array in and out,
    stored as `arr_0`; "mapping" is a dict of arrays by name. `settings` are the keys that may stand
    beside `name` in the configuration; the functions get them as an instance. `image_python` is the
    Python of the challenge's image, `time_limit` its seconds for all predictions.
    """

    name: str
    title: str
    template: str
    call: Call
    time_limit: float
    image_python: str | None
    settings: type[BaseModel]
    subjects: Callable[[Any, Iterable[str]], tuple[str, ...]]
    sets: Callable[[Any, Iterable[str]], tuple[TestSet, ...]]
    problems: Callable[[Any, str, Manifest], list[str]]
    row_shapes: Callable[[Any, str, Manifest], tuple[RowShapes, RowShapes]]
    mask: Callable[[Any, Arrays], Arrays]


def names() -> list[str]:
    """Names of the challenges, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Challenge:
    """The challenge called `name`; raises ConfigError listing the names and the closest one."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"no challenge {name!r}; there are {', '.join(names())}{hint}")
    challenge: Challenge = importlib.import_module(f"{__name__}.{name}").CHALLENGE
    return challenge


def to_file(call: Call, arrays: Arrays) -> dict[str, Array]:
    """`arrays` under the keys that the challenge's files have."""
    if call == "mapping":
        return dict(arrays)
    (array,) = arrays.values()
    return {ARRAY_KEY: array}


def from_file(call: Call, arrays: Arrays, names: Iterable[str]) -> dict[str, Array]:
    """Arrays of one of the challenge's files under the names of the manifest's tensors."""
    if call == "mapping":
        return dict(arrays)
    (name,) = names
    return {name: arrays[ARRAY_KEY]}
