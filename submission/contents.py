"""`submission.json`, what a zip says of itself: written by `build`, read by the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from submission import challenges
from submission.challenges import Challenge, Definition, Name, plain_file
from submission.errors import ArchiveError, ConfigError
from submission.programs import plan

FILE = "submission.json"
SCHEMA = 2


class Stored(BaseModel):
    """An artifact in a zip: its id, and the folder below `artifacts/` that several may share."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    folder: Name


class Runtime(BaseModel):
    """A runtime in a zip: versions, and the hash of its files."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    onnxruntime: str
    python: Annotated[str, Field(pattern=r"^\d+\.\d+$")]
    tree_sha256: str


# What stands in a zip comes from anyone, and its names become paths here.
_ARTIFACTS = TypeAdapter(dict[Name, Stored])
_RUNTIMES = TypeAdapter(dict[Name, Runtime])
ERRORS = (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError)


@dataclass(frozen=True)
class Contents:
    """Challenge and its settings, artifact per subject, runtime per interpreter tag ("cp310")."""

    challenge: Challenge
    settings: BaseModel
    artifacts: Mapping[str, Stored]
    runtimes: Mapping[str, Runtime]

    @property
    def definition(self) -> Definition:
        """The challenge with these settings, for these artifacts."""
        return self.challenge.definition(self.settings, tuple(self.artifacts))

    def to_json(self) -> bytes:
        """The file's bytes; `plan` is for programs that run a zip without this package.

        Keys keep their order: the sets, and so the plan, follow that of the settings and artifacts.
        """
        definition = self.definition
        value = {
            "schema": SCHEMA,
            "challenge": self.challenge.name,
            "settings": self.settings.model_dump(mode="json"),
            "artifacts": {name: entry.model_dump() for name, entry in self.artifacts.items()},
            "runtimes": {abi: entry.model_dump() for abi, entry in self.runtimes.items()},
            "plan": plan(definition, definition.sets, scoring=False),
        }
        return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def read(folder: Path) -> Contents:
    """Contents of an unpacked submission.

    Raises ArchiveError when there is none, or when it is not what `build` writes.
    """
    path = folder / FILE
    rebuild = "build the zip with `axonnx submission build`"
    if not path.is_file():
        raise ArchiveError(f"holds no {FILE}, so its challenge is not known; {rebuild}")
    try:
        value: Any = json.loads(path.read_bytes())
        challenge = challenges.get(value["challenge"])
        found = Contents(
            challenge,
            challenge.settings.model_validate(value["settings"]),
            _ARTIFACTS.validate_python(value["artifacts"]),
            _RUNTIMES.validate_python(value["runtimes"]),
        )
        _refuse_strangers(found)
        written = found.to_json()
    except ERRORS as error:
        raise ArchiveError(f"{FILE} is not what this version writes ({error}); {rebuild}") from None
    if json.loads(written) != value:
        raise ArchiveError(f"{FILE} is not what this version writes; {rebuild}")
    return found


def _refuse_strangers(found: Contents) -> None:
    """Raise ValueError where an artifact is missing, or a file lies outside its folder."""
    definition = found.definition
    if set(definition.subjects) != set(found.artifacts):
        raise ValueError(f"the challenge has the subjects {', '.join(definition.subjects)}")
    for entry in definition.sets:
        for name in (entry.input, entry.output, entry.reference):
            plain_file(name)
