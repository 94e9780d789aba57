"""HDF5 files of temporaldata, which torch_brain reads: each group has an attribute `object`.

A regular series called lfp, ecog, eeg, calcium, … is neural, spikes are `spikes` with `unit_index`,
intervals called `trials` are trials, and other series are behaviour. The format keeps no units.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np

from recording.clocks import check_clocks
from recording.contract import (
    Channel,
    Events,
    Finding,
    Modality,
    Piece,
    Recording,
    Samples,
    Series,
)
from recording.errors import RecordingError
from recording.readers import Format, Options, register
from recording.readers.behavior_merging import (
    Stream,
    behavior_channels,
    checked,
    merge_behavior,
    spike_events,
    unit_findings,
)
from recording.readers.hdf5_signal import (
    Hdf5Signal,
    attribute,
    child,
    children,
    groups_below,
    is_hdf5,
    number,
    open_hdf5,
    reading,
    root_attribute,
    texts,
    whole,
)
from recording.readers.nwb_tables import intervals, same_length

SUFFIXES = (".h5", ".hdf5")
# Words in a series' name, and the type of its channels.
NEURAL_WORDS = {
    "ecog": "ecog", "seeg": "seeg", "ieeg": "seeg", "eeg": "eeg", "meg": "meg", "lfp": "lfp",
    "calcium": "calcium", "df_over_f": "calcium", "bold": "bold", "fnirs": "fnirs",
}  # fmt: skip
NOT_SIGNALS = ("domain", "timestamps", "timestamp_indices_1s")
PLACES = ("pos", "position", "vel", "velocity", "acc", "acceleration")


class TemporaldataOptions(Options):
    """`neural` names a series ("lfp" or "lfp.raw"), `trials` intervals, `trial_class` a field."""

    neural: str | None = None
    behavior: tuple[str, ...] | None = None
    trials: str = "trials"
    trial_class: str | None = None


def matches(path: Path, head: bytes) -> bool:
    """Whether a file is HDF5 with the attribute `object` "Data", or HDF5 of no other kind here."""
    if not is_hdf5(path, head) or head.startswith(b"MATLAB"):
        return False
    if path.suffix.lower() in SUFFIXES or importlib.util.find_spec("h5py") is None:
        return True
    return bool(root_attribute(path, "object") == "Data")


def read(path: Path, options: TemporaldataOptions) -> Recording:
    """Open a temporaldata file; raises RecordingError naming series, field and time."""
    file = open_hdf5(path)
    with reading(path.name):
        if attribute(file, "object") != "Data":
            have = ", ".join(sorted(file)) or "nothing"
            raise RecordingError(
                f"is HDF5, but not of temporaldata (no attribute object: Data); it holds {have}; "
                "save the series as .npz, NWB or temporaldata"
            )
        return _Reader(file, path, options).recording()


class _Reader:
    """One open file: its groups by dotted path, and what was noticed on the way."""

    def __init__(self, file: Any, path: Path, options: TemporaldataOptions) -> None:
        self.file, self.path, self.options = file, path, options
        self.findings: list[Finding] = []
        self.groups = {
            where.replace("/", "."): (group, attribute(group, "object"))
            for where, group in groups_below(file)
        }

    def recording(self) -> Recording:
        modalities: dict[str, Modality] = {}
        main = self._main()
        if main is not None:
            modalities["neural"] = self._neural(*main)
        if "spikes" in self.groups:
            modalities["spikes"] = self._spikes()
        streams = self._behavior(main[0] if main else "")
        found, findings = merge_behavior(streams, tuple(modalities))
        modalities.update(found)
        self.findings += findings
        trials = self._trials()
        if not modalities:
            raise RecordingError("holds no series and no spikes")
        check_clocks(
            modalities | ({} if trials is None else {"trials": trials}), file=self.path.name
        )
        options = self.options
        return Recording(
            source=self.path.name,
            format="temporaldata",
            session=options.session or self.path.stem,
            modalities=modalities,
            trials=trials,
            subject=options.subject or self._id("subject"),
            site=options.site or "",
            findings=tuple(self.findings),
            facts={"objects": ", ".join(self.groups)}
            | ({"session": session} if (session := self._id("session")) else {}),
        )

    def _id(self, name: str) -> str:
        group = child(self.file, name)
        value = attribute(self.file, f"{name}_id")
        if value is None and group is not None:
            value = attribute(group, "id")
        return str(value) if isinstance(value, (str, int)) else ""

    def _main(self) -> tuple[str, str, str] | None:
        """Group, field and channel type of the series to model; None where no name says neural."""
        fields = [
            (where, name)
            for where, (group, kind) in self.groups.items()
            if kind == "RegularTimeSeries"
            for name, data in _signals(group)
            if len(data.shape) == 2
        ]
        if (wanted := self.options.neural) is not None:
            own = [pair for pair in fields if wanted in (pair[0], ".".join(pair))]
            if len(own) != 1:
                have = ", ".join(map(".".join, fields)) or "none"
                raise RecordingError(
                    f"option `neural`: {len(own)} fields (time, channel) of {wanted!r}; "
                    f"there is {have}"
                )
            return (*own[0], _type(".".join(own[0])) or "other")
        named = [(*pair, kind) for pair in fields if (kind := _type(".".join(pair)))]
        return max(
            named,
            key=lambda one: math.prod(child(self.groups[one[0]][0], one[1]).shape),
            default=None,
        )

    def _neural(self, where: str, field: str, kind: str) -> Series:
        series = self._regular(where, field, f"{where}.{field}")
        names = self._channel_names(where, len(series.channels))
        channels = tuple(Channel(name, kind) for name in names)
        series = checked(
            series.with_values(series.values, channels=channels),
            file=self.path.name,
            stream="neural",
        )
        self.findings += unit_findings(series)
        return series

    def _channel_names(self, where: str, count: int) -> list[str]:
        """Ids of an ArrayDict of as many rows called channels, electrodes or units."""
        prefix = where.rpartition(".")[0]
        for name in ("channels", "electrodes", f"{where}_channels", "units"):
            group, kind = self.groups.get(f"{prefix}.{name}".lstrip("."), (None, None))
            if kind != "ArrayDict" or group is None:
                continue
            for column in ("id", "name", "label"):
                found = child(group, column)
                if found is not None and found.shape == (count,):
                    own = texts(found, f"{name}.{column}")
                    if len(set(own)) == count and all(own):
                        return own
        return [f"ch{index}" for index in range(count)]

    def _regular(self, where: str, field: str, stream: str) -> Series:
        """One field of a regular series: its domain's intervals as pieces, nothing between them."""
        group = self.groups[where][0]
        rate = number(group, "sampling_rate", 0.0, where)
        if rate <= 0:
            raise RecordingError(f"sampling_rate is {rate}; must be above 0", stream=where)
        data = child(group, field)
        total = data.shape[0]
        starts, stops = self._domain(group, where)
        rows = [
            (round((start - starts[0]) * rate), round((stop - starts[0]) * rate))
            for start, stop in zip(starts, stops, strict=True)
        ]
        if len(rows) == 1:
            rows = [(0, total)]
        for (first, stop), start in zip(rows, starts, strict=True):
            if not first < stop <= total:
                raise RecordingError(
                    f"its domain has samples {first} to {stop}, the series has {total}",
                    stream=where,
                    at=start,
                )
        if len(rows) > 1:
            text = f"its domain has {len(rows)} intervals; what lies between them is left out"
            remedy = "none needed: no window and no filter crosses a gap"
            times = tuple(starts[1:11])
            self.findings.append(Finding("gap", text, remedy, where, times, level="note"))
        signal = Hdf5Signal(data, stream, file=self.path.name, rows=tuple(rows))
        pieces, at = [], 0
        for (first, stop), start in zip(rows, starts, strict=True):
            pieces.append(Piece(start, at, at + stop - first))
            at += stop - first
        name = where.split(".")[-1] if field in ("value", "values", "data") else f"{where}.{field}"
        channels = behavior_channels(name, signal.shape[1], "", axes=field in PLACES)
        return Series(signal, rate, channels, tuple(pieces))

    def _domain(self, group: Any, where: str) -> tuple[list[float], list[float]]:
        domain = child(group, "domain")
        if domain is None:
            raise RecordingError("has no domain", stream=where)
        starts = whole(child(domain, "start"), f"{where}.domain.start").astype(float).tolist()
        stops = whole(child(domain, "end"), f"{where}.domain.end").astype(float).tolist()
        same_length(len(starts), len(stops), f"{where}.domain")
        borders = [time for pair in zip(starts, stops, strict=True) for time in pair]
        if not borders or not all(map(math.isfinite, borders)) or borders != sorted(borders):
            raise RecordingError(
                "its domain must be intervals of finite times, in order", stream=f"{where}.domain"
            )
        return starts, stops

    def _behavior(self, main: str) -> list[Stream]:
        wanted = self.options.behavior
        streams: list[Stream] = []
        for where, (group, kind) in self.groups.items():
            if where == "spikes" or kind not in ("RegularTimeSeries", "IrregularTimeSeries"):
                continue
            if where == main if wanted is None else where not in wanted:
                continue
            fields = [name for name, _ in _signals(group)]
            if kind == "RegularTimeSeries":
                streams += [Stream(where, self._checked(where, name)) for name in fields]
            elif fields:
                streams.append(Stream(where, self._irregular(group, where, fields)))
        if wanted is not None and (missing := sorted(set(wanted) - {s.name for s in streams})):
            have = ", ".join(self.groups)
            raise RecordingError(f"option `behavior`: no series {missing[0]!r}; there is {have}")
        return streams

    def _checked(self, where: str, name: str) -> Series:
        series = self._regular(where, name, f"{where}.{name}")
        return checked(series, file=self.path.name, stream=f"{where}.{name}")

    def _irregular(self, group: Any, where: str, fields: list[str]) -> Samples:
        times = whole(child(group, "timestamps"), f"{where}.timestamps").astype(np.float64)
        columns: list[np.ndarray] = []
        channels: list[Channel] = []
        for field in fields:
            values = whole(child(group, field), f"{where}.{field}", axes=(1, 2))
            same_length(len(values), len(times), f"{where}.{field}")
            values = values.reshape(len(values), -1).astype(np.float64)
            columns.append(values)
            name = f"{where}.{field}"
            channels += behavior_channels(name, values.shape[1], "", axes=field in PLACES)
        try:
            return Samples(times, np.concatenate(columns, axis=1), tuple(channels))
        except RecordingError as error:
            raise error.within(stream=where) from None

    def _spikes(self) -> Events:
        group = self.groups["spikes"][0]
        times = whole(child(group, "timestamps"), "spikes.timestamps").astype(np.float64)
        units = whole(child(group, "unit_index"), "spikes.unit_index").astype(np.int64)
        same_length(len(units), len(times), "spikes")
        if not len(units) or units.min() < 0:
            raise RecordingError("there must be spikes, of units from 0 on", stream="spikes")
        table = child(self.file, "units")
        ids = None if table is None else child(table, "id")
        names = (
            texts(ids, "units.id")
            if ids is not None
            else [f"u{index}" for index in np.unique(units).tolist()]
        )
        if ids is None:
            units = np.unique(units, return_inverse=True)[1]
        if units.max() >= len(names) or len(set(names)) != len(names):
            raise RecordingError(
                f"unit {units.max()} of {len(names)} different units", stream="spikes.unit_index"
            )
        if (falls := np.flatnonzero(np.diff(times) < 0)).size:
            at = float(times[falls[0] + 1])
            raise RecordingError("times go back; must be in order", stream="spikes", at=at)
        starts, stops = self._domain(group, "spikes")
        if len(starts) > 1:
            text = f"spikes were observed in {len(starts)} intervals; between them there are none"
            remedy = "crop to one of them: {step: crop, start: …, stop: …}"
            gaps = tuple(stops[:-1][:10])
            self.findings.append(Finding("gap", text, remedy, "spikes", gaps))
        order = np.argsort(units, kind="stable")
        counts = np.bincount(units, minlength=len(names))
        trains = dict(zip(names, np.split(times[order], np.cumsum(counts)[:-1]), strict=True))
        events, findings = spike_events(trains, (starts[0], stops[-1]))
        self.findings += findings
        return events

    def _trials(self) -> Events | None:
        name, column = self.options.trials, self.options.trial_class
        group, kind = self.groups.get(name, (None, None))
        if group is None or kind != "Interval":
            if name == "trials" and column is None:
                return None
            have = ", ".join(key for key, (_, kind) in self.groups.items() if kind == "Interval")
            raise RecordingError(f"no intervals {name!r}; there is {have or 'none'}")
        starts = whole(child(group, "start"), f"{name}.start").astype(np.float64)
        stops = whole(child(group, "end"), f"{name}.end").astype(np.float64)
        same_length(len(starts), len(stops), name)
        labels = ["trial"] * len(starts)
        if column is not None:
            if child(group, column) is None:
                raise RecordingError(
                    f"no field {column!r}; there is {', '.join(group)}", stream=name
                )
            labels = texts(child(group, column), f"{name}.{column}")
            same_length(len(labels), len(starts), name)
        events, findings = intervals(starts, stops, labels, name)
        self.findings += findings
        return events


def _signals(group: Any) -> list[tuple[str, Any]]:
    """Fields of a series that are numbers (time,) or (time, channel)."""
    return [
        (name, data)
        for name, data in children(group)
        if name not in NOT_SIGNALS
        and len(getattr(data, "shape", None) or ()) in (1, 2)
        and data.dtype.kind in "iufb"
        and 0 not in data.shape
    ]


def _type(name: str) -> str | None:
    words = name.lower()
    return next((kind for word, kind in NEURAL_WORDS.items() if word in words), None)


register(
    Format(
        name="temporaldata",
        title="temporaldata HDF5",
        suffixes=SUFFIXES,
        matches=matches,
        open=read,
        extra="hdf5",
        options=TemporaldataOptions,
        rank=20,
        one_file=True,
    )
)
