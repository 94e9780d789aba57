"""Picture of benchmarks/connectome_fit.py: bars per person, and matrices of one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

COLORS = {"global": "#56B4E9", "nodes": "#0072B2", "weights": "#D55E00"}


def draw(
    found: list[dict[str, Any]], matrices: dict[str, np.ndarray], destination: Path, goal: float
) -> None:
    """Correlations of every fold with baseline and ceiling; matrices of the first below."""
    figure = Figure(figsize=(11.0, 7.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1.0))
    panel = top.subplots()
    _bars(panel, found, goal)
    panels = bottom.subplots(1, len(matrices))
    picture = None
    for own, (name, matrix) in zip(panels, matrices.items(), strict=True):
        # Left hemisphere first: neighbours alternate between left and right in the atlas.
        order = [*range(0, len(matrix), 2), *range(1, len(matrix), 2)]
        shown = matrix[np.ix_(order, order)]
        picture = own.imshow(shown, vmin=-1, vmax=1, cmap="RdBu_r")
        own.set_title(name if name not in COLORS else f"model, {name}", loc="left")
        own.set_xticks([])
        own.set_yticks([])
    bottom.colorbar(picture, ax=list(panels), label="FC", shrink=0.8)
    bottom.suptitle(
        "Person 1: regions of the left, then of the right hemisphere", x=0.01, ha="left"
    )
    destination.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(destination, dpi=120, metadata={"Software": None})


def _bars(panel: Any, found: list[dict[str, Any]], goal: float) -> None:
    groups = [(f"person {fold['subject']}", fold) for fold in found]
    mean: dict[str, Any] = {
        key: float(np.mean([fold[key] for fold in found])) for key in ("baseline", "ceiling")
    }
    mean["x"] = {level: float(np.mean([fold["x"][level] for fold in found])) for level in COLORS}
    groups.append(("mean", mean))
    width = 0.26
    for place, (_, fold) in enumerate(groups):
        for number, (level, color) in enumerate(COLORS.items()):
            value, where = fold["x"][level], place + (number - 1) * width
            panel.bar(where, value, width, color=color, label=None if place else level)
            panel.text(where, value + 0.008, f"{value:.2f}".lstrip("0"), ha="center", fontsize=8)
        ends = [place - 0.45, place + 0.45]
        for key, style, label in (
            ("ceiling", "-", "ceiling: mean FC of the others"),
            ("baseline", ":", "baseline: log of their connectome"),
        ):
            panel.plot(
                ends, [fold[key]] * 2, style, color="black", linewidth=2, label=_once(place, label)
            )
    panel.axhline(goal, color="#009E73", linestyle="--", label=f"goal of the mean: {goal:.2f}")
    panel.set_xticks(range(len(groups)), [name for name, _ in groups])
    panel.set_ylim(0, 1.02)
    panel.set_ylabel("correlation with the FC of the person left out")
    panel.set_title("80 Hopf oscillators, fitted on six other people", loc="left")
    panel.legend(loc="upper center", ncols=6, frameon=False, fontsize=8)


def _once(place: int, label: str) -> str | None:
    return None if place else label
