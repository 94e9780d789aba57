"""`submission.json`, what a zip says of itself: written by `build`, read by the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter

from artifact.manifest import canonical_json
from submission import challenges
from submission.challenges import Challenge, Name, TestSet, plain_file
from submission.errors import ArchiveError, ConfigError

FILE = "submission.json"
SCHEMA = 1


class _Runtime(BaseModel):
    onnxruntime: str
    python: Annotated[str, Field(pattern=r"^\d+\.\d+$")]
    tree_sha256: str


# What stands in a zip comes from anyone, and its names become paths here.
_ARTIFACTS = TypeAdapter(dict[Name, str])
_RUNTIMES = TypeAdapter(dict[Name, _Runtime])
ERRORS = (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError)


@dataclass(frozen=True)
class Contents:
    """Challenge and its settings, artifact id per subject, runtime per interpreter tag."""

    challenge: Challenge
    settings: BaseModel
    artifacts: Mapping[str, str]
    runtimes: Mapping[str, Mapping[str, str]]  # "cp310": {"onnxruntime", "python", "tree_sha256"}

    @property
    def sets(self) -> tuple[TestSet, ...]:
        """The challenge's files, in the order in which they are predicted."""
        return self.challenge.sets(self.settings, self.artifacts)

    def to_json(self) -> bytes:
        """The file's bytes."""
        return canonical_json(
            {
                "schema": SCHEMA,
                "challenge": self.challenge.name,
                "settings": self.settings.model_dump(mode="json"),
                "artifacts": dict(self.artifacts),
                "runtimes": {abi: dict(facts) for abi, facts in self.runtimes.items()},
                **plan(self.challenge, self.sets),
            }
        )


def plan(challenge: Challenge, sets: tuple[TestSet, ...]) -> dict[str, Any]:
    """The part that a driver of the submission needs: how to call it, and with which files."""
    return {"call": challenge.call, "sets": [vars(entry) for entry in sets]}


def read(folder: Path) -> Contents:
    """Contents of an unpacked submission.

    Raises ArchiveError when there is none, or when it is not what `build` writes.
    """
    path = folder / FILE
    rebuild = "build the zip with `axonnx submission build`"
    if not path.is_file():
        raise ArchiveError(f"holds no {FILE}, so its challenge is not known; {rebuild}")
    try:
        value = json.loads(path.read_bytes())
        challenge = challenges.get(value["challenge"])
        found = Contents(
            challenge,
            challenge.settings.model_validate(value["settings"]),
            _ARTIFACTS.validate_python(value["artifacts"]),
            {abi: dict(r) for abi, r in _RUNTIMES.validate_python(value["runtimes"]).items()},
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
    subjects = found.challenge.subjects(found.settings, found.artifacts)
    if set(subjects) != set(found.artifacts):
        raise ValueError(f"the challenge has the subjects {', '.join(subjects)}")
    for entry in found.sets:
        plain_file(entry.input)
        plain_file(entry.output)
