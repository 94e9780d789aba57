"""What the health check says of a stream: plain figures, ready for a table, JSON or a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from recording.contract import NEURAL_TYPES

# Types of channels that are measured signals; what a reader cannot name may be one.
MEASURED = (*NEURAL_TYPES, "other")
STATES = 16  # a channel with no more different values is a code, not a measurement


@dataclass(frozen=True)
class ChannelHealth:
    """One channel's figures over what was examined, in its unit; None where nothing was measured.

    spread: 1.4826 × median absolute deviation, the standard deviation without its outliers;
    missing, clipped, artefacts: shares of the samples; noise_ratio: rms of the steps from sample to
    sample over √2 std, 1 for white noise; correlation: mean |r| with channels of its type;
    code: only a few different values, a state rather than a measurement;
    marks: the kinds of findings that name it.
    """

    name: str
    type: str
    unit: str
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None
    spread: float | None = None
    missing: float = 0.0
    clipped: float = 0.0
    artefacts: float = 0.0
    flat: bool = False
    code: bool = False
    noise_ratio: float | None = None
    correlation: float | None = None
    position: tuple[float, float, float] | None = None
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Intervals:
    """Seconds from one event to the next."""

    shortest: float
    median: float
    longest: float


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Power per frequency: `frequencies` (frequency,) in Hz, `power` of each type (frequency,)."""

    frequencies: np.ndarray
    power: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class StreamHealth:
    """One modality, the markers or the trials.

    kind: "series" (regular), "samples" (irregular) or "events"; rate: in Hz, of samples the median
    one, None for events; start, stop: seconds on the clock; duration: seconds recorded; shape: of
    the values, of events their number; examined: the share that was read; counts: events of each
    kind; spectrum and correlation (channel, channel): of neural series, for pictures.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    rate: float | None
    start: float
    stop: float
    duration: float
    pieces: int = 1
    examined: float = 1.0
    channels: tuple[ChannelHealth, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    intervals: Intervals | None = None
    spectrum: Spectrum | None = None
    correlation: np.ndarray | None = None

    @property
    def unit(self) -> str:
        """The unit of all channels, "mixed" where they differ, "" where none is stated."""
        units = {channel.unit for channel in self.channels}
        return units.pop() if len(units) == 1 else "mixed" if units else ""


def listed(names: tuple[str, ...] | list[str], limit: int = 6) -> str:
    """Names in a row, the first `limit` of many."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def patterns(names: tuple[str, ...] | list[str]) -> list[str]:
    """Names as the patterns of a step that match just them."""
    return [
        "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name) for name in names
    ]
