"""Files of arrays as challenges lay them out: inputs, answers and predictions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from artifact.arrays import Array, decode_npz, encode_npz
from artifact.errors import ArtifactError
from submission import pickled
from submission.challenges import ARRAY_KEY, Arrays, Definition, TestSet
from submission.errors import RunError
from submission.worker.transfer import read_left

MAX_FILE_BYTES = 8 << 30
MAX_ARRAYS = 256


def read_arrays(path: Path, *, left: bool = False) -> dict[str, Array]:
    """Arrays of an `.npz` by name; raises RunError naming the file.

    `left`: a program may have written it, so that a link or a special file counts as none.
    """
    try:
        data = _left(path) if left else path.read_bytes()
        return dict(decode_npz(data, max_members=MAX_ARRAYS, max_bytes=MAX_FILE_BYTES))
    except FileNotFoundError:
        raise RunError(f"{path.name}: was not written") from None
    except (ArtifactError, OSError) as error:
        raise RunError(f"{path.name}: {error}") from None


def _left(path: Path) -> bytes:
    """The bytes of a file that a program wrote; raises FileNotFoundError, RunError."""
    data = read_left(path, MAX_FILE_BYTES)
    if data is not None:
        return data
    if os.path.lexists(path):
        raise RunError(f"{path.name}: is no plain file")
    raise FileNotFoundError(path)


def read(
    definition: Definition, sets: Iterable[TestSet], folder: Path, *, strict: bool = False
) -> dict[str, Arrays]:
    """Predictions of `sets` in `folder`: set name -> arrays by their keys in a file.

    Raises RunError naming the file that is missing or is not what the challenge asks for; `strict`
    also where a file of several sets holds more than those of the challenge.
    """
    if definition.format == "npz":
        return {entry.name: read_arrays(folder / entry.output, left=True) for entry in sets}
    found: dict[str, Arrays] = {}
    whole: dict[str, Any] = {}
    for entry in sets:
        if entry.output not in whole:
            whole[entry.output] = _decode(folder / entry.output)
            if strict:
                _refuse_strangers(definition, entry.output, whole[entry.output])
        value = whole[entry.output]
        for key in entry.key:
            if not isinstance(value, dict) or key not in value:
                raise RunError(f"{entry.output}: holds nothing under {' / '.join(entry.key)}")
            value = value[key]
        if not isinstance(value, np.ndarray):
            place = " / ".join(entry.key)
            raise RunError(f"{entry.output}: {place} is {type(value).__name__}, not an array")
        found[entry.name] = {ARRAY_KEY: value}
    return found


def _refuse_strangers(definition: Definition, file: str, value: Any) -> None:
    """Raise RunError for what lies beside the arrays that the challenge asks for."""
    known = {e.key[:depth] for e in definition.sets if e.output == file for depth in range(9)}
    left: list[tuple[tuple[str, ...], Any]] = [((name,), inner) for name, inner in value.items()]
    while left:
        key, inner = left.pop()
        if key not in known:
            raise RunError(f"{file}: holds {' / '.join(key)}, which the challenge does not ask for")
        if isinstance(inner, dict):
            left += [((*key, name), deeper) for name, deeper in inner.items()]


def _decode(path: Path) -> Any:
    try:
        return pickled.decode(_left(path), max_bytes=MAX_FILE_BYTES)
    except FileNotFoundError:
        raise RunError(f"{path.name}: was not written") from None
    except (ValueError, OSError) as error:
        raise RunError(f"{path.name}: {error}") from None


def encode(definition: Definition, answers: Mapping[str, Arrays]) -> dict[str, bytes]:
    """The prediction files of `answers` (set name -> arrays): file name -> bytes."""
    chosen = [entry for entry in definition.sets if entry.name in answers]
    if definition.format == "npz":
        return {entry.output: encode_npz(dict(answers[entry.name])) for entry in chosen}
    trees: dict[str, dict[str, Any]] = {}
    for entry in chosen:
        place = trees.setdefault(entry.output, {})
        for key in entry.key[:-1]:
            place = place.setdefault(key, {})
        place[entry.key[-1]] = answers[entry.name][ARRAY_KEY]
    return {name: pickled.encode(tree) for name, tree in trees.items()}
