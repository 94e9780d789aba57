"""How unlikely rows of a recording are, in bits: what chance does not repeat.

A value carries bits where neither its past nor the usual value of its channel foretells it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recording.signals import Signal

CONTEXT = 2  # rows that give level and slope to those that follow
SAMPLE_VALUES, PIECE = 2**18, 64
MOST_BITS = 24.0  # of one float32
_GRAIN = 16.0  # bits are multiples of 1/16, so that sums of them are exact in any order


@dataclass(frozen=True, eq=False)
class Weights:
    """How many bits a value carries that neither its past nor the usual value foretells.

    bits, tolerance, usual: (channel,) float32; `mean` is the bits of a row on average.
    """

    bits: np.ndarray
    tolerance: np.ndarray
    usual: np.ndarray
    mean: float

    @classmethod
    def of(cls, signals: Sequence[Signal]) -> Weights:
        """Weights from evenly spread pieces of the signals."""
        pieces = _pieces(signals)
        rows = np.concatenate(pieces)
        with np.errstate(all="ignore"):
            largest = np.nan_to_num(np.nanmax(np.abs(rows), axis=0, initial=0.0), posinf=0.0)
            tolerance = (largest * 2.0**-21).astype(np.float32)
            usual = _usual(rows)
            symbols: list[list[np.ndarray]] = [[], [], []]
            for piece in pieces:
                new = _surprises(piece, tolerance, usual)
                slope = np.diff(piece, axis=0)
                for kept, values in zip(
                    symbols, (piece[2:], slope[1:], np.diff(slope, axis=0)), strict=True
                ):
                    kept.append(np.where(new, values, np.nan))
            bits = _bits([np.concatenate(kept) for kept in symbols], tolerance)
        bits[_repeated(rows)] = 0.0
        new = ~np.isnan(np.concatenate(symbols[0]))
        return cls(bits, tolerance, usual, float((new @ bits).mean()) if len(new) else 0.0)

    def rows(self, values: np.ndarray) -> np.ndarray:
        """Bits of every row given the two before it, (time,) float64; 0 for the first two."""
        found = np.zeros(len(values))
        if len(values) > CONTEXT:
            new = _surprises(values, self.tolerance, self.usual)
            found[CONTEXT:] = new.astype(np.float32) @ self.bits
        return found


def channels_of(signal: Signal) -> int:
    """Channels of a signal (time, channel, …)."""
    return signal.shape[1] if len(signal.shape) > 1 else 1


def read_rows(signal: Signal, start: int, stop: int) -> np.ndarray:
    """Feature 0 of rows [start, stop): (time, channel) float32, no negative zero."""
    values = np.asarray(signal[start:stop])
    values = values.reshape(len(values), channels_of(signal), -1)[:, :, 0]
    with np.errstate(all="ignore"):
        rows: np.ndarray = np.add(
            values, np.float32(0), dtype=np.float32, casting="unsafe", order="C"
        )
    return rows


def _pieces(signals: Sequence[Signal]) -> list[np.ndarray]:
    """Evenly spread pieces of rows (time, channel) float32, the whole where it is short."""
    rows = sum(map(len, signals))
    wanted = min(max(SAMPLE_VALUES // channels_of(signals[0]), 1024), 2**16)
    if rows <= wanted:
        return [read_rows(signal, 0, len(signal)) for signal in signals]
    pieces = []
    for signal in signals:
        count = max(1, round(wanted / PIECE * len(signal) / rows))
        last = max(len(signal) - PIECE, 0)
        for start in np.unique(np.linspace(0, last, count).astype(np.int64)):
            pieces.append(read_rows(signal, int(start), min(int(start) + PIECE, len(signal))))
    return pieces


def _surprises(values: np.ndarray, tolerance: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Which values from the third row on do not stand still, go straight on or are usual."""
    slope = values[1:] - values[:-1]
    bend = np.abs(slope[1:] - slope[:-1])
    return np.asarray((bend > tolerance) & (slope[1:] != 0) & (values[2:] != usual))


def _usual(rows: np.ndarray) -> np.ndarray:
    """The commonest value of each channel where a twentieth has it, else NaN: (channel,)."""
    usual = np.full(rows.shape[1], np.nan, np.float32)
    for channel, column in enumerate(np.sort(rows, axis=0).T):
        first, runs = _runs(column)
        longest = int(runs.argmax())
        if runs[longest] >= len(rows) / 20:
            usual[channel] = column[first[longest]]
    return usual


def _bits(symbols: Sequence[np.ndarray], tolerance: np.ndarray) -> np.ndarray:
    """Bits of a surprising value of each channel, (channel,) float32 in sixteenths.

    `symbols` are values, slopes and bends (time, channel), NaN where nothing surprises. The bits
    are those by which two surprises at one place agree by chance, in the likeliest of the three.
    """
    count = len(symbols[0])
    surprises = (~np.isnan(symbols[0])).sum(axis=0)
    alike = np.zeros(symbols[0].shape[1])
    for values in symbols:
        ordered = np.sort(np.round(values / np.where(tolerance > 0, tolerance, 1)), axis=0)
        alike = np.maximum(alike, _equal_pairs(ordered))
    pairs = np.maximum(surprises * (surprises - 1.0), 1.0)
    chance = (surprises + 4.0) / (count + 4.0) * np.minimum((alike + 2.0) / (pairs + 2.0), 1.0)
    bits = np.clip(-np.log2(chance), 0.0, MOST_BITS)
    return np.asarray(np.floor(bits * _GRAIN) / _GRAIN, np.float32)


def _equal_pairs(ordered: np.ndarray) -> np.ndarray:
    """Ordered pairs of equal values in each sorted column, NaN equal to nothing: (channel,)."""
    runs = [_runs(column)[1].astype(np.float64) for column in ordered.T]
    return np.array([(lengths * (lengths - 1)).sum() for lengths in runs])


def _runs(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First place and length of every run of equal values in a sorted column."""
    first = np.flatnonzero(np.concatenate([[True], column[1:] != column[:-1]]))
    return first, np.diff(np.append(first, len(column)))


def _repeated(rows: np.ndarray) -> np.ndarray:
    """Which channels are the same as an earlier one: (channel,) bool."""
    seen: set[bytes] = set()
    repeated = np.zeros(rows.shape[1], bool)
    for channel, column in enumerate(rows.T):
        data = column.tobytes()
        repeated[channel] = data in seen
        seen.add(data)
    return repeated
