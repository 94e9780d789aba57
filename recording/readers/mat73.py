"""MATLAB files of version 7.3, which are HDF5: axes in reverse order, cells as references."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from recording.errors import RecordingError
from recording.readers.hdf5_signal import Hdf5Signal, attribute, check_numbers, children, whole
from recording.readers.mat5 import DEEPEST, MOST_VALUES, Matrix, Unread
from recording.signals import Signal

SIGNATURE = b"MATLAB 7.3 MAT-file"
MOST_LETTERS = 2**20


@dataclass(frozen=True)
class Hdf5Matrix:
    """Numbers of a variable, in MATLAB's order of axes, left in the file."""

    dataset: Any
    stream: str
    file: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes as MATLAB has them."""
        return tuple(self.dataset.shape[::-1])

    def whole(self) -> np.ndarray:
        """The numbers in MATLAB's shape; raises RecordingError above 1 GB."""
        return whole(self.dataset, self.stream, axes=tuple(range(1, 33))).T

    def signal(self, time: int) -> Signal:
        """A matrix as a Signal (time, channel) whose axis `time` is time."""
        # The file has (columns, rows).
        return Hdf5Signal(self.dataset, self.stream, file=self.file, transpose=time == 0)


class Loader:
    """Values of one file, a limited number of them, so that cycles of references end."""

    def __init__(self, group: Any, file: str) -> None:
        self.group, self.file = group, file
        self.left = MOST_VALUES

    def names(self) -> list[str]:
        """Variables of the file, without MATLAB's own groups."""
        return [name for name, _ in children(self.group) if not name.startswith("#")]

    def load(self, name: str) -> Any:
        """The value of a variable: Hdf5Matrix, text, list (cell), dict (struct) or Unread."""
        return self._value(dict(children(self.group))[name], name, DEEPEST)

    def _value(self, thing: Any, stream: str, depth: int) -> Any:
        import h5py

        self.left -= 1
        if depth == 0 or self.left < 0:
            raise RecordingError("has cells or structs too deep, or too many of them")
        kind = attribute(thing, "MATLAB_class")
        if isinstance(thing, h5py.Group):
            found = {
                name: self._value(part, f"{stream}.{name}", depth - 1)
                for name, part in children(thing)
            }
            return _rows(found, stream) if _is_array(thing) else found
        if attribute(thing, "MATLAB_empty"):
            return [] if kind == "cell" else Matrix((0, 0), np.dtype("f8"), np.empty(0))
        if kind == "char":
            return self._text(thing, stream)
        if h5py.check_ref_dtype(thing.dtype) is h5py.Reference:
            return self._cells(thing, stream, depth)
        if thing.dtype.names is not None:
            return Unread("complex matrix")
        if attribute(thing, "MATLAB_sparse") is not None:
            return Unread("sparse matrix")
        return Hdf5Matrix(thing, stream, self.file)

    def _cells(self, dataset: Any, stream: str, depth: int) -> list[Any]:
        count = math.prod(dataset.shape)
        if count > self.left or dataset.is_virtual or dataset.external:
            raise RecordingError(f"declares {count} cells", stream=stream)
        references = np.asarray(dataset[()]).ravel(order="C").tolist()
        return [
            self._value(dataset.file[reference], f"{stream}{{{index}}}", depth - 1)
            if reference
            else Unread("empty cell")
            for index, reference in enumerate(references, start=1)
        ]

    def _text(self, dataset: Any, stream: str) -> str:
        check_numbers(dataset, stream, axes=(1, 2))
        if dataset.size > MOST_LETTERS:
            raise RecordingError(f"is a text of {dataset.size} letters", stream=stream)
        codes = np.asarray(dataset[()]).ravel().astype(np.int64)
        return "".join(chr(code) if 0 <= code < 0x110000 else "\ufffd" for code in codes)


def _is_array(struct: Any) -> bool:
    """Whether a group is a struct array: its fields are references that are no cells themselves."""
    import h5py

    parts = [part for _, part in children(struct)]
    return bool(parts) and all(
        isinstance(part, h5py.Dataset)
        and h5py.check_ref_dtype(part.dtype) is h5py.Reference
        and attribute(part, "MATLAB_class") is None
        for part in parts
    )


def _rows(fields: dict[str, Any], stream: str) -> list[dict[str, Any]]:
    """A struct array, whose every field is a list of as many values, as a list of structs."""
    if len({len(value) for value in fields.values()}) != 1:
        raise RecordingError("its fields have different lengths", stream=stream)
    return [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]
