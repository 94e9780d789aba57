"""What CodaBench's worker runs of a program folder: `metadata`, its `command`, old variables."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from submission.errors import RunError
from submission.worker.transfer import read_left

MAX_BYTES = 1 << 20
NAMES = ("metadata.yaml", "metadata")


class NoCommandError(Exception):
    """The worker raises here: before the program's container would start."""


@dataclass(frozen=True)
class Plan:
    """The file at the root that says what runs, its command and the command's words.

    `metadata` None: there is no such file. `command` None: it names no command.
    """

    metadata: str | None
    command: str | None = None
    words: tuple[str, ...] = ()


def plan(folder: Path, kind: Literal["program", "ingestion"], *, scoring: bool, late: bool) -> Plan:
    """Apply the rules of metadata to a program folder (compute_worker.py, _run_program_directory).

    `scoring` says which job it is, `late` that the task runs ingestion during scoring only.
    Raises NoCommandError where the worker raises: an ingestion program without a command, a
    command that is no text or cannot be split, metadata that cannot be read.
    """
    name = next((name for name in NAMES if (folder / name).exists()), None)
    if name is None:
        if kind == "ingestion":
            raise NoCommandError("Program directory missing 'metadata.yaml/metadata'")
        return Plan(None)
    command = _command(folder / name)
    if not command:
        if kind == "ingestion":
            raise NoCommandError("Program directory missing 'command' in metadata")
        return Plan(name)
    if not isinstance(command, str):
        raise NoCommandError(f"command in {name} must be text, is {type(command).__name__}")
    command = with_variables(command, kind, scoring=scoring, late=late)
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise NoCommandError(f"command in {name} cannot be split: {error}") from None
    if not words:
        raise NoCommandError(f"command in {name} names no program")
    if any("\0" in word or _has_surrogate(word) for word in words):
        raise NoCommandError(f"command in {name} holds what is no character")
    return Plan(name, command, words)


def _has_surrogate(word: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in word)


def _command(path: Path) -> object:
    """The value of `command`; None where the text is no YAML or holds no mapping."""
    try:
        data = read_left(path, MAX_BYTES)
    except RunError as error:
        raise NoCommandError(str(error)) from None
    if data is None:
        raise NoCommandError(f"{path.name} is no file")
    try:
        content = yaml.safe_load(data.decode())
    except yaml.YAMLError:
        return None
    except (ValueError, RecursionError) as error:
        raise NoCommandError(f"{path.name} cannot be read: {error}") from None
    return content.get("command") if isinstance(content, dict) else None


def with_variables(
    command: str, kind: Literal["program", "ingestion"], *, scoring: bool, late: bool
) -> str:
    """The command with the old CodaLab variables replaced.

    compute_worker.py, replace_legacy_metadata_command.
    """
    places = {
        "input": "/app/input_data" if kind == "ingestion" else "/app/input",
        "output": "/app/output",
        "tmp": "/app/output",
        "program": "/app/ingestion_program" if late and scoring else "/app/program",
        "ingestion_program": "/app/program",
        "submission_program": "/app/ingested_program",
        "hidden": "/app/input/ref",
        "shared": "/app/shared",
        "predictions": "/app/input/res" if scoring else "/app/output",
    }
    names = re.compile(r"\$(" + "|".join(places) + ")")
    return names.sub(lambda match: places[match[1]], command)
