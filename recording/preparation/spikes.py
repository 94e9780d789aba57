"""The step that makes a regular series of spike times."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
from pydantic import Field

from recording.contract import Channel, Events, Piece, Recording, Series
from recording.errors import RecordingError
from recording.preparation.channels import Names
from recording.preparation.steps import Step, step
from recording.preparation.time import noted

MAX_BINS = 2**31
MAX_SPAN = 100_000  # bins of smoothing


@step("bin")
class Bin(Step):
    """Count the spikes of each unit in bins of `width` seconds: the channels of `neural`.

    Bin k holds spikes from start + k · width up to, but without, the next edge; its time is its
    start. The bins cover what was observed, without a last incomplete one. `smoothing` in seconds
    gives the mean count of the trailing bins (fewer at the start): causal, some smoothing / 2 late.
    `units` are patterns of unit names; none: all. A neural series that is there gives way, which is
    noted.
    """

    step: Literal["bin"] = "bin"
    width: float = Field(gt=0)
    smoothing: float | None = Field(default=None, gt=0)
    units: Names = ()

    def apply(self, recording: Recording) -> Recording:
        """The recording with binned spikes as `neural`, counted when they are read."""
        spikes = recording.modalities.get("spikes")
        if not isinstance(spikes, Events):
            have = ", ".join(recording.modalities) or "nothing"
            raise RecordingError(f"no spikes to bin; there is {have}")
        chosen = self._units(spikes)
        start, count = self._bins(spikes)
        span = 1 if self.smoothing is None else max(1, round(self.smoothing / self.width))
        if span > MAX_SPAN:
            raise RecordingError(
                f"smoothing: {self.smoothing:g} s are {span} bins, more than {MAX_SPAN}",
                stream="spikes",
            )
        channels = tuple(Channel(spikes.names[unit], "spikes", "count") for unit in chosen)
        values = _Counts(spikes, chosen, start, self.width, count, span)
        pieces = (Piece(start, 0, count),)
        if "neural" in recording.modalities:
            recording = noted(
                recording, "bin", "the binned spikes take the place of the neural series", ""
            )
        series = Series(values, 1 / self.width, channels, pieces)
        return recording.with_modality("neural", series)

    def _units(self, spikes: Events) -> list[int]:
        have = ", ".join(spikes.names)
        for pattern in self.units:
            if not any(fnmatchcase(name, pattern) for name in spikes.names):
                raise RecordingError(f"no unit {pattern!r}; there are: {have}", stream="spikes")
        chosen = [
            unit
            for unit, name in enumerate(spikes.names)
            if not self.units or any(fnmatchcase(name, pattern) for pattern in self.units)
        ]
        if not chosen:
            raise RecordingError("there are no units", stream="spikes")
        return chosen

    def _bins(self, spikes: Events) -> tuple[float, int]:
        """Start in seconds and number of the bins."""
        if spikes.span is None and len(spikes) == 0:
            raise RecordingError("has no spike, and nothing says what was observed")
        start, stop = spikes.span or (float(spikes.times[0]), float(spikes.times[-1]))
        # A billionth of a bin is rounding.
        count = (stop - start) / self.width + 1e-9
        if not 1 <= count <= MAX_BINS:
            raise RecordingError(
                f"{start:g} to {stop:g} s hold {count:.3g} bins of {self.width:g} s; "
                f"must be 1 to {MAX_BINS}",
                stream="spikes",
            )
        return float(start), int(count)


class _Counts:
    """Spikes per bin, or their trailing mean, by slice: (bin, unit) float32."""

    def __init__(
        self,
        spikes: Events,
        units: list[int],
        start: float,
        width: float,
        count: int,
        span: int,
    ) -> None:
        self.spikes, self.start, self.width, self.span = spikes, start, width, span
        self.shape, self.dtype = (count, len(units)), np.dtype(np.float32)
        self._column = np.full(len(spikes.names), -1)
        self._column[units] = np.arange(len(units))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, stop, _ = rows.indices(len(self))
        if first >= stop:
            return np.empty((0, self.shape[1]), np.float32)
        begin = max(0, first - self.span + 1)
        counts = self._counts(begin, stop)
        if self.span == 1:
            return counts.astype(np.float32)
        # Whole numbers add up exactly, so sums from anywhere agree.
        sums = np.concatenate([np.zeros((1, self.shape[1]), np.int64), counts.cumsum(axis=0)])
        bins = np.arange(first, stop)
        before = np.maximum(bins + 1 - self.span, 0)
        total = sums[bins + 1 - begin] - sums[before - begin]
        return np.asarray(total / (bins + 1 - before)[:, np.newaxis], np.float32)

    def _counts(self, first: int, stop: int) -> np.ndarray:
        edges = self.start + np.arange(first, stop + 1) * self.width
        low, high = np.searchsorted(self.spikes.times, [edges[0], edges[-1]])
        bins = np.searchsorted(edges, self.spikes.times[low:high], side="right") - 1
        columns = self._column[self.spikes.kinds[low:high]]
        kept = columns >= 0
        flat = bins[kept] * self.shape[1] + columns[kept]
        counted = np.bincount(flat, minlength=(stop - first) * self.shape[1])
        return counted.reshape(stop - first, self.shape[1])
