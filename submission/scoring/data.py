"""Local data with known answers, in a challenge's layout."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from artifact import Manifest
from submission import predictions
from submission.challenges import Arrays, Definition, Tensor, TestSet
from submission.errors import ConfigError

INPUT, REFERENCE = "input_data", "reference_data"


@dataclass(frozen=True)
class LocalData:
    """The challenge with the sets that are there, and their arrays by set name.

    `fingerprint` is the sha256 of the files that were used, `notes` say what is not as on the
    platform.
    """

    definition: Definition
    inputs: Mapping[str, Arrays]
    references: Mapping[str, Arrays]
    fingerprint: str
    notes: tuple[str, ...]


def read_local(
    definition: Definition, folder: Path, manifests: Mapping[str, Manifest]
) -> LocalData:
    """Read `folder`: `input_data/` and `reference_data/`, or the files of both in it.

    Where only a reference is there and it has the shape of an input, the input is made from it,
    with what the challenge hides hidden. `manifests` are those of the artifacts by subject. Raises
    ConfigError where no set is whole, RunError for a file that cannot be read.
    """
    inputs: dict[str, Arrays] = {}
    references: dict[str, Arrays] = {}
    used: dict[str, Path] = {}
    left: list[tuple[str, str]] = []
    notes, made = [], []
    for entry in definition.sets:
        reference = _find(folder, REFERENCE, entry.reference)
        if reference is None:
            left.append((entry.name, f"there is no {REFERENCE}/{entry.reference}"))
            continue
        source = None if definition.kind == "result" else _input(folder, entry)
        arrays = predictions.read_arrays(reference)
        if definition.kind != "result" and source is None:
            masked = _masked(definition, entry, manifests.get(entry.subject), arrays)
            if masked is None:
                reason = (
                    f"there is no {INPUT}/{entry.input}, and its reference {reference.name} holds "
                    "no whole recording to make it from"
                )
                left.append((entry.name, reason))
                continue
            made.append(entry.name)
            inputs[entry.name] = masked
        elif source is not None:
            inputs[entry.name] = predictions.read_arrays(source)
            manifest = manifests.get(entry.subject)
            _require(definition, entry, manifest, source, inputs[entry.name])
            used[f"{INPUT}/{entry.input}"] = source
        references[entry.name] = arrays
        used[f"{REFERENCE}/{entry.reference}"] = reference
    if not references:
        raise ConfigError(_nothing(definition, folder))
    if left:
        notes.append("; ".join(f"{name} is left out: {reason}" for name, reason in left))
    if made:
        notes.append(f"inputs made from the answers, the rest hidden: {', '.join(made)}")
    present = only(definition, tuple(references))
    if present is not definition:
        notes.append("a column over several sets is one over those that are here")
    return LocalData(present, inputs, references, fingerprint(used), tuple(notes))


def only(definition: Definition, names: Sequence[str]) -> Definition:
    """The challenge with these of its sets; options that speak of sets speak of these alone.

    Where some are left out it has no columns: its rule then gives what it can.
    """
    if len(names) == len(definition.sets):
        return definition
    known = {entry.name for entry in definition.sets}
    return replace(
        definition,
        sets=tuple(entry for entry in definition.sets if entry.name in names),
        columns=(),
        options={key: _only(value, known, names) for key, value in definition.options.items()},
    )


def fingerprint(files: Mapping[str, Path]) -> str:
    """sha256 over names and contents, in the order of the names."""
    total = hashlib.sha256()
    for name, path in sorted(files.items()):
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{name}\0{digest}\n".encode())
    return total.hexdigest()


def _only(value: Any, known: set[str], names: Sequence[str]) -> Any:
    """An option without what it says of other sets; weights keep their sum."""
    if isinstance(value, Mapping) and value and known.issuperset(value):
        kept = {name: entry for name, entry in value.items() if name in names}
        if not all(isinstance(entry, int | float) for entry in value.values()):
            return kept
        left = sum(kept.values())
        scale = sum(value.values()) / left if left else 1.0
        return {name: entry * scale for name, entry in kept.items()}
    if isinstance(value, list | tuple) and value and known.issuperset(map(str, value)):
        return [name for name in value if name in names]
    return value


def _find(folder: Path, kind: str, name: str) -> Path | None:
    for path in (folder / kind / name, folder / name):
        if path.is_file():
            return path
    return None


def _input(folder: Path, entry: TestSet) -> Path | None:
    """The input's file; in one folder with the answers only where its name is not theirs."""
    if entry.input == entry.reference:
        path = folder / INPUT / entry.input
        return path if path.is_file() else None
    return _find(folder, INPUT, entry.input)


def _require(
    definition: Definition,
    entry: TestSet,
    manifest: Manifest | None,
    source: Path,
    arrays: Arrays,
) -> None:
    """Raise ConfigError where an input file lacks an array that the artifact asks for by name."""
    contract = definition.contract(entry.subject, manifest) if manifest is not None else None
    wanted = contract.inputs if contract else {}
    if definition.call == "mapping" and not set(wanted) <= set(arrays):
        held = ", ".join(arrays) or "nothing"
        raise ConfigError(f"{source} holds {held}; the artifact asks for {', '.join(wanted)}")


def _masked(
    definition: Definition, entry: TestSet, manifest: Manifest | None, arrays: Arrays
) -> dict[str, Any] | None:
    """An input from a reference that holds the whole recording; None where it does not."""
    contract = definition.contract(entry.subject, manifest)
    if contract is None or not all(
        name in arrays and _fits(arrays[name], tensor) for name, tensor in contract.inputs.items()
    ):
        return None
    whole = {
        name: np.ascontiguousarray(arrays[name], tensor.dtype)
        for name, tensor in contract.inputs.items()
    }
    masked = dict(definition.mask(whole))
    hidden = any(not np.array_equal(masked[name], array) for name, array in whole.items())
    return masked if hidden else None


def _fits(array: np.ndarray[Any, Any], tensor: Tensor) -> bool:
    return array.ndim == len(tensor.shape) + 1 and all(
        want in (None, have) for want, have in zip(tensor.shape, array.shape[1:], strict=True)
    )


def _nothing(definition: Definition, folder: Path) -> str:
    entry = definition.sets[0]
    inputs = "" if definition.kind == "result" else f"{INPUT}/{entry.input} and "
    return (
        f"{folder}: holds no set of {definition.name} with known answers: {inputs}"
        f"{REFERENCE}/{entry.reference} would be one (or both files in the folder itself)"
    )
