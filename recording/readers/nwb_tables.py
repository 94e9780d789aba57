"""The tables of an NWB file: electrodes, units, trials, events; each with what was noticed."""

from __future__ import annotations

from typing import Any

import numpy as np

from recording.contract import Channel, Events, Finding
from recording.errors import RecordingError
from recording.readers.behavior_merging import in_order, spike_events
from recording.readers.hdf5_signal import attribute, child, children, texts, whole

NAME_COLUMNS = ("channel_name", "label", "electrode_name", "name")
Place = tuple[float, float, float] | None


def electrodes(
    file: Any, series: Any, count: int, where: str
) -> tuple[tuple[Channel, ...], list[Finding]]:
    """Channels of the electrical series at path `where`: name, type, place in m, unit µV.

    Raises RecordingError where the series names other electrodes than the table has.
    """
    region = child(series, "electrodes")
    table = child(file, "general/extracellular_ephys/electrodes")
    kind = _type(series, table, where)
    ids_column = None if table is None else child(table, "id")
    if region is None or ids_column is None:
        return tuple(Channel(f"e{index}", kind, "µV") for index in range(count)), []
    rows = whole(region, f"{where}/electrodes").astype(np.int64)
    ids = whole(ids_column, "electrodes/id").astype(np.int64)
    if len(rows) != count or not 0 <= rows.min() <= rows.max() < len(ids):
        raise RecordingError(
            f"names {len(rows)} electrodes of a table of {len(ids)} for {count} channels",
            stream=where,
        )
    names = _names(table, rows, ids)
    if len(set(names)) != count:
        raise RecordingError("names the same electrode twice", stream=where)
    places, findings = _places(table, len(ids))
    return tuple(
        Channel(name, kind, "µV", places[row])
        for name, row in zip(names, rows.tolist(), strict=True)
    ), findings


def trials(file: Any, name: str, column: str | None) -> tuple[Events | None, list[Finding]]:
    """Rows of the table `intervals/name`, of the classes in `column`, "trial" where it is None.

    Raises RecordingError for an unknown column and rows that stop before they start.
    """
    table = child(file, f"intervals/{name}")
    if table is None:
        if name != "trials" or column is not None:
            have = ", ".join(child(file, "intervals") or ()) or "none"
            raise RecordingError(f"no table intervals/{name}; there is {have}")
        return None, []
    starts = whole(child(table, "start_time"), f"{name}/start_time").astype(np.float64)
    stops = whole(child(table, "stop_time"), f"{name}/stop_time").astype(np.float64)
    same_length(len(starts), len(stops), name)
    labels = ["trial"] * len(starts)
    if column is not None:
        if child(table, column) is None:
            raise RecordingError(f"no column {column!r}; there is {', '.join(table)}", stream=name)
        labels = texts(child(table, column), f"{name}/{column}")
        same_length(len(labels), len(starts), name)
    return intervals(starts, stops, labels, name)


def intervals(
    starts: np.ndarray, stops: np.ndarray, labels: list[str], name: str
) -> tuple[Events | None, list[Finding]]:
    """Intervals in seconds as Events; those without start or stop are left out, and noted."""
    findings: list[Finding] = []
    ended = np.isfinite(starts) & np.isfinite(stops)
    if not ended.all():
        at = tuple(starts[~ended & np.isfinite(starts)][:10].tolist())
        text = f"{int((~ended).sum())} rows without start or stop are left out"
        findings.append(Finding("missing", text, "none needed", stream=name, times=at))
    labels = [label for label, keep in zip(labels, ended, strict=True) if keep]
    starts, stops = starts[ended], stops[ended]
    if not len(starts):
        return None, findings
    if (wrong := np.flatnonzero(stops < starts)).size:
        begin = float(starts[wrong[0]])
        raise RecordingError(f"row {wrong[0]} stops before it starts", stream=name, at=begin)
    events, more = in_order(starts, labels, stops - starts, name)
    return events, [*findings, *more]


def spikes(file: Any, recorded: tuple[float, float] | None) -> tuple[Events | None, list[Finding]]:
    """Spikes of the table of units; `recorded` is from when to when the potentials run.

    What was observed is taken from `obs_intervals`, else from `recorded` and the spikes themselves.
    """
    table = child(file, "units")
    if table is None or child(table, "spike_times") is None:
        return None, []
    times = whole(child(table, "spike_times"), "units/spike_times").astype(np.float64)
    ends = whole(child(table, "spike_times_index"), "units/spike_times_index").astype(np.int64)
    if not len(ends) or ends[0] < 0 or ends[-1] != len(times) or (np.diff(ends) < 0).any():
        raise RecordingError(
            f"does not divide {len(times)} spikes among {len(ends)} units",
            stream="units/spike_times_index",
        )
    ids = whole(child(table, "id"), "units/id")
    same_length(len(ids), len(ends), "units")
    names = [f"u{one}" for one in ids.tolist()]
    if child(table, "unit_name") is not None:
        given = texts(child(table, "unit_name"), "units/unit_name")
        names = given if len(set(given)) == len(ends) else names
    if len(set(names)) != len(ends):
        raise RecordingError("two units have the same id", stream="units")
    trains = dict(zip(names, np.split(times, ends[:-1]), strict=True))
    observed = _observed(table)
    if observed is None and recorded is not None and times.size and np.isfinite(times).all():
        # Nothing says how long spikes were looked for: as long as the potentials, at least.
        observed = min(recorded[0], float(times.min())), max(recorded[1], float(times.max()))
    events, findings = spike_events(trains, observed)
    return events, list(findings)


def markers(file: Any, series: dict[str, Any]) -> tuple[Events | None, list[Finding]]:
    """Events of the tables in `/events` and of series of moments, by path, on one list.

    Annotations give an event its name, else the name of its table or series does.
    """
    tables = child(file, "events")
    found = [
        (name, child(table, "timestamp"), child(table, "annotation"), child(table, "duration"))
        for name, table in (children(tables) if tables is not None else ())
        if attribute(table, "neurodata_type") == "EventsTable"
    ]
    for where, group in series.items():
        text = attribute(group, "neurodata_type") == "AnnotationSeries"
        labels = child(group, "data") if text else None
        found.append((where, child(group, "timestamps"), labels, None))
    times: list[np.ndarray] = []
    durations: list[np.ndarray] = []
    kinds: list[str] = []
    for where, stamps, labels, lengths in found:
        own = whole(stamps, f"{where}, times").astype(np.float64)
        names = [where.split("/")[-1]] * len(own) if labels is None else texts(labels, where)
        same_length(len(names), len(own), where)
        lasted = np.zeros(len(own))
        if lengths is not None:
            # NaN says that an event has no duration.
            lasted = np.nan_to_num(whole(lengths, f"{where}/duration").astype(np.float64))
            same_length(len(lasted), len(own), where)
        if (falls := np.flatnonzero(~np.isfinite(own))).size:
            raise RecordingError(f"time of row {falls[0]} is not finite", stream=where)
        times.append(own)
        durations.append(lasted)
        kinds += names
    if not kinds:
        return None, []
    events, findings = in_order(np.concatenate(times), kinds, np.concatenate(durations), "markers")
    return events, list(findings) if len(times) == 1 else []


def same_length(one: int, other: int, stream: str) -> None:
    """Raise RecordingError unless two columns of a table have as many rows."""
    if one != other:
        raise RecordingError(f"columns of {one} and {other} rows; must be as many", stream=stream)


def _observed(table: Any) -> tuple[float, float] | None:
    column = child(table, "obs_intervals")
    if column is None:
        return None
    bounds = whole(column, "units/obs_intervals", axes=(2,)).astype(np.float64)
    if bounds.shape[1] != 2 or not np.isfinite(bounds).all():
        raise RecordingError("must be pairs of finite times", stream="units/obs_intervals")
    return (float(bounds[:, 0].min()), float(bounds[:, 1].max())) if len(bounds) else None


def _names(table: Any, rows: np.ndarray, ids: np.ndarray) -> list[str]:
    """Names from the first column whose entries differ, else from the electrodes' ids."""
    for column in NAME_COLUMNS:
        found = child(table, column)
        if found is None or found.dtype.kind not in "SO":
            continue
        every = texts(found, f"electrodes/{column}")
        if len(every) == len(ids):
            own = [every[row] for row in rows]
            if all(own) and len(set(own)) == len(own):
                return own
    return [f"e{ids[row]}" for row in rows]


def _type(series: Any, table: Any, where: str) -> str:
    """Of ecog, seeg and eeg what a name or description says, else lfp."""
    said = f"{where} {attribute(series, 'description')} "
    if table is not None and child(table, "group_name") is not None:
        said += " ".join(texts(child(table, "group_name"), "electrodes/group_name"))
    said = said.lower()
    for word, kind in (("ecog", "ecog"), ("seeg", "seeg"), ("ieeg", "seeg"), ("eeg", "eeg")):
        if word in said:
            return kind
    return "lfp"


def _places(table: Any, count: int) -> tuple[list[Place], list[Finding]]:
    """Place of every electrode in m, None where the table gives none."""
    for columns in (("x", "y", "z"), ("rel_x", "rel_y", "rel_z")):
        found = [child(table, name) for name in columns]
        if found[0] is None or found[1] is None:
            continue
        axes = [
            np.zeros(count) if one is None else whole(one, f"electrodes/{name}").astype(float)
            for name, one in zip(columns, found, strict=True)
        ]
        for name, axis in zip(columns, axes, strict=True):
            same_length(len(axis), count, f"electrodes/{name}")
        places = np.stack(axes, axis=1)
        known = np.isfinite(places).all(axis=1)
        if not places[known].any():
            continue
        text = f"{', '.join(columns)} of the electrodes are read as µm, as NWB says"
        note = Finding("unit", text, "none needed", stream="electrodes", level="note")
        own: list[Place] = [
            (x * 1e-6, y * 1e-6, z * 1e-6) if is_known else None
            for (x, y, z), is_known in zip(places.tolist(), known, strict=True)
        ]
        return own, [note]
    return [None] * count, []
