"""The pictures of a benchmark: ranking, errors by step and channel, calibration, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recording.style import COLORS, INK, MUTED, STYLE
from trainer import benchmark_examples, benchmark_intervals
from trainer.benchmark_scores import Kept
from trainer.benchmark_summary import Results
from trainer.plots import label, write

SHOWN = 6  # models in one panel, and the reference
BINS = 10
FEWEST = 25  # trials in a bin of a reliability diagram
FAR = 1.5  # times the best error: what is worse would flatten the others
STEEP = 4.0  # times the median model's largest change by step: what is more is cut off


@dataclass(frozen=True)
class Shown:
    """Models that are drawn, the best first, with the one that others are held against.

    said: how many they are of all, where some are left out.
    """

    models: tuple[str, ...]
    base: str
    said: str

    def line(self, model: str) -> dict[str, Any]:
        """How a model's line looks: that of the base is dashed and dark."""
        if model == self.base:
            return {"color": INK, "linestyle": "--", "linewidth": 1.2}
        return {"color": self.color(model)}

    def color(self, model: str) -> str:
        """The colour of a model, the same in every picture of its data set."""
        others = [each for each in self.models if each != self.base]
        return MUTED if model == self.base else COLORS[others.index(model) % len(COLORS)]


def draw(found: Mapping[str, Any], results: Results, folder: Path) -> list[Path]:
    """Draw everything that the results allow; returns the files."""
    with mpl.rc_context(STYLE):
        paths = [benchmark_intervals.ranking(found, folder / "ranking.png")]
        if found["ablation"]:
            paths.append(benchmark_intervals.ablation(found, folder / "ablation.png"))
        for name in found["data"]:
            shown = chosen(found, name)
            paths.append(_errors(results, name, shown, folder / f"{name}-errors.png"))
            paths.append(_calibration(results, name, shown, folder / f"{name}-calibration.png"))
            path = folder / f"{name}-examples.png"
            paths.append(benchmark_examples.draw(results, name, shown.models[0], path))
    return paths


def chosen(found: Mapping[str, Any], name: str) -> Shown:
    """The models that are drawn: the best ones, none that is far off, and always the reference."""
    data = found["data"][name]
    rows = sorted(data["rows"], key=lambda row: (row["rank"], row["model"]))
    every = [row["model"] for row in rows]
    near = rows
    if data["task"] == "forecast":
        limit = FAR * rows[0]["scores"]["mse"]["mean"]
        near = [row for row in rows if row["scores"]["mse"]["mean"] <= limit]
    best = [row["model"] for row in near[:SHOWN]]
    base = next((each for each in (found["reference"], data["best_linear"]) if each in every), None)
    base = base or best[-1]
    models = tuple(best) if base in best else (*best, base)
    if len(models) == len(every):
        return Shown(models, base, "")
    of = "the best" if len(best) == 1 else f"the best {len(best)}"
    return Shown(models, base, f"{of} of {len(every)} models{f', and {base}' * (base not in best)}")


def _errors(results: Results, name: str, shown: Shown, destination: Path) -> Path:
    """Of forecasts error per step and channel, else the score of every class or variable."""
    data = results.data[name]
    if data.facts["task"] != "forecast":
        return _per_output(results, name, shown, destination)
    errors = {model: squares(data, results.runs[name, model]) for model in shown.models}
    figure = Figure(figsize=(10.0, 7.8), layout="constrained")
    (steps, change), (own, gain) = figure.subplots(2, 2)
    ahead = 1000.0 * (1 + np.arange(len(errors[shown.base]))) / data.facts["rate_hz"]
    of_base = errors[shown.base].mean(axis=1)
    for model, error in errors.items():
        style = shown.line(model)
        steps.plot(ahead, error.mean(axis=1), label=model, **style)
        change.plot(ahead, 100.0 * (error.mean(axis=1) / of_base - 1.0), label=model, **style)
    time = "time after the last observed sample (ms)"
    label(steps, "error per step", time, "MSE / train variance")
    steps.set_ylim(bottom=0.0)
    label(change, f"against {shown.base}{_cut(change)}", time, "change of MSE (%)")
    best = next((model for model in shown.models if model != shown.base), shown.base)
    per_channel = errors[best].mean(axis=0)
    relative = 100.0 * (per_channel / errors[shown.base].mean(axis=0) - 1.0)
    _channels(figure, own, data, per_channel, (best, "MSE / train variance"), centred=False)
    _channels(
        figure,
        gain,
        data,
        relative,
        (f"{best} against {shown.base}", "change of MSE (%)"),
        centred=True,
    )
    figure.legend(*steps.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(
        f"{name}: error by step and channel, {data.facts['windows']['test']} test windows"
        + f"\n{shown.said}" * bool(shown.said)
    )
    return write(figure, destination)


def _cut(axes: Axes) -> str:
    """Cut off models that would flatten all others, and say which."""
    largest = {
        str(line.get_label()): float(np.abs(np.asarray(line.get_ydata(), np.float64)).max())
        for line in axes.lines
    }
    reach = STEEP * float(np.median([value for value in largest.values() if value > 0] or [0.0]))
    far = [model for model, value in largest.items() if value > reach]
    if not far:
        return ""
    near = [line.get_ydata() for line in axes.lines if line.get_label() not in far]
    values = np.concatenate([np.asarray(each, np.float64) for each in near])
    room = 0.15 * float(np.ptp(values))
    axes.set_ylim(values.min() - room, values.max() + room)
    return f"; in part beyond the panel:\n{', '.join(far)}"


def squares(data: Kept, runs: Sequence[Kept]) -> np.ndarray:
    """Mean over test windows and seeds of the squared error / train variance: (step, channel)."""
    target = data.arrays["test_neural"][:, data.facts["observed"] :]
    found = [
        np.square((run.arrays["test_answer"].astype(np.float64) - target) / data.arrays["scale"])
        for run in runs
    ]
    return np.asarray(np.mean([each.mean(axis=0) for each in found], axis=0))


def _channels(
    figure: Figure,
    axes: Axes,
    data: Kept,
    values: np.ndarray,
    said: tuple[str, str],
    *,
    centred: bool,
) -> None:
    """One value per channel: on the electrodes' places, or as bars where they are not known.

    said: title and quantity.
    """
    title, quantity = said
    positions = data.arrays.get("positions")
    limit = float(np.abs(values).max()) or 1.0
    if positions is not None and np.isfinite(positions[:, :2]).all(axis=1).sum() > 2:
        axes.grid(visible=False)
        places = flat(positions)
        dots = axes.scatter(
            places[:, 0],
            places[:, 1],
            c=values,
            cmap="RdBu_r" if centred else "viridis",
            s=max(20.0, 5200.0 / len(values)),
            edgecolors=INK,
            linewidths=0.4,
            vmin=-limit if centred else None,
            vmax=limit if centred else None,
        )
        figure.colorbar(dots, ax=axes, shrink=0.85, label=quantity)
        axes.set_aspect("equal")
        axes.margins(0.12)
        unknown = int((~np.isfinite(places).all(axis=1)).sum())
        title += f", {unknown} channels without a place" * bool(unknown)
        label(axes, title, "mm, every channel in its place", "mm")
        return
    names = data.facts["channel_names"]
    color = [COLORS[1] if value > 0 and centred else COLORS[0] for value in values]
    axes.bar(np.arange(len(values)), values, color=color)
    axes.axhline(0.0, color=INK, linewidth=0.8)
    axes.grid(axis="x", visible=False)
    every = max(1, -(-len(names) // 24))
    axes.set_xticks(np.arange(len(names))[::every], names[::every], rotation=90)
    named = "channel" if every == 1 else f"channel (one of {every} is named)"
    label(axes, title, named, quantity)


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
    return np.asarray(1000.0 * rays[:, :2] / level[:, None] * (radius * angle)[:, None])


def _per_output(results: Results, name: str, shown: Shown, destination: Path) -> Path:
    """Recall of every class, or R² of every variable; bars with the seeds as dots."""
    data = results.data[name]
    classify = data.facts["task"] == "classify"
    target = data.arrays["test_target"]
    names = data.facts["output_names"] or list(map(str, np.unique(target)))
    models = shown.models
    size = (max(6.4, 2.2 + 1.5 * len(names) + 0.6 * len(models)), 3.9)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(models)
    for index, model in enumerate(models):
        values = np.array([_of_outputs(run, target, classify) for run in results.runs[name, model]])
        places = np.arange(values.shape[1]) + width * (index - (len(models) - 1) / 2)
        axes.bar(places, values.mean(axis=0), 0.9 * width, color=shown.color(model), label=model)
        if len(values) > 1:
            for one in values:
                axes.plot(places, one, ".", color=INK, markersize=4)
    axes.set_xticks(range(len(names)), names)
    axes.axhline(0.0, color=INK, linewidth=0.8)
    axes.grid(axis="x", visible=False)
    if classify:
        axes.axhline(1.0 / len(names), color=INK, linewidth=1.0, linestyle=":", label="chance")
    figure.legend(loc="outside right center")
    what = "recall (share of a class that was found)" if classify else "R²"
    seeds = any(len(results.runs[name, model]) > 1 for model in models)
    title = f"{name}: {what.split(' ')[0]} on the test part{', a dot per seed' * seeds}"
    label(axes, title + f"\n{shown.said}" * bool(shown.said), "", what)
    return write(figure, destination)


def _of_outputs(run: Kept, target: np.ndarray, classify: bool) -> list[float]:
    answer = run.arrays["test_answer"].astype(np.float64)
    if classify:
        hits = answer.argmax(axis=1) == target
        return [float(hits[target == one].mean()) for one in range(answer.shape[1])]
    errors = np.nansum((answer - target) ** 2, axis=0)
    spread = np.nansum((target - np.nanmean(target, axis=0)) ** 2, axis=0)
    return list(1.0 - errors / spread)


def _calibration(results: Results, name: str, shown: Shown, destination: Path) -> Path:
    """How often a class is right that is given some probability; else truth by what was said."""
    data = results.data[name]
    figure = Figure(figsize=(7.4, 4.8), layout="constrained")
    axes = figure.subplots()
    texts = {
        "classify": ("probability of the decoded class", "share of trials that were right"),
        "forecast": ("forecast (train sd)", "recorded, mean in a bin (train sd)"),
        "decode": ("decoded (train sd)", "measured, mean in a bin (train sd)"),
    }
    ends: list[float] = []
    classify = data.facts["task"] == "classify"
    count = len(data.arrays["test_starts"])
    bins = int(np.clip(count // FEWEST, 3, BINS))
    for model in shown.models:
        said, true = _said_and_true(data, results.runs[name, model])
        places, means, slope = _binned(said, true, bins)
        ends += [*places, *means]
        text = model if classify else f"{model}, slope {slope:.2f}"
        bars = 1.96 * np.sqrt(means * (1.0 - means) / (count / bins)) if classify else None
        style = {"marker": "o", "markersize": 4, "capsize": 2, **shown.line(model)}
        axes.errorbar(places, means, bars, label=text, **style)
    low, high = min(ends), max(ends)
    axes.plot([low, high], [low, high], color=INK, linewidth=0.8, label="equal")
    figure.legend(loc="outside right center")
    title = f"{name}: on the line the answers are as large as the truth"
    if classify:
        title = f"{name}: below the line the model is too sure (bars: 95 %)"
    label(axes, title + f"\n{shown.said}" * bool(shown.said), *texts[data.facts["task"]])
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
