"""The weights of an ensemble as a table and a picture, from its weights.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from rich.table import Table

from recording.style import COLORS, INK, STYLE
from trainer.folder import RunFolderError
from trainer.plots import label, write

MOST_NUMBERS = 16  # columns; beyond that they would overlap
ERRORS = ("out_of_fold", "validation")


def read(path: Path) -> dict[str, Any]:
    """What weights.json holds; raises RunFolderError where it is not there or damaged."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        table(report)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path}: cannot be read ({error!r}); train with --overwrite"
        ) from error
    return dict(report)


def table(report: Mapping[str, Any]) -> Table:
    """One line per member, then the blend: weight (mean over steps, range) and errors."""
    errors = [name for name in ERRORS if name in report["blend"]]
    heads = [_head(name, report) for name in errors]
    drawn = Table(
        "member", "model", "seed", "weight", *heads, title=f"{report['name']}: weights of members"
    )
    for row in report["members"]:
        drawn.add_row(
            row["name"],
            row["model"],
            str(row["seed"]),
            _weight(row["weights"]),
            *(f"{row[name]:.5g}" for name in errors),
        )
    drawn.add_section()
    drawn.add_row("ensemble", "", "", "", *(f"{report['blend'][name]:.5g}" for name in errors))
    return drawn


def _head(name: str, report: Mapping[str, Any]) -> str:
    """What an error is called; of the validation part, whether the weights were fitted to it."""
    fitted = name == "validation" == report["fitted_on"]
    return f"{name.replace('_', ' ')}{' (fitted on)' if fitted else ''} {report['metric']}"


def draw(report: Mapping[str, Any], destination: Path) -> Path:
    """Draw weights by member and forecast step as a map, or one bar per member."""
    names = [row["name"] for row in report["members"]]
    weights = np.array([row["weights"] for row in report["members"]])
    with mpl.rc_context(STYLE):
        steps = weights.shape[1]
        width = 2.6 + max(3.4, 0.42 * min(steps, 24))
        figure = Figure(figsize=(width, 1.3 + 0.42 * len(names)), layout="constrained")
        axes = figure.subplots()
        axes.grid(False)
        axes.set_yticks(range(len(names)), names)
        if steps == 1:
            axes.barh(range(len(names)), weights[:, 0], height=0.6, color=COLORS[0])
            for place, weight in enumerate(weights[:, 0]):
                axes.text(weight + 0.01, place, f"{weight:.2f}", va="center", color=INK)
            axes.set_xlim(0, max(1.0, 1.1 * weights.max()))
            axes.invert_yaxis()
            label(axes, f"{report['name']}: weights", "weight", "")
        else:
            _map(axes, weights, report["milliseconds"])
            name = "time after the last observed step (ms)"
            label(axes, f"{report['name']}: weights by forecast step", name, "")
        return write(figure, destination)


def _map(axes: Any, weights: np.ndarray, milliseconds: list[float]) -> None:
    """A cell for each member and step, as dark as its weight."""
    shades = LinearSegmentedColormap.from_list("weights", ["#ffffff", COLORS[0]])
    axes.imshow(weights, cmap=shades, vmin=0.0, vmax=1.0, aspect="auto")
    steps = weights.shape[1]
    shown = np.unique(np.linspace(0, steps - 1, min(steps, 10)).round().astype(int))
    axes.set_xticks(shown, [f"{milliseconds[step]:g}" for step in shown])
    if steps > MOST_NUMBERS:
        return
    for (member, step), weight in np.ndenumerate(weights):
        if weight > 0:
            color = "#ffffff" if weight > 0.6 else INK
            axes.text(step, member, f"{weight:.2f}", ha="center", va="center", color=color, size=7)


def _weight(weights: list[float]) -> str:
    mean = float(np.mean(weights))
    if len(weights) == 1:
        return f"{mean:.3f}"
    return f"{mean:.3f} ({min(weights):.2f} – {max(weights):.2f})"
