"""Steps that cut the recording in time: pieces and stretches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from recording.contract import Events, Finding, Modality, Piece, Recording, Samples, Series
from recording.errors import RecordingError
from recording.preparation.piece_parts import parts, take_rows
from recording.preparation.steps import Step, step

MAX_PIECES = 1_000_000
ROUNDING = 1e-6  # seconds between events that are none


@step("segment")
class Segment(Step):
    """Cut `neural` into pieces where the file joined segments, so that nothing crosses a border.

    Either `starts`, the first sample of every segment, or `length` of the segments in samples and
    `first`, where the second one starts if the first is of another length. Samples count from 0;
    the clock stays, and so do borders that are there already.
    """

    step: Literal["segment"] = "segment"
    first: int = Field(default=0, ge=0)
    length: int | None = Field(default=None, ge=1)
    starts: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _one_of_two(self) -> Segment:
        if (self.length is None) == (not self.starts):
            raise ValueError("give length (and first), or starts")
        if self.first and self.starts:
            raise ValueError("first: goes with length, not with starts")
        if list(self.starts) != sorted(set(self.starts)) or (self.starts and self.starts[0] < 0):
            raise ValueError("starts: must rise from 0 or above")
        return self

    def apply(self, recording: Recording) -> Recording:
        """The recording with more pieces; no value is read."""
        neural = recording.neural
        total = len(neural.values)
        cuts = np.array(self._cuts(total), np.int64)
        pieces = [
            Piece(piece.start + (first - piece.first) / neural.rate, first, stop)
            for piece in neural.pieces
            for first, stop in _between(piece, cuts)
        ]
        if self.length is not None and (total - self.first) % self.length:
            left = (total - self.first) % self.length
            recording = noted(
                recording,
                "segment",
                f"the last segment has {left} samples, the others {self.length}",
                "check first and length",
            )
        return recording.with_modality("neural", replace(neural, pieces=tuple(pieces)))

    def _cuts(self, total: int) -> Sequence[int]:
        last = self.starts[-1] if self.starts else self.first
        if last >= total:
            raise RecordingError(
                f"a segment starts at sample {last}, the series has {total}", stream="neural"
            )
        if self.length is None:
            return self.starts
        cuts = range(self.first, total, self.length)
        if len(cuts) > MAX_PIECES:
            raise RecordingError(
                f"{len(cuts)} segments of {self.length} samples are more than {MAX_PIECES}",
                stream="neural",
            )
        return cuts


@step("split_missing")
class SplitMissing(Step):
    """Cut out samples of `neural` that are missing (NaN) in any channel; what is left are pieces.

    Where they are has to be known first: this step reads the whole series once.
    """

    step: Literal["split_missing"] = "split_missing"

    def apply(self, recording: Recording) -> Recording:
        """The recording without missing samples; RecordingError where no sample is whole."""
        neural = recording.neural
        ranges, missing = _whole(neural)
        total, kept = len(neural.values), sum(stop - start for start, stop in ranges)
        if kept == total:
            return recording
        if kept == 0:
            worst = int(np.argmax(missing))
            raise RecordingError(
                f"no sample has all channels; channel {neural.names[worst]} misses "
                f"{missing[worst]} of {total}: drop it first",
                stream="neural",
            )
        recording = noted(
            recording,
            "missing",
            f"{total - kept} of {total} samples ({(total - kept) / neural.rate:g} s) are missing "
            f"in some channel; they are cut out and {len(ranges)} pieces are left",
            "drop a channel that misses much",
        )
        return recording.with_modality("neural", _kept(neural, ranges))


@step("crop")
class Crop(Step):
    """Keep what lies from `start` up to, but without, `stop`, in seconds on the recording's clock.

    All modalities and markers are cut, the clock stays. Trials that reach outside are left out.
    """

    step: Literal["crop"] = "crop"
    start: float | None = None
    stop: float | None = None

    @model_validator(mode="after")
    def _is_a_stretch(self) -> Crop:
        if self.start is None and self.stop is None:
            raise ValueError("start or stop: give one or both, in seconds")
        if self.start is not None and self.stop is not None and self.start >= self.stop:
            raise ValueError(f"start: {self.start:g} s must be before stop, {self.stop:g} s")
        return self

    def apply(self, recording: Recording) -> Recording:
        """The part of the recording, lazily; RecordingError where nothing is left."""
        modalities = {
            name: self._modality(name, modality) for name, modality in recording.modalities.items()
        }
        markers, trials = recording.markers, recording.trials
        if markers is not None:
            markers = self._events(markers)
        if trials is not None:
            left = trials
            trials = self._events(trials, whole=True)
            if lost := len(left) - len(trials):
                recording = noted(
                    recording,
                    "trials",
                    f"{lost} of {len(left)} trials reach out of what crop keeps and are left out",
                    "crop at the trials' borders to keep them",
                )
        return replace(recording, modalities=modalities, markers=markers, trials=trials)

    @property
    def _bounds(self) -> tuple[float, float]:
        start = -np.inf if self.start is None else self.start
        return start, np.inf if self.stop is None else self.stop

    def _modality(self, name: str, modality: Modality) -> Modality:
        if isinstance(modality, Events):
            return self._events(modality)
        start, stop = self._bounds
        if isinstance(modality, Samples):
            inside = (modality.times >= start) & (modality.times < stop)
            if inside.any():
                return replace(
                    modality, times=modality.times[inside], values=modality.values[inside]
                )
        else:
            ranges = [r for r in (self._rows(p, modality.rate) for p in modality.pieces) if r]
            if ranges:
                return _kept(modality, ranges)
        first, last = modality.span
        raise RecordingError(
            f"nothing lies from {start:g} to {stop:g} s; it goes from {first:g} to {last:g} s",
            stream=name,
        )

    def _rows(self, piece: Piece, rate: float) -> tuple[int, int] | None:
        # A thousandth of a sample is rounding, not time: of seconds since 1970, some 1e-7 are.
        first, last = (
            int(np.clip(np.ceil((edge - piece.start) * rate - 1e-3), 0, len(piece)))
            for edge in self._bounds
        )
        return (piece.first + first, piece.first + last) if first < last else None

    def _events(self, events: Events, *, whole: bool = False) -> Events:
        start, stop = self._bounds
        inside = (events.times >= start - ROUNDING) & (events.times < stop - ROUNDING)
        if whole:
            inside &= events.stops <= stop + ROUNDING
        assert events.durations is not None
        span = events.span
        if span is not None:
            span = (max(span[0], start), max(min(span[1], stop), max(span[0], start)))
        return replace(
            events,
            times=events.times[inside],
            kinds=events.kinds[inside],
            durations=events.durations[inside],
            span=span,
        )


def noted(recording: Recording, kind: str, text: str, remedy: str) -> Recording:
    """The recording with one more note of what a step did."""
    finding = Finding(kind, text, remedy, stream="neural", level="note")
    return replace(recording, findings=(*recording.findings, finding))


def _between(piece: Piece, cuts: np.ndarray) -> list[tuple[int, int]]:
    """Samples [first, stop) of what a piece falls into at the rising `cuts`."""
    low = np.searchsorted(cuts, piece.first, side="right")
    high = np.searchsorted(cuts, piece.stop, side="left")
    return list(pairwise([piece.first, *cuts[low:high].tolist(), piece.stop]))


def _whole(series: Series) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Runs [start, stop) of samples without NaN inside pieces, and NaN per channel."""
    ranges: list[tuple[int, int]] = []
    missing = np.zeros(len(series.channels), np.int64)
    for part in parts(series):
        values = np.isnan(part.values.reshape(len(part.values), len(series.channels), -1))
        missing += values.any(axis=2).sum(axis=0)
        whole = ~values.any(axis=(1, 2))
        edges = np.flatnonzero(np.diff(np.concatenate([[False], whole, [False]])))
        base = part.piece.first + part.offset
        for start, stop in (edges.reshape(-1, 2) + base).tolist():
            if ranges and ranges[-1][1] == start and start > part.piece.first:
                ranges[-1] = (ranges[-1][0], stop)
            else:
                ranges.append((start, stop))
        if len(ranges) > MAX_PIECES:
            raise RecordingError(
                f"its missing samples leave more than {MAX_PIECES} pieces; drop the channel that "
                f"misses most, {series.names[int(np.argmax(missing))]}",
                stream="neural",
            )
    return ranges, missing


def _kept(series: Series, ranges: Sequence[tuple[int, int]]) -> Series:
    """The series with these rows alone, each range one piece at its own time."""
    pieces, at = [], 0
    owners = iter(series.pieces)
    owner = next(owners)
    for start, stop in ranges:
        while start >= owner.stop:
            owner = next(owners)
        time = owner.start + (start - owner.first) / series.rate
        pieces.append(Piece(time, at, at + stop - start))
        at += stop - start
    return series.with_values(take_rows(series.values, ranges), pieces=tuple(pieces))
