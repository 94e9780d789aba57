"""Options that several commands share: how a zip is run, and sizes, times and paths among words."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from rich.console import Console

from submission import challenges
from submission.challenges import Challenge
from submission.config import load_config
from submission.errors import ConfigError


def new_console(*, stderr: bool = False) -> Console:
    """A console that prints texts as they are: titles and paths may hold brackets."""
    return Console(stderr=stderr, markup=False, emoji=False)


def add_challenge(word: argparse.ArgumentParser) -> None:
    """Add the options that say what a zip is a submission to."""
    which = word.add_mutually_exclusive_group()
    which.add_argument(
        "--challenge", metavar="NAME", help="for a zip that `submission build` did not write"
    )
    which.add_argument(
        "--config", type=Path, metavar="YAML", help="the same, with the challenge's settings"
    )


def add_running(word: argparse.ArgumentParser) -> None:
    """Add the options of a command that runs a submission in the local worker."""
    add_challenge(word)
    word.add_argument(
        "--engine", choices=("process", "docker"), default="process", help="default: process"
    )
    word.add_argument("--image", metavar="IMAGE", help="for the engine docker")
    word.add_argument("--memory", type=_bytes, metavar="SIZE", help="cap, such as 8G")
    word.add_argument("--time-limit", type=seconds, metavar="S", help="seconds for each job")


def running(options: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_running` as keyword arguments of `check` and its like."""
    return {
        "challenge": chosen_challenge(options),
        "engine": options.engine,
        "image": options.image,
        "memory": options.memory,
        "time_limit": options.time_limit,
    }


def chosen_challenge(options: argparse.Namespace) -> tuple[Challenge, BaseModel] | None:
    """What the options of `add_challenge` name, with its settings; raises ConfigError."""
    if options.config is not None:
        config = load_config(existing(options.config))
        return challenges.get(config.challenge), config.settings
    if options.challenge is None:
        return None
    found = challenges.get(options.challenge)
    try:
        return found, found.settings()
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, entry["loc"])) for entry in error.errors())
        raise ConfigError(
            f"--challenge {found.name}: needs {keys}; write them in a YAML file and name it with "
            "--config"
        ) from None


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)", text)
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text} is no size such as 500M or 8G")
    return int(float(match[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[match[2]])


def seconds(text: str) -> float:
    """A positive number of seconds, as the type of an option."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no positive number of seconds")
    return value


def existing(path: Path, folder: bool = False) -> Path:
    """The path itself if that file (or folder) is there; else `ConfigError`."""
    if not (path.is_dir() if folder else path.is_file()):
        raise ConfigError(f"{path}: no such {'folder' if folder else 'file'}")
    return path
