"""The pictures of a simulation: PNG files whose bytes depend on their numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recording.style import COLORS, INK, MUTED, OBSERVED, STYLE
from trainer.plots import label, write

LINES = 6  # nodes that are drawn as a line of their own
OVERLAID = 3  # lines up to which they share a baseline
LONGEST_LINE = 1500  # samples of a line; of longer runs the end is drawn
STRONGEST = 0.15  # share of the connections that a brain is drawn with, and their least number
FEWEST = 60
LABELLED = 24  # nodes up to which a matrix or a brain names them


def time_series(
    destination: Path,
    milliseconds: np.ndarray,
    values: Mapping[str, np.ndarray],
    *,
    labels: Sequence[str],
    units: Mapping[str, str],
    title: str,
) -> Path:
    """Draw signals over time, one row per signal; of many nodes some lines and all as a carpet.

    milliseconds: (time,); values: signal → (time, node or sensor); labels: their names.
    """
    chosen = _spread(len(labels), LINES)
    last = slice(max(0, len(milliseconds) - LONGEST_LINE), None)
    time, name = _time_axis(milliseconds[last])
    carpet = len(labels) > LINES
    row_height = 2.1 if len(chosen) <= OVERLAID else 2.8
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.0, 1.0 + row_height * len(values)), layout="constrained")
        panels = figure.subplots(len(values), 2 if carpet else 1, squeeze=False, sharex="col")
        for row, (signal, series) in zip(panels, values.items(), strict=True):
            meaning = _with_unit(signal, units.get(signal, "1"))
            _lines(row[0], time, series[last][:, chosen], [labels[k] for k in chosen], meaning)
            if carpet:
                _carpet(figure, row[1], time, series[last], meaning)
        for axes in panels[-1]:
            axes.set_xlabel(name)
        handles, names = panels[0, 0].get_legend_handles_labels()
        if 1 < len(names) <= OVERLAID:
            figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        kept = "" if last.start == 0 else f", the last {len(time)} of {len(milliseconds)} samples"
        figure.suptitle(title + kept)
        return write(figure, destination)


def phase_portrait(
    destination: Path,
    first: np.ndarray,
    second: np.ndarray,
    *,
    names: tuple[str, str],
    labels: Sequence[str],
    title: str,
) -> Path:
    """Draw two signals (time, node) against one another, the start hollow and the end filled."""
    chosen = _spread(len(labels), LINES)
    kept = "" if len(first) <= LONGEST_LINE else f", the last {LONGEST_LINE} samples"
    first, second = first[-LONGEST_LINE:], second[-LONGEST_LINE:]
    together = len(chosen) <= OVERLAID
    with mpl.rc_context(STYLE):
        rows, columns = (1, 1) if together else (-(-len(chosen) // 3), 3)
        size = (6.0, 5.4) if together else (9.6, 0.8 + 3.1 * rows)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
        for unused in panels[len(chosen) :]:
            unused.set_axis_off()
        dots: dict[str, Any] = {"marker": "o", "markersize": 5, "linestyle": "none"}
        for place, node in enumerate(chosen):
            axes = panels[0] if together else panels[place]
            x, y, color = first[:, node], second[:, node], COLORS[place % len(COLORS)]
            axes.plot(x, y, color=color, linewidth=0.9, alpha=0.8, label=labels[node])
            axes.plot(x[0], y[0], markeredgecolor=color, markerfacecolor="white", **dots, zorder=3)
            axes.plot(x[-1], y[-1], color=color, markeredgecolor=INK, **dots, zorder=4)
            label(axes, "" if together else labels[node], *names)
            if not together:
                axes.label_outer()
        if together and len(chosen) > 1:
            figure.legend(loc="outside lower center", ncols=len(chosen))
        figure.suptitle(f"{title}{kept} (hollow dot: first, filled: last)")
        return write(figure, destination)


def power_spectrum(
    destination: Path,
    hertz: np.ndarray,
    power: np.ndarray,
    *,
    labels: Sequence[str],
    name: str,
    unit: str,
    title: str,
) -> Path:
    """Draw power densities (frequency, node) by frequency (without 0) and their mean over nodes."""
    chosen = _spread(len(labels), LINES)
    mean = power.mean(axis=1)
    lowest = mean.max() * 1e-9
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 4.2), layout="constrained")
        axes = figure.subplots()
        if mean.max() > 0:
            # Below rounding there is nothing to see, and it would take up most of the picture.
            for place, node in enumerate(chosen):
                line = np.maximum(power[:, node], lowest)
                color = COLORS[place % len(COLORS)]
                axes.loglog(hertz, line, color=color, linewidth=0.9, label=labels[node])
            if len(labels) > 1:
                axes.loglog(hertz, np.maximum(mean, lowest), color=INK, label="mean of all nodes")
            peak = hertz[int(np.argmax(mean))]
            axes.axvline(peak, color=MUTED, linestyle="--", linewidth=1.0, zorder=0)
            text = f"strongest at {peak:.3g} Hz"
        else:
            text = "nothing varies"
        power_unit = "1/Hz" if unit == "1" else f"({unit})²/Hz"
        label(axes, text, "frequency (Hz)", f"power density of {name} ({power_unit})")
        handles, names = axes.get_legend_handles_labels()
        if handles:
            figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)))
        figure.suptitle(title)
        return write(figure, destination)


def connectivity(
    destination: Path,
    functional: np.ndarray,
    structural: np.ndarray | None,
    *,
    labels: Sequence[str],
    title: str,
) -> Path:
    """Draw functional connectivity (node, node), beside the weights that the network has."""
    count = 1 if structural is None else 2
    size = 4.6 if len(labels) <= LABELLED else 4.2
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(5.4 * count, size), layout="constrained")
        panels = figure.subplots(1, count, squeeze=False)[0]
        _matrix(figure, panels[0], functional, labels, "RdBu_r", (-1.0, 1.0), "Pearson's r")
        above = np.triu_indices(len(labels), 1)
        panels[0].set_title(f"functional, mean r {functional[above].mean():.2f}", loc="left")
        if structural is not None:
            largest = float(np.abs(structural).max()) or 1.0
            _matrix(figure, panels[1], structural, labels, "Blues", (0.0, largest), "weight")
            r = _correlation(functional[above], ((structural + structural.T) / 2)[above])
            panels[1].set_title(f"structural, r {r:.2f} with functional", loc="left")
        figure.suptitle(title)
        return write(figure, destination)


def brain(
    destination: Path,
    positions: np.ndarray | None,
    weights: np.ndarray,
    values: np.ndarray,
    *,
    labels: Sequence[str],
    meaning: str,
    title: str,
) -> Path:
    """Draw a network's nodes at their places with its strongest connections.

    positions: (node, 3) mm, seen from above and from the side, or None: nodes stand on a ring.
    weights: (node, node). values: (node,), the colours of the nodes, which `meaning` names. The
    size of a node is the sum of its weights.
    """
    if positions is None:
        angles = np.pi / 2 - 2 * np.pi * np.arange(len(labels)) / len(labels)
        views = [("", "", "", np.stack([np.cos(angles), np.sin(angles)], axis=1))]
    else:
        views = [
            ("from above", "left – right (mm)", "back – front (mm)", positions[:, :2]),
            ("from the side", "back – front (mm)", "low – high (mm)", positions[:, 1:]),
        ]
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(1.0 + 5.0 * len(views), 5.2), layout="constrained")
        panels = figure.subplots(1, len(views), squeeze=False)[0]
        for axes, (view, x, y, places) in zip(panels, views, strict=True):
            image = _network(axes, places, weights, values)
            axes.set_aspect("equal")
            label(axes, view, x, y)
            axes.margins(0.12)
            if positions is None:
                axes.set_axis_off()
        if len(labels) <= LABELLED:
            # From the side one hemisphere hides the other, and its names too.
            _name_nodes(panels[0], views[0][-1], labels)
        figure.colorbar(image, ax=list(panels), label=meaning, shrink=0.7)
        figure.suptitle(title)
        return write(figure, destination)


def _lines(
    axes: Axes, time: np.ndarray, series: np.ndarray, names: Sequence[str], meaning: str
) -> None:
    """Few lines on one baseline, more of them one above the other."""
    count = series.shape[1]
    low, high = np.quantile(series, [0.01, 0.99])
    spacing = 0.0 if count <= OVERLAID else 1.3 * float(high - low) or 1.0
    for place in range(count):
        shifted = series[:, place] - place * spacing
        style: dict[str, Any] = {"linewidth": 1.0 if spacing else 1.4}
        axes.plot(time, shifted, color=COLORS[place % len(COLORS)], label=names[place], **style)
    if spacing:
        centre = float(np.median(series))
        axes.set_yticks([centre - place * spacing for place in range(count)], names)
        axes.set_title(f"{meaning}, lines {spacing:.3g} apart", loc="left")
    else:
        axes.set_ylabel(meaning)
    axes.margins(x=0.01)


def _network(axes: Axes, places: np.ndarray, weights: np.ndarray, values: np.ndarray) -> Any:
    """Connections as lines, nodes as dots; returns the dots."""
    both = np.abs(weights + weights.T) / 2
    rows, columns = np.triu_indices(len(weights), 1)
    strength = both[rows, columns]
    kept = strength > 0
    most = max(FEWEST, round(STRONGEST * len(strength)))
    kept[np.argsort(-strength, kind="stable")[most:]] = False
    largest = strength.max(initial=0.0) or 1.0
    # The strong ones last, on top.
    for pair in np.argsort(strength, kind="stable"):
        if kept[pair]:
            ends = places[[rows[pair], columns[pair]]]
            share = strength[pair] / largest
            line: dict[str, Any] = {"linewidth": 0.4 + 2.4 * share, "alpha": 0.15 + 0.6 * share}
            axes.plot(ends[:, 0], ends[:, 1], color=OBSERVED, zorder=1, **line)
    sums = both.sum(axis=1)
    area = 60 + 160 * sums / (sums.max() or 1.0)
    return axes.scatter(
        places[:, 0],
        places[:, 1],
        c=values,
        s=area,
        cmap="viridis",
        edgecolors="white",
        linewidths=0.8,
        zorder=2,
    )


def _name_nodes(axes: Axes, places: np.ndarray, labels: Sequence[str]) -> None:
    """Names beside the nodes, away from the middle."""
    centre = (places[:, 0].min() + places[:, 0].max()) / 2
    for place, name in zip(places, labels, strict=True):
        side = -1 if place[0] < centre else 1
        axes.annotate(
            name,
            place,
            (9 * side, 0),
            textcoords="offset points",
            ha="right" if side < 0 else "left",
            va="center",
            fontsize=7.5,
        )
    axes.margins(0.4, 0.1)


def _matrix(
    figure: Figure,
    axes: Axes,
    matrix: np.ndarray,
    labels: Sequence[str],
    colors: str,
    limits: tuple[float, float],
    meaning: str,
) -> None:
    image = axes.imshow(matrix, cmap=colors, vmin=limits[0], vmax=limits[1])
    figure.colorbar(image, ax=axes, label=meaning, shrink=0.85)
    if len(labels) <= LABELLED:
        axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7.5)
        axes.set_yticks(range(len(labels)), labels, fontsize=7.5)
    else:
        label(axes, "", "source node", "target node")


def _carpet(figure: Figure, axes: Axes, time: np.ndarray, series: np.ndarray, meaning: str) -> None:
    low, high = np.quantile(series, [0.01, 0.99])
    image = axes.imshow(
        series.T,
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        vmin=low,
        vmax=high if high > low else low + 1,
        extent=(time[0], time[-1], len(series.T) - 0.5, -0.5),
    )
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, label=meaning)
    axes.set_ylabel("node")


def _time_axis(milliseconds: np.ndarray) -> tuple[np.ndarray, str]:
    if milliseconds[-1] - milliseconds[0] > 5000:
        return milliseconds / 1000, "time (s)"
    return milliseconds, "time (ms)"


def _spread(nodes: int, most: int) -> np.ndarray:
    """Numbers of some nodes, evenly spread."""
    return np.unique(np.linspace(0, nodes - 1, min(nodes, most)).round().astype(np.int64))


def _with_unit(name: str, unit: str) -> str:
    return name if unit == "1" else f"{name} ({unit})"


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
