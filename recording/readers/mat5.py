"""MATLAB files up to version 7 (the format "MATLAB 5.0"): variables found, one of them read.

A file of a stranger may declare arrays of any size and cells within cells without end; here no
number of a header is believed before the bytes behind it are there. Objects and functions are not
read. Values come as plain Python: Matrix, text, list (cell, struct array), dict (struct).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recording.errors import RecordingError
from recording.signals import FileArray, Signal

SIGNATURE = b"MATLAB 5.0 MAT-file"
MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, CHAR = 1, 2, 4
DTYPES = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
    16: "u1", 17: "u2", 18: "u4",
}  # fmt: skip
CLASSES = {
    6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8",
}  # fmt: skip
ENCODINGS = {1: "utf-8", 2: "utf-8", 16: "utf-8", 4: "utf-16", 17: "utf-16", 18: "utf-32"}
COMPLEX = 0x0800
DEEPEST = 12
Order = Literal["<", ">"]
MOST_VALUES = 10**6  # cells and fields of one variable
INFLATED_BYTES = 2**31  # of one variable,
INFLATED_LEAST = 2**28  # and of one that takes less than a hundredth of it in the file
HEAD_BYTES = 4096


@dataclass(frozen=True)
class Matrix:
    """Numbers of a variable: `values` (column-major, as MATLAB has them) or where they lie."""

    shape: tuple[int, ...]
    dtype: np.dtype
    values: np.ndarray | None = None
    path: Path | None = None
    offset: int = 0

    def whole(self) -> np.ndarray:
        """The numbers in MATLAB's shape."""
        if self.values is not None:
            return self.values.reshape(self.shape, order="F")
        assert self.path is not None
        flat = FileArray(self.path, self.dtype, (math.prod(self.shape),), offset=self.offset)
        return flat[0 : len(flat)].reshape(self.shape, order="F")

    def signal(self, time: int) -> Signal:
        """A matrix as a Signal (time, channel) whose axis `time` is time."""
        if self.values is not None:
            whole = self.whole()
            return whole if time == 0 else whole.T
        assert self.path is not None
        # MATLAB writes column after column.
        rows, columns = self.shape
        shape, order = ((rows, columns), "F") if time == 0 else ((columns, rows), "C")
        return FileArray(self.path, self.dtype, shape, offset=self.offset, order=order)


@dataclass(frozen=True)
class Unread:
    """A variable that is no data: an object, a function, a sparse or a complex matrix."""

    what: str


@dataclass(frozen=True)
class Variable:
    """A variable of a file: its name and shape, and the place of its element in the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int
    stop: int
    compressed: bool


@dataclass
class _Cursor:
    """A stretch of bytes that is being read; `values` counts cells and fields of the variable."""

    data: memoryview
    order: Order
    at: int = 0
    values: list[int] = field(default_factory=lambda: [0])

    def take(self, count: int) -> memoryview:
        if count < 0 or self.at + count > len(self.data):
            raise RecordingError("ends within a variable: the file is cut off or damaged")
        self.at += count
        return self.data[self.at - count : self.at]

    def element(self) -> tuple[int, memoryview]:
        """Type and bytes of the next element."""
        first, size = struct.unpack(f"{self.order}II", self.take(8))
        if first >> 16:
            # A small element: four bytes of data within its own tag.
            kind, size = first & 0xFFFF, first >> 16
            if size > 4:
                raise RecordingError("a small element has more than four bytes: damaged")
            return kind, self.data[self.at - 4 : self.at - 4 + size]
        found = self.take(size)
        self.at = min(len(self.data), self.at + -size % 8)
        return first, found

    def numbers(self) -> np.ndarray:
        kind, data = self.element()
        return _array(kind, data, self.order)


def variables(path: Path) -> dict[str, Variable]:
    """The variables of a file, by name; only their headers are read."""
    size = path.stat().st_size
    found: dict[str, Variable] = {}
    with path.open("rb") as file:
        order = _byte_order(file.read(128))
        at = 128
        while at + 8 <= size:
            file.seek(at)
            kind, count = struct.unpack(f"{order}II", file.read(8))
            stop = at + 8 + count
            if kind not in (MATRIX, COMPRESSED) or stop > size:
                raise RecordingError(
                    f"ends within a variable at byte {at}: the file is cut off or damaged"
                )
            head = file.read(min(count, HEAD_BYTES))
            if kind == COMPRESSED:
                head = _inflate(head, HEAD_BYTES, cut=True)[8:]
            if head or kind == COMPRESSED:
                one = _variable(_Cursor(memoryview(head), order), at + 8, stop, kind == COMPRESSED)
                if one.name:
                    found[one.name] = one
            at = stop
    return found


def load(path: Path, variable: Variable) -> Any:
    """The value of a variable; numbers of an uncompressed matrix stay in the file."""
    with path.open("rb") as file:
        order = _byte_order(file.read(128))
        file.seek(variable.start)
        size = variable.stop - variable.start
        if not variable.compressed and variable.kind in CLASSES:
            found = _in_place(_Cursor(memoryview(file.read(HEAD_BYTES)), order), path, variable)
            if found is not None:
                return found
        file.seek(variable.start)
        data = file.read(size)
    if variable.compressed:
        data = _inflate(data, min(INFLATED_BYTES, max(INFLATED_LEAST, 100 * size)))[8:]
    return _matrix(_Cursor(memoryview(data), order), DEEPEST)[1]


def _in_place(cursor: _Cursor, path: Path, variable: Variable) -> Matrix | None:
    """An uncompressed real matrix of numbers, found from its first bytes and left in the file."""
    flags, shape, _ = _head(cursor)
    kind, size = struct.unpack(f"{cursor.order}II", cursor.take(8))
    if len(shape) != 2 or flags & COMPLEX or kind not in DTYPES:
        return None
    dtype = np.dtype(DTYPES[kind]).newbyteorder(cursor.order)
    begin = variable.start + cursor.at
    if size != math.prod(shape) * dtype.itemsize or begin + size > variable.stop:
        return None
    return Matrix(shape, dtype, path=path, offset=begin)


def _byte_order(header: bytes) -> Order:
    mark = header[126:128]
    if len(header) < 128 or mark not in (b"IM", b"MI"):
        raise RecordingError("is cut off in its header")
    return "<" if mark == b"IM" else ">"


def _inflate(data: bytes, limit: int, *, cut: bool = False) -> bytes:
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(data, limit)
    except zlib.error as error:
        raise RecordingError(f"a compressed variable is damaged ({error})") from None
    if cut:
        return found
    if inflater.unconsumed_tail or len(found) >= limit:
        raise RecordingError(f"a variable is larger than {limit >> 20} MB once decompressed")
    if not inflater.eof:
        raise RecordingError("a compressed variable is cut off")
    return found


def _variable(cursor: _Cursor, start: int, stop: int, compressed: bool) -> Variable:
    flags, shape, name = _head(cursor)
    return Variable(name, shape, flags & 0xFF, start, stop, compressed)


def _head(cursor: _Cursor) -> tuple[int, tuple[int, ...], str]:
    """Flags, shape and name at the beginning of a matrix."""
    flags = cursor.numbers()
    sizes = cursor.numbers()
    _, name = cursor.element()
    whole = flags.dtype.kind + sizes.dtype.kind
    if "f" in whole or len(flags) < 1 or not 2 <= len(sizes) <= 32 or sizes.min() < 0:
        raise RecordingError("a variable has no shape: the file is damaged")
    return int(flags[0]), tuple(int(size) for size in sizes), bytes(name).decode("utf-8", "replace")


def _array(kind: int, data: memoryview, order: Order) -> np.ndarray:
    if kind not in DTYPES:
        raise RecordingError(f"an element has the unknown type {kind}: the file is damaged")
    dtype = np.dtype(DTYPES[kind]).newbyteorder(order)
    if len(data) % dtype.itemsize:
        raise RecordingError("an element ends within a number: the file is damaged")
    return np.frombuffer(data, dtype)


def _matrix(cursor: _Cursor, depth: int) -> tuple[str, Any]:
    """Name and value of the matrix whose content the cursor is at."""
    if not len(cursor.data):
        return "", Matrix((0, 0), np.dtype("f8"), np.empty(0))
    if depth == 0:
        raise RecordingError(f"has cells or structs more than {DEEPEST} deep")
    flags, shape, name = _head(cursor)
    kind, count = flags & 0xFF, math.prod(shape)
    if kind == CELL:
        _check_count(count, cursor)
        return name, [value for _, value in _parts(cursor, count, depth)]
    if kind == STRUCT:
        return name, _struct(cursor, count, depth)
    if kind == CHAR:
        return name, _text(cursor, shape)
    if kind not in CLASSES:
        return name, Unread({3: "object", 5: "sparse matrix", 16: "function"}.get(kind, "object"))
    if flags & COMPLEX:
        return name, Unread("complex matrix")
    stored, data = cursor.element()
    values = _array(stored, data, cursor.order)
    if len(values) != count:
        raise RecordingError(
            f"declares the shape {shape}, but holds {len(values)} numbers", stream=name
        )
    # Whole numbers may be stored shorter than their class.
    return name, Matrix(shape, np.dtype(CLASSES[kind]), values.astype(CLASSES[kind]))


def _check_count(count: int, cursor: _Cursor) -> None:
    if count * 8 > len(cursor.data) - cursor.at:
        raise RecordingError(f"declares {count} cells or fields, for which there are no bytes")
    cursor.values[0] += count
    if cursor.values[0] > MOST_VALUES:
        raise RecordingError(f"has more than {MOST_VALUES} cells and fields in one variable")


def _parts(cursor: _Cursor, count: int, depth: int) -> Iterator[tuple[str, Any]]:
    for _ in range(count):
        kind, data = cursor.element()
        if kind != MATRIX:
            raise RecordingError("a cell or field is no matrix: the file is damaged")
        yield _matrix(_Cursor(data, cursor.order, values=cursor.values), depth - 1)


def _struct(cursor: _Cursor, count: int, depth: int) -> Any:
    lengths = cursor.numbers()
    _, data = cursor.element()
    length = int(lengths[0]) if len(lengths) == 1 and lengths.dtype.kind in "iu" else 0
    if length <= 0 or len(data) % length:
        raise RecordingError("a struct has no names of fields: the file is damaged")
    raw = bytes(data)
    names = [
        raw[at : at + length].split(b"\0")[0].decode("utf-8", "replace")
        for at in range(0, len(raw), length)
    ]
    _check_count(count * max(1, len(names)), cursor)
    rows = [
        dict(zip(names, (value for _, value in _parts(cursor, len(names), depth)), strict=True))
        for _ in range(count)
    ]
    return rows[0] if len(rows) == 1 else rows


def _text(cursor: _Cursor, shape: tuple[int, ...]) -> Any:
    kind, data = cursor.element()
    if kind not in ENCODINGS:
        raise RecordingError("text has no known encoding: the file is damaged")
    coding = ENCODINGS[kind]
    if coding != "utf-8":
        coding += "-le" if cursor.order == "<" else "-be"
    text = bytes(data).decode(coding, "replace")
    if len(shape) == 2 and shape[0] > 1:
        # Lines of one length, written column after column.
        lines = [text[row :: shape[0]].rstrip() for row in range(min(shape[0], len(text)))]
        return lines
    return text
