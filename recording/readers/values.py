"""Values of a file: gathered as they are parsed, and checked as they are read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from recording.errors import RecordingError
from recording.signals import MEMORY_BYTES, FileArray, Signal


class Spool:
    """Rows of numbers, gathered block by block: in memory, in a temporary file once they are many.

    A context manager. The file has no name any more and goes with the signal; `memory` in bytes.
    """

    def __init__(
        self, columns: int, dtype: np.dtype | type = np.float32, *, memory: int = MEMORY_BYTES
    ) -> None:
        self.columns, self.dtype, self.memory = columns, np.dtype(dtype), memory
        self.rows = 0
        self._blocks: list[np.ndarray] = []
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, block: np.ndarray) -> None:
        """Append rows (row, column)."""
        block = np.ascontiguousarray(block, self.dtype)
        assert block.shape[1:] == (self.columns,)
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
    is beyond float32, in which recordings are prepared, is refused likewise. Raises RecordingError
    from a slice.
    """

    def __init__(
        self,
        source: Signal,
        names: Sequence[str],
        place: Callable[[int], float],
        *,
        file: str,
        stream: str = "neural",
    ) -> None:
        self.source, self.names, self.place = source, names, place
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
        limit = np.finfo(np.float32).max
        with np.errstate(invalid="ignore"):
            bad = np.abs(values) > limit
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
