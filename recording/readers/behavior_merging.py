"""Streams of one file under the names of a recording: behaviour merged, events put in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recording.contract import Channel, Events, Finding, Modality, Samples, Series
from recording.errors import RecordingError
from recording.readers.checked_values import Checked
from recording.readers.potential_scale import scale_findings
from recording.readers.unit_names import metres
from recording.signals import Pointwise, Signal

AXES = "xyz"


@dataclass(frozen=True)
class Stream:
    """A stream as its file has it: `name` there, and what it is."""

    name: str
    modality: Series | Samples


class Beside:
    """Signals (time, channel) of one length side by side."""

    def __init__(self, parts: Sequence[Signal]) -> None:
        self.parts = tuple(parts)
        self.dtype: np.dtype = np.result_type(*(part.dtype for part in parts))
        self.shape: tuple[int, ...] = (len(parts[0]), sum(part.shape[1] for part in parts))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return np.concatenate([np.asarray(part[rows], self.dtype) for part in self.parts], axis=1)


def behavior_channels(name: str, count: int, unit: str, *, axes: bool) -> tuple[Channel, ...]:
    """Channels of one stream: its name, with x, y, z where it is a place, else with a number."""
    if unit and metres(unit) is not None:
        unit = "m"
    tails = [""] if count == 1 else [f"_{index}" for index in range(count)]
    if axes and 1 < count <= len(AXES):
        tails = [f"_{axis}" for axis in AXES[:count]]
    return tuple(Channel(f"{name}{tail}", "behavior", unit) for tail in tails)


def converted(values: Signal, factor: np.ndarray | float, offset: float = 0.0) -> Signal:
    """values · factor + offset, as float32."""
    if np.all(np.asarray(factor) == 1.0) and offset == 0.0 and values.dtype == np.float32:
        return values

    def run(block: np.ndarray) -> np.ndarray:
        # A damaged number may be beyond float32: infinite then, as it is too large.
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(block.astype(np.float64) * factor + offset).astype(np.float32)

    return Pointwise(values, run, values.shape[1:], np.float32)


def checked(series: Series, *, file: str, stream: str) -> Series:
    """The series, whose slices raise RecordingError at an infinite value."""

    def place(sample: int) -> float:
        return float(series.times(sample, sample + 1)[0])

    return series.with_values(Checked(series.values, series.names, place, file=file, stream=stream))


def unit_findings(series: Series) -> list[Finding]:
    """What is to be said about the unit of a series that may be electric potentials."""
    if not any(one.type in ("eeg", "ecog", "seeg", "lfp", "other") for one in series.channels):
        return []
    return scale_findings(series)


def merge_behavior(
    streams: Sequence[Stream], taken: Sequence[str] = ()
) -> tuple[dict[str, Modality], tuple[Finding, ...]]:
    """Streams by the name of their modality: those of one clock as one, the largest "behavior".

    The others keep their own names, of the first stream of each. A finding tells where there are
    any.
    """
    clocks: dict[Any, list[Stream]] = {}
    for stream in streams:
        clocks.setdefault(_clock_key(stream.modality), []).append(stream)
    groups = sorted(clocks.values(), key=_size, reverse=True)
    found: dict[str, Modality] = {}
    names = set(taken)
    for index, group in enumerate(groups):
        name = "behavior" if index == 0 else group[0].name
        while name in names:
            name += "_2"
        names.add(name)
        found[name] = _beside(group)
    if len(groups) < 2:
        return found, ()
    others = ", ".join(list(found)[1:])
    main = ", ".join(stream.name for stream in groups[0])
    return found, (
        Finding(
            "clock",
            f'behaviour has {len(groups)} clocks: "behavior" holds {main}; beside it is {others}',
            "to decode another one, name it in the reader's option `behavior`",
            stream="behavior",
            level="note",
        ),
    )


def in_order(
    times: np.ndarray,
    kinds: Sequence[str] | np.ndarray,
    durations: np.ndarray | None,
    stream: str,
) -> tuple[Events, tuple[Finding, ...]]:
    """Events from rows in any order; one finding where their order was not that of time.

    Raises RecordingError for a time that is not finite.
    """
    bad = np.flatnonzero(~np.isfinite(times))
    if bad.size:
        raise RecordingError(
            f"time of row {bad[0]} is {times[bad[0]]}; must be finite", stream=stream
        )
    names = tuple(sorted(set(map(str, kinds))))
    number = {name: index for index, name in enumerate(names)}
    codes = np.array([number[str(kind)] for kind in kinds], np.int64)
    order = np.argsort(times, kind="stable")
    findings: tuple[Finding, ...] = ()
    if (falls := np.flatnonzero(np.diff(times) < 0)).size:
        at = float(times[falls[0] + 1])
        findings = (
            Finding(
                "clock",
                f"rows are not in the order of time, first at {at:.6g} s; read in order",
                "none needed",
                stream=stream,
                times=(at,),
                level="note",
            ),
        )
    lengths = None if durations is None else durations[order]
    return Events(times[order], codes[order], names, lengths), findings


def spike_events(
    trains: Mapping[str, np.ndarray], span: tuple[float, float] | None
) -> tuple[Events, tuple[Finding, ...]]:
    """Spikes of units from one train of times each, in seconds; units without spikes stay out.

    Raises RecordingError at a time that is not finite or goes back within a unit, and where spikes
    lie outside of `span`.
    """
    for name, train in trains.items():
        _check_train(name, train)
    silent = tuple(name for name, train in trains.items() if not len(train))
    names = tuple(name for name in trains if name not in set(silent))
    if not names:
        raise RecordingError("no unit has a spike", stream="spikes")
    times = np.concatenate([trains[name] for name in names]).astype(np.float64)
    kinds = np.repeat(np.arange(len(names)), [len(trains[name]) for name in names])
    order = np.argsort(times, kind="stable")
    times, kinds = times[order], kinds[order]
    if span is not None and not span[0] <= times[0] <= times[-1] <= span[1]:
        at = times[0] if times[0] < span[0] else times[-1]
        raise RecordingError(
            f"a spike lies outside of what was observed, {span[0]:.6g} to {span[1]:.6g} s",
            stream="spikes",
            at=float(at),
        )
    findings: tuple[Finding, ...] = ()
    if silent:
        findings = (
            Finding(
                "flat",
                f"{len(silent)} units have no spike and are left out: {', '.join(silent[:8])}",
                "none needed",
                stream="spikes",
                channels=silent,
                level="note",
            ),
        )
    return Events(times, kinds.astype(np.int64), names, span=span), findings


def _check_train(name: str, train: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(train))
    if bad.size:
        raise RecordingError(
            f"spike {bad[0]} is at {train[bad[0]]} s; must be finite", stream=f"spikes of {name}"
        )
    falls = np.flatnonzero(np.diff(train) < 0)
    if falls.size:
        raise RecordingError(
            f"spike {falls[0] + 1} is earlier than the one in front of it; times must not go back",
            stream=f"spikes of {name}",
            at=float(train[falls[0] + 1]),
        )


def _clock_key(modality: Series | Samples) -> Any:
    if isinstance(modality, Series):
        return modality.rate, modality.pieces
    return modality.times.tobytes()


def _size(group: Sequence[Stream]) -> tuple[int, int]:
    channels = sum(len(stream.modality.channels) for stream in group)
    return channels, len(group[0].modality.values)


def _beside(group: Sequence[Stream]) -> Modality:
    first = group[0].modality
    channels = tuple(channel for one in group for channel in one.modality.channels)
    if len(group) == 1:
        return first
    values = [one.modality.values for one in group]
    if isinstance(first, Series):
        return first.with_values(Beside(values), channels=channels)
    return Samples(first.times, np.concatenate([np.asarray(v) for v in values], 1), channels)
