"""Steps that say or change what the numbers are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from recording.contract import Channel, Recording
from recording.errors import RecordingError
from recording.preparation.channels import Names, Types, matching, potential_only
from recording.preparation.operations import Clip, Operation, Scale
from recording.preparation.steps import Ranges, Step, step
from recording.signals import blocks

POWERS = {"": 0, "k": 3, "m": -3, "µ": -6, "n": -9, "p": -12, "f": -15}
BASES = ("V", "T", "A", "M")  # volt, tesla, ampere, mole per litre
# Unit -> its base and the power of ten that it is of it.
KNOWN = {prefix + base: (base, power) for base in BASES for prefix, power in POWERS.items()}
# Values that a median is taken of, over all channels: 128 MiB.
MEDIAN_VALUES = 2**25


def spelled(unit: str) -> str:
    """The unit with the micro sign µ, however micro was written (uV, Greek μV)."""
    unit = unit.strip().replace("μ", "µ")
    return "µ" + unit[1:] if unit[:1] == "u" and unit[1:] in BASES else unit


Unit = Annotated[str, Field(min_length=1, max_length=32), AfterValidator(spelled)]


@step("declare")
class Declare(Step):
    """Say what the numbers are where the file does not: value × factor is in `unit`.

    `names` (patterns) and `types` choose the channels, all neural ones where both are empty.
    """

    step: Literal["declare"] = "declare"
    unit: Unit
    factor: float = Field(default=1.0, gt=0)
    names: Names = ()
    types: Types = ()

    def apply(self, recording: Recording) -> Recording:
        """The recording with the unit stated and the values multiplied, lazily."""
        potential_only(recording.neural, self.step)
        return super().apply(recording)

    def operations(self, channels: tuple[Channel, ...]) -> tuple[Operation, ...]:
        """A Scale by the factor."""
        chosen = self._chosen(channels)
        return (_scale([self.factor if i in chosen else 1.0 for i in range(len(channels))]),)

    def channels_after(self, channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
        """The channels with the unit."""
        chosen = self._chosen(channels)
        return tuple(
            replace(channel, unit=self.unit) if index in chosen else channel
            for index, channel in enumerate(channels)
        )

    def _chosen(self, channels: tuple[Channel, ...]) -> set[int]:
        if not self.names and not self.types:
            return set(range(len(channels)))
        return set(matching(channels, self.names, self.types))


@step("scale")
class ToUnit(Step):
    """Convert channels to `unit` from the units they state: V, mV, µV, nV; T, pT, fT and so on.

    Channels of another kind of unit stay as they are; one without a unit is an error.
    """

    step: Literal["scale"] = "scale"
    unit: Unit

    @model_validator(mode="after")
    def _known(self) -> ToUnit:
        if self.unit not in KNOWN:
            raise ValueError(
                f"unit: {self.unit!r} is not known; known: {', '.join(BASES)}, "
                f"also with {', '.join(filter(None, POWERS))} in front"
            )
        return self

    def apply(self, recording: Recording) -> Recording:
        """The recording in the unit, lazily."""
        potential_only(recording.neural, self.step)
        return super().apply(recording)

    def operations(self, channels: tuple[Channel, ...]) -> tuple[Operation, ...]:
        """A Scale by a power of ten for each channel."""
        return (_scale(self._factors(channels)),)

    def channels_after(self, channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
        """The channels with the unit where they were converted."""
        return tuple(
            replace(channel, unit=self.unit) if self._converts(channel) else channel
            for channel in channels
        )

    def _converts(self, channel: Channel) -> bool:
        base, _ = KNOWN.get(spelled(channel.unit), ("", 0))
        return base == KNOWN[self.unit][0]

    def _factors(self, channels: tuple[Channel, ...]) -> list[float]:
        unstated = [channel.name for channel in channels if not channel.unit]
        if unstated:
            raise RecordingError(
                f"channel {unstated[0]} states no unit ({len(unstated)} of {len(channels)} do not);"
                f" say what it is: {{step: declare, unit: {self.unit}, names: [{unstated[0]}]}}",
                stream=unstated[0],
            )
        if not any(map(self._converts, channels)):
            have = ", ".join(sorted({channel.unit for channel in channels}))
            raise RecordingError(f"no channel can be converted to {self.unit}; they are in {have}")
        target = KNOWN[self.unit][1]
        return [
            _ten(KNOWN[spelled(channel.unit)][1] - target) if self._converts(channel) else 1.0
            for channel in channels
        ]


@step("clip")
class ClipValues(Step):
    """Limit values to low … high, or to the median of the train part ± `by`, in the channel's unit.

    A sample at a time: causal, no delay. The trainer fills `medians`, one per channel; of more than
    2^25 values they are those of an evenly spread sample.
    """

    step: Literal["clip"] = "clip"
    low: float | None = None
    high: float | None = None
    around: Literal["median"] | None = None
    by: float | None = Field(default=None, gt=0)
    medians: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> ClipValues:
        fixed = self.low is not None or self.high is not None
        if fixed == (self.around is not None) or (self.by is None) != (self.around is None):
            raise ValueError("give low and high (or one of them), or around: median with by")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low: {self.low:g} must be below high, {self.high:g}")
        if self.medians is not None and self.around is None:
            raise ValueError("medians: belong to around: median")
        return self

    @property
    def fitted(self) -> bool:
        """Whether the limits are known."""
        return self.around is None or self.medians is not None

    def fit(self, sessions: Sequence[tuple[Recording, Ranges]]) -> ClipValues:
        """The step with the median of each channel over the train ranges; NaN are left out."""
        if self.fitted:
            return self
        names = sessions[0][0].neural.names
        for recording, _ in sessions:
            if recording.neural.names != names:
                raise RecordingError(
                    f"its channels differ from those of {sessions[0][0].source}",
                    file=recording.source,
                    stream="neural",
                )
        total = sum(_inside(recording, ranges) for recording, ranges in sessions)
        # Every n-th train sample where all of them would not fit in memory.
        every = max(1, -(-total * len(names) // MEDIAN_VALUES))
        kept, seen = [], 0
        for recording, ranges in sessions:
            for rows in _train_rows(recording, ranges):
                kept.append(rows[(-seen) % every :: every].reshape(-1, len(names)))
                seen += len(rows)
        values = np.concatenate(kept) if kept else np.empty((0, len(names)))
        medians = []
        for column, name in enumerate(names):
            known = values[:, column][~np.isnan(values[:, column])]
            if len(known) == 0:
                raise RecordingError("has no value in the train part; drop it", stream=name)
            medians.append(float(np.median(known)))
        return self.model_copy(update={"medians": tuple(medians)})

    def apply(self, recording: Recording) -> Recording:
        """The clipped recording, lazily; RecordingError before `fit`."""
        potential_only(recording.neural, self.step)
        return super().apply(recording)

    def operations(self, channels: tuple[Channel, ...]) -> tuple[Operation, ...]:
        """A Clip for each channel."""
        count = len(channels)
        if self.around is None:
            low = np.full(count, -np.inf if self.low is None else self.low)
            high = np.full(count, np.inf if self.high is None else self.high)
        elif self.medians is None:
            raise RecordingError(
                "is not fitted: the medians are those of the train part, which training finds; "
                "set low and high to clip without training"
            )
        elif len(self.medians) != count:
            raise RecordingError(
                f"medians of {len(self.medians)} channels for {count} channels", stream="neural"
            )
        else:
            assert self.by is not None
            low, high = np.array(self.medians) - self.by, np.array(self.medians) + self.by
        return (Clip(_column(low), _column(high)),)


def _inside(recording: Recording, ranges: Ranges) -> int:
    return sum(stop - start for start, stop in _row_ranges(recording, ranges))


def _row_ranges(recording: Recording, ranges: Ranges) -> list[tuple[int, int]]:
    """Samples [start, stop) of `neural` whose time is in a range, in order."""
    neural, found = recording.neural, []
    for piece in neural.pieces:
        for start, stop in sorted(ranges):
            # Half a sample's tolerance: ranges are cut at samples, times are rounded.
            first = int(np.ceil((start - piece.start) * neural.rate - 0.5))
            last = int(np.ceil((stop - piece.start) * neural.rate - 0.5))
            first, last = max(first, 0), min(last, len(piece))
            if first < last:
                found.append((piece.first + first, piece.first + last))
    return found


def _train_rows(recording: Recording, ranges: Ranges) -> Iterator[np.ndarray]:
    """The train samples of `neural` in order, block by block: each (time, channel)."""
    wanted, at = _row_ranges(recording, ranges), 0
    for block in blocks(recording.neural.values):
        for start, stop in wanted:
            first, last = max(start - at, 0), min(stop - at, len(block))
            if first < last:
                yield np.asarray(block[first:last], np.float32)
        at += len(block)


def _scale(factors: list[float]) -> Scale:
    return Scale(_column(np.zeros(len(factors))), _column(np.array(factors)))


def _column(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)[:, np.newaxis]


def _ten(power: int) -> float:
    # 10.0**-6 and 1e-6 are not the same number.
    return float(f"1e{power}")
