"""Signals: arrays (time, …) that need not be in memory.

A Signal gives `signal[start:stop]` as an array. A Derived one, the outcome of a filter, can only be
run through from its beginning; `settle` turns it into one that gives any slice.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

BLOCK_BYTES = 16 * 2**20
MEMORY_BYTES = 512 * 2**20  # a settled signal above it lies in a temporary file


class Signal(Protocol):
    """An array (time, …) of which slices of the first axis can be read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""

    @property
    def dtype(self) -> np.dtype:
        """The dtype of what a slice gives."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


class FileArray:
    """Numbers in a file as an array (time, …), read by slice and never mapped.

    Pages of a mapped file count as the process's own memory once they are touched; what is read
    here is not kept. `order` "F" means that the file holds channel after channel.
    """

    def __init__(
        self,
        path: Path,
        dtype: np.dtype,
        shape: tuple[int, ...],
        *,
        offset: int = 0,
        order: str = "C",
    ) -> None:
        self.path, self.dtype, self.shape = path, np.dtype(dtype), shape
        self.offset, self.order = offset, order
        self._file = os.open(path, os.O_RDONLY)
        self._close = weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise IndexError("a slice of a file takes no step")
        count = max(0, stop - start)
        tail = self.shape[1:]
        if self.order == "C":
            return self._read(start * _product(tail), count * _product(tail)).reshape(count, *tail)
        columns = [
            self._read(column * len(self) + start, count) for column in range(_product(tail))
        ]
        return np.stack(columns, axis=1, dtype=self.dtype).reshape(count, *tail, order="F")

    def _read(self, first: int, count: int) -> np.ndarray:
        numbers = np.empty(count, self.dtype)
        view, at = numbers.view(np.uint8).data, self.offset + first * self.dtype.itemsize
        while view:
            got = os.preadv(self._file, [view], at)
            if got == 0:
                raise OSError(f"{self.path}: ends before byte {at + len(view)}")
            view, at = view[got:], at + got
        return numbers


class Pointwise:
    """A signal whose every sample is a function of the same sample of another: any slice works.

    `function` takes an array (time, …) and gives one (time, *tail) of `dtype`.
    """

    def __init__(
        self,
        source: Signal,
        function: Callable[[np.ndarray], np.ndarray],
        tail: tuple[int, ...],
        dtype: np.dtype | type = np.float32,
    ) -> None:
        self.source, self.function = source, function
        self.shape, self.dtype = (len(source), *tail), np.dtype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        # A few channels may be left of many: no more of the source is in memory than of a block.
        start, stop, _ = rows.indices(len(self))
        size = _block_size(self.source)
        if stop - start <= size:
            return np.asarray(self.function(self.source[rows]), self.dtype)
        whole = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for at in range(start, stop, size):
            part = self.function(self.source[at : min(at + size, stop)])
            whole[at - start : at - start + size] = part
        return whole


class Derived:
    """A signal that is computed from its beginning: `produce` yields its consecutive blocks."""

    def __init__(
        self,
        shape: tuple[int, ...],
        produce: Callable[[], Iterator[np.ndarray]],
        dtype: np.dtype | type = np.float32,
    ) -> None:
        self.shape, self.produce, self.dtype = shape, produce, np.dtype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        raise TypeError("a derived signal is read in order: take blocks() or settle()")


def is_derived(signal: Signal) -> bool:
    """Whether the signal, or one below it, can only be run through from its beginning."""
    while isinstance(signal, Pointwise):
        signal = signal.source
    return isinstance(signal, Derived)


def blocks(signal: Signal, size: int | None = None) -> Iterator[np.ndarray]:
    """Consecutive blocks of a whole signal, of some 16 MB or `size` samples (derived: any size)."""
    if isinstance(signal, Pointwise) and is_derived(signal):
        for block in blocks(signal.source, size):
            yield np.asarray(signal.function(block), signal.dtype)
        return
    if isinstance(signal, Derived):
        yield from signal.produce()
        return
    size = size or _block_size(signal)
    for start in range(0, len(signal), size):
        yield signal[start : min(start + size, len(signal))]


def settle(
    signal: Signal,
    *,
    memory: int = MEMORY_BYTES,
    progress: Callable[[int], None] | None = None,
) -> Signal:
    """A signal with the same values, any slice of which can be read.

    What can be read by slice is returned as it is. A derived one is computed once: in memory up to
    `memory` bytes, else in a temporary file that goes with it. `progress` gets the number of
    samples of each block.
    """
    if not is_derived(signal):
        return signal
    size = _product(signal.shape) * signal.dtype.itemsize
    if size <= memory:
        whole = np.empty(signal.shape, signal.dtype)
        at = 0
        for block in blocks(signal):
            whole[at : at + len(block)] = block
            at += len(block)
            if progress is not None:
                progress(len(block))
        _check_length(at, signal)
        return whole
    handle, name = tempfile.mkstemp(prefix="axonnx-", suffix=".signal")
    path = Path(name)
    try:
        at = 0
        with os.fdopen(handle, "wb") as file:
            for block in blocks(signal):
                file.write(np.ascontiguousarray(block, signal.dtype).data)
                at += len(block)
                if progress is not None:
                    progress(len(block))
        _check_length(at, signal)
        return FileArray(path, signal.dtype, signal.shape)
    finally:
        # The open descriptor keeps the data; the name is not needed any more.
        path.unlink()


def _block_size(signal: Signal) -> int:
    """Samples in a block of some 16 MB, at 8 bytes a number."""
    return max(1, BLOCK_BYTES // max(8, _product(signal.shape[1:]) * 8))


def _check_length(found: int, signal: Signal) -> None:
    if found != len(signal):
        raise AssertionError(f"a derived signal gave {found} samples of {len(signal)}")


def _product(sizes: tuple[int, ...]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
