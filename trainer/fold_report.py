"""What cross-validation reports: the spread of scores over folds and seeds, tables, a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.table import Table
from scipy import stats

from recording.style import COLORS, INK, STYLE
from trainer.plots import label, write


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each metric, over the folds that have it.

    mean, standard_error and interval (95 %, Student's t) are of the folds' means over seeds;
    fold_spread is the standard deviation of folds without the share that seeds have in it,
    seed_spread that of seeds within a fold.
    """
    found = {}
    for name in dict.fromkeys(name for row in rows for name in row["metrics"]):
        scores: dict[int, list[float]] = {}
        for row in rows:
            if row["metrics"].get(name) is not None:
                scores.setdefault(row["fold"], []).append(row["metrics"][name])
        if scores:
            found[name] = _spreads(list(scores.values()))
    return found


def table(found: Mapping[str, Any]) -> Table:
    """One line per training, then mean, standard error and interval of every test metric."""
    names, summaries = list(found["metrics"]), list(found["metrics"].values())
    several = found["seeds"] > 1
    drawn = Table(
        "fold, seed" if several else "fold",
        "test windows",
        *names,
        title=f"{found['name']}: {found['folds']} folds by unit {found['unit']}, test part",
    )
    for row in found["rows"]:
        scores = (_cell(row["metrics"].get(name)) for name in names)
        place = f"{row['fold']}, {row['seed']}" if several else str(row["fold"])
        drawn.add_row(place, str(row["windows"]["test"]), *scores)
    drawn.add_section()
    means = (f"{_cell(one['mean'])} ± {_cell(one['standard_error'])}" for one in summaries)
    drawn.add_row("mean ± s.e.", "", *means)
    intervals = (" to ".join(map(_cell, one["interval"] or (None, None))) for one in summaries)
    drawn.add_row("95 % interval", "", *intervals)
    if several:
        drawn.add_row("s.d. of folds", "", *(_cell(one["fold_spread"]) for one in summaries))
        drawn.add_row("s.d. of seeds", "", *(_cell(one["seed_spread"]) for one in summaries))
    return drawn


def chosen_table(found: Mapping[str, Any]) -> Table:
    """What the sweep within each fold has chosen, and which of it hangs on the fold."""
    keys = list(found["chosen"][0])
    drawn = Table("fold", *keys, title="chosen within each fold")
    for fold, values in enumerate(found["chosen"]):
        cells = (values[key] for key in keys)
        drawn.add_row(
            str(fold), *(_cell(v) if isinstance(v, float) else json.dumps(v) for v in cells)
        )
    drawn.add_section()
    drawn.add_row("", *("unstable" if key in found["unstable"] else "stable" for key in keys))
    return drawn


def draw(found: Mapping[str, Any], destination: Path) -> Path:
    """Draw every metric of the test part: a dot per fold, the mean and its standard error."""
    metrics = found["metrics"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 2.6 * len(metrics), 3.4), layout="constrained")
        panels = figure.subplots(1, len(metrics), squeeze=False).ravel()
        for panel, (name, one), color in zip(panels, metrics.items(), _cycle(), strict=False):
            scores = [(row["fold"], row["metrics"].get(name)) for row in found["rows"]]
            known = [(fold, score) for fold, score in scores if score is not None]
            panel.plot([f for f, _ in known], [s for _, s in known], "o", color=color)
            panel.axhline(one["mean"], color=INK, linewidth=1.0)
            error = one["standard_error"] or 0.0
            panel.axhspan(one["mean"] - error, one["mean"] + error, color=color, alpha=0.15)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            text = f"{_cell(one['mean'])} ± {_cell(one['standard_error'])}"
            label(panel, text, "fold that is test", name)
        figure.suptitle(f"{found['name']}: {found['folds']} folds by unit {found['unit']}")
        return write(figure, destination)


def _spreads(scores: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Of scores per fold and seed, see `summary`."""
    means = np.array([np.mean(own) for own in scores])
    mean, count = float(means.mean()), len(means)
    within = [np.var(own, ddof=1) for own in scores if len(own) > 1]
    between = float(means.var(ddof=1)) if count > 1 else None
    error = None if between is None else float(np.sqrt(between / count))
    reach = None if error is None else float(stats.t.ppf(0.975, count - 1)) * error
    of_seeds = float(np.mean(within)) if within else None
    seeds = float(np.mean([len(own) for own in scores]))
    of_folds = None if between is None else max(0.0, between - (of_seeds or 0.0) / seeds)
    return {
        "mean": mean,
        "standard_error": error,
        "interval": None if reach is None else [mean - reach, mean + reach],
        "fold_spread": None if of_folds is None else float(np.sqrt(of_folds)),
        "seed_spread": None if of_seeds is None else float(np.sqrt(of_seeds)),
        "folds": count,
    }


def _cycle() -> list[str]:
    return [*COLORS, *COLORS]


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
