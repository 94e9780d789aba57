"""The data of a benchmark, read from a folder, and the proof that no answer is shown in it.

Either DIR/input_data and DIR/reference_data in the challenge's layout, or full recordings in DIR
itself, called as the answers are, from which `Definition.mask` makes the inputs. DIR/public_data
and DIR/starting_kit, where they are there, go to every participant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artifact.arrays import decode_npy, decode_npz
from artifact.errors import ArtifactError
from submission import predictions
from submission.challenges import Array, Arrays, Definition, TestSet
from submission.errors import ConfigError, RunError

# A vector is compared that has as many distinct values, or as many beside its median: those of
# sparse events agree by chance.
DISTINCT, UNCOMMON = 8, 24
MAX_FILE_BYTES = predictions.MAX_FILE_BYTES


@dataclass(frozen=True)
class Data:
    """Arrays of inputs and answers by set, files for everyone by name; `notes` for the organiser.

    A result challenge may have no inputs here.
    """

    inputs: Mapping[str, Arrays]
    references: Mapping[str, Arrays]
    public: Mapping[str, bytes]
    kit: Mapping[str, bytes]
    notes: tuple[str, ...] = ()


def load(definition: Definition, folder: Path) -> Data:
    """Read the data in `folder`; raises ConfigError for what does not fit the challenge."""
    layout = [name for name in ("input_data", "reference_data") if (folder / name).is_dir()]
    if "reference_data" in layout:
        inputs, references = folder / "input_data", folder / "reference_data"
        answers = _arrays(references, ((entry.name, entry.reference) for entry in definition.sets))
        asked = _arrays(inputs, _asked(definition, inputs))
        notes = (
            *_strangers(inputs, [entry.input for entry in definition.sets]),
            *_strangers(references, [entry.reference for entry in definition.sets]),
        )
    elif "input_data" in layout:
        raise ConfigError(f"{folder}: has input_data/ and no reference_data/, so no answers")
    else:
        answers = _arrays(folder, ((entry.name, entry.reference) for entry in definition.sets))
        asked = _masked(definition, answers)
        notes = (f"inputs are {', '.join(e.reference for e in definition.sets[:3])}, masked",)
    for entry in definition.sets:
        _check(definition, entry, asked.get(entry.name), answers[entry.name])
    public, kit = (_files(folder / name) for name in ("public_data", "starting_kit"))
    return Data(asked, answers, public, kit, notes)


def _asked(definition: Definition, folder: Path) -> Iterator[tuple[str, str]]:
    for entry in definition.sets:
        if definition.kind != "result" or (folder / entry.input).is_file():
            yield entry.name, entry.input


def _arrays(folder: Path, files: Iterable[tuple[str, str]]) -> dict[str, Arrays]:
    found: dict[str, Arrays] = {}
    for name, file in files:
        try:
            found[name] = predictions.read_arrays(folder / file)
        except RunError as error:
            raise ConfigError(
                f"{folder}: {str(error).replace('was not written', 'is missing')}"
            ) from None
        if not found[name]:
            raise ConfigError(f"{folder}: {file} holds no array")
    return found


def _masked(definition: Definition, recordings: Mapping[str, Arrays]) -> dict[str, Arrays]:
    if definition.kind == "result":
        return {}
    for name, arrays in recordings.items():
        if not any(where.any() for where in hidden(definition, arrays).values()):
            raise ConfigError(
                f"{name}: the challenge hides nothing of a recording, so it cannot be made into "
                "inputs and answers; lay them out as input_data/ and reference_data/"
            )
    return {name: dict(definition.mask(arrays)) for name, arrays in recordings.items()}


def _strangers(folder: Path, known: Iterable[str]) -> list[str]:
    if not folder.is_dir():
        return []
    found = sorted({path.name for path in folder.iterdir()} - set(known))
    return [f"left out: {folder / name}, which no test set names" for name in found]


def _files(folder: Path) -> dict[str, bytes]:
    files = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_symlink():
            raise ConfigError(f"{path}: is a link; copy what it leads to")
        if path.is_file() and "__pycache__" not in path.parts:
            files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return files


def _check(definition: Definition, entry: TestSet, asked: Arrays | None, answers: Arrays) -> None:
    """Names, dtypes, shapes and rows of one set."""
    contract = definition.contract(entry.subject, None)
    if asked is not None and contract is not None and contract.inputs:
        if set(asked) != set(contract.inputs):
            wanted = ", ".join(contract.inputs)
            raise ConfigError(f"{entry.input}: holds {', '.join(asked)}; must hold {wanted}")
        for key, tensor in contract.inputs.items():
            array = asked[key]
            fits = array.ndim == len(tensor.shape) + 1 and all(
                want in (None, size)
                for want, size in zip(tensor.shape, array.shape[1:], strict=True)
            )
            if not fits or str(array.dtype) != tensor.dtype:
                sizes = ", ".join("any" if size is None else str(size) for size in tensor.shape)
                raise ConfigError(
                    f"{entry.input}: {key} is {array.dtype} {array.shape}; the challenge asks for "
                    f"{tensor.dtype} (rows, {sizes})"
                )
    files = [(entry.reference, answers)]
    if definition.kind != "result":
        files.insert(0, (entry.input, asked or {}))
    counts = {
        (file, key): len(array) if array.ndim else 0
        for file, arrays in files
        for key, array in arrays.items()
    }
    rows = entry.rows or next(iter(counts.values()))
    for (file, key), count in counts.items():
        if not count or count != rows:
            raise ConfigError(f"{file}: {key} has {count} rows; the set {entry.name} has {rows}")


def hidden(definition: Definition, arrays: Arrays) -> dict[str, Array]:
    """Where the challenge's mask hides values: booleans (row, ...) by array."""
    marks = {
        key: ((np.arange(array.size) + 0.5) / array.size).reshape(array.shape)
        for key, array in arrays.items()
    }
    masked = definition.mask(marks)
    return {key: masked[key] != mark for key, mark in marks.items()}


def leaks(definition: Definition, data: Data, shown: Mapping[str, bytes]) -> list[str]:
    """Answers that stand in the inputs or in the files `shown` to everyone, in words.

    Compared, as float32: whole arrays; each column of an answer (one place of every row) with the
    columns of arrays of as many rows; the hidden part of each row with that of rows of its shape.
    Vectors that agree by chance, such as constant ones, are passed over.
    """
    files: dict[str, Arrays] = {
        **{
            f"input_data/{entry.input}": data.inputs.get(entry.name, {})
            for entry in definition.sets
        },
        **{name: arrays_of(name, content) for name, content in shown.items()},
    }
    found = []
    for entry in definition.sets:
        marked = hidden(definition, data.inputs.get(entry.name, {}))
        for key, array in data.references[entry.name].items():
            secret = _secret(array, marked.get(key))
            for file, arrays in files.items():
                for name, other in arrays.items():
                    if text := _shared(array, secret, other):
                        found.append(f"{entry.reference}: {key}: {text} in {file}: {name}")
    return found


def _secret(answer: Array, marked: Array | None) -> Array:
    """Where an answer is secret: where the inputs are hidden, if it has their shape."""
    if marked is not None and marked.any():
        if marked.shape == answer.shape:
            return marked
        if marked.shape[:-1] == answer.shape:
            return np.asarray(marked[..., 0])
    return np.ones(answer.shape, bool)


def arrays_of(name: str, content: bytes) -> Arrays:
    """The arrays in a `.npz` or `.npy`; none in another file.

    Raises ConfigError where one cannot be read, and so not be compared.
    """
    try:
        if name.endswith(".npz"):
            return dict(decode_npz(content, max_bytes=MAX_FILE_BYTES))
        if name.endswith(".npy"):
            return {"array": decode_npy(content)}
    except ArtifactError as error:
        raise ConfigError(f"{name}: cannot be compared with the answers ({error})") from None
    return {}


def _shared(answer: Array, secret: Array, other: Array) -> str:
    """What of the secret part of `answer` stands in `other`, in words; "" where nothing does."""
    if not secret.any() or not other.size:
        return ""
    if secret.all() and _marks(answer.reshape(1, -1)) & _marks(other.reshape(1, -1)):
        return "the whole array stands"
    if other.ndim and len(answer) == len(other):
        always = secret.reshape(len(secret), -1).all(axis=0)
        columns = answer.reshape(len(answer), -1)[:, always].T
        if count := len(_marks(columns) & _marks(other.reshape(len(other), -1).T)):
            return f"{count} of its {len(columns)} hidden columns stand"
    for part in _alike(answer, other):
        if (secret == secret[0]).all():
            rows = answer[:, secret[0]], part[:, secret[0]]
            if count := len(_marks(rows[0]) & _marks(rows[1])):
                return f"the hidden part of {count} of its {len(answer)} rows stands"
    return ""


def _alike(answer: Array, other: Array) -> Iterator[Array]:
    """`other`, or what of it along its last axis has rows of the answer's shape."""
    if answer.ndim and other.shape[1:] == answer.shape[1:]:
        yield other
    elif answer.ndim > 1 and other.shape[1:-1] == answer.shape[1:]:
        yield from np.moveaxis(other, -1, 0)


def _marks(vectors: Array) -> set[bytes]:
    """A hash of each vector of (vector, value) that hardly another one equals by chance."""
    if vectors.ndim < 2 or vectors.shape[1] < DISTINCT:
        return set()
    with np.errstate(over="ignore", invalid="ignore"):
        plain = np.ascontiguousarray(vectors.reshape(len(vectors), -1), dtype=np.float32)
    ordered = np.sort(plain, axis=1)
    distinct = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1)
    uncommon = (ordered != ordered[:, ordered.shape[1] // 2, None]).sum(axis=1)
    plain = plain[(distinct >= DISTINCT) | ((distinct > 1) & (uncommon >= UNCOMMON))]
    return {hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in plain}
