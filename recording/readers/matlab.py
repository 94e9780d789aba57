"""MATLAB files, version 5 to 7 and 7.3: a matrix, FieldTrip's raw data, or spikes in cells.

A matrix is (time, channel) or (channel, time); the longer axis is time where `layout` does not say.
Spikes are nested cells day → epoch → tetrode → unit, as far as they go, each unit a struct with
`time` in seconds; unit "t1u2" is `{1}{2}` of the inner two. Numbers of 7.3 files and of matrices
saved without compression are read by slice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from recording.contract import Channel, Events, Finding, Modality, Recording, Series
from recording.errors import RecordingError
from recording.readers import Format, Options, mat5, mat73, register
from recording.readers.behavior_merging import checked, converted, unit_findings
from recording.readers.checked_values import stated_unit
from recording.readers.hdf5_signal import is_hdf5, open_hdf5, reading
from recording.readers.mat5 import Matrix, Unread
from recording.readers.mat73 import Hdf5Matrix, Loader
from recording.readers.matlab_structs import is_fieldtrip, is_spikes, read_fieldtrip, read_spikes

RATE_NAMES = (
    "fs", "srate", "sfreq", "fsample", "rate", "samplerate", "sample_rate", "samplingrate",
    "sampling_rate", "samplingfrequency", "sampling_frequency",
)  # fmt: skip
NAME_NAMES = ("labels", "label", "channel_names", "channels", "chan_names")


class MatlabOptions(Options):
    """What a matrix is; `key` with dots for a field of a struct, `cell` for a day and epoch."""

    key: str | None = None
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    layout: Literal["time_channel", "channel_time"] | None = None
    unit: str | None = None
    type: str = "other"
    channel_names: tuple[str, ...] | None = None
    cell: tuple[int, ...] | None = None


def matches(path: Path, head: bytes) -> bool:
    """Whether a file begins as MATLAB writes it and is not one of EEGLAB's."""
    if path.suffix.lower() in (".set", ".fdt"):
        return False
    return head.startswith((mat5.SIGNATURE, mat73.SIGNATURE)) or (
        path.suffix.lower() == ".mat" and is_hdf5(path, head)
    )


def read(path: Path, options: MatlabOptions) -> Recording:
    """Open a MATLAB file; raises RecordingError naming the variable and the option that helps."""
    with path.open("rb") as file:
        old = file.read(len(mat5.SIGNATURE)) == mat5.SIGNATURE
    if old:
        variables = mat5.variables(path)
        return _read(path, options, list(variables), lambda name: mat5.load(path, variables[name]))
    hdf5 = open_hdf5(path)
    with reading(path.name):
        loader = Loader(hdf5, path.name)
        return _read(path, options, loader.names(), loader.load)


def _read(
    path: Path, options: MatlabOptions, names: list[str], load: Callable[[str], Any]
) -> Recording:
    values = _Values(names, load)
    key, value = values.chosen(options.key)
    modalities: dict[str, Modality] = {}
    trials: Events | None = None
    if is_spikes(value):
        modalities["spikes"], findings = read_spikes(value, options.cell)
    elif is_fieldtrip(value):
        series, trials, findings = read_fieldtrip(value, options.rate)
        modalities["neural"] = _named(series, options, path, findings)
    else:
        series, findings = _matrix(value, key, options, values)
        modalities["neural"] = _named(series, options, path, findings)
    others = [name for name in values.names if name != key.split(".")[0]]
    return Recording(
        source=path.name,
        format="matlab",
        session=options.session or path.stem,
        modalities=modalities,
        trials=trials,
        subject=options.subject or "",
        site=options.site or "",
        findings=tuple(findings),
        facts={"variable": key} | ({"other variables": ", ".join(others)} if others else {}),
    )


class _Values:
    """The variables of a file, each loaded once, when it is asked for."""

    def __init__(self, names: list[str], load: Callable[[str], Any]) -> None:
        self.names, self._load = names, load
        self._loaded: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        """The value of a variable, or of a field of a struct, "EEG.data"."""
        name, *fields = key.split(".")
        if name not in self.names:
            have = ", ".join(self.names) or "none"
            raise RecordingError(f"no variable {name!r}; there is {have}", stream=key)
        if name not in self._loaded:
            try:
                self._loaded[name] = self._load(name)
            except RecordingError as error:
                raise error.within(stream=name) from None
        value = self._loaded[name]
        for field in fields:
            if not isinstance(value, dict) or field not in value:
                have = ", ".join(value) if isinstance(value, dict) else "no struct"
                raise RecordingError(f"no field {field!r}; there is {have}", stream=key)
            value = value[field]
        return value

    def chosen(self, key: str | None) -> tuple[str, Any]:
        """The variable to read: the one named, else spikes, FieldTrip data or the one matrix."""
        if key is not None:
            value = self.get(key)
            if isinstance(value, dict) and not is_fieldtrip(value) and not is_spikes(value):
                have = ", ".join(f"{key}.{field}" for field in value)
                raise RecordingError(f"is a struct; name one of its fields: {have}", stream=key)
            return key, value
        every = {name: self.get(name) for name in self.names}
        for name, value in every.items():
            if is_spikes(value) or is_fieldtrip(value):
                return name, value
        sizes = {
            name: math.prod(value.shape)
            for name, value in every.items()
            if isinstance(value, (Matrix, Hdf5Matrix)) and max(value.shape) > 1
        }
        if not sizes:
            have = ", ".join(self.names) or "none"
            raise RecordingError(f"no variable is a matrix of numbers; there is {have}; set `key`")
        largest = [name for name, size in sizes.items() if size == max(sizes.values())]
        if len(largest) > 1:
            raise RecordingError(f"{' and '.join(largest)} are of one size; set `key` to one")
        return largest[0], every[largest[0]]

    def beside(self, key: str, names: tuple[str, ...]) -> Any:
        """The first value of one of these names, in the struct of `key` or beside it; or None."""
        holder = key.rpartition(".")[0]
        places: list[Mapping[str, Any]] = [self.get(holder)] if holder else []
        places.append({name: None for name in self.names})
        for place in places:
            lower = {name.lower(): name for name in place}
            for name in names:
                if name in lower:
                    found = place[lower[name]]
                    return self.get(lower[name]) if found is None else found
        return None


def _matrix(
    value: Any, key: str, options: MatlabOptions, values: _Values
) -> tuple[Series, list[Finding]]:
    """The series of a matrix, with what was decided about it."""
    if not isinstance(value, (Matrix, Hdf5Matrix)):
        what = value.what if isinstance(value, Unread) else type(value).__name__
        what = {"str": "text", "list": "a cell"}.get(what, what)
        raise RecordingError(f"is {what}; must be a matrix of numbers", stream=key)
    if len(value.shape) != 2 or 0 in value.shape:
        raise RecordingError(
            f"has shape {value.shape}; must be (time, channel) or (channel, time)", stream=key
        )
    findings: list[Finding] = []
    rate = options.rate or _rate(values.beside(key, RATE_NAMES), key)
    if options.layout is not None:
        time = 0 if options.layout == "time_channel" else 1
    elif value.shape[0] == value.shape[1]:
        raise RecordingError(
            f"is square, {value.shape}; set `layout` to time_channel or channel_time", stream=key
        )
    else:
        time = int(value.shape[1] > value.shape[0])
        layout = ("time_channel", "channel_time")[time]
        findings.append(
            Finding(
                "layout",
                f"{key} is {value.shape[0]} × {value.shape[1]}: its longer axis is read as time",
                f"where it is not, set the reader's option layout; now it is {layout}",
                stream="neural",
                level="note",
            )
        )
    signal = value.signal(time)
    channels = [f"ch{index}" for index in range(signal.shape[1])]
    stated = values.beside(key, NAME_NAMES) if options.channel_names is None else None
    if isinstance(stated, list) and len(stated) == len(channels):
        texts = [one for one in stated if isinstance(one, str) and one]
        channels = texts if len(set(texts)) == len(channels) else channels
    return Series(signal, rate, tuple(map(Channel, channels))), findings


def _rate(value: Any, key: str) -> float:
    if value is None:
        raise RecordingError(
            f"the file has no rate (none of {', '.join(RATE_NAMES[:5])}, …); set `rate` in Hz",
            stream=key,
        )
    one = isinstance(value, (Matrix, Hdf5Matrix)) and math.prod(value.shape) == 1
    found = value.whole() if one else np.empty(0)
    rate = float(found.ravel()[0]) if found.size == 1 else math.nan
    if not math.isfinite(rate) or rate <= 0:
        raise RecordingError("the rate in the file is no number above 0; set `rate`", stream=key)
    return rate


def _named(series: Series, options: MatlabOptions, path: Path, findings: list[Finding]) -> Series:
    """The series with the names, type and unit that the options give."""
    count = len(series.channels)
    names = options.channel_names or series.names
    if len(names) != count:
        raise RecordingError(f"{len(names)} channel_names for {count} channels", stream="neural")
    unit, factor = stated_unit(options.unit or "", options.type, stream="neural")
    channels = tuple(
        replace(one, name=name, type=options.type, unit=unit)
        for one, name in zip(series.channels, names, strict=True)
    )
    series = Series(converted(series.values, factor), series.rate, channels, series.pieces)
    series = checked(series, file=path.name, stream="neural")
    findings += unit_findings(series)
    return series


register(
    Format(
        name="matlab",
        title="MATLAB",
        suffixes=(".mat",),
        matches=matches,
        open=read,
        extra="hdf5",
        options=MatlabOptions,
        rank=10,
        one_file=True,
    )
)
