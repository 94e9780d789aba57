"""Steps that choose channels or mix them."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from recording.contract import TYPES, Channel, Recording, Series
from recording.errors import RecordingError
from recording.preparation.operations import Operation, Project, Take
from recording.preparation.steps import Step, step

Names = tuple[str, ...]
Types = tuple[Literal[TYPES], ...]  # type: ignore[valid-type]


@step("select")
class Select(Step):
    """Keep the neural channels with these names (patterns such as "F*") or of these types."""

    step: Literal["select"] = "select"
    names: Names = ()
    types: Types = ()

    @model_validator(mode="after")
    def _chooses(self) -> Select:
        if not self.names and not self.types:
            raise ValueError("names or types: give one or both")
        return self

    def operations(self, channels: tuple[Channel, ...]) -> tuple[Operation, ...]:
        """Take of the chosen channels."""
        return (Take(self._indices(channels)),)

    def channels_after(self, channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
        """The chosen channels."""
        return tuple(channels[index] for index in self._indices(channels))

    def _indices(self, channels: tuple[Channel, ...]) -> tuple[int, ...]:
        return matching(channels, self.names, self.types)


@step("drop")
class Drop(Step):
    """Leave out the neural channels with these names (patterns such as "EOG*")."""

    step: Literal["drop"] = "drop"
    names: Names = Field(min_length=1)

    def operations(self, channels: tuple[Channel, ...]) -> tuple[Operation, ...]:
        """Take of the others."""
        return (Take(self._indices(channels)),)

    def channels_after(self, channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
        """The others."""
        return tuple(channels[index] for index in self._indices(channels))

    def _indices(self, channels: tuple[Channel, ...]) -> tuple[int, ...]:
        dropped = set(matching(channels, self.names))
        kept = tuple(index for index in range(len(channels)) if index not in dropped)
        if not kept:
            raise RecordingError(f"drops all {len(channels)} channels; keep one or more")
        return kept


@step("reference")
class Reference(Step):
    """Subtract from every channel the mean of these channels (patterns; none: of all).

    A sample at a time: causal, no delay. `keep: false` leaves the reference channels out.
    """

    step: Literal["reference"] = "reference"
    names: Names = ()
    keep: bool = True

    @model_validator(mode="after")
    def _leaves_some(self) -> Reference:
        if not self.keep and not self.names:
            raise ValueError("keep: false needs names, else no channel would be left")
        return self

    def apply(self, recording: Recording) -> Recording:
        """The re-referenced recording, lazily."""
        potential_only(recording.neural, self.step)
        return super().apply(recording)

    def operations(self, channels: tuple[Channel, ...]) -> tuple[Operation, ...]:
        """A Project with 1 on the diagonal and 1/n off each reference channel."""
        mean = list(self._reference(channels))
        units = sorted({channel.unit for channel in channels})
        if len(units) > 1:
            have = ", ".join(unit or "no stated unit" for unit in units)
            raise RecordingError(f"channels are in {have}; bring them to one unit first")
        matrix = np.eye(len(channels))
        matrix[mean] -= 1 / len(mean)
        return (Project(matrix[:, list(self._kept(channels))].astype(np.float32)),)

    def channels_after(self, channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
        """The same channels, or those that are no reference."""
        return tuple(channels[index] for index in self._kept(channels))

    def _reference(self, channels: tuple[Channel, ...]) -> tuple[int, ...]:
        return matching(channels, self.names) if self.names else tuple(range(len(channels)))

    def _kept(self, channels: tuple[Channel, ...]) -> tuple[int, ...]:
        if self.keep:
            return tuple(range(len(channels)))
        mean = self._reference(channels)
        kept = tuple(index for index in range(len(channels)) if index not in mean)
        if not kept:
            raise RecordingError("every channel is a reference channel; set keep: true")
        return kept


def matching(
    channels: tuple[Channel, ...], names: Iterable[str] = (), types: Iterable[str] = ()
) -> tuple[int, ...]:
    """Indices of channels that a name pattern or a type chooses, in the channels' order.

    Raises RecordingError where a pattern or all types choose none.
    """
    names, types = tuple(names), tuple(types)
    have = ", ".join(f"{channel.name} ({channel.type})" for channel in channels)
    for pattern in names:
        if not any(fnmatchcase(channel.name, pattern) for channel in channels):
            raise RecordingError(f"no channel {pattern!r}; there are: {have}")
    chosen = tuple(
        index
        for index, channel in enumerate(channels)
        if channel.type in types or any(fnmatchcase(channel.name, name) for name in names)
    )
    if not chosen:
        raise RecordingError(f"no channel of type {', '.join(types)}; there are: {have}")
    return chosen


def potential_only(series: Series, name: str) -> None:
    """Raise RecordingError where the series has features beside the one that was recorded."""
    if len(series.features) > 1:
        have = ", ".join(series.features)
        raise RecordingError(
            f"acts on one value per channel, not on the features {have}; "
            f"put {name} in front of bands",
            stream="neural",
        )
