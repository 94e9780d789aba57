"""`submission.json`, what a zip says of itself: written by `build`, read by the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from artifact.manifest import canonical_json
from submission import challenges
from submission.challenges import Challenge, TestSet
from submission.errors import ArchiveError, ConfigError

FILE = "submission.json"
SCHEMA = 1


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
            dict(value["artifacts"]),
            dict(value["runtimes"]),
        )
        written = found.to_json()
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError, ConfigError) as error:
        raise ArchiveError(f"{FILE} is not what this version writes ({error}); {rebuild}") from None
    if json.loads(written) != value:
        raise ArchiveError(f"{FILE} is not what this version writes; {rebuild}")
    return found
