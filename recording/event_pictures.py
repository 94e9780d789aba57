"""Panels of what happens in time: rasters of events and spikes, curves and paths of behaviour."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from recording.contract import Events, Recording, Samples, Series
from recording.series_sample import plane
from recording.style import COLORS, INK

RASTER_ROWS = 40
RASTER_EVENTS = 40_000
CURVE_POINTS = 4000
CURVES = 5


def event_rows(recording: Recording) -> Events | None:
    """Trials and markers in one raster, the most frequent kinds of each."""
    times, kinds, durations = [], [], []
    names: list[str] = []
    for events in (recording.trials, recording.markers):
        if events is None or not len(events):
            continue
        counts = np.bincount(events.kinds, minlength=len(events.names))
        for kind in np.argsort(-counts, kind="stable")[:10]:
            if counts[kind]:
                own = events.kinds == kind
                times.append(events.times[own])
                durations.append(np.asarray(events.durations)[own])
                kinds.append(np.full(int(own.sum()), len(names)))
                names.append(events.names[kind])
    if not names:
        return None
    moments, rows = np.concatenate(times), np.concatenate(kinds)
    order = np.argsort(moments, kind="stable")
    return Events(moments[order], rows[order], tuple(names), np.concatenate(durations)[order])


def raster(axes: Axes, events: Events, title: str, kind: str, span: tuple[float, float]) -> None:
    """One row per kind: a line per moment, a bar per event that lasts."""
    rows = min(len(events.names), RASTER_ROWS)
    inside = events.kinds < rows
    times, kinds = events.times[inside], events.kinds[inside]
    durations = np.asarray(events.durations)[inside]
    every = max(1, -(-len(times) // RASTER_EVENTS))
    for row in range(rows):
        own = np.flatnonzero(kinds == row)[::every]
        color = COLORS[row % len(COLORS)] if rows <= 12 else INK
        if len(own) and durations[own].max() > 0:
            spans = np.stack([times[own], durations[own]], axis=1)
            axes.broken_barh(spans.tolist(), (row - 0.35, 0.7), color=color, lw=0.3, ec="white")
        else:
            axes.vlines(times[own], row - 0.4, row + 0.4, color=color, lw=0.5, alpha=0.8)
    axes.set_xlim(*span)
    axes.set_ylim(rows - 0.4, -0.6)
    step = max(1, rows // 12)
    labels = [f"{events.names[row]} ({int((kinds == row).sum())})" for row in range(0, rows, step)]
    axes.set_yticks(range(0, rows, step), labels)
    axes.grid(axis="y", visible=False)
    text = f"{title}: {len(events)}"
    if rows < len(events.names):
        text += f", the first {rows} of {len(events.names)} rows"
    titled(axes, text + (f", every {every}th drawn" if every > 1 else ""), "time (s)", kind)


def curves(axes: Axes, behavior: Series | Samples, span: tuple[float, float]) -> None:
    """Up to five channels over all the time, each between its own least and greatest value."""
    times, values = _thinned(behavior)
    shown = behavior.channels[:CURVES]
    ticks = []
    for row, channel in enumerate(shown):
        column = values[:, row]
        finite = column[np.isfinite(column)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        line = (column - low) / (high - low or 1.0) * 0.84 - row
        axes.plot(times, line, color=COLORS[row % len(COLORS)], linewidth=0.9)
        unit = f" {channel.unit}" if channel.unit else ""
        ticks.append(f"{channel.name}\n{low:.3g} … {high:.3g}{unit}")
    axes.set_yticks(0.42 - np.arange(len(shown)), ticks)
    axes.set_xlim(*span)
    axes.set_ylim(-len(shown) + 0.9, 1.0)
    axes.grid(axis="y", visible=False)
    count = len(behavior.channels)
    more = f", {len(shown)} of {count} channels" if count > len(shown) else ""
    titled(axes, f"behaviour{more}", "time (s)", "")


def path(axes: Axes, behavior: Series | Samples, group: tuple[int, ...]) -> None:
    """The first two coordinates of a point against one another, coloured by time."""
    times, values = _thinned(behavior)
    x, y = (behavior.channels[index] for index in group[:2])
    dots = axes.scatter(
        values[:, group[0]], values[:, group[1]], c=times, s=3, cmap="viridis", linewidths=0
    )
    assert axes.figure is not None
    axes.figure.colorbar(dots, ax=axes, label="time (s)")
    axes.set_aspect("equal", adjustable="datalim")
    unit = f" ({x.unit})" if x.unit else ""
    titled(axes, "path", f"{x.name}{unit}", f"{y.name}{unit}")


def _thinned(behavior: Series | Samples) -> tuple[np.ndarray, np.ndarray]:
    """Times and values of at most some thousand samples, evenly chosen."""
    count = len(behavior.values)
    every = max(1, -(-count // CURVE_POINTS))
    if isinstance(behavior, Samples):
        return behavior.times[::every], np.asarray(behavior.values[::every], np.float64)
    if count * len(behavior.channels) <= 2**24:
        return behavior.times()[::every], plane(behavior, 0, count)[::every]
    places = np.arange(0, count, every)
    rows = [plane(behavior, int(at), int(at) + 1)[0] for at in places]
    return np.concatenate([behavior.times(int(at), int(at) + 1) for at in places]), np.array(rows)


def titled(axes: Axes, title: str, x: str, y: str) -> None:
    """Title and axis names of a panel."""
    axes.set_title(title, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
