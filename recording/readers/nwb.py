"""NWB (Neurodata Without Borders 2): read through h5py, data and long time stamps by slice.

Electric potentials come in µV, places of electrodes in m (NWB states µm), positions in m where the
file gives a unit of length. pynwb is not asked: it builds an object for everything in a file.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recording.clocks import check_clocks, clock, span
from recording.contract import (
    Channel,
    Finding,
    Modality,
    Piece,
    Recording,
    Samples,
    Series,
    check_times,
)
from recording.errors import RecordingError
from recording.readers import Format, Options, nwb_tables, register
from recording.readers.behavior_merging import (
    Stream,
    behavior_channels,
    checked,
    converted,
    merge_behavior,
    unit_findings,
)
from recording.readers.hdf5_signal import (
    Hdf5Signal,
    attribute,
    check_numbers,
    check_size,
    child,
    groups_below,
    is_hdf5,
    number,
    open_hdf5,
    reading,
    root_attribute,
    scalar_text,
    whole,
)
from recording.readers.nwb_tables import same_length
from recording.readers.unit_names import metres, microvolts

PARTS = ("acquisition/", "processing/", "stimulus/presentation/")
FACTS = {
    "identifier": "identifier",
    "session_description": "description",
    "general/session_id": "session",
    "session_start_time": "started",
    "general/institution": "institution",
    "general/lab": "laboratory",
    "general/subject/species": "species",
}


class NwbOptions(Options):
    """`neural` and `behavior` name series; `trials` a table, `trial_class` one of its columns."""

    neural: str | None = None
    behavior: tuple[str, ...] | None = None
    trials: str = "trials"
    trial_class: str | None = None


def matches(path: Path, head: bytes) -> bool:
    """Whether a file is NWB: HDF5 with the attribute `nwb_version`, or so named."""
    if not is_hdf5(path, head):
        return False
    named = path.suffix.lower() == ".nwb"
    if named or importlib.util.find_spec("h5py") is None:
        return named
    return root_attribute(path, "nwb_version") is not None


def read(path: Path, options: NwbOptions) -> Recording:
    """Open an NWB file; raises RecordingError naming series, units table or trials."""
    file = open_hdf5(path)
    with reading(path.name):
        if attribute(file, "nwb_version") is None:
            raise RecordingError("has no attribute nwb_version: HDF5, but not NWB")
        return _Reader(file, path, options).recording()


class _Reader:
    """One open file: its series by path, and what was noticed on the way."""

    def __init__(self, file: Any, path: Path, options: NwbOptions) -> None:
        self.file, self.path, self.options = file, path, options
        self.findings: list[Finding] = []
        self.series = {
            where: (group, kind)
            for where, group in groups_below(file)
            if where.startswith(PARTS)
            and isinstance(kind := attribute(group, "neurodata_type"), str)
            and (child(group, "data") is not None or child(group, "timestamps") is not None)
        }

    def recording(self) -> Recording:
        modalities: dict[str, Modality] = {}
        main, others = self._neural_paths()
        for where in ([main] if main else []) + others:
            name = "neural" if where == main else _free(where, modalities)
            modalities[name] = self._neural(where, name)
        spikes, findings = nwb_tables.spikes(
            self.file, span(modalities["neural"]) if main else None
        )
        self.findings += findings
        if spikes is not None:
            modalities["spikes"] = spikes
        modalities.update(self._behavior(tuple(modalities)))
        trials, findings = nwb_tables.trials(
            self.file, self.options.trials, self.options.trial_class
        )
        self.findings += findings
        moments = {
            where: self.series[where][0]
            for where in self._of("TimeSeries", "AnnotationSeries")
            if self.series[where][1] == "AnnotationSeries" or self._event(where)
        }
        markers, findings = nwb_tables.markers(self.file, moments)
        self.findings += findings
        if not modalities:
            raise RecordingError(
                "holds no electrical, calcium or behavioural series and no spike times"
            )
        streams = modalities | ({"trials": trials} if trials is not None else {})
        check_clocks(streams, file=self.path.name)
        facts = {name: scalar_text(self.file, where) for where, name in FACTS.items()}
        facts["NWB version"] = str(attribute(self.file, "nwb_version"))
        options = self.options
        return Recording(
            source=self.path.name,
            format="nwb",
            session=options.session or self.path.stem,
            modalities=modalities,
            markers=markers,
            trials=trials,
            subject=options.subject or scalar_text(self.file, "general/subject/subject_id"),
            site=options.site or scalar_text(self.file, "general/institution"),
            findings=tuple(self.findings),
            facts={name: value for name, value in facts.items() if value},
        )

    def _neural_paths(self) -> tuple[str | None, list[str]]:
        """The series to model, the largest raw one where none is named, and the others."""
        electric = self._of("ElectricalSeries")
        every = electric or self._of("RoiResponseSeries")
        if self.options.neural is not None:
            main: str | None = self._named(self.options.neural, "neural")
        else:
            raw = [where for where in every if where.startswith("acquisition/")]
            main = max(raw or every, key=self._size, default=None)
        return main, [where for where in every if where != main]

    def _of(self, *kinds: str) -> list[str]:
        return [where for where, (_, kind) in self.series.items() if kind in kinds]

    def _size(self, where: str) -> int:
        data = child(self.series[where][0], "data")
        return math.prod(getattr(data, "shape", None) or (0,))

    def _named(self, name: str, option: str) -> str:
        found = [where for where in self.series if where == name or where.split("/")[-1] == name]
        if len(found) != 1:
            have = ", ".join(self.series)
            count = "no series" if not found else f"{len(found)} series"
            raise RecordingError(f"option `{option}`: {count} {name!r}; there is {have or 'none'}")
        return found[0]

    def _neural(self, where: str, name: str) -> Series:
        group, kind = self.series[where]
        data = child(group, "data")
        signal = Hdf5Signal(data, where, file=self.path.name)
        rate, pieces, findings = _regular(group, len(signal), where)
        self.findings += findings
        unit = str(attribute(data, "unit") or "")
        factor: np.ndarray | float = number(data, "conversion", 1.0, where)
        offset = number(data, "offset", 0.0, where)
        if kind == "ElectricalSeries":
            volt = microvolts(unit)
            if volt is None:
                raise RecordingError(
                    f"unit {unit!r} is none of electric potential; must be volts (V, mV, µV, nV)",
                    stream=where,
                )
            count = signal.shape[1]
            factor = self._channel_conversion(group, count, where) * (factor * volt)
            offset *= volt
            channels, noticed = nwb_tables.electrodes(self.file, group, count, where)
            self.findings += [one for one in noticed if one not in self.findings]
        else:
            channels = tuple(Channel(f"roi{i}", "calcium", unit) for i in range(signal.shape[1]))
        series = Series(converted(signal, factor, offset), rate, channels, pieces)
        series = checked(series, file=self.path.name, stream=name)
        if name == "neural":
            self.findings += unit_findings(series)
        return series

    def _channel_conversion(self, group: Any, count: int, where: str) -> np.ndarray:
        own = child(group, "channel_conversion")
        if own is None:
            return np.ones(count)
        each = whole(own, f"{where}/channel_conversion").astype(np.float64)
        same_length(len(each), count, f"{where}/channel_conversion")
        return each

    def _behavior(self, taken: tuple[str, ...]) -> dict[str, Modality]:
        wanted = self.options.behavior
        if wanted is not None:
            paths = [self._named(name, "behavior") for name in wanted]
        else:
            paths = [
                where for where in self._of("SpatialSeries", "TimeSeries") if not self._event(where)
            ]
        streams: dict[str, list[Stream]] = {"behavior": [], "stimulus": []}
        for where in paths:
            data = child(self.series[where][0], "data")
            if wanted is None and not _plain_numbers(data):
                self._skip(where)
                continue
            name = _free(where, [one.name for own in streams.values() for one in own])
            room = "stimulus" if where.startswith("stimulus/") and wanted is None else "behavior"
            streams[room].append(Stream(name, self._behavior_series(where, name)))
        found, findings = merge_behavior(streams["behavior"], taken)
        self.findings += findings
        for stream in streams["stimulus"]:
            name = "stimulus" if len(streams["stimulus"]) == 1 else stream.name
            found[_free(name, (*found, *taken))] = _as_stimulus(stream.modality)
        return found

    def _behavior_series(self, where: str, name: str) -> Series | Samples:
        group, kind = self.series[where]
        data = child(group, "data")
        signal = Hdf5Signal(data, where, file=self.path.name)
        unit = str(attribute(data, "unit") or "")
        factor = number(data, "conversion", 1.0, where) * (metres(unit) or 1.0)
        offset = number(data, "offset", 0.0, where) * (metres(unit) or 1.0)
        channels = behavior_channels(name, signal.shape[1], unit, axes=kind == "SpatialSeries")
        values = converted(signal, factor, offset)
        file = self.path.name
        if child(group, "timestamps") is None:
            rate, pieces, _ = _regular(group, len(signal), where)
            return checked(Series(values, rate, channels, pieces), file=file, stream=where)
        stamps = child(group, "timestamps")
        _check_stamps(stamps, len(signal), where)
        found = clock(stamps, stream=where) if len(signal) > 1 else None
        # Behaviour may be irregular: a clock that jitters is left as it is.
        if found is not None and found.deviation <= 0.1 / found.rate:
            self.findings += found.findings(where)
            series = Series(values, found.rate, channels, found.pieces)
            return checked(series, file=file, stream=where)
        check_size(data, where)
        times = whole(stamps, f"{where}/timestamps").astype(np.float64)
        return Samples(times, np.asarray(values[0 : len(values)]), channels)

    def _event(self, where: str) -> bool:
        """Whether a series holds moments: one of a BehavioralEvents container."""
        holder = child(self.file, where.rpartition("/")[0])
        return holder is not None and attribute(holder, "neurodata_type") == "BehavioralEvents"

    def _skip(self, where: str) -> None:
        text = f"{self.series[where][1]} {where} is not read: it holds no columns of numbers"
        self.findings.append(Finding("missing", text, "none needed", stream=where, level="note"))


def _regular(group: Any, count: int, where: str) -> tuple[float, tuple[Piece, ...], list[Finding]]:
    """Rate and pieces of a series that must be regular."""
    start = child(group, "starting_time")
    if start is not None:
        check_numbers(start, f"{where}/starting_time", axes=(0,))
        begin = float(start[()])
        rate = number(start, "rate", float("nan"), where) if "rate" in start.attrs else 0.0
        if not math.isfinite(begin) or rate <= 0:
            raise RecordingError(f"starts at {begin} s at {rate} Hz", stream=where)
        return rate, (Piece(begin, 0, count),), []
    stamps = child(group, "timestamps")
    _check_stamps(stamps, count, where)
    found = clock(stamps, stream=where)
    if not found.regular:
        raise RecordingError(
            f"time stamps are not regular: one is {found.deviation:.3g} s away from its place at "
            f"{found.rate:.6g} Hz; a neural series needs a regular clock",
            stream=where,
            at=found.worst,
        )
    return found.rate, found.pieces, list(found.findings(where))


def _check_stamps(stamps: Any, count: int, where: str) -> None:
    check_numbers(stamps, f"{where}/timestamps")
    if len(stamps) != count:
        raise RecordingError(f"{len(stamps)} time stamps for {count} samples", stream=where)
    if count == 1:
        check_times(np.asarray(stamps[()], np.float64), rising=True)


def _as_stimulus(modality: Series | Samples) -> Series | Samples:
    return replace(
        modality, channels=tuple(replace(one, type="stimulus") for one in modality.channels)
    )


def _plain_numbers(data: Any) -> bool:
    shape = getattr(data, "shape", None) or ()
    return len(shape) in (1, 2) and 0 not in shape and data.dtype.kind in "iufb"


def _free(where: str, taken: Any) -> str:
    """The last part of a path, as much of the path as makes it differ from the names taken."""
    parts = where.split("/")
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[-count:])
        if name not in taken and name not in ("neural", "behavior", "spikes"):
            return name
    return f"{where}_2"


register(
    Format(
        name="nwb",
        title="NWB",
        suffixes=(".nwb",),
        matches=matches,
        open=read,
        extra="hdf5",
        options=NwbOptions,
        one_file=True,
    )
)
