"""Structures of MATLAB files that toolboxes share: spikes in nested cells, FieldTrip's raw data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from recording.contract import Channel, Events, Finding, Piece, Series
from recording.errors import RecordingError
from recording.readers.behavior_merging import in_order, spike_events
from recording.readers.mat5 import Matrix
from recording.readers.mat73 import Hdf5Matrix

DEEPEST = 5


def is_spikes(value: Any) -> bool:
    """Whether a value is cells, or a struct array, of units: structs with `time`."""
    return isinstance(value, list) and _depth(value) > 0


def read_spikes(value: Any, cell: tuple[int, ...] | None) -> tuple[Events, list[Finding]]:
    """Spikes of the units in nested cells; `cell` are MATLAB's indices of the outer ones.

    Raises RecordingError where several outer cells hold units and none is named.
    """
    outer = max(0, _depth(value) - 2)
    wanted, chosen = cell or (), list[int]()
    if len(wanted) > outer:
        raise RecordingError(f"`cell` has {len(wanted)} indices for {outer} outer cells")
    for level in range(outer):
        held = [index for index, one in enumerate(value, start=1) if _depth(one)]
        if level >= len(wanted) and len(held) > 1:
            raise RecordingError(
                f"outer cells {held} all hold units; set `cell` to the indices of one, "
                f"such as {[*chosen, held[0]]}",
                stream="spikes",
            )
        index = wanted[level] if level < len(wanted) else held[0]
        if index not in held:
            raise RecordingError(f"cell {index} holds no units; {held} do", stream="spikes")
        chosen.append(index)
        value = value[index - 1]
    structs: dict[str, dict[str, Any]] = {}
    for first, one in enumerate(value, start=1):
        if isinstance(one, dict):
            structs[f"u{first}"] = one
        elif isinstance(one, list):
            found = {f"t{first}u{i}": unit for i, unit in enumerate(one, start=1)}
            structs |= {name: unit for name, unit in found.items() if isinstance(unit, dict)}
    trains = {
        name: _times(unit["time"], f"spikes of {name}")
        for name, unit in structs.items()
        if "time" in unit
    }
    events, findings = spike_events(trains, None)
    ranges = [_range(unit) for unit in structs.values()]
    known = [one for one in ranges if one is not None]
    if len(known) == len(ranges):
        span = min(one[0] for one in known), max(one[1] for one in known)
        if span[0] <= events.times[0] and events.times[-1] <= span[1]:
            events = Events(events.times, events.kinds, events.names, span=span)
    return events, list(findings)


def is_fieldtrip(value: Any) -> bool:
    """Whether a value is a struct with `trial`, `time` and `label`, as FieldTrip has raw data."""
    return isinstance(value, dict) and all(
        isinstance(value.get(name), list) and value[name] for name in ("trial", "time", "label")
    )


def read_fieldtrip(
    value: dict[str, Any], rate: float | None
) -> tuple[Series, Events, list[Finding]]:
    """FieldTrip's raw data: a piece and a trial per cell of `trial` (channel, time).

    With `sampleinfo`, pieces lie where they were recorded; without it, one after another.
    """
    names = [str(one) for one in value["label"]]
    trials = [_numbers(one, f"trial{{{i}}}") for i, one in enumerate(value["trial"], start=1)]
    for index, trial in enumerate(trials, start=1):
        if trial.ndim != 2 or len(trial) != len(names) or not trial.size:
            raise RecordingError(
                f"has shape {trial.shape}; must be ({len(names)}, time)", stream=f"trial{{{index}}}"
            )
    if rate is None:
        rate = _fieldtrip_rate(value)
    lengths = np.array([trial.shape[1] for trial in trials])
    firsts, findings = _firsts(value, lengths)
    begins = np.concatenate([[0], np.cumsum(lengths)])
    pieces = tuple(
        Piece(first / rate, int(begin), int(stop))
        for first, begin, stop in zip(firsts.tolist(), begins[:-1], begins[1:], strict=True)
    )
    values = np.ascontiguousarray(np.concatenate(trials, axis=1).T)
    labels = ["trial"] * len(trials)
    if isinstance(info := value.get("trialinfo"), (Matrix, Hdf5Matrix)):
        codes = _numbers(info, "trialinfo")
        if codes.ndim == 2 and len(codes) == len(trials) and codes.size:
            labels = [f"{code:g}" for code in codes[:, 0]]
    starts = np.array([piece.start for piece in pieces])
    events, _ = in_order(starts, labels, lengths / rate, "trials")
    channels = tuple(map(Channel, names))
    return Series(values, rate, channels, pieces), events, findings


def _firsts(value: dict[str, Any], lengths: np.ndarray) -> tuple[np.ndarray, list[Finding]]:
    """Number of the first sample of every trial on the clock of the recording."""
    if isinstance(info := value.get("sampleinfo"), (Matrix, Hdf5Matrix)):
        borders = _numbers(info, "sampleinfo")
        if (
            borders.shape != (len(lengths), 2)
            or (borders[:, 1] - borders[:, 0] + 1 != lengths).any()
        ):
            raise RecordingError("does not fit the trials", stream="sampleinfo")
        firsts = borders[:, 0] - 1
        overlap = np.flatnonzero(firsts[1:] < firsts[:-1] + lengths[:-1])
        if overlap.size:
            at = int(overlap[0]) + 1
            raise RecordingError(
                f"trial {at + 1} begins before trial {at} ends; overlapping trials would leak "
                "between parts",
                stream="sampleinfo",
            )
        return firsts, []
    text = "nothing says when trials were recorded (no sampleinfo); they are put one after another"
    note = Finding("clock", text, "do not compare times across trials", stream="neural")
    return np.concatenate([[0], np.cumsum(lengths)[:-1]]), [note]


def _fieldtrip_rate(value: dict[str, Any]) -> float:
    if "fsample" in value:
        found = _numbers(value["fsample"], "fsample").ravel()
        rate = float(found[0]) if found.size == 1 else math.nan
    else:
        times = _times(value["time"][0], "time{1}")
        step = float(np.median(np.diff(times))) if len(times) > 1 else math.nan
        rate = float(f"{1 / step:.9g}") if step > 0 else math.nan
    if not math.isfinite(rate) or rate <= 0:
        raise RecordingError("nothing says the rate; set `rate` in Hz", stream="fsample")
    return rate


def _depth(value: Any, left: int = DEEPEST) -> int:
    """How many lists lie around units: 1 for a list of units, 0 where there are none."""
    if not isinstance(value, list) or left == 0:
        return 0
    if any(isinstance(one, dict) and "time" in one for one in value):
        return 1
    deepest = max((_depth(one, left - 1) for one in value), default=0)
    return deepest + 1 if deepest else 0


def _numbers(value: Any, stream: str) -> np.ndarray:
    if not isinstance(value, (Matrix, Hdf5Matrix)):
        raise RecordingError("must be numbers", stream=stream)
    return np.asarray(value.whole(), np.float64)


def _times(value: Any, stream: str) -> np.ndarray:
    found = _numbers(value, stream)
    if found.ndim != 2 or (found.size and 1 not in found.shape):
        raise RecordingError(f"has shape {found.shape}; must be one column", stream=stream)
    return found.ravel()


def _range(unit: dict[str, Any]) -> tuple[float, float] | None:
    if not isinstance(value := unit.get("timerange"), (Matrix, Hdf5Matrix)):
        return None
    found = np.asarray(value.whole(), np.float64).ravel()
    if found.size != 2 or not np.isfinite(found).all() or found[0] >= found[1]:
        return None
    return float(found[0]), float(found[1])
