"""What a fit is reported by: plain numbers, a table and pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.table import Table
from torch import Tensor

from recording.style import COLORS, INK, MUTED, STYLE
from trainer.fitting import FitResult, Restart
from trainer.plots import label, write

LONGEST_LINE = 1500  # samples of a line; of longer series the end is drawn
LINES = 3  # nodes that are drawn
NAMED = 6  # restarts that have a colour of their own


def fitted_values(result: FitResult, start: dict[str, Tensor]) -> dict[str, Any]:
    """Plain numbers of a fit: every value with its start and spread, and how each restart ended."""
    values = {
        name: {
            "value": value.tolist(),
            "start": start[name].tolist(),
            "spread": None if (spread := result.spread[name]) is None else spread.tolist(),
        }
        for name, value in result.values.items()
    }
    restarts = [
        {
            "loss": each.loss if math.isfinite(each.loss) else None,
            "evaluations": sum(one.restart == each.number for one in result.history),
            "ended": each.ended,
        }
        for each in result.restarts
    ]
    return {
        "method": result.method,
        "loss": result.loss,
        "tolerance": result.tolerance,
        "values": values,
        "restarts": restarts,
    }


def values_table(found: dict[str, Any], title: str) -> Table:
    """A table of `fitted_values`: of a parameter with one value per node, mean and range."""
    table = Table("parameter", "start", "fitted", "spread of restarts", title=title)
    for name, each in found["values"].items():
        table.add_row(name, *(_short(each[key]) for key in ("start", "value", "spread")))
    return table


def remarks(found: dict[str, Any]) -> list[str]:
    """Lines on `fitted_values` that a person should read: starts that went wrong or disagree."""
    starts = found["restarts"]
    lines = [
        f"start {number}: {each['ended']}"
        for number, each in enumerate(starts)
        if "explodes" in each["ended"] or each["loss"] is None
    ]
    if all(each["value"] == each["start"] for each in found["values"].values()):
        lines.append("no evaluation was better than the start: a smaller fit.learning_rate?")
    if len(starts) > 1 and all(each["spread"] is None for each in found["values"].values()):
        lines.append(
            f"no spread: the best of {len(starts)} starts ended alone, the others beyond "
            f"{100 * found['tolerance']:g} % of its loss (fit.tolerance); more fit.steps may help"
        )
    return lines


def _short(value: Any) -> str:
    if value is None:
        return "–"
    numbers = np.asarray(value, dtype=np.float64)
    if numbers.ndim == 0:
        return f"{float(numbers):.5g}"
    return f"{numbers.mean():.4g} ({numbers.min():.4g} to {numbers.max():.4g})"


def convergence(destination: Path, result: FitResult, *, title: str) -> Path:
    """Draw the loss of every evaluation and the lowest so far, and the loss that starts end at."""
    several = len(result.restarts) > 1
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0 if several else 6.5, 3.6), layout="constrained")
        panels = figure.subplots(
            1, 2 if several else 1, squeeze=False, width_ratios=[2.2, 1] if several else [1]
        )[0]
        losses = [each.loss for each in result.history if math.isfinite(each.loss)]
        log = min(losses) > 0 and max(losses) > 20 * min(losses)
        for restart in result.restarts:
            _one_start(panels[0], result, restart)
        panels[0].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        heading = f"lowest {result.loss:.4g} after {len(result.history)} evaluations"
        label(panels[0], heading, "evaluation of a start", "loss")
        panels[0].plot([], [], ".", color=MUTED, label="evaluation")
        panels[0].plot([], [], color=INK, label="lowest so far")
        panels[0].legend()
        if several:
            _ends(panels[1], result.restarts, result)
        for axes in panels:
            if log:
                axes.set_yscale("log")
        figure.suptitle(title)
        return write(figure, destination)


def _color(number: int) -> str:
    return COLORS[number] if number < NAMED else MUTED


def _one_start(axes: Axes, result: FitResult, restart: Restart) -> None:
    own = [each for each in result.history if each.restart == restart.number]
    steps = [each.step for each in own]
    finite = [each.loss if math.isfinite(each.loss) else math.nan for each in own]
    best = [each.best if math.isfinite(each.best) else math.nan for each in own]
    color = _color(restart.number)
    axes.plot(steps, finite, ".", color=color, alpha=0.35, markersize=4)
    axes.plot(steps, best, color=color, drawstyle="steps-post")


def _ends(axes: Axes, restarts: Sequence[Restart], result: FitResult) -> None:
    bound = result.loss + result.tolerance * max(abs(result.loss), 1e-12)
    for restart in restarts:
        if math.isfinite(restart.loss):
            counts = restart.loss <= bound
            axes.plot(
                restart.number,
                restart.loss,
                "o" if counts else "x",
                color=_color(restart.number),
            )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    label(axes, "ends; o count for the spread", "start", "lowest loss")


def compare_series(
    destination: Path,
    milliseconds: np.ndarray,
    target: np.ndarray,
    fit: np.ndarray,
    *,
    labels: Sequence[str],
    meaning: str,
    title: str,
) -> Path:
    """Draw some nodes of a target and of its fit, both (time, node), over the end of the time."""
    chosen = np.unique(np.linspace(0, len(labels) - 1, LINES).astype(int))
    last = slice(max(0, len(milliseconds) - LONGEST_LINE), None)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 1.0 + 1.9 * len(chosen)), layout="constrained")
        panels = figure.subplots(len(chosen), 1, squeeze=False, sharex=True)[:, 0]
        for axes, node in zip(panels, chosen, strict=True):
            axes.plot(milliseconds[last], target[last, node], color=INK, label="target")
            axes.plot(milliseconds[last], fit[last, node], "--", color=COLORS[1], label="fit")
            label(axes, labels[node], "", meaning)
        panels[-1].set_xlabel("time (ms)")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2)
        figure.suptitle(title)
        return write(figure, destination)


def compare_connectivity(
    destination: Path, target: np.ndarray, fit: np.ndarray, *, title: str
) -> Path:
    """Draw the functional connectivity (node, node) of a target, of its fit, and one by the other.

    Pairs of nodes are the points of the third panel.
    """
    above = np.triu_indices(len(target), 1)
    first, second = target[above], fit[above]
    constant = min(first.std(), second.std()) == 0 if len(first) > 1 else True
    r = "" if constant else f"r {np.corrcoef(first, second)[0, 1]:.3f}"
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(11.5, 3.8), layout="constrained")
        panels = figure.subplots(1, 3)
        for axes, matrix, name in zip(panels[:2], (target, fit), ("target", "fit"), strict=True):
            image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
            label(axes, name, "node", "node")
        figure.colorbar(image, ax=list(panels[:2]), label="Pearson's r", shrink=0.85)
        panels[2].plot(first, second, ".", color=COLORS[0], markersize=3, alpha=0.5)
        low, high = min(first.min(), second.min()), max(first.max(), second.max())
        panels[2].plot([low, high], [low, high], color=MUTED, linewidth=1.0)
        label(panels[2], f"pairs of nodes {r}".strip(), "target", "fit")
        figure.suptitle(title)
        return write(figure, destination)
