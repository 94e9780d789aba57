"""The pictures of classes and of decoded behaviour: PNG files made of their numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recording.style import COLORS, INK, MUTED, STYLE
from trainer.plots import label, write

PICTURED_VARIABLES = 4
SCATTERED = 2  # panels beside the traces


def confusion(
    destination: Path,
    counts: np.ndarray,
    *,
    class_names: Sequence[str],
    title: str,
    scores: Mapping[str, float],
    intervals: Mapping[str, Sequence[float] | None],
    chance: float,
) -> Path:
    """Draw a confusion matrix and balanced accuracies with their 95 % intervals.

    `counts`: (true class, decoded class) of test windows; `scores`, `intervals`: by model;
    `chance`: the balanced accuracy of an answer that does not look.
    """
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        height = max(3.8, 1.6 + 0.34 * max(len(class_names), len(scores)))
        figure = Figure(figsize=(9.6, height), layout="constrained")
        matrix_axes, score_axes = figure.subplots(1, 2)
        _matrix_panel(matrix_axes, counts, class_names)
        image = matrix_axes.images[0]
        figure.colorbar(image, ax=matrix_axes, label="share of the true class", shrink=0.8)
        _score_panel(score_axes, scores, intervals, chance)
        figure.suptitle(title)
        return write(figure, destination)


def decoded(
    destination: Path,
    seconds: np.ndarray,
    target: np.ndarray,
    answers: Mapping[str, np.ndarray],
    *,
    names: Sequence[str],
    units: Sequence[str],
    title: str,
    time_label: str = "time (s)",
) -> Path:
    """Draw true and decoded behaviour over time and against one another, one row per variable.

    seconds: (window,); `target` and each of `answers`: (window, variable), NaN in `target` where
    nothing was measured. The first of `answers` is scattered against the target; two variables
    also make a path in their plane.
    """
    shown = min(PICTURED_VARIABLES, target.shape[1])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 1.2 + 2.3 * shown), layout="constrained")
        panels = figure.subplots(shown, 2, squeeze=False, width_ratios=(2.6, 1.0))
        order = np.argsort(seconds, kind="stable")
        for variable in range(shown):
            trace, scatter = panels[variable]
            _trace_panel(trace, seconds[order], target[order], answers, order, variable)
            label(trace, names[variable], time_label, units[variable])
            _scatter_panel(scatter, target[:, variable], answers, variable)
            label(scatter, "", f"true ({units[variable]})", "decoded")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        figure.suptitle(title)
        return write(figure, destination)


def _matrix_panel(axes: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    for (row, column), count in np.ndenumerate(counts):
        ink = "white" if share[row, column] > 0.6 else INK
        axes.text(column, row, f"{count}", ha="center", va="center", color=ink)
    long = max(map(len, names)) > 8
    turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if long else {}
    axes.set_xticks(range(len(names)), names, **turned)
    axes.set_yticks(range(len(names)), names)
    label(axes, "test windows", "decoded class", "true class")


def _score_panel(
    axes: Axes,
    scores: Mapping[str, float],
    intervals: Mapping[str, Sequence[float] | None],
    chance: float,
) -> None:
    names = list(scores)
    places = np.arange(len(names))
    values = [scores[name] for name in names]
    axes.barh(places, values, color=[COLORS[0], *[COLORS[5]] * (len(names) - 1)], height=0.6)
    for place, name in zip(places, names, strict=True):
        end = scores[name]
        if (interval := intervals[name]) is not None:
            axes.plot(interval, [place, place], color=INK, marker="|", linewidth=1.2)
            end = max(end, interval[1])
        axes.text(end + 0.02, place, f"{scores[name]:.3f}", va="center")
    axes.axvline(chance, color=MUTED, linestyle="--", label=f"chance, {chance:.3f}")
    axes.set_yticks(places, names)
    axes.set_xlim(0.0, 1.15)
    axes.set_ylim(max(len(names), 3) - 0.5, -0.5)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
    label(axes, "balanced accuracy (line: 95 % interval)", "mean share of each class", "")


def _trace_panel(
    axes: Axes,
    seconds: np.ndarray,
    target: np.ndarray,
    answers: Mapping[str, np.ndarray],
    order: np.ndarray,
    variable: int,
) -> None:
    # A line would bridge what was not measured and what was not recorded; dots cannot.
    gaps = np.diff(seconds)
    step = np.median(gaps) if len(gaps) else 1.0
    breaks = np.flatnonzero(gaps > 1.5 * step) + 1
    times = np.insert(seconds, breaks, np.nan)
    truth = np.insert(target[:, variable].astype(np.float64), breaks, np.nan)
    axes.plot(times, truth, color=INK, label="true")
    for index, (name, values) in enumerate(answers.items()):
        line = np.insert(values[order, variable].astype(np.float64), breaks, np.nan)
        style: dict[str, Any] = {"color": COLORS[index % len(COLORS)], "linewidth": 1.2}
        axes.plot(times, line, label=name, **style, linestyle="-" if index == 0 else "--")


def _scatter_panel(
    axes: Axes, truth: np.ndarray, answers: Mapping[str, np.ndarray], variable: int
) -> None:
    values = next(iter(answers.values()))[:, variable]
    measured = np.isfinite(truth)
    dots: dict[str, Any] = {"marker": "o", "markersize": 2.5, "linestyle": "none", "alpha": 0.5}
    axes.plot(truth[measured], values[measured], color=COLORS[0], **dots)
    if measured.any():
        ends = [float(truth[measured].min()), float(truth[measured].max())]
        axes.plot(ends, ends, color=INK, linewidth=0.8)
