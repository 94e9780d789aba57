"""Test windows that a model did best and worst on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from recording.style import COLORS, INK, MUTED
from trainer.benchmark_scores import Kept
from trainer.benchmark_summary import Results
from trainer.plots import label, write

EACH = 3  # of the best and of the worst
STRETCH = 60  # decoded windows in a row


def draw(results: Results, name: str, model: str, destination: Path) -> Path:
    """Draw the best and the worst windows of a model's first seed on a data set."""
    data, run = results.data[name], results.runs[name, model][0]
    draw_task = {"forecast": _forecast, "classify": _classify, "decode": _decode}
    figure = Figure(figsize=(11.0, 5.4), layout="constrained")
    panels = figure.subplots(2, EACH, squeeze=False, sharey=data.facts["task"] == "decode")
    what = draw_task[data.facts["task"]](panels, data, run)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(f"{name}, {model}: the best {what} above, the worst below")
    return write(figure, destination)


def _forecast(panels: np.ndarray, data: Kept, run: Kept) -> str:
    """The channel of median error of each window, with its truth and forecast."""
    observed, arrays = data.facts["observed"], data.arrays
    truth = arrays["test_neural"].astype(np.float64)
    answer = run.arrays["test_answer"].astype(np.float64)
    errors = np.square((answer - truth[:, observed:]) / arrays["scale"])
    per_window = errors.mean(axis=(1, 2))
    for axes, row in zip(panels.ravel(), _ends(per_window), strict=True):
        per_channel = errors[row].mean(axis=0)
        channel = int(np.argsort(per_channel, kind="stable")[len(per_channel) // 2])
        time = 1000.0 * (np.arange(truth.shape[1]) - observed + 1) / data.facts["rate_hz"]
        axes.plot(time, truth[row, :, channel], color=INK, marker=".", label="recorded")
        given = np.concatenate(
            [truth[row, observed - 1 : observed, channel], answer[row, :, channel]]
        )
        axes.plot(time[observed - 1 :], given, color=COLORS[0], marker=".", label="forecast")
        axes.axvline(0.0, color=MUTED, linewidth=1.0)
        names = data.facts["channel_names"]
        title = f"{_when(data, row)}: MSE {per_window[row]:.2f}, channel {names[channel]}"
        label(axes, title, "time after the last observed sample (ms)", _unit(data))
    return "test windows (of each the channel of median error)"


def _classify(panels: np.ndarray, data: Kept, run: Kept) -> str:
    """Some channels of each trial, with the probability that its true class was given."""
    probability = run.arrays["test_answer"].astype(np.float64)
    target, neural = data.arrays["test_target"], data.arrays["test_neural"]
    given = probability[np.arange(len(target)), target]
    count = min(4, neural.shape[2])
    channels = np.linspace(0, neural.shape[2] - 1, count).round().astype(int)
    names = data.facts["output_names"]
    spread = 4.0 * float(np.median(neural[..., channels].std(axis=1))) or 1.0
    for axes, row in zip(panels.ravel(), _ends(-given), strict=True):
        time = np.arange(neural.shape[1]) / data.facts["rate_hz"]
        for place, channel in enumerate(channels):
            values = neural[row, :, channel].astype(np.float64)
            color = COLORS[place % len(COLORS)]
            axes.plot(time, values - values.mean() - spread * place, color=color, linewidth=1.0)
        ticks = [data.facts["channel_names"][channel] for channel in channels]
        axes.set_yticks(-spread * np.arange(count), ticks)
        name = names[target[row]] if names else target[row]
        label(axes, f"trial {row}: {name}, given probability {given[row]:.2f}", "time (s)", "")
    shown = f"{count} of {neural.shape[2]} channels, {spread:.3g} {_unit(data)} apart"
    return f"trials ({shown})"


def _decode(panels: np.ndarray, data: Kept, run: Kept) -> str:
    """Stretches of consecutive windows, of the first variable."""
    target = data.arrays["test_target"].astype(np.float64)
    answer = run.arrays["test_answer"].astype(np.float64)
    sessions, seconds = data.arrays["test_sessions"], data.arrays["test_seconds"]
    order = np.lexsort((seconds, sessions))
    size = max(4, min(STRETCH, len(order) // (2 * EACH)))
    stretches = [order[at : at + size] for at in range(0, len(order) - size + 1, size)]
    errors = np.nanmean(np.square((answer - target) / data.arrays["scale"]), axis=1)
    mean = np.array([np.nanmean(errors[rows]) for rows in stretches])
    names, units = data.facts["output_names"], data.facts["output_units"]
    for axes, which in zip(panels.ravel(), _ends(mean), strict=True):
        rows = stretches[which]
        time, (measured, decoded) = _broken(seconds[rows], target[rows, 0], answer[rows, 0])
        axes.plot(time, measured, ".-", color=INK, label="measured", markersize=3)
        axes.plot(time, decoded, ".-", color=COLORS[0], label="decoded", markersize=3)
        quantity = f"{names[0]} ({_named(units[0])})"
        label(axes, f"MSE {mean[which]:.2g} train variances", "time (s)", quantity)
    others = f" ({names[0]} of {len(names)} variables)" * (len(names) > 1)
    return f"stretches of {size} windows{others}"


def _broken(seconds: np.ndarray, *lines: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Times and lines with NaN where time was left out, so that no line crosses it."""
    steps = np.diff(seconds)
    gaps = 1 + np.flatnonzero(steps > 2.5 * np.median(steps))
    return np.insert(seconds, gaps, np.nan), [np.insert(line, gaps, np.nan) for line in lines]


def _ends(errors: np.ndarray) -> Sequence[int]:
    """Rows of the smallest errors, then of the largest; fewer recur where there are few."""
    order = np.argsort(errors, kind="stable")
    best = [int(order[min(place, len(order) - 1)]) for place in range(EACH)]
    worst = [int(order[max(len(order) - 1 - place, 0)]) for place in range(EACH)]
    return [*best, *worst]


def _unit(data: Kept) -> str:
    return _named(data.facts["unit"])


def _named(unit: str) -> str:
    return "raw units" if unit == "raw" else unit


def _when(data: Kept, row: int) -> str:
    return f"{data.arrays['test_seconds'][row]:.2f} s"
