"""A recording: the modalities of one session on one clock, in seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from recording.errors import RecordingError
from recording.signals import Signal

# What a channel measures. Everything up to `spikes` counts as neural.
NEURAL_TYPES = ("eeg", "meg", "ecog", "seeg", "lfp", "fnirs", "bold", "calcium", "spikes")
TYPES = (*NEURAL_TYPES, "eog", "emg", "ecg", "reference", "stimulus", "behavior", "other")

# Hz: from one sample in months to radio frequencies. Beyond, times are no numbers any more.
LOWEST_RATE, HIGHEST_RATE = 1e-7, 1e9


@dataclass(frozen=True)
class Channel:
    """One column of a modality: `unit` "" where the file states none, `position` x, y, z in m."""

    name: str
    type: str = "other"
    unit: str = ""
    position: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise RecordingError(
                f"channel type {self.type!r} is not one of {', '.join(TYPES)}", stream=self.name
            )


@dataclass(frozen=True)
class Piece:
    """Samples [first, stop) of a series that follow one another at its rate.

    The first of them is at `start` seconds. No window and no filter crosses from one piece to
    another.
    """

    start: float
    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first


@dataclass(frozen=True, eq=False)
class Series:
    """A regular modality: `values` (time, channel) or (time, channel, feature), `rate` in Hz.

    `values` may be lazy: only `values[start:stop]` is asked of it. `pieces` cover it in order;
    left out, it is one piece from 0 s. Missing samples are NaN.
    """

    values: Signal
    rate: float
    channels: tuple[Channel, ...]
    pieces: tuple[Piece, ...] = ()
    features: tuple[str, ...] = ("value",)

    def __post_init__(self) -> None:
        if not LOWEST_RATE <= self.rate <= HIGHEST_RATE:
            raise RecordingError(
                f"rate is {self.rate} Hz; must be above 0, from {LOWEST_RATE:g} to "
                f"{HIGHEST_RATE:g} Hz"
            )
        shape = self.values.shape
        if len(shape) not in (2, 3) or 0 in shape:
            raise RecordingError(f"shape {tuple(shape)}; must be (time, channel), none of them 0")
        if shape[1] != len(self.channels):
            raise RecordingError(f"{len(self.channels)} channel names for {shape[1]} channels")
        if (shape[2] if len(shape) == 3 else 1) != len(self.features):
            raise RecordingError(f"features {self.features} for values of shape {tuple(shape)}")
        names = self.names
        if twice := sorted(name for name, count in Counter(names).items() if count > 1):
            raise RecordingError(f"two channels are called {twice[0]!r}; names must differ")
        if not self.pieces:
            object.__setattr__(self, "pieces", (Piece(0.0, 0, shape[0]),))
        at = 0
        for piece in self.pieces:
            if piece.first != at or piece.stop <= piece.first:
                raise RecordingError(f"pieces must follow one another; sample {at} has none")
            at = piece.stop
        if at != shape[0]:
            raise RecordingError(f"pieces end at sample {at} of {shape[0]}")

    @property
    def names(self) -> tuple[str, ...]:
        """The channels' names."""
        return tuple(channel.name for channel in self.channels)

    @property
    def duration(self) -> float:
        """Seconds that were recorded, gaps between pieces left out."""
        return len(self.values) / self.rate

    @property
    def span(self) -> tuple[float, float]:
        """From the first sample to one step after the last, in seconds on the clock."""
        return (
            min(piece.start for piece in self.pieces),
            max(piece.start + len(piece) / self.rate for piece in self.pieces),
        )

    def times(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Time of samples [start, stop) on the clock, in seconds: (time,) float64."""
        index = np.arange(start, len(self.values) if stop is None else stop)
        firsts = np.array([piece.first for piece in self.pieces])
        starts = np.array([piece.start for piece in self.pieces])
        own = np.searchsorted(firsts, index, side="right") - 1
        return np.asarray(starts[own] + (index - firsts[own]) / self.rate)

    def with_values(self, values: Signal, **changes: object) -> Series:
        """The same series with other values (and channels, features, … where given)."""
        return replace(self, values=values, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Samples:
    """An irregular modality: `times` (sample,) in seconds, rising; `values` (sample, channel).

    Missing values are NaN.
    """

    times: np.ndarray
    values: np.ndarray
    channels: tuple[Channel, ...]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape != (len(self.times), len(self.channels)):
            raise RecordingError(
                f"values {self.values.shape} for {len(self.times)} times and "
                f"{len(self.channels)} channels"
            )
        check_times(self.times, rising=True)
        infinite = np.isinf(self.values).any(axis=1) if self.values.dtype.kind == "f" else ()
        if (bad := np.flatnonzero(infinite)).size:
            raise RecordingError(
                f"sample {bad[0]} is infinite; a missing value is NaN", at=float(self.times[bad[0]])
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The channels' names."""
        return tuple(channel.name for channel in self.channels)

    @property
    def span(self) -> tuple[float, float]:
        """Time of the first and the last sample, in seconds."""
        return float(self.times[0]), float(self.times[-1])


@dataclass(frozen=True, eq=False)
class Events:
    """Things that happen at a time: spikes of units, markers, trials.

    `times` (event,) in seconds, ascending; `kinds` (event,) int64 index `names`, which are units,
    marker labels or classes; `durations` (event,) in seconds, 0 for a moment. `span` is what was
    observed, seconds from and to, where it is known.
    """

    times: np.ndarray
    kinds: np.ndarray
    names: tuple[str, ...]
    durations: np.ndarray | None = None
    span: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.times.shape != self.kinds.shape:
            raise RecordingError(f"{len(self.kinds)} kinds for {len(self.times)} times")
        check_times(self.times, rising=False)
        if len(self.kinds) and not 0 <= self.kinds.min() <= self.kinds.max() < len(self.names):
            raise RecordingError(f"a kind is outside 0 … {len(self.names) - 1}")
        if self.durations is None:
            object.__setattr__(self, "durations", np.zeros(len(self.times)))
        elif self.durations.shape != self.times.shape or not (self.durations >= 0).all():
            raise RecordingError("durations: must be one per event, not negative")

    def __len__(self) -> int:
        return len(self.times)

    @property
    def counts(self) -> dict[str, int]:
        """How often each kind occurs."""
        found = np.bincount(self.kinds, minlength=len(self.names))
        return {name: int(count) for name, count in zip(self.names, found, strict=True)}

    @property
    def stops(self) -> np.ndarray:
        """End of every event, in seconds."""
        assert self.durations is not None
        return np.asarray(self.times + self.durations)


Modality = Series | Samples | Events


@dataclass(frozen=True)
class Finding:
    """Something to know about a recording: what, where, and what to do about it.

    kind: a short name, such as "scale" or "flat"; stream: modality or channel; times: up to some
    moments in seconds; remedy: what to write or do; steps: the remedy as preparation steps,
    `{"step": …}`, where it is one.
    """

    kind: str
    text: str
    remedy: str
    stream: str = ""
    times: tuple[float, ...] = ()
    channels: tuple[str, ...] = ()
    level: Literal["note", "warning"] = "warning"
    steps: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Recording:
    """One session of one subject.

    `modalities` by name: "neural" (the series to model), "spikes" (Events of units), "behavior"
    (Series or Samples), "stimulus", others under their own names. `markers` are Events of the
    acquisition; `trials` are intervals that belong together, their names the classes, where the
    file or a preparation step has any. `source` is the file's name without its folder, `format`
    what it is, `findings` what the reader noticed.
    """

    source: str
    format: str
    session: str
    modalities: Mapping[str, Modality]
    markers: Events | None = None
    trials: Events | None = None
    subject: str = ""
    site: str = ""
    findings: tuple[Finding, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def neural(self) -> Series:
        """The series to model; raises RecordingError where there is none yet."""
        neural = self.modalities.get("neural")
        if not isinstance(neural, Series):
            have = ", ".join(self.modalities) or "nothing"
            hint = "; bin the spikes: {step: bin}" if "spikes" in self.modalities else ""
            raise RecordingError(f"no neural series; there is {have}{hint}", file=self.source)
        return neural

    def with_modality(self, name: str, modality: Modality | None) -> Recording:
        """The same recording with one modality set, or left out where None."""
        others = {key: value for key, value in self.modalities.items() if key != name}
        if modality is not None:
            # In its place, so that the order of modalities stays what the reader chose.
            merged = dict(self.modalities)
            merged[name] = modality
            others = merged
        return replace(self, modalities=others)


def check_times(times: np.ndarray, *, rising: bool, first: int = 0) -> None:
    """Raise RecordingError at the first time that is not finite, falls or (rising) repeats.

    `first` is the number of the first of them.
    """
    if times.ndim != 1:
        raise RecordingError(f"times of shape {times.shape}; must be one axis")
    bad = np.flatnonzero(~np.isfinite(times))
    if bad.size:
        behind = float(times[bad[0] - 1]) if bad[0] else None
        raise RecordingError(f"time {first + bad[0]} is {times[bad[0]]}; must be finite", at=behind)
    steps = np.diff(times)
    falls = np.flatnonzero(steps < 0)
    if falls.size:
        at = int(falls[0]) + 1
        raise RecordingError(
            f"time {first + at} is {-steps[at - 1]:.6g} s before the one in front of it; "
            "times must not go back",
            at=float(times[at]),
        )
    if rising and (same := np.flatnonzero(steps == 0)).size:
        at = int(same[0]) + 1
        raise RecordingError(
            f"times {first + at - 1} and {first + at} are the same; each sample needs its own time",
            at=float(times[at]),
        )
