"""Scores as CodaBench's worker reads them from the output of a scoring program."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from submission.errors import RunError
from submission.worker.transfer import read_left

MAX_BYTES = 16 << 20
MAX_SCORE = 1e10  # the platform stores decimals of 20 digits, 10 of them behind the point
MAX_ENTRIES = 10_000
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class ScoreFileError(Exception):
    """No scores can be read; the text is the platform's."""


@dataclass(frozen=True)
class Scores:
    """The numbers of a scores file, and in words what of it is no flat {key: number}."""

    values: Mapping[str, float]
    wrong: str = ""


def read_scores(output: Path) -> Scores:
    """`scores.json` of a folder, else `scores.txt`, which is YAML (compute_worker.py, push_scores).

    Raises ScoreFileError with the platform's text where there is neither, or where the text of
    one cannot be decoded.
    """
    readers: tuple[tuple[str, Callable[[str], Any]], ...] = (
        ("scores.json", json.loads),
        ("scores.txt", yaml.safe_load),
    )
    for name, load in readers:
        try:
            data = read_left(output / name, MAX_BYTES)
        except RunError as error:
            raise ScoreFileError(str(error)) from None
        if data is not None:
            return flat(name, _decode(name, data, load))
    raise ScoreFileError("Could not find scores file, did the scoring program output it?")


def _decode(name: str, data: bytes, load: Callable[[str], Any]) -> Any:
    try:
        return load(data.decode())
    except json.JSONDecodeError as error:
        text = error.msg
    except yaml.YAMLError as error:
        text = f"{name} is not YAML: {getattr(error, 'problem', None) or error}"
    except (ValueError, RecursionError, ArithmeticError) as error:
        text = f"{name}: {error}"
    raise ScoreFileError(f"Could not decode scores json properly, it contains an error.\n{text}")


def flat(name: str, content: Any) -> Scores:
    """The numbers of a decoded scores file; `name` is the file's.

    A number is finite and below 1e10 in size, as the platform's column of decimals takes it. Text
    that spells a number counts in YAML, which reads 1e-05 as text.
    """
    if not isinstance(content, dict):
        return Scores({}, f"{name} holds {_shown(content)}, not one flat {{column key: number}}")
    values: dict[str, float] = {}
    wrong = []
    if len(content) > MAX_ENTRIES:
        return Scores({}, f"{name} holds {len(content)} scores; at most {MAX_ENTRIES} are read")
    for key, value in content.items():
        if name == "scores.txt" and isinstance(value, str) and NUMBER.fullmatch(value.strip()):
            value = float(value)
        if not isinstance(key, str):
            wrong.append(f"the key {_shown(key)} is no text")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            wrong.append(f"{key} is {_shown(value)}, not a number")
        elif not abs(value) < MAX_SCORE:
            size = "at least 1e10 in size" if abs(value) >= MAX_SCORE else "not a number"
            wrong.append(f"{key} is {_shown(value)}, {size}")
        else:
            values[key] = float(value)
    return Scores(values, f"{name}: " + "; ".join(wrong) if wrong else "")


def _shown(value: object) -> str:
    if isinstance(value, list | dict | tuple | set):
        return {list: "a list", dict: "an object"}.get(type(value), f"a {type(value).__name__}")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**20:
        return "a large integer"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return repr(value)[:60]
