"""EEGLAB: a MATLAB file (.set) with a structure EEG, its samples inside or in a .fdt beside."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recording.contract import Channel, Events, Finding, Piece, Recording, Series
from recording.errors import RecordingError
from recording.readers import Format, beside, bids, mat5, mat73, register
from recording.readers.eeg import MOST_SEGMENTS, Contents, EegOptions, Marker, assemble
from recording.readers.eeg_channels import distinct, linear
from recording.readers.eeglab_fields import EpochsSignal, read_fields
from recording.readers.hdf5_signal import is_hdf5, open_hdf5, reading
from recording.signals import FileArray, Signal

_FIELDS = frozenset(
    "data,srate,nbchan,pnts,trials,xmin,chanlocs,event,subject,session,ref".split(",")  # noqa: SIM905
)
# Positions are in no stated unit: by the mean radius, in m; unit spheres get EEGLAB's own radius.
_RADII = ((0.25, 1.0, "m"), (2.5, 0.085, "a unit sphere of 85 mm"), (25.0, 0.01, "cm"))


class EeglabOptions(EegOptions):
    """`event_fields`: fields of an event that make its name, such as [type, position]."""

    event_fields: tuple[str, ...] = ("type",)


def open_eeglab(path: Path, options: EeglabOptions) -> Recording:
    """Open a .set, the .fdt of one, or a folder that holds one; raises RecordingError."""
    if path.is_dir():
        path = bids.sole_file(path, (".set",))
    if path.suffix.lower() == ".fdt" and path.with_suffix(".set").is_file():
        path = path.with_suffix(".set")
    eeg = _structure(path)
    rate = _number(eeg, "srate")
    if rate <= 0:
        raise RecordingError(f"EEG.srate is {rate:g} Hz; must be above 0")
    channels_count, points = _count(eeg, "nbchan"), _count(eeg, "pnts")
    trials = _count(eeg, "trials") if _present(eeg.get("trials")) else 1
    if trials > MOST_SEGMENTS:
        raise RecordingError(f"EEG.trials is {trials}; at most {MOST_SEGMENTS}")
    values = _samples(path, eeg, channels_count, points, trials)
    findings: list[Finding] = []
    channels, stated = _channels(eeg, channels_count, findings)
    edges = range(0, points * trials, points)
    pieces = tuple(Piece(at / rate, at, at + points) for at in edges)
    markers = _markers(eeg, rate, points * trials, options.event_fields, findings)
    found = Contents(
        [Series(values, rate, channels, pieces)],
        markers,
        trials=_trials(eeg, markers, rate, points, trials) if trials > 1 else None,
        stated=stated,
        misc=tuple(name for name, kind in stated.items() if kind == "other"),
        subject=_text(eeg.get("subject")),
        findings=findings,
    )
    if reference := _text(eeg.get("ref")):
        found.facts["reference"] = reference[:200]
    if session := _text(eeg.get("session")):
        found.facts["session"] = session[:200]
    return assemble(path, "eeglab", found, options)


def _structure(path: Path) -> dict[str, Any]:
    eeg = read_fields(path, _FIELDS)
    if missing := [name for name in ("data", "srate", "nbchan", "pnts") if name not in eeg]:
        raise RecordingError(f"its structure EEG has no field {missing[0]!r}")
    return eeg


def _samples(path: Path, eeg: Mapping[str, Any], channels: int, points: int, trials: int) -> Signal:
    data = eeg["data"]
    shape = (points * trials, channels)
    if isinstance(data, str) and data.strip() != "in set file":
        return _beside(path, data.strip(), shape, points / _number(eeg, "srate"))
    dims = tuple(getattr(data, "shape", ()))
    fits = {(channels, points, trials), (channels, points * trials)}
    if isinstance(data, mat5.Matrix) and data.path is not None:
        raw: Signal = FileArray(data.path, data.dtype, shape, offset=data.offset)
    elif isinstance(data, mat5.Matrix | np.ndarray):
        whole = data.whole() if isinstance(data, mat5.Matrix) else data
        fits_size = whole.size == shape[0] * channels
        raw = whole.reshape(channels, -1, order="F").T if fits_size else whole
    elif isinstance(data, mat73.Hdf5Matrix):
        raw = EpochsSignal(data) if len(dims) == 3 else data.signal(1)
    else:
        raise RecordingError("EEG.data holds neither numbers nor the name of a file")
    if (*dims, 1)[:3] not in fits and dims not in fits:
        raise RecordingError(
            f"EEG.data has shape {dims}; nbchan {channels}, pnts {points} and trials {trials} "
            "need another: its number of channels or samples is wrong",
            stream="data",
        )
    return linear(raw, np.ones(channels))


def _beside(path: Path, name: str, shape: tuple[int, int], seconds: float) -> Signal:
    """The samples in a file beside the .set; raises RecordingError where it is not there."""
    if name in ("", ".", "..") or re.search(r"[/\\:\0]", name):
        raise RecordingError(f"EEG.data is {name[:80]!r}; must be a file in the .set's own folder")
    file = path.with_name(name)
    if not file.is_file():
        raise RecordingError(f"its samples are in {name!r}; there is no such file beside it")
    size, wanted = file.stat().st_size, shape[0] * shape[1] * 4
    if size != wanted:
        raise RecordingError(
            f"holds {size} bytes; {shape[1]} channels of {shape[0]} samples need {wanted}: it is "
            "truncated, or the .set's number of channels is wrong",
            file=name,
            at=min(size / wanted, 1.0) * seconds,
        )
    order = "F" if file.suffix.lower() == ".dat" else "C"
    return FileArray(file, np.dtype("<f4"), shape, order=order)


def _channels(
    eeg: Mapping[str, Any], count: int, findings: list[Finding]
) -> tuple[tuple[Channel, ...], dict[str, str]]:
    """The channels with their positions, and the types that the file states, by name."""
    rows = _rows(eeg.get("chanlocs"))
    if not rows:
        return tuple(Channel(f"channel {n}") for n in range(1, count + 1)), {}
    if len(rows) != count:
        raise RecordingError(
            f"EEG.nbchan is {count}; EEG.chanlocs has {len(rows)}: must be the same"
        )
    named = distinct([Channel(_text(row.get("labels"))) for row in rows], findings)
    names = [one.name for one in named]
    stated = {}
    for name, row in zip(names, rows, strict=True):
        kind = _text(row.get("type")).upper()
        if kind and (known := bids.TYPES.get(kind) or ("other" if kind == "MISC" else None)):
            stated[name] = known
    places = np.array([[_value(row.get(axis)) for axis in "XYZ"] for row in rows])
    known = np.isfinite(places).all(axis=1) & (places != 0).any(axis=1)
    if not known.any():
        return named, stated
    radius = float(np.linalg.norm(places[known], axis=1).mean())
    scale, unit = next(((s, u) for limit, s, u in _RADII if radius < limit), (1e-3, "mm"))
    # EEGLAB's x points to the nose and y to the left; here x points right and y to the nose.
    turned = np.stack([-places[:, 1], places[:, 0], places[:, 2]], axis=1) * scale
    channels = tuple(
        Channel(name, position=tuple(map(float, place)) if there else None)  # type: ignore[arg-type]
        for name, place, there in zip(names, turned, known, strict=True)
    )
    findings.append(
        Finding(
            "position",
            f"positions have no stated unit and a mean radius of {radius:.3g}; taken as {unit}",
            "give an electrodes.tsv beside the file where that is wrong",
            level="note",
        )
    )
    return channels, stated


def _markers(
    eeg: Mapping[str, Any],
    rate: float,
    samples: int,
    fields: tuple[str, ...],
    findings: list[Finding],
) -> list[Marker]:
    markers, outside = [], []
    for number, row in enumerate(_rows(eeg.get("event")), start=1):
        latency = _value(row.get("latency"))
        if not math.isfinite(latency):
            raise RecordingError(f"event {number} has no latency; must be a number of samples")
        duration = _value(row.get("duration"))
        seconds = duration / rate if math.isfinite(duration) and duration > 0 else 0.0
        label = "/".join(text for field in fields if (text := _text(row.get(field)))) or "event"
        onset = (latency - 1) / rate
        if not 0.5 <= latency <= samples + 0.5:
            outside.append(onset)
        markers.append(Marker(onset, 0.0 if label == "boundary" else seconds, label))
    if outside:
        findings.append(
            Finding(
                "clock",
                f"{len(outside)} events lie outside the samples, which end at {samples / rate:g} s",
                "leave them out, or correct their latencies",
                "markers",
                times=tuple(outside[:8]),
            )
        )
    return markers


def _trials(
    eeg: Mapping[str, Any], markers: list[Marker], rate: float, points: int, count: int
) -> Events:
    """Epochs as trials, named by the event that they were cut around."""
    start = _value(eeg.get("xmin"))
    lock = -start if math.isfinite(start) else 0.0
    starts = np.arange(count) * points / rate
    usable = sorted((m.onset, m.label) for m in markers if m.label != "boundary")
    onsets = np.array([onset for onset, _ in usable])
    names = []
    for wanted in (starts + lock).tolist():
        first, last = np.searchsorted(onsets, [wanted - 0.75 / rate, wanted + 0.75 / rate])
        near = min(usable[first:last], key=lambda one: abs(one[0] - wanted), default=None)
        names.append("epoch" if near is None else near[1])
    kinds, codes = np.unique(names, return_inverse=True)
    lengths = np.full(count, points / rate)
    return Events(starts, codes.astype(np.int64), tuple(kinds.tolist()), lengths)


def _rows(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, list):
        return [row for row in value if isinstance(row, Mapping)]
    return []


def _present(value: Any) -> bool:
    return value is not None and getattr(value, "size", 1) > 0


def _value(value: Any) -> float:
    """A single number, NaN where it is none."""
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "fiub":
        return float(value.reshape(-1)[0])
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return math.nan
    return math.nan


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    number = _value(value)
    return f"{number:g}" if math.isfinite(number) else ""


def _number(eeg: Mapping[str, Any], field: str) -> float:
    number = math.nan if isinstance(eeg[field], str) else _value(eeg[field])
    if not math.isfinite(number):
        said = f"{eeg[field][:40]!r}" if isinstance(eeg[field], str) else "no single number"
        raise RecordingError(f"EEG.{field} is {said}; must be a number")
    return number


def _count(eeg: Mapping[str, Any], field: str) -> int:
    number = _number(eeg, field)
    if number != int(number) or not 1 <= number < 2**40:
        raise RecordingError(f"EEG.{field} is {number:g}; must be a whole number from 1")
    return int(number)


def _matches(path: Path, head: bytes) -> bool:
    if path.is_dir():
        return bids.holds(path, ".set")
    suffix = path.suffix.lower()
    if suffix == ".fdt":
        return path.with_suffix(".set").is_file()
    if suffix == ".set":
        return is_hdf5(path, head) or head.startswith(mat5.SIGNATURE)
    try:
        if head.startswith(mat73.SIGNATURE):
            with open_hdf5(path) as file, reading(path.name):
                names = set(file)
        elif head.startswith(mat5.SIGNATURE):
            names = set(mat5.variables(path))
        else:
            return False
    except (RecordingError, OSError, ImportError):
        return False
    return "EEG" in names or {"srate", "nbchan", "chanlocs"} <= names


register(
    Format(
        "eeglab",
        (".set", ".fdt"),
        _matches,
        open_eeglab,
        extra="hdf5",
        title="EEGLAB",
        options=EeglabOptions,
        # In front of MATLAB's own reader, which would open the same file.
        rank=-1,
        one_file=True,
        belongs=beside(".fdt", main=".set"),
    )
)
