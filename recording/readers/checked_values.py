"""Values of a file: gathered as they are parsed, checked and scaled as they are read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from recording.errors import RecordingError
from recording.readers.unit_names import microvolts
from recording.signals import MEMORY_BYTES, FileArray, Pointwise, Signal

_ELECTRIC = ("eeg", "ecog", "seeg", "lfp", "eog", "emg", "ecg")
_LONGEST_UNIT = 40


class Spool:
    """Rows of numbers, gathered block by block: in memory, in a temporary file once they are many.

    A context manager. The file has no name any more and goes with the signal; `memory` in bytes.
    """

    def __init__(self, dtype: np.dtype | type = np.float32, *, memory: int = MEMORY_BYTES) -> None:
        self.dtype, self.memory = np.dtype(dtype), memory
        self.rows = self.columns = 0
        self._blocks: list[np.ndarray] = []
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, block: np.ndarray) -> None:
        """Append rows (row, column), as many columns each time."""
        block = np.ascontiguousarray(block, self.dtype)
        assert self.rows == 0 or block.shape[1] == self.columns
        self.columns = block.shape[1]
        self.rows += len(block)
        self._blocks.append(block)
        if self._file is None and self.rows * self.columns * self.dtype.itemsize > self.memory:
            self._file = tempfile.TemporaryFile(prefix="axonnx-")  # noqa: SIM115
        if self._file is not None:
            for one in self._blocks:
                self._file.write(one.data)
            self._blocks.clear()

    def signal(self) -> Signal:
        """All rows (row, column), read by slice; nothing can be added after it."""
        shape = (self.rows, self.columns)
        if self._file is None:
            return np.concatenate([np.empty((0, self.columns), self.dtype), *self._blocks])
        self._file.flush()
        # The path of an open file, whose own name is gone already.
        return FileArray(Path(f"/dev/fd/{self._file.fileno()}"), self.dtype, shape)


class Checked:
    """A signal of a file (time, …) that refuses an infinite value when it is read; NaN is missing.

    `place` turns the number of a sample into seconds on the clock; `names` are the channels'. What
    is beyond float32, in which recordings are prepared, is refused likewise, also once it is
    multiplied by `factor`. Raises RecordingError from a slice.
    """

    def __init__(
        self,
        source: Signal,
        names: Sequence[str],
        place: Callable[[int], float],
        *,
        file: str,
        stream: str = "neural",
        factor: float = 1.0,
    ) -> None:
        self.source, self.names, self.place = source, names, place
        self.limit = np.finfo(np.float32).max / max(1.0, factor)
        self.file, self.stream = file, stream
        self.shape, self.dtype = source.shape, source.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        values = self.source[rows]
        self.check(values, rows.indices(len(self))[0])
        return values

    def check(self, values: np.ndarray, first: int) -> None:
        """Raise RecordingError over samples (time, …), the first of which is number `first`."""
        with np.errstate(invalid="ignore"):
            bad = np.abs(values) > self.limit
        if not bad.any():
            return
        at = np.argwhere(bad)[0]
        sample = first + int(at[0])
        value = values[tuple(at)]
        what = "is infinite" if np.isinf(value) else "is beyond float32"
        raise RecordingError(
            f"sample {sample} of channel {self.names[at[1]]!r} is {value}: it {what}; a missing "
            "value is NaN",
            file=self.file,
            stream=self.stream,
            at=self.place(sample),
        )


def checked_blocks(checked: Checked, produce: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Consecutive blocks from the first sample on, each checked as a slice would be."""
    first = 0
    for block in produce:
        checked.check(block, first)
        first += len(block)
        yield block


def stated_unit(unit: str, type: str, *, stream: str = "") -> tuple[str, float]:
    """The unit to give values in and the factor to it: µV for electric potentials, else as stated.

    Raises RecordingError for a unit that an electrode's channel cannot have.
    """
    factor = microvolts(unit)
    if factor is not None:
        return "µV", factor
    unit = unit.strip()
    if unit and type in _ELECTRIC:
        raise RecordingError(
            f"unit {unit!r} is not known for {type}; must be V, mV, µV or nV, or left out where "
            "the numbers have none",
            stream=stream,
        )
    if len(unit) > _LONGEST_UNIT or not unit.isprintable():
        raise RecordingError(f"unit {unit[:20]!r}… is no unit", stream=stream)
    return unit, 1.0


def scaled(values: Signal, factors: Sequence[float]) -> Signal:
    """Values (time, channel) times one factor per channel, as float32; as they are where all are 1.

    Whole numbers of 16 bits and float32 are multiplied in float32, longer numbers in float64.
    """
    if all(factor == 1 for factor in factors):
        return values
    short = values.dtype.itemsize <= 2 or values.dtype == np.float32
    kind = np.float32 if short else np.float64
    gain = np.array(factors, kind)

    def scale(block: np.ndarray) -> np.ndarray:
        return np.asarray(block * gain, np.float32)

    return Pointwise(values, scale, values.shape[1:])
