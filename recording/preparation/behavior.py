"""Steps on the modality "behavior": where it comes from, what counts, and neural's clock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
from pydantic import Field

from recording.contract import Channel, Recording, Samples, Series
from recording.errors import RecordingError
from recording.preparation.channels import Names, matching, potential_only
from recording.preparation.steps import Step, step
from recording.preparation.trials import behavior_of
from recording.signals import Pointwise, Signal, settle

Method = Literal["linear", "previous", "nearest"]


@step("behavior")
class Behavior(Step):
    """Move channels (patterns) out of `neural` into the modality "behavior", on the same clock."""

    step: Literal["behavior"] = "behavior"
    channels: Names = Field(min_length=1)

    def has_work(self, recording: Recording) -> bool:
        """Whether one of the channels is there."""
        names = recording.neural.names
        return any(fnmatchcase(name, pattern) for pattern in self.channels for name in names)

    def apply(self, recording: Recording) -> Recording:
        """The recording with both modalities, lazily."""
        neural = recording.neural
        potential_only(neural, self.step)
        if "behavior" in recording.modalities:
            raise RecordingError("there is behavior already; select or drop the channels instead")
        moved = list(matching(neural.channels, self.channels))
        kept = [index for index in range(len(neural.channels)) if index not in moved]
        if not kept:
            raise RecordingError("moves every channel; neural must keep one or more")
        behavior, tail = _columns(neural, moved, ()), neural.values.shape[2:]
        channels = tuple(replace(channel, type="behavior") for channel in behavior.channels)
        recording = recording.with_modality("neural", _columns(neural, kept, tail))
        return recording.with_modality("behavior", replace(behavior, channels=channels))


@step("mask")
class Mask(Step):
    """Behavior is lost where these channels (patterns; none: all) have `value`, all at once.

    The samples become NaN in these channels, such as a position of 0, 0 of a camera that lost its
    light.
    """

    step: Literal["mask"] = "mask"
    channels: Names = ()
    value: float = 0.0

    def has_work(self, recording: Recording) -> bool:
        """Whether there is behaviour."""
        return "behavior" in recording.modalities

    def apply(self, recording: Recording) -> Recording:
        """The recording with masked behavior, lazily."""
        behavior = behavior_of(recording)
        chosen = _chosen(behavior.channels, self.channels)

        def lose(values: np.ndarray) -> np.ndarray:
            values = np.array(values, _floating(values.dtype))
            lost = (values[:, chosen] == self.value).all(axis=1)
            for column in chosen:
                values[lost, column] = np.nan
            return values

        return recording.with_modality("behavior", _pointwise(behavior, lose))


@step("align")
class Align(Step):
    """Bring "behavior" onto neural's samples, as a series of the same times.

    `linear` between the two measurements around a sample (future ones enter), the `previous` one
    (causal, no older than `gap`) or the `nearest`. NaN where a measurement that it takes is further
    than `gap` seconds away; missing ones (NaN) do not count, channel by channel.
    """

    step: Literal["align"] = "align"
    method: Method = "linear"
    gap: float = Field(default=0.25, gt=0)

    def has_work(self, recording: Recording) -> bool:
        """Whether there is behaviour."""
        return "behavior" in recording.modalities

    def apply(self, recording: Recording) -> Recording:
        """The recording with aligned behavior, computed when it is read."""
        neural, behavior = recording.neural, behavior_of(recording)
        if isinstance(behavior, Series):
            if behavior.rate == neural.rate and behavior.pieces == neural.pieces:
                return recording
            read = _series_reader(behavior)
        else:
            read = _samples_reader(behavior)
        values = _Aligned(neural, read, len(behavior.channels), self.method, self.gap)
        aligned = Series(values, neural.rate, behavior.channels, neural.pieces)
        return recording.with_modality("behavior", aligned)


@step("moving")
class Moving(Step):
    """Behavior is NaN where its speed is not above `above`, in units per second.

    The speed is that of these channels together (patterns; none: all), such as x and y, from the
    sample before to the one after (one side at a border or beside NaN): a future sample enters.
    Put it behind align: between the frames of a camera, the jitter of a position looks like speed.
    """

    step: Literal["moving"] = "moving"
    channels: Names = ()
    above: float = Field(gt=0)

    def has_work(self, recording: Recording) -> bool:
        """Whether there is behaviour."""
        return "behavior" in recording.modalities

    def apply(self, recording: Recording) -> Recording:
        """The recording with behavior of movement alone, lazily."""
        behavior = behavior_of(recording)
        chosen = _chosen(behavior.channels, self.channels)
        if isinstance(behavior, Series):
            moved = behavior.with_values(_Moving(behavior, chosen, self.above))
            return recording.with_modality("behavior", moved)
        values = np.array(behavior.values, _floating(behavior.values.dtype))
        slow = ~(speeds(behavior.times, values[:, chosen]) > self.above)
        values[slow] = np.nan
        return recording.with_modality("behavior", replace(behavior, values=values))


def speeds(times: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Speed (time,) along `position` (time, dimension): NaN where no neighbour is known."""
    position = position.astype(np.float64)
    known = np.isfinite(position).all(axis=1)
    index = np.arange(len(times))
    before = np.where(known[np.maximum(index - 1, 0)], np.maximum(index - 1, 0), index)
    after_index = np.minimum(index + 1, len(times) - 1)
    after = np.where(known[after_index], after_index, index)
    way = np.sqrt(np.square(position[after] - position[before]).sum(axis=1))
    duration = times[after] - times[before]
    known &= duration > 0
    return np.where(known, way / np.where(duration > 0, duration, 1), np.nan)


class _Moving:
    """A series' values, NaN where it does not move: read by slice with a sample on each side."""

    def __init__(self, behavior: Series, chosen: list[int], above: float) -> None:
        self.behavior, self.chosen, self.above = behavior, chosen, above
        self.shape, self.dtype = behavior.values.shape, np.dtype(np.float32)
        self._settled: Signal | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        if self._settled is None:
            self._settled = settle(self.behavior.values)
        start, stop, _ = rows.indices(len(self))
        found = np.empty((max(0, stop - start), *self.shape[1:]), np.float32)
        firsts = [piece.first for piece in self.behavior.pieces]
        for piece in self.behavior.pieces[max(0, bisect_right(firsts, start) - 1) :]:
            first, last = max(start, piece.first), min(stop, piece.stop)
            if first >= last:
                break
            low, high = max(first - 1, piece.first), min(last + 1, piece.stop)
            values = np.array(self._settled[low:high], np.float32)
            times = np.arange(low - piece.first, high - piece.first) / self.behavior.rate
            slow = ~(speeds(times, values[:, self.chosen]) > self.above)
            values[slow] = np.nan
            found[first - start : last - start] = values[first - low : last - low]
        return found


# Measurements around two times: their times (time,) and values (time, channel).
Reader = Callable[[float, float], tuple[np.ndarray, np.ndarray]]


class _Aligned:
    """Measurements at a series' times, read by slice."""

    def __init__(
        self, series: Series, read: Reader, channels: int, method: Method, gap: float
    ) -> None:
        self.series, self.read, self.method, self.gap = series, read, method, gap
        self.shape, self.dtype = (len(series.values), channels), np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        found = np.full((max(0, stop - start), self.shape[1]), np.nan, np.float32)
        if len(found) == 0:
            return found
        at = self.series.times(start, stop)
        times, values = self.read(at.min() - self.gap, at.max() + self.gap)
        for column in range(self.shape[1]):
            known = np.isfinite(values[:, column])
            found[:, column] = interpolate(
                times[known], values[known, column], at, self.method, self.gap
            )
        return found


def interpolate(
    times: np.ndarray, values: np.ndarray, at: np.ndarray, method: Method, gap: float
) -> np.ndarray:
    """Values (at,) float64 measured at rising `times`, NaN further than `gap` from what is used."""
    if len(times) == 0:
        return np.full(len(at), np.nan)
    values = values.astype(np.float64)
    # A billionth of a second is rounding: a measurement of this very moment counts as previous.
    slack = 1e-9
    late = slack if method == "previous" else 0.0
    previous = np.searchsorted(times, at + late, side="right") - 1
    following = np.searchsorted(times, at, side="left")
    left, right = np.maximum(previous, 0), np.minimum(following, len(times) - 1)
    behind = np.where(previous >= 0, at - times[left], np.inf)
    ahead = np.where(following < len(times), times[right] - at, np.inf)
    if method == "previous":
        return np.where(behind <= gap + slack, values[left], np.nan)
    if method == "nearest":
        nearest = np.where(ahead < behind, values[right], values[left])
        return np.where(np.minimum(ahead, behind) <= gap + slack, nearest, np.nan)
    step = times[right] - times[left]
    weight = np.where(step > 0, (at - times[left]) / np.where(step > 0, step, 1), 0)
    between = values[left] + weight * (values[right] - values[left])
    return np.where(np.maximum(ahead, behind) <= gap + slack, between, np.nan)


def _samples_reader(behavior: Samples) -> Reader:
    def read(start: float, stop: float) -> tuple[np.ndarray, np.ndarray]:
        low = max(0, int(np.searchsorted(behavior.times, start)) - 1)
        high = int(np.searchsorted(behavior.times, stop)) + 1
        return behavior.times[low:high], behavior.values[low:high]

    return read


def _series_reader(behavior: Series) -> Reader:
    starts = np.array([piece.start for piece in behavior.pieces])
    ends = starts + np.array([len(piece) for piece in behavior.pieces]) / behavior.rate
    back = np.flatnonzero(starts[1:] < ends[:-1] - 0.5 / behavior.rate)
    if back.size:
        raise RecordingError(
            "a piece starts before the one in front of it ends; times must not go back",
            stream="behavior",
            at=float(starts[back[0] + 1]),
        )
    settled: list[Signal] = []

    def row(time: float) -> int:
        own = max(0, int(np.searchsorted(starts, time, side="right")) - 1)
        piece = behavior.pieces[own]
        offset = np.clip(np.ceil((time - piece.start) * behavior.rate), 0, len(piece))
        return piece.first + int(offset)

    def read(start: float, stop: float) -> tuple[np.ndarray, np.ndarray]:
        if not settled:
            settled.append(settle(behavior.values))
        low, high = max(0, row(start) - 1), min(len(behavior.values), row(stop) + 1)
        return behavior.times(low, high), np.asarray(settled[0][low:high])

    return read


def _chosen(channels: tuple[Channel, ...], names: Names) -> list[int]:
    return list(matching(channels, names)) if names else list(range(len(channels)))


def _columns(series: Series, columns: list[int], tail: tuple[int, ...]) -> Series:
    def take(values: np.ndarray) -> np.ndarray:
        return values[:, columns].reshape(len(values), len(columns), *tail)

    return series.with_values(
        Pointwise(series.values, take, (len(columns), *tail), _floating(series.values.dtype)),
        channels=tuple(series.channels[column] for column in columns),
    )


def _pointwise(
    behavior: Series | Samples, function: Callable[[np.ndarray], np.ndarray]
) -> Series | Samples:
    if isinstance(behavior, Samples):
        return replace(behavior, values=function(behavior.values))
    dtype = _floating(behavior.values.dtype)
    tail = behavior.values.shape[1:]
    return behavior.with_values(Pointwise(behavior.values, function, tail, dtype))


def _floating(dtype: np.dtype) -> np.dtype:
    """The dtype itself, or where it has no NaN one that has."""
    return dtype if dtype.kind == "f" else np.dtype(np.float64)
