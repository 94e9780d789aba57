"""Files with a connectome, of strangers: nothing is believed before the bytes are there.

No file may hold more than 256 MB once it is decompressed, nor more than 4096 regions. Nothing is
unpickled; an archive's paths are names to look up, never places to write to.
"""

from __future__ import annotations

import bz2
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from recording import array_files
from recording.errors import RecordingError
from recording.readers import mat5
from trainer.data.errors import DataError
from trainer.data.number_table import MOST_REGIONS, text_table

MOST_BYTES = 2**28
MOST_ENTRIES = 1000
BLOCK = 2**20
# Usual names of variables, in the order in which they are looked for; case does not matter.
USUAL = {
    "weights": ("weights", "sc", "cmat", "connectivity", "counts"),
    "lengths": ("tract_lengths", "lengths", "len", "dmat", "dist", "distances"),
    "labels": ("labels", "region_labels", "regions", "names"),
    "positions": ("centres", "centers", "positions", "coordinates"),
}
# What zipfile and its decompressors raise over bytes that are not what they say.
_DAMAGE = (
    OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip

Names = Mapping[str, str | None]


@dataclass(frozen=True, eq=False)
class ConnectomeParts:
    """What a file holds: weights (node, node) and, where it has them, lengths and positions in mm,
    (node, node) and (node, 3), and labels.
    """

    weights: np.ndarray
    lengths: np.ndarray | None = None
    labels: tuple[str, ...] = ()
    positions: np.ndarray | None = None


def read_parts(path: Path, names: Names) -> ConnectomeParts:
    """Read a connectome file, by its suffix; raises DataError naming the file and the entry."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path.name}: a connectome file ends in one of {', '.join(_READERS)}")
    try:
        return reader(path, names)
    except RecordingError as error:
        raise DataError(str(error.within(file=path.name))) from None


def _read_csv(path: Path, names: Names) -> ConnectomeParts:
    weights, labels = text_table(_file_bytes(path), path.name)
    others = {
        part: path.parent / name for part, name in names.items() if name and part != "weights"
    }
    for part, other in others.items():
        if not other.is_file():
            raise DataError(f"{part}: there is no file {other}")
    lengths = positions = None
    if "lengths" in others:
        lengths, own = text_table(_file_bytes(others["lengths"]), others["lengths"].name)
        if own and labels and own != labels:
            raise DataError(
                f"{others['lengths'].name}: its labels are not those of {path.name}, or in "
                "another order"
            )
    if "labels" in others:
        data = _file_bytes(others["labels"])
        lines = data.decode("utf-8-sig", "replace").splitlines()
        labels = tuple(line.strip() for line in lines if line.strip())
    if "positions" in others:
        positions, own = text_table(_file_bytes(others["positions"]), others["positions"].name)
        labels = labels or (own if len(own) == len(positions) else ())
    return ConnectomeParts(weights, lengths, labels, positions)


def _read_mat(path: Path, names: Names) -> ConnectomeParts:
    return _from_variables(path, _mat_variables(path), names)


def _read_npz(path: Path, names: Names) -> ConnectomeParts:
    return _from_variables(path, _npz_variables(path), names)


def _mat_variables(path: Path) -> dict[str, Callable[[], Any]]:
    """Loaders of the variables of a MATLAB file."""
    _check_size(path.stat().st_size, path.name)
    with path.open("rb") as file:
        head = file.read(len(mat5.SIGNATURE))
    if head.startswith(b"MATLAB 7.3"):
        raise DataError(f"{path.name}: is MATLAB 7.3; save it with `save(…, '-v7')`")
    if head != mat5.SIGNATURE:
        raise DataError(f"{path.name}: does not begin as MATLAB files of version 5 to 7 do")
    try:
        found = mat5.variables(path)
    except RecordingError as error:
        raise DataError(str(error.within(file=path.name))) from None

    def loader(variable: mat5.Variable) -> Callable[[], Any]:
        def load() -> Any:
            _check_shape(variable.shape, path.name, variable.name)
            value = mat5.load(path, variable)
            return value.whole() if isinstance(value, mat5.Matrix) else value

        return load

    return {name: loader(variable) for name, variable in found.items()}


def _npz_variables(path: Path) -> dict[str, Callable[[], Any]]:
    """Loaders of the arrays of an NPZ file."""
    try:
        names = array_files.array_names(path)
    except RecordingError as error:
        raise DataError(str(error.within(file=path.name))) from None

    def loader(name: str) -> Callable[[], Any]:
        def load() -> Any:
            kinds = array_files.NUMBERS + array_files.TEXT
            stored = array_files.find_array(path, name or None, kinds=kinds)
            _check_shape(stored.shape, path.name, name)
            _check_size(stored.size, f"{path.name}: {name}")
            return stored.read()

        return load

    return {name: loader(name) for name in names}


def _from_variables(
    path: Path, load: dict[str, Callable[[], Any]], names: Names
) -> ConnectomeParts:
    """The parts among named variables: those asked for, else those of usual names."""
    found: dict[str, Any] = {}
    lower = {name.lower(): name for name in reversed(load)}
    for part, usual in USUAL.items():
        asked = names.get(part)
        key = asked or next((lower[name] for name in usual if name in lower), None)
        if asked and asked not in load:
            raise DataError(f"{path.name}: no {asked!r}; there is {', '.join(load) or 'none'}")
        if key is None and part == "weights":
            raise DataError(
                f"{path.name}: none of {', '.join(USUAL['weights'])} is there; set `weights` to "
                f"one of {', '.join(load)}"
            )
        if key is None:
            continue
        try:
            value = load[key]()
        except RecordingError as error:
            raise DataError(str(error.within(file=path.name, stream=key))) from None
        found[part] = (
            _texts(value, path.name, key) if part == "labels" else _numbers(value, path.name, key)
        )
    return ConnectomeParts(
        found["weights"], found.get("lengths"), found.get("labels", ()), found.get("positions")
    )


def _read_tvb(path: Path, _: Names) -> ConnectomeParts:
    """A zip of The Virtual Brain: weights, tract lengths and centres as text."""
    _check_size(path.stat().st_size, path.name)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if len(infos) > MOST_ENTRIES:
                raise DataError(f"{path.name}: {len(infos)} entries; at most {MOST_ENTRIES}")
            texts = {
                part: _entry(archive, infos, stem, path.name)
                for part, stem in (
                    ("weights", "weights"),
                    ("lengths", "tract_lengths"),
                    ("positions", "centres"),
                )
            }
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{path.name}: damaged, {str(error) or type(error).__name__}") from None
    if texts["weights"] is None:
        there = ", ".join(info.filename[:60] for info in infos[:8]) or "nothing"
        raise DataError(f"{path.name}: holds no weights.txt or weights.txt.bz2, but {there}")
    tables = {part: text_table(*found) for part, found in texts.items() if found is not None}
    positions, labels = tables.get("positions", (None, ()))
    lengths = tables["lengths"][0] if "lengths" in tables else None
    return ConnectomeParts(tables["weights"][0], lengths, labels or tables["weights"][1], positions)


def _entry(
    archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], stem: str, file: str
) -> tuple[bytes, str] | None:
    """Bytes of the entry `stem`.txt or `stem`.txt.bz2 in any folder, and where they are from."""
    wanted = (f"{stem}.txt", f"{stem}.txt.bz2")
    found = [info for info in infos if PurePosixPath(info.filename).name in wanted]
    if not found:
        return None
    if len(found) > 1:
        raise DataError(f"{file}: {' and '.join(i.filename for i in found[:3])}; must be one")
    info = found[0]
    where = f"{file}: {info.filename}"
    if info.flag_bits & 1:
        raise DataError(f"{where}: is encrypted")
    _check_size(info.file_size, where)
    with archive.open(info) as member:
        data = _bounded(member, where)
    return (_unpacked(data, where) if info.filename.endswith(".bz2") else data), where


def _bounded(file: IO[bytes], where: str) -> bytes:
    """The rest of a file, of which at most MOST_BYTES are ever read."""
    blocks: list[bytes] = []
    left = MOST_BYTES
    while data := file.read(min(BLOCK, left + 1)):
        left -= len(data)
        if left < 0:
            raise DataError(f"{where}: is larger than {MOST_BYTES >> 20} MB")
        blocks.append(data)
    return b"".join(blocks)


def _unpacked(data: bytes, where: str) -> bytes:
    """bzip2's bytes decompressed, of which at most MOST_BYTES are ever made."""
    unpacker = bz2.BZ2Decompressor()
    blocks: list[bytes] = []
    left = MOST_BYTES
    try:
        while not unpacker.eof:
            if unpacker.needs_input and not data:
                raise DataError(f"{where}: its bzip2 data are cut off")
            made = unpacker.decompress(data, BLOCK)
            data = b""
            left -= len(made)
            if left < 0:
                raise DataError(f"{where}: is larger than {MOST_BYTES >> 20} MB once decompressed")
            blocks.append(made)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: its bzip2 data are damaged ({error})") from None
    return b"".join(blocks)


def _file_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return _bounded(file, path.name)


def _numbers(value: Any, file: str, key: str) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        what = value.what if isinstance(value, mat5.Unread) else "no matrix of numbers"
        raise DataError(f"{file}: {key}: is {what}; must be a matrix of numbers")
    return np.asarray(value, np.float64)


def _texts(value: Any, file: str, key: str) -> tuple[str, ...]:
    """Labels of a cell array, a char matrix or an array of text."""
    found = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    found = [found] if isinstance(found, str) else found
    texts = [t.decode("utf-8", "replace") if isinstance(t, bytes) else t for t in found or ()]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{file}: {key}: is no list of names")
    return tuple(text.strip() for text in texts)


def _check_size(size: int, where: str) -> None:
    if size > MOST_BYTES:
        raise DataError(f"{where}: {size} bytes; at most {MOST_BYTES >> 20} MB are read")


def _check_shape(shape: tuple[int, ...], file: str, key: str) -> None:
    if max(shape, default=0) > MOST_REGIONS and len(shape) > 1:
        raise DataError(
            f"{file}: {key}: has shape {shape}; at most {MOST_REGIONS} regions are read"
        )


_READERS: dict[str, Callable[[Path, Names], ConnectomeParts]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_csv,
    ".mat": _read_mat,
    ".npz": _read_npz,
    ".zip": _read_tvb,
}
