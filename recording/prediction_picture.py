"""A picture of some predictions beside the recording."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recording.plan import Plan
from recording.prediction_score import truth_of
from recording.prediction_table import Block, column_names
from recording.style import COLORS, DPI, INK, MUTED, STYLE

if TYPE_CHECKING:
    from recording.predictions import Prepared

PANELS = 4
SHOWN = {"forecast": 12, "classify": 40, "decode": 400}  # windows in the picture


def draw(plan: Plan, prepared: Prepared, block: Block, destination: Path) -> Path:
    """Draw the first windows of a block: forecasts, probabilities or decoded variables."""
    few = slice(0, SHOWN[plan.task])
    block = Block(block.starts[few], block.times[few], block.trials[few], block.answer[few])
    truth = truth_of(plan, prepared, block)
    drawing = {"forecast": _forecast, "classify": _classes, "decode": _variables}[plan.task]
    with mpl.rc_context(STYLE):
        figure = drawing(plan, prepared, block, truth)
        figure.suptitle(f"{prepared.recording.source}: predictions of some windows")
        return _write(figure, destination)


def _forecast(plan: Plan, prepared: Prepared, block: Block, truth: np.ndarray | None) -> Figure:
    names = column_names(plan)
    chosen = np.unique(np.linspace(0, len(names) - 1, min(PANELS, len(names))).round().astype(int))
    figure, axes = _panels(len(chosen))
    ahead = np.arange(plan.observed, plan.window) / plan.rate
    for axis, channel in zip(axes, chosen, strict=True):
        for row, start in enumerate(block.times):
            if truth is not None:
                steps = start + np.arange(plan.window) / plan.rate
                label = "recorded" if row == 0 else None
                axis.plot(steps, truth[row, :, channel], color=INK, linewidth=1.0, label=label)
            label = "forecast" if row == 0 else None
            forecast = block.answer[row, plan.observed :, channel]
            axis.plot(start + ahead, forecast, color=COLORS[1], label=label)
        axis.set_ylabel(names[channel])
    _finish(axes, "time (s)")
    return figure


def _classes(plan: Plan, prepared: Prepared, block: Block, truth: np.ndarray | None) -> Figure:
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    axis = figure.subplots()
    places, below = np.arange(len(block.times)), np.zeros(len(block.times))
    for index, name in enumerate(plan.outputs):
        share = block.answer[:, index]
        color = COLORS[index % len(COLORS)]
        axis.bar(places, share, bottom=below, width=0.9, color=color, label=name)
        below = below + share
    if truth is not None:
        colors = [COLORS[kind % len(COLORS)] if kind >= 0 else MUTED for kind in truth]
        axis.scatter(places, np.full(len(places), 1.06), color=colors, marker="s", s=14)
        axis.text(
            -0.01, 1.06, "true", transform=axis.get_yaxis_transform(), ha="right", va="center"
        )
    axis.set_ylim(0, 1.12)
    axis.set_yticks([0, 0.5, 1])
    axis.set_xlabel("window")
    axis.set_ylabel("probability")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=min(4, len(plan.outputs)))
    return figure


def _variables(plan: Plan, prepared: Prepared, block: Block, truth: np.ndarray | None) -> Figure:
    names = column_names(plan)[:PANELS]
    figure, axes = _panels(len(names))
    times = block.times + (plan.window - 1) / plan.rate
    for index, (axis, name) in enumerate(zip(axes, names, strict=True)):
        if truth is not None:
            axis.plot(times, truth[:, index], color=INK, linewidth=1.0, label="recorded")
        axis.plot(times, block.answer[:, index], color=COLORS[1], label="decoded")
        axis.set_ylabel(name)
    _finish(axes, "time (s)")
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(8.0, 1.0 + 1.5 * count), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(count, 1, sharex=True)))


def _finish(axes: list[Axes], text: str) -> None:
    axes[-1].set_xlabel(text)
    axes[0].legend(loc="upper right", ncols=2)


def _write(figure: Figure, destination: Path) -> Path:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    partial = destination.with_name(f"{destination.name}.tmp-{os.getpid()}")
    partial.write_bytes(stream.getvalue())
    partial.rename(destination)
    return destination
