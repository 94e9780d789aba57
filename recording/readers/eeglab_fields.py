"""The fields of EEGLAB's structure EEG in a MATLAB file, read one by one; samples stay in it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from recording.errors import RecordingError
from recording.readers import mat5, mat73
from recording.readers.hdf5_signal import check_numbers, child, is_hdf5, open_hdf5, reading

_ELEMENT = 8  # bytes of a tag
_MOST_FIELDS = 4096


class EpochsSignal:
    """A dataset (trial, time, channel) of an HDF5 file as a Signal (time, channel)."""

    def __init__(self, matrix: mat73.Hdf5Matrix) -> None:
        check_numbers(matrix.dataset, "data", axes=(3,))
        self._dataset, self._file = matrix.dataset, matrix.file
        trials, self._points, channels = matrix.dataset.shape
        self.shape: tuple[int, ...] = (int(trials * self._points), int(channels))
        self.dtype: np.dtype = np.dtype(matrix.dataset.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise IndexError("a slice of a file takes no step")
        if stop <= start:
            return np.empty((0, self.shape[1]), self.dtype)
        first, last = start // self._points, -(-stop // self._points)
        with reading(self._file, "data"):
            block = np.asarray(self._dataset[first:last]).reshape(-1, self.shape[1])
        return block[start - first * self._points : stop - first * self._points]


def read_fields(path: Path, wanted: frozenset[str]) -> dict[str, Any]:
    """Fields of the structure EEG, or variables where there is none: arrays, text, dict, lists.

    Of `data` a matrix comes as `mat5.Matrix` or `mat73.Hdf5Matrix`, its numbers in the file where
    they can stay there. Raises RecordingError.
    """
    with path.open("rb") as opened:
        if is_hdf5(path, opened.read(1024)):
            return _read_hdf5(path, wanted)
    variables = mat5.variables(path)
    eeg = variables.get("EEG")
    if eeg is None:
        chosen = {name: one for name, one in variables.items() if name in wanted}
        return {name: _plain(mat5.load(path, one), name) for name, one in chosen.items()}
    if eeg.kind != mat5.STRUCT or eeg.shape != (1, 1):
        raise RecordingError(f"its variable EEG has shape {eeg.shape}; must be one structure")
    if eeg.compressed:
        fields = mat5.load(path, eeg)
    else:
        places = _places(path, eeg)
        fields = {n: mat5.load(path, one) for n, one in places.items() if n in wanted}
    return {name: _plain(value, name) for name, value in fields.items() if name in wanted}


def _read_hdf5(path: Path, wanted: frozenset[str]) -> dict[str, Any]:
    file = open_hdf5(path)
    with reading(path.name):
        group = child(file, "EEG") or file
        loader = mat73.Loader(group, path.name)
        names = [name for name in loader.names() if name in wanted]
        return {name: _plain(loader.load(name), name) for name in names}


def _places(path: Path, eeg: mat5.Variable) -> dict[str, mat5.Variable]:
    """Where each field of an uncompressed structure lies in the file."""
    with path.open("rb") as file:
        file.seek(126)
        order = "<" if file.read(2) == b"IM" else ">"

        def element(at: int) -> tuple[int, int, int]:
            """First byte, size and end of the element at a byte."""
            file.seek(at)
            tag = file.read(_ELEMENT)
            if len(tag) < _ELEMENT:
                raise RecordingError("ends within the structure EEG: it is truncated")
            kind, size = struct.unpack(f"{order}II", tag)
            if kind >> 16:
                return at + 4, min(kind >> 16, 4), at + _ELEMENT
            end = at + _ELEMENT + size + -size % 8
            if at + _ELEMENT + size > eeg.stop:
                raise RecordingError("ends within the structure EEG: it is truncated or damaged")
            return at + _ELEMENT, size, end

        at = eeg.start
        for _ in range(3):  # flags, shape, name
            *_, at = element(at)
        first, _, at = element(at)
        file.seek(first)
        (width,) = struct.unpack(f"{order}i", file.read(4).ljust(4, b"\0"))
        first, size, at = element(at)
        if not 1 <= width <= 256 or size % width or size // width > _MOST_FIELDS:
            raise RecordingError("its structure EEG has no names of fields: the file is damaged")
        file.seek(first)
        names = file.read(size)
        places = {}
        for start in range(0, size, width):
            name = names[start : start + width].split(b"\0")[0].decode("latin-1")
            first, count, end = element(at)
            if count >= 16:
                file.seek(first + _ELEMENT)
                kind = struct.unpack(f"{order}I", file.read(4).ljust(4, b"\0"))[0] & 0xFF
                places[name] = mat5.Variable(name, (), kind, first, first + count, compressed=False)
            at = end
        return places


def _plain(value: Any, name: str, depth: int = 0) -> Any:
    """Small matrices as arrays, other values as they are; None for what is no data."""
    if isinstance(value, mat5.Matrix | mat73.Hdf5Matrix):
        return value if name == "data" and depth == 0 else np.asarray(value.whole())
    if isinstance(value, mat5.Unread):
        return None
    if isinstance(value, dict):
        return {key: _plain(one, key, depth + 1) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one, name, depth + 1) for one in value]
    return value
