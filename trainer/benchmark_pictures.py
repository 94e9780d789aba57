"""The pictures of a benchmark: ranking, errors by step and channel, calibration, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recording.style import COLORS, INK, MUTED, OBSERVED, STYLE
from trainer import benchmark_examples
from trainer.benchmark_report import METRIC_NAMES
from trainer.benchmark_scores import Kept
from trainer.benchmark_summary import SMALLER, Results
from trainer.plots import label, write

SHOWN = 5  # models in one panel
BINS = 10
FEWEST = 25  # trials in a bin of a reliability diagram
FAR = 1.5  # times the best error: what is worse would flatten the others
DASHES = ("-", "--", "-.", ":")


def draw(found: Mapping[str, Any], results: Results, folder: Path) -> list[Path]:
    """Draw everything that the results allow; returns the files."""
    with mpl.rc_context(STYLE):
        paths = [_ranking(found, folder / "ranking.png")]
        for name in found["data"]:
            shown = chosen(found, name)
            paths.append(_errors(found, results, name, shown, folder / f"{name}-errors.png"))
            paths.append(_calibration(results, name, shown, folder / f"{name}-calibration.png"))
            paths.append(
                benchmark_examples.draw(results, name, shown[0], folder / f"{name}-examples.png")
            )
    return paths


def chosen(found: Mapping[str, Any], name: str) -> list[str]:
    """The models that are drawn: the best ones, then the reference; none that is far off."""
    data = found["data"][name]
    rows = sorted(data["rows"], key=lambda row: (row["rank"], row["model"]))
    if data["task"] == "forecast":
        limit = FAR * rows[0]["scores"]["mse"]["mean"]
        rows = [row for row in rows if row["scores"]["mse"]["mean"] <= limit]
    models = [row["model"] for row in rows]
    reference = [model for model in models if model == found["reference"]]
    best = [model for model in models if model not in reference]
    return [*best[: SHOWN - len(reference)], *reference]


def _ranking(found: Mapping[str, Any], destination: Path) -> Path:
    """Every model against the reference on every data set, with paired intervals."""
    sets = found["data"]
    longest = max(len(data["rows"]) for data in sets.values())
    figure = Figure(
        figsize=(max(6.4, 1.0 + 3.8 * len(sets)), 1.3 + 0.32 * longest), layout="constrained"
    )
    panels = figure.subplots(1, len(sets), squeeze=False)[0]
    for axes, (name, data) in zip(panels, sets.items(), strict=True):
        rows = sorted(data["rows"], key=lambda row: (-row["rank"], row["model"]))
        for place, row in enumerate(rows):
            _interval(axes, place, row["paired"], data["metric"] in SMALLER)
        axes.axvline(0.0, color=INK, linewidth=0.8)
        texts = [f"{row['model']}  {_short(row, data['metric'])}" for row in rows]
        axes.set_yticks(range(len(rows)), texts)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(axis="y", visible=False)
        far = _far(rows)
        if far is not None:
            axes.set_xlim(*far)
            _mark_cut(axes, rows, far)
        base = f"{found['reference']} on {data['compared_with']}" * bool(data["compared_with"])
        what = "change of" if data["metric"] in SMALLER else "difference of"
        unit = "%" if data["metric"] in SMALLER else "points" if data["metric"] != "r2" else ""
        text = f"{what} {METRIC_NAMES[data['metric']]} to {base or found['reference']}"
        label(axes, name, f"{text} ({unit})" if unit else text, "")
    figure.suptitle(f"{found['title']}: the best on top, paired 95 % intervals")
    return write(figure, destination)


def _interval(axes: Axes, place: int, paired: Mapping[str, Any] | None, smaller: bool) -> None:
    if paired is None or paired["value"] is None:
        axes.plot([0.0], [place], "D", color=INK, markersize=4)
        return
    low, high = paired["interval"]
    better = high < 0 if smaller else low > 0
    worse = low > 0 if smaller else high < 0
    color = COLORS[2] if better else COLORS[1] if worse else OBSERVED
    axes.plot([low, high], [place, place], color=color, linewidth=2.0)
    axes.plot([paired["value"]], [place], "o", color=color, markersize=5)


def _far(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Limits in which the better half can be told apart; what lies further is cut off."""
    known = [row["paired"] for row in rows if row["paired"] and row["paired"]["value"] is not None]
    if len(known) < 3:
        return None
    edges = np.array([each["interval"] for each in known])
    values = np.abs([each["value"] for each in known])
    near = edges[values <= 4 * max(np.median(values), 1e-9)]
    low, high = min(0.0, float(near.min())), max(0.0, float(near.max()))
    room = 0.06 * (high - low or 1.0)
    return low - room, high + room


def _mark_cut(axes: Axes, rows: Sequence[Mapping[str, Any]], limits: tuple[float, float]) -> None:
    """Say at the edge what lies beyond it."""
    for place, row in enumerate(rows):
        value = row["paired"]["value"] if row["paired"] else None
        if value is None or limits[0] <= value <= limits[1]:
            continue
        right = value > limits[1]
        text = f"{value:+.0f} →" if right else f"← {value:+.0f}"
        edge, side = (limits[1], "right") if right else (limits[0], "left")
        axes.text(edge, place, text, ha=side, va="center", color=OBSERVED)


def _short(row: Mapping[str, Any], metric: str) -> str:
    value = row["scores"][metric]["mean"]
    shares = ("accuracy", "balanced_accuracy", "median_error_share")
    form = ".1f" if metric in shares else ".3f" if metric == "r2" else ".4g"
    return f"{value:{form}}"


def _errors(
    found: Mapping[str, Any],
    results: Results,
    name: str,
    shown: Sequence[str],
    destination: Path,
) -> Path:
    """Of forecasts error per step and channel, else the score of every class or variable."""
    data = results.data[name]
    if data.facts["task"] != "forecast":
        return _per_output(results, name, shown, destination)
    errors = {model: squares(data, results.runs[name, model]) for model in shown}
    figure = Figure(figsize=(10.0, 7.4), layout="constrained")
    (steps, change), (own, gain) = figure.subplots(2, 2)
    ahead = 1000.0 * (1 + np.arange(next(iter(errors.values())).shape[0])) / data.facts["rate_hz"]
    base = shown[-1]
    for index, (model, error) in enumerate(errors.items()):
        line = _line(index, model == base)
        steps.plot(ahead, error.mean(axis=1), label=model, **line)
        relative = 100.0 * (error.mean(axis=1) / errors[base].mean(axis=1) - 1.0)
        change.plot(ahead, relative, label=model, **line)
    _zoom(change)
    steps.set_ylim(bottom=0.0)
    steps.legend()
    label(
        steps, "error per step", "time after the last observed sample (ms)", "MSE / train variance"
    )
    label(
        change, f"against {base}", "time after the last observed sample (ms)", "change of MSE (%)"
    )
    best = shown[0]
    per_channel = errors[best].mean(axis=0)
    relative = 100.0 * (per_channel / errors[base].mean(axis=0) - 1.0)
    _channels(figure, own, data, per_channel, f"{best}: MSE / train variance", centred=False)
    _channels(figure, gain, data, relative, f"{best} against {base} (%)", centred=True)
    figure.suptitle(
        f"{name}: error by step and channel, {data.facts['windows']['test']} test windows"
    )
    return write(figure, destination)


def _zoom(axes: Axes) -> None:
    """Leave out the few values that would flatten all others."""
    values = np.concatenate([np.asarray(line.get_ydata(), np.float64) for line in axes.lines])
    low, high = np.percentile(values, [2.0, 92.0])
    room = 0.15 * max(high - low, 1.0)
    axes.set_ylim(low - room, high + room)


def squares(data: Kept, runs: Sequence[Kept]) -> np.ndarray:
    """Mean over test windows and seeds of the squared error / train variance: (step, channel)."""
    target = data.arrays["test_neural"][:, data.facts["observed"] :]
    found = [
        np.square((run.arrays["test_answer"].astype(np.float64) - target) / data.arrays["scale"])
        for run in runs
    ]
    return np.asarray(np.mean([each.mean(axis=0) for each in found], axis=0))


def _channels(
    figure: Figure, axes: Axes, data: Kept, values: np.ndarray, title: str, *, centred: bool
) -> None:
    """One value per channel: on the electrodes' places, or as bars where they are not known."""
    positions = data.arrays.get("positions")
    limit = float(np.abs(values).max()) or 1.0
    if positions is not None and np.isfinite(positions[:, :2]).all(axis=1).sum() > 2:
        axes.grid(visible=False)
        places = flat(positions)
        limits = {"vmin": -limit, "vmax": limit} if centred else {}
        dots = axes.scatter(
            *places.T,
            c=values,
            cmap="RdBu_r" if centred else "viridis",
            s=max(20.0, 5200.0 / len(values)),
            edgecolors=INK,
            linewidths=0.4,
            **limits,
        )
        figure.colorbar(dots, ax=axes, shrink=0.85)
        axes.set_aspect("equal")
        axes.margins(0.12)
        unknown = int((~np.isfinite(places).all(axis=1)).sum())
        title += f", {unknown} channels without a place" * bool(unknown)
        label(axes, title, "mm", "mm")
        return
    names = data.facts["channel_names"]
    color = [COLORS[1] if value > 0 and centred else COLORS[0] for value in values]
    axes.bar(np.arange(len(values)), values, color=color)
    every = max(1, len(names) // 24)
    axes.set_xticks(np.arange(len(names))[::every], names[::every], rotation=90)
    label(axes, title, "", "")


def flat(positions: np.ndarray) -> np.ndarray:
    """Electrodes seen from above, in mm: (channel, 2).

    A plane stays as it is; of a head, distance from the vertex is kept as an angle, so that sides
    do not fold inwards.
    """
    places = 1000.0 * positions[:, :2]
    known = np.isfinite(positions).all(axis=1)
    if not known.any() or np.ptp(positions[known, 2]) < 0.2 * np.ptp(positions[known, 0]):
        return np.asarray(places)
    centre = np.nanmean(positions, axis=0) * np.array([1.0, 1.0, 0.0])
    rays = positions - centre
    radius = np.linalg.norm(rays, axis=1)
    angle = np.arccos(np.clip(rays[:, 2] / np.maximum(radius, 1e-9), -1.0, 1.0))
    level = np.maximum(np.linalg.norm(rays[:, :2], axis=1), 1e-9)
    return 1000.0 * rays[:, :2] / level[:, None] * (radius * angle)[:, None]


def _per_output(results: Results, name: str, shown: Sequence[str], destination: Path) -> Path:
    """Recall of every class, or R² of every variable; bars with the seeds as dots."""
    data = results.data[name]
    classify = data.facts["task"] == "classify"
    target = data.arrays["test_target"]
    names = data.facts["output_names"]
    figure = Figure(figsize=(1.6 + 1.5 * len(names) + 0.6 * len(shown), 3.8), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(shown)
    for index, model in enumerate(shown):
        values = np.array([_of_outputs(run, target, classify) for run in results.runs[name, model]])
        places = np.arange(values.shape[1]) + width * (index - (len(shown) - 1) / 2)
        color = MUTED if index == len(shown) - 1 else COLORS[index % len(COLORS)]
        axes.bar(places, values.mean(axis=0), 0.9 * width, color=color, label=model)
        if len(values) > 1:
            for one in values:
                axes.plot(places, one, ".", color=INK, markersize=4)
    axes.set_xticks(range(len(names)), names)
    axes.axhline(0.0, color=INK, linewidth=0.8)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    what = "recall" if classify else "R²"
    seeds = any(len(results.runs[name, model]) > 1 for model in shown)
    label(axes, f"{name}: {what} on the test part{', a dot per seed' * seeds}", "", what)
    return write(figure, destination)


def _of_outputs(run: Kept, target: np.ndarray, classify: bool) -> list[float]:
    answer = run.arrays["test_answer"].astype(np.float64)
    if classify:
        hits = answer.argmax(axis=1) == target
        return [float(hits[target == one].mean()) for one in range(answer.shape[1])]
    errors = np.nansum((answer - target) ** 2, axis=0)
    spread = np.nansum((target - np.nanmean(target, axis=0)) ** 2, axis=0)
    return list(1.0 - errors / spread)


def _calibration(results: Results, name: str, shown: Sequence[str], destination: Path) -> Path:
    """How often a class is right that is given some probability; else truth by what was said."""
    data = results.data[name]
    figure = Figure(figsize=(5.6, 4.8), layout="constrained")
    axes = figure.subplots()
    texts = {
        "classify": ("probability of the decoded class", "share of trials that were right"),
        "forecast": ("forecast, train sd", "recorded, mean in a bin, train sd"),
        "decode": ("decoded, train sd", "measured, mean in a bin, train sd"),
    }
    ends: list[float] = []
    classify = data.facts["task"] == "classify"
    count = len(data.arrays["test_starts"])
    bins = int(np.clip(count // FEWEST, 3, BINS))
    for index, model in enumerate(shown):
        said, true = _said_and_true(data, results.runs[name, model])
        places, means, slope = _binned(said, true, bins)
        ends += [*places, *means]
        line = _line(index, index == len(shown) - 1)
        text = model if classify else f"{model}, slope {slope:.2f}"
        bars = 1.96 * np.sqrt(means * (1.0 - means) / (count / bins)) if classify else None
        axes.errorbar(places, means, bars, marker="o", markersize=4, label=text, capsize=2, **line)
    low, high = min(ends), max(ends)
    axes.plot([low, high], [low, high], color=INK, linewidth=0.8)
    axes.legend()
    title = f"{name}: on the line the answers are as large as the truth"
    if classify:
        title = f"{name}: below the line the model is too sure (bars: 95 %)"
    label(axes, title, *texts[data.facts["task"]])
    return write(figure, destination)


def _said_and_true(data: Kept, runs: Sequence[Kept]) -> tuple[np.ndarray, np.ndarray]:
    """What was said and what was true, all seeds one after the other, (answer,) each."""
    said, true = [], []
    for run in runs:
        answer = run.arrays["test_answer"].astype(np.float64)
        if data.facts["task"] == "classify":
            said.append(answer.max(axis=1))
            true.append((answer.argmax(axis=1) == data.arrays["test_target"]).astype(np.float64))
            continue
        if data.facts["task"] == "forecast":
            target = data.arrays["test_neural"][:, data.facts["observed"] :].astype(np.float64)
            middle = target.mean(axis=(0, 1))
        else:
            target = data.arrays["test_target"].astype(np.float64)
            middle = np.nanmean(target, axis=0)
        scale = data.arrays["scale"]
        known = np.isfinite(target)
        said.append(((answer - middle) / scale)[known])
        true.append(((target - middle) / scale)[known])
    return np.concatenate(said), np.concatenate(true)


def _binned(said: np.ndarray, true: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Means of both in bins of as many answers each; slope of the truth over what was said."""
    order = np.argsort(said, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    places = np.array([said[part].mean() for part in parts])
    means = np.array([true[part].mean() for part in parts])
    centred = said - said.mean()
    spread = float((centred**2).sum())
    slope = float((centred * (true - true.mean())).sum()) / spread if spread > 0 else 0.0
    return places, means, slope


def _line(index: int, reference: bool) -> dict[str, Any]:
    if reference:
        return {"color": INK, "linestyle": "--", "linewidth": 1.2}
    return {"color": COLORS[index % len(COLORS)], "linestyle": DASHES[index // len(COLORS)]}
