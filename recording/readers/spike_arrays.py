"""Spikes and positions as arrays of an `.npz`, and what their repeated time stamps mean.

spike_times (spike,) in s, in any order; spike_unit (spike,) whole numbers; n_units: how many
units there are (0 … n_units - 1), left out: those that have spikes
pos_t (sample,) in s; pos_xy_px (sample, 2), or pos_xyz_… with three columns: the name's end is
the unit
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import numpy as np

from recording.array_files import find_array
from recording.contract import Channel, Events, Finding, Samples, check_times
from recording.errors import RecordingError

SPIKE_KEYS = ("spike_times", "spike_unit")
MOST_UNITS = 10**5
_READ_BYTES = 2**30


def is_position(name: str) -> bool:
    """Whether an array of this name holds positions."""
    return name.split("_")[:2] in (["pos", "xy"], ["pos", "xyz"])


def read_spikes(path: Path, names: Container[str]) -> Events:
    """Spikes of units, in order of time; observed from the first to the last spike.

    Raises RecordingError where times are not finite or units not among `n_units`.
    """
    times, units = (_read(path, key) for key in SPIKE_KEYS)
    if times.ndim != 1 or units.shape != times.shape:
        raise RecordingError(
            f"spike_unit {units.shape} for spike_times {times.shape}; must be one unit per spike",
            stream="spikes",
        )
    if units.dtype.kind == "f":
        raise RecordingError(
            f"spike_unit: dtype {units.dtype}; must be whole numbers", stream="spikes"
        )
    bad = np.flatnonzero(~np.isfinite(times))
    if bad.size:
        raise RecordingError(
            f"spike_times[{bad[0]}] is {times[bad[0]]}; must be finite", stream="spikes"
        )
    present, kinds = np.unique(units, return_inverse=True)
    labels = present.tolist()
    if "n_units" in names:
        count = _read(path, "n_units")
        if (
            count.size != 1
            or not labels[-1] < float(count.reshape(())) <= MOST_UNITS
            or labels[0] < 0
        ):
            raise RecordingError(
                f"spike_unit runs from {labels[0]} to {labels[-1]}; must be 0 … n_units - 1 "
                f"({count.reshape(-1)[0]} units)",
                stream="spikes",
            )
        labels, kinds = list(range(int(count.reshape(())))), units
    order = np.argsort(times, kind="stable")
    times = times[order].astype(np.float64)
    return Events(
        times,
        np.asarray(kinds)[order].astype(np.int64),
        tuple(f"unit {label}" for label in labels),
        span=(float(times[0]), float(times[-1])),
    )


def read_positions(path: Path, key: str) -> tuple[Samples, tuple[Finding, ...]]:
    """Positions, one column per axis, each sample with its own time; raises RecordingError.

    Records with one time stamp and one value are one sample, and so are, once in a file, two
    records with one stamp and different values, of which the first is kept; either is noted.
    """
    times, values = _read(path, "pos_t").astype(np.float64), _read(path, key)
    _, _, rest = key.partition("_")
    axes, _, unit = rest.partition("_")
    if values.ndim != 2 or values.shape != (len(times), len(axes)) or times.ndim != 1:
        raise RecordingError(
            f"{key} {values.shape} for pos_t {times.shape}; must be one row of "
            f"{len(axes)} per time",
            stream="behavior",
        )
    times, kept, findings = distinct(times, values.astype(np.float64), stream="behavior")
    channels = tuple(Channel(axis, "behavior", unit) for axis in axes)
    return Samples(times, kept, channels), findings


def distinct(
    times: np.ndarray, values: np.ndarray, *, stream: str
) -> tuple[np.ndarray, np.ndarray, tuple[Finding, ...]]:
    """Times (sample,) and values (sample, channel) with every time stamp once; what was left out.

    Raises RecordingError where times fall, or repeat with different values more than once.
    """
    try:
        check_times(times, rising=False)
    except RecordingError as error:
        raise error.within(stream=stream) from None
    again = np.flatnonzero(np.diff(times) == 0) + 1
    if not again.size:
        return times, values, ()
    same = (values[again] == values[again - 1]) | (
        np.isnan(values[again]) & np.isnan(values[again - 1])
    )
    differing = again[~same.all(axis=1)]
    if len(differing) > 1:
        at = int(differing[1])
        raise RecordingError(
            f"records {at - 1} and {at} have one time stamp and different values, as do "
            f"{len(differing)} pairs of records; each sample needs its own time",
            stream=stream,
            at=float(times[at]),
        )
    pairs = ", ".join(f"{at - 1} and {at}" for at in again[:10].tolist())
    finding = Finding(
        "duplicate",
        f"{len(again)} repeated time stamp(s): records {pairs}"
        f"{' …' if len(again) > 10 else ''}; the first of each is kept",
        "none needed",
        stream=stream,
        times=tuple(times[again[:10]].tolist()),
        level="note",
    )
    kept = np.ones(len(times), bool)
    kept[again] = False
    return times[kept], values[kept], (finding,)


def _read(path: Path, key: str) -> np.ndarray:
    stored = find_array(path, key)
    if stored.size > _READ_BYTES:
        raise RecordingError(f"{stored.size} bytes are too many to be read whole", stream=key)
    return stored.read()
