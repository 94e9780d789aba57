"""Running through a series piece by piece, and signals of some of another's samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from recording.contract import Piece, Series
from recording.errors import RecordingError
from recording.signals import BLOCK_BYTES, Derived, Signal, blocks, is_derived


@dataclass(frozen=True, eq=False)
class Part:
    """Consecutive samples of one piece: `values` (time, …) from its sample `offset` on."""

    piece: Piece
    offset: int
    values: np.ndarray

    @property
    def begins(self) -> bool:
        """Whether it holds the piece's first sample."""
        return self.offset == 0

    @property
    def ends(self) -> bool:
        """Whether it holds the piece's last sample."""
        return self.offset + len(self.values) == len(self.piece)


def parts(series: Series) -> Iterator[Part]:
    """A whole series in order, in blocks of at most some 16 MB that end where a piece does."""
    most = max(1, BLOCK_BYTES // (8 * math.prod(series.values.shape[1:])))
    at, pieces = 0, iter(series.pieces)
    piece = next(pieces)
    for block in blocks(series.values):
        taken = 0
        while taken < len(block):
            if at == piece.stop:
                piece = next(pieces)
            count = min(len(block) - taken, piece.stop - at, most)
            yield Part(piece, at - piece.first, block[taken : taken + count])
            taken, at = taken + count, at + count


def finite_parts(series: Series, name: str, source: str) -> Iterator[Part]:
    """The same as float64 (time, channel · feature) for step `name` of file `source`.

    Raises RecordingError at the first sample that is missing or infinite: it would spread.
    """
    columns = math.prod(series.values.shape[1:])
    for part in parts(series):
        values = np.asarray(part.values, np.float64).reshape(-1, columns)
        bad = ~np.isfinite(values)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            missing = np.isnan(values[row, column])
            what, remedy = ("missing (NaN)", "split_missing") if missing else ("infinite", "clip")
            raise RecordingError(
                f"{name}: the value is {what} and would spread to its neighbours; "
                f"put {remedy} in front of {name}",
                file=source,
                stream=series.names[column // len(series.features)],
                at=part.piece.start + (part.offset + int(row)) / series.rate,
            )
        yield Part(part.piece, part.offset, values)


class Rows:
    """Some of another signal's samples: `ranges` [start, stop) of its rows, in rising order."""

    def __init__(self, source: Signal, ranges: Sequence[tuple[int, int]]) -> None:
        self.source = source
        self.starts = np.array([start for start, _ in ranges])
        ends = np.cumsum([stop - start for start, stop in ranges])
        self.firsts = np.concatenate([[0], ends])
        self.shape, self.dtype = (int(ends[-1]), *source.shape[1:]), source.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        found = []
        own = int(np.searchsorted(self.firsts, start, side="right")) - 1
        while start < stop:
            end = min(stop, int(self.firsts[own + 1]))
            offset = int(self.starts[own] - self.firsts[own])
            found.append(self.source[start + offset : end + offset])
            start, own = end, own + 1
        if len(found) == 1:
            return found[0]
        empty = np.empty((0, *self.shape[1:]), self.dtype)
        return np.concatenate(found) if found else empty


def take_rows(source: Signal, ranges: Sequence[tuple[int, int]]) -> Signal:
    """Rows of a signal, lazily: by slice where the source can be read so, else in order."""
    ranges = list(ranges)
    if ranges == [(0, len(source))]:
        return source
    if not is_derived(source):
        return Rows(source, ranges)

    def produce() -> Iterator[np.ndarray]:
        at, left = 0, iter(ranges)
        wanted = next(left, None)
        for block in blocks(source):
            while wanted is not None and wanted[0] < at + len(block):
                first, last = max(wanted[0] - at, 0), min(wanted[1] - at, len(block))
                yield block[first:last]
                if wanted[1] > at + len(block):
                    break
                wanted = next(left, None)
            at += len(block)

    count = sum(stop - start for start, stop in ranges)
    return Derived((count, *source.shape[1:]), produce, source.dtype)
