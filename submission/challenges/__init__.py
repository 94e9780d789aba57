"""Challenges, one small file each.

A module of this package holds a `Challenge` called CHALLENGE; its file's presence registers it.
Another distribution adds one through an entry point of the group `axonnx.challenges`, whose name is
the challenge's and whose object is a `Challenge`. What goes into the zip or runs on the platform is
text, never imported here.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel

from artifact import Manifest
from submission.errors import ConfigError

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Kind = Literal["code", "result", "graph"]
Call = Literal["array", "mapping"]
Format = Literal["npz", "pickled"]
GROUP = "axonnx.challenges"
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
    """One set of rows that a challenge predicts.

    `input` is its file in the task's input data, `output` the prediction's, `reference` that of the
    answers, whose name is never told to a submission. `key` is its place inside an output that
    holds several sets, `rows` how many rows the platform's own file has, where that is known.
    """

    __test__ = False  # for pytest: no test class
    name: str
    subject: str
    input: str
    output: str
    reference: str
    rows: int | None = None
    key: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tensor:
    """dtype and row shape (without batch; None where any size is right) of one array of a file."""

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Contract:
    """The arrays of a subject's input and prediction files by their keys there.

    Without `outputs` the names in a prediction file are free.
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard; `sorting` "asc" where a small score is good."""

    key: str
    title: str
    sorting: Literal["asc", "desc"] = "asc"
    precision: int = 4


@dataclass(frozen=True)
class Image:
    """What the challenge's container holds.

    `name` is its docker image, `python` its version ("3.10"; None where it is not known),
    `packages` the pinned requirements that a stand-in for it needs, as far as a submission uses
    them.
    """

    name: str | None
    python: str | None
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """Seconds for each job; submissions a day and in all, where they are known."""

    seconds: float = 600.0
    per_day: int = 5
    total: int = 100


def no_problems(subject: str, manifest: Manifest) -> list[str]:
    """Accept every artifact."""
    return []


def no_graph_problems(model: bytes) -> tuple[list[str], list[str]]:
    """Accept every ONNX file."""
    return [], []


def unchanged(arrays: Arrays) -> Arrays:
    """Hand out `arrays` as they are."""
    return arrays


def single_to_model(arrays: Arrays, manifest: Manifest) -> dict[str, Array]:
    """The file's one array under the name of the artifact's one input."""
    (spec,) = manifest.inputs
    return {spec.name: arrays[ARRAY_KEY]}


def single_from_model(answer: Arrays, manifest: Manifest) -> dict[str, Array]:
    """The artifact's one output under the file's key."""
    (spec,) = manifest.outputs
    return {ARRAY_KEY: answer[spec.name]}


def named_to_model(arrays: Arrays, manifest: Manifest) -> dict[str, Array]:
    """The file's arrays that the artifact has an input for."""
    return {spec.name: arrays[spec.name] for spec in manifest.inputs}


def named_from_model(answer: Arrays, manifest: Manifest) -> dict[str, Array]:
    """Every output under its own name."""
    return dict(answer)


def noisy(answer: Arrays) -> dict[str, Array]:
    """Made-up answers for a trial: each array with noise, float64.

    Its spread is 1 at most: rows of a trial may be extreme, and the platform stores small scores.
    """
    generator = np.random.default_rng(0)
    return {
        name: array + generator.normal(0.0, min(float(np.std(array)), 1.0) or 1.0, array.shape)
        for name, array in answer.items()
    }


@dataclass(frozen=True)
class Definition:
    """A challenge with its settings filled in: all that building, checking and scoring need.

    kind            "code": a program that is called; "result": prediction files, made locally;
                    "graph": the ONNX file itself
    entry           the file that must lie at the zip's root
    interface       class in `entry`, and its methods
    call, format    how arrays are handed over ("array": one, as `arr_0`; "mapping": by name) and
                    how predictions are stored
    template        text of `entry` behind the common start, kind "code"
    ingestion       text of the ingestion program; None: the files of the zip are the predictions
    beside          further files of the ingestion program by name
    rule            module of `submission.rules` (or one like them) that scores, with its `options`
    whitelist       packages that a requirements.txt may name; None: the file is not read
    problems        what is wrong with an artifact for a subject, in words
    graph_problems  what is wrong with an ONNX file, and what is odd about it; kind "graph"
    contract        arrays of a subject's files; None where they are the artifact's own and no
                    manifest is given
    to_model, from_model   between the arrays of files and those of an artifact
    mask            what of made-up inputs the challenge hides, hidden
    truth           made-up answers to score a trial with, from right predictions; from the inputs
                    where names of predictions are free
    fewest          rows of a set below which the rule cannot score
    """

    kind: Kind
    entry: str
    subjects: tuple[str, ...]
    sets: tuple[TestSet, ...]
    columns: tuple[Column, ...]
    rule: ModuleType
    contract: Callable[[str, Manifest | None], Contract | None]
    image: Image
    limits: Limits = Limits()
    options: Mapping[str, Any] = field(default_factory=dict)
    interface: tuple[str, tuple[str, ...]] = ("Model", ("load", "predict"))
    call: Call = "array"
    format: Format = "npz"
    template: bytes | None = None
    ingestion: bytes | None = None
    beside: Mapping[str, bytes] = field(default_factory=dict)
    whitelist: tuple[str, ...] | None = None
    problems: Callable[[str, Manifest], list[str]] = no_problems
    graph_problems: Callable[[bytes], tuple[list[str], list[str]]] = no_graph_problems
    to_model: Callable[[Arrays, Manifest], dict[str, Array]] = single_to_model
    from_model: Callable[[Arrays, Manifest], dict[str, Array]] = single_from_model
    mask: Callable[[Arrays], Arrays] = unchanged
    truth: Callable[[Arrays], Arrays] = noisy
    fewest: int = 1
    name: str = ""  # the challenge's, filled in by Challenge.definition


@dataclass(frozen=True)
class Challenge:
    """A challenge by name: `settings` are the keys that may stand beside its name in a YAML file.

    `define` makes the Definition from an instance of them and the names of the given artifacts
    (none given: no zip of ours is at hand); it raises ConfigError where they do not agree.
    """

    name: str
    title: str
    settings: type[BaseModel]
    define: Callable[[Any, tuple[str, ...]], Definition]

    def definition(self, settings: Any, models: tuple[str, ...]) -> Definition:
        """What `define` makes, with this challenge's name."""
        return replace(self.define(settings, models), name=self.name)


def names() -> list[str]:
    """Names of the challenges, sorted: those of this package and of other distributions."""
    own = {module.name for module in pkgutil.iter_modules(__path__)}
    return sorted(own | {point.name for point in entry_points(group=GROUP)})


def get(name: str) -> Challenge:
    """The challenge called `name`; raises ConfigError listing the names and the closest one."""
    if name in {module.name for module in pkgutil.iter_modules(__path__)}:
        own: Challenge = importlib.import_module(f"{__name__}.{name}").CHALLENGE
        return own
    for point in entry_points(group=GROUP, name=name):
        return _loaded(point)
    near = difflib.get_close_matches(name, names(), 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"no challenge {name!r}; there are {', '.join(names())}{hint}")


def _loaded(point: EntryPoint) -> Challenge:
    """The challenge of another distribution, whatever that does when it is imported."""
    try:
        found = point.load()
    except Exception as error:
        whose = "" if point.dist is None else f" of {point.dist.name}"
        raise ConfigError(
            f"the challenge {point.name!r}{whose} cannot be loaded: {point.value}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, Challenge):
        raise ConfigError(f"{point.value}: the challenge {point.name!r} is no Challenge")
    if found.name != point.name:
        raise ConfigError(
            f"{point.value}: is the challenge {found.name!r}; its entry point must have that name, "
            f"not {point.name!r}"
        )
    return found


def template(name: str) -> bytes:
    """Text of one of this package's templates, such as "neural_forecasting.py"."""
    folder = resources.files("submission").joinpath("templates")
    return folder.joinpath(f"{name}.template").read_bytes()


def compare_tensors(role: str, manifest: Manifest, wanted: Tensor) -> list[str]:
    """What is wrong with an artifact's one `role` ("input", "output"); empty when it fits."""
    specs = manifest.inputs if role == "input" else manifest.outputs
    if len(specs) != 1:
        found = ", ".join(spec.name for spec in specs)
        return [f"has the {role}s {found}; the challenge has one {role}"]
    spec, sizes = specs[0], specs[0].shape[1:]
    fits = len(sizes) == len(wanted.shape) and all(
        size is None or want is None or size == want
        for size, want in zip(sizes, wanted.shape, strict=True)
    )
    layout = ", ".join("any" if size is None else str(size) for size in wanted.shape)
    problems = [] if fits else [f"{role} {spec.name} is {spec.layout}, not (batch, {layout})"]
    if spec.dtype != wanted.dtype:
        problems.append(f"{role} {spec.name} is {spec.dtype}, not {wanted.dtype}")
    return problems


def subjects_of(models: Iterable[str], known: tuple[str, ...], challenge: str) -> tuple[str, ...]:
    """`known`, where each of them has a model and no other has; else ConfigError."""
    given = tuple(models)
    if missing := [name for name in known if name not in given]:
        raise ConfigError(
            f"models: lacks {', '.join(missing)}; {challenge} predicts {', '.join(known)}: "
            f"name an artifact for each (--model {missing[0]}=DIR)"
        )
    if unknown := [name for name in given if name not in known]:
        raise ConfigError(
            f"models: {', '.join(unknown)} is no subject of {challenge}; it has {', '.join(known)}"
        )
    return known
