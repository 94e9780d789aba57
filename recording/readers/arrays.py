"""NumPy arrays: `.npy`, and `.npz` with `data` and `fs`, with trials, or with spikes and positions.

One array is the neural series: (time, channel), or (trial, time, channel), whose trials follow one
another on the clock. What an `.npz` may hold beside it, by name:

    data, X, neural     the series, where there are several arrays and no `key`
    fs, rate, sfreq     its rate in Hz
    labels, channel_names   names of the channels
    unit                text: what the numbers are in
    xy_mm, xyz_mm, xyz_m    positions (channel, 2 or 3)
    y                   the class of every trial
    spike_times, spike_unit, n_units    see `spike_arrays`
    pos_t, pos_xy_px    see `spike_arrays`
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from recording.array_files import NUMBERS, TEXT, array_names, find_array
from recording.clocks import check_clocks
from recording.contract import Channel, Events, Finding, Modality, Piece, Recording, Series
from recording.errors import RecordingError
from recording.readers import Format, Options, register
from recording.readers.array_signal import array_signal
from recording.readers.checked_values import scaled, stated_unit
from recording.readers.spike_arrays import SPIKE_KEYS, is_position, read_positions, read_spikes

SERIES_KEYS = ("data", "X", "neural")
RATE_KEYS = ("fs", "rate", "sfreq")
NAME_KEYS = ("channel_names", "labels")
POSITION_KEYS = {"xy_mm": 1e-3, "xyz_mm": 1e-3, "xyz_m": 1.0}
CLASS_KEY = "y"
MOST_TRIALS = 10**6
MOST_CHANNELS = 10**5
_READ_BYTES = 2**26  # of what is read whole beside the series: names, positions, classes


class ArrayOptions(Options):
    """Options of `.npy` and `.npz`: what the arrays are."""

    key: str | None = None
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    unit: str | None = None
    type: str = "other"
    layout: Literal["time_channel", "channel_time"] = "time_channel"
    channel_names: tuple[str, ...] | None = None


def open_npy(path: Path, options: ArrayOptions) -> Recording:
    """A `.npy` file (time, channel) or (trial, time, channel) as a recording."""
    if options.key is not None:
        raise RecordingError(f"key: a .npy file has no names; leave out {options.key!r}")
    return _recording(path, "npy", options, "", {})


def open_npz(path: Path, options: ArrayOptions) -> Recording:
    """A `.npz` file as a recording: what its names say, or the array `key`."""
    names = array_names(path)
    key = options.key
    if key is None and not (set(SPIKE_KEYS) <= set(names) or any(map(is_position, names))):
        key = _series_key(names)
    elif key is None:
        key = next((name for name in SERIES_KEYS if name in names), None)
    return _recording(path, "npz", options, key, dict.fromkeys(names))


def _recording(
    path: Path, format: str, options: ArrayOptions, key: str | None, names: Mapping[str, Any]
) -> Recording:
    modalities: dict[str, Modality] = {}
    findings: list[Finding] = []
    trials: Events | None = None
    used: set[str] = set()
    if key is not None:
        reader = _SeriesReader(path, options, names)
        modalities["neural"], trials = reader.read(key)
        findings += reader.findings
        used |= reader.used
    if options.key is None and set(SPIKE_KEYS) <= set(names):
        modalities["spikes"] = read_spikes(path, names)
        used |= {*SPIKE_KEYS, "n_units"}
    if options.key is None and (position := next(filter(is_position, names), None)):
        modalities["behavior"], found = read_positions(path, position)
        findings += found
        used |= {position, "pos_t"}
    check_clocks(modalities)
    left = [name for name in names if name not in used]
    return Recording(
        source=path.name,
        format=format,
        session=options.session or path.stem,
        modalities=modalities,
        trials=trials,
        subject=options.subject or "",
        site=options.site or "",
        findings=tuple(findings),
        facts={"arrays not read": ", ".join(left)} if left else {},
    )


def _series_key(names: tuple[str, ...]) -> str:
    known = [name for name in SERIES_KEYS if name in names]
    if len(known) == 1 or len(names) == 1:
        return (known or list(names))[0]
    raise RecordingError(
        f"which array is the series? give key (reader.key), one of: {', '.join(names)}"
    )


class _SeriesReader:
    """Reads one array of a file with what stands beside it, and notes what it used and found."""

    def __init__(self, path: Path, options: ArrayOptions, names: Mapping[str, Any]) -> None:
        self.path, self.options, self.names = path, options, names
        self.findings: list[Finding] = []
        self.used: set[str] = set()

    def read(self, key: str) -> tuple[Series, Events | None]:
        """The series, and its trials where the array has any."""
        stored = find_array(self.path, key)
        self.used.add(key)
        count, time, channels = _sizes(stored.shape, self.options.layout)
        rate = self._rate()
        self._check_axes(count, time, channels)
        names = self._channel_names(channels)
        unit, factor = stated_unit(self._unit(), self.options.type, stream="neural")
        positions = self._positions(channels)
        series = Series(
            scaled(
                array_signal(
                    stored, count, time, channels, self.options.layout, names, rate, factor
                ),
                (factor,) * channels,
            ),
            rate,
            tuple(
                Channel(name, self.options.type, unit, position)
                for name, position in zip(names, positions, strict=True)
            ),
            tuple(
                Piece(trial * time / rate, trial * time, (trial + 1) * time)
                for trial in range(count)
            ),
        )
        return series, self._trials(count, time, rate) if len(stored.shape) == 3 else None

    def _rate(self) -> float:
        stated = None
        for name in RATE_KEYS:
            if name in self.names:
                stated = self._scalar(name)
                break
        given = self.options.rate
        if given is None and stated is None:
            raise RecordingError(
                "its rate in Hz is not in the file: give rate, --option rate=HZ (reader.rate)"
            )
        if given is None or stated is None or given == stated:
            return given or stated or 0.0
        self.findings.append(
            Finding(
                "clock",
                f"the file states {stated:g} Hz, the option rate says {given:g} Hz, which is used",
                "leave out the option (reader.rate) if the file is right",
                stream="neural",
            )
        )
        return given

    def _scalar(self, name: str) -> float:
        found = self._small(name, NUMBERS)
        if found.size != 1 or not 0 < float(found.reshape(())) < float("inf"):
            raise RecordingError("must be one number of Hz, above 0", stream=name)
        return float(found.reshape(()))

    def _small(self, name: str, kinds: str) -> np.ndarray:
        stored = find_array(self.path, name, kinds=kinds)
        if stored.size > _READ_BYTES:
            raise RecordingError(f"shape {stored.shape} is too large for it", stream=name)
        self.used.add(name)
        return stored.read()

    def _check_axes(self, count: int, time: int, channels: int) -> None:
        if count == 1 and time < channels:
            other = "time_channel" if self.options.layout == "channel_time" else "channel_time"
            raise RecordingError(
                f"{time} samples of {channels} channels: the axes look swapped; "
                f"set layout: {other}",
                stream="neural",
            )

    def _channel_names(self, channels: int) -> tuple[str, ...]:
        names = self.options.channel_names
        origin = "channel_names"
        for key in NAME_KEYS:
            if names is None and key in self.names:
                found = self._small(key, TEXT)
                if found.ndim == 1:
                    names, origin = tuple(_text(item) for item in found), key
        if names is None:
            return tuple(str(index) for index in range(channels))
        if len(names) != channels:
            raise RecordingError(
                f"{origin}: {len(names)} names for {channels} channels", stream="neural"
            )
        return names

    def _unit(self) -> str:
        if self.options.unit is not None or "unit" not in self.names:
            return self.options.unit or ""
        found = self._small("unit", TEXT)
        if found.size != 1:
            raise RecordingError("must be one text", stream="unit")
        return _text(found.reshape(-1)[0])

    def _positions(self, channels: int) -> list[tuple[float, float, float] | None]:
        key = next((name for name in POSITION_KEYS if name in self.names), None)
        if key is None:
            return [None] * channels
        found = self._small(key, NUMBERS).astype(np.float64)
        axes = len(key.partition("_")[0])
        if found.shape != (channels, axes):
            raise RecordingError(
                f"shape {found.shape}; must be ({channels}, {axes}): one row per channel",
                stream=key,
            )
        whole = np.zeros((channels, 3))
        whole[:, :axes] = found * POSITION_KEYS[key]
        return [
            (float(x), float(y), float(z)) if np.isfinite((x, y, z)).all() else None
            for x, y, z in whole
        ]

    def _trials(self, count: int, time: int, rate: float) -> Events:
        starts = np.arange(count) * time / rate
        kinds = np.zeros(count, np.int64)
        names: tuple[str, ...] = ("trial",)
        if CLASS_KEY in self.names:
            found = self._small(CLASS_KEY, NUMBERS + TEXT)
            if found.shape != (count,):
                raise RecordingError(
                    f"shape {found.shape}; must be ({count},): one class per trial",
                    stream=CLASS_KEY,
                )
            classes, numbers = np.unique(found, return_inverse=True)
            names = tuple(_text(item) for item in classes)
            kinds = numbers.astype(np.int64)
        return Events(starts, kinds, names, np.full(count, time / rate))


def _sizes(shape: tuple[int, ...], layout: str) -> tuple[int, int, int]:
    """Number of trials (1 for none), samples of each, channels."""
    if len(shape) not in (2, 3):
        raise RecordingError(
            f"shape {shape} has {len(shape)} axes; must be (time, channel) or "
            "(trial, time, channel)",
            stream="neural",
        )
    time, channels = shape[-2:] if layout == "time_channel" else shape[:-3:-1]
    count = shape[0] if len(shape) == 3 else 1
    if count > MOST_TRIALS or channels > MOST_CHANNELS:
        raise RecordingError(
            f"shape {shape}: {count} trials of {channels} channels are more than {MOST_TRIALS} or "
            f"{MOST_CHANNELS}; is layout right?",
            stream="neural",
        )
    return count, time, channels


def _text(item: Any) -> str:
    return item.decode("latin-1") if isinstance(item, bytes) else str(item)


def _is_npy(path: Path, head: bytes) -> bool:
    return path.is_file() and (head.startswith(b"\x93NUMPY") or path.suffix.lower() == ".npy")


def _is_npz(path: Path, head: bytes) -> bool:
    if path.suffix.lower() == ".npz":
        return path.is_file()
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(b"PK\x03\x04") and head[30 : 30 + length].endswith(b".npy")


register(
    Format(
        "npy",
        (".npy",),
        _is_npy,
        open_npy,
        title="NumPy array",
        options=ArrayOptions,
        one_file=True,
    )
)
register(
    Format(
        "npz",
        (".npz",),
        _is_npz,
        open_npz,
        title="NumPy arrays",
        options=ArrayOptions,
        one_file=True,
    )
)
