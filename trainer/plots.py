"""The pictures of a run and of a report: PNG files whose bytes depend on their numbers alone."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from artifact.bundle import write_file
from recording.style import COLORS, DPI, INK, MUTED, OBSERVED, STYLE


def loss_curve(
    destination: Path,
    epochs: Sequence[int],
    losses: Sequence[float | None],
    metrics: Sequence[float],
    *,
    best_epoch: int,
    metric: str,
    title: str,
    part: str = "held out",
) -> Path:
    """Draw training loss and held-out metric by epoch; a loss of None (epoch 0) is left out."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.4), layout="constrained")
        loss_axes, metric_axes = figure.subplots(1, 2)
        known = [
            (epoch, loss) for epoch, loss in zip(epochs, losses, strict=True) if loss is not None
        ]
        loss_axes.plot(
            [epoch for epoch, _ in known],
            [loss for _, loss in known],
            color=COLORS[0],
            marker=".",
        )
        label(loss_axes, "training loss", "epoch", "loss")
        metric_axes.plot(list(epochs), list(metrics), color=COLORS[1], marker=".")
        metric_axes.axvline(best_epoch, color=MUTED, linestyle="--", linewidth=1.0)
        best = metrics[list(epochs).index(best_epoch)]
        metric_axes.plot([best_epoch], [best], color=COLORS[1], marker="o", markersize=7)
        label(metric_axes, f"{part}; best {best:.4g} at epoch {best_epoch}", "epoch", metric)
        for axes in (loss_axes, metric_axes):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        figure.suptitle(title)
        return write(figure, destination)


def held_out_curves(
    destination: Path, curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], *, metric: str
) -> Path:
    """Draw the held-out metric of several runs by epoch; `curves`: name -> (epochs, metrics).

    A run of one point, whose model has nothing to train, is a level.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.8), layout="constrained")
        axes = figure.subplots()
        for i, (name, (epochs, metrics)) in enumerate(curves.items()):
            color = COLORS[i % len(COLORS)]
            style = ("-", "--", ":")[i // len(COLORS) % 3]
            if len(epochs) == 1:
                axes.axhline(metrics[0], color=color, linestyle=":", label=name)
                continue
            axes.plot(list(epochs), list(metrics), color=color, linestyle=style, label=name)
            best = int(np.argmin(metrics))
            axes.plot([epochs[best]], [metrics[best]], color=color, marker="o")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.legend()
        label(axes, "validation part, dot: best epoch", "epoch", metric)
        return write(figure, destination)


def forecast_example(
    destination: Path,
    target: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    *,
    observed: int,
    rate: float,
    channel_names: Sequence[str],
    unit: str,
    title: str,
) -> Path:
    """Draw one window, one panel per channel.

    `target` and each of `predictions`: (time, channel), `observed` steps first; `rate` in Hz.
    Predictions are drawn from the last observed value on; persistence goes dashed and grey.
    """
    channels = target.shape[1]
    milliseconds = np.arange(target.shape[0]) * 1000.0 / rate
    rows = -(-channels // 2)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 1.1 + 2.0 * rows), layout="constrained")
        panels = figure.subplots(rows, 2 if channels > 1 else 1, squeeze=False).ravel()
        for unused in panels[channels:]:
            unused.set_axis_off()
        for channel, axes in enumerate(panels[:channels]):
            _forecast_panel(axes, milliseconds, target, predictions, observed, channel)
            axes.set_title(f"channel {channel_names[channel]}", loc="left")
            axes.set_ylabel(unit)
            axes.set_xlabel("time in the window (ms)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        figure.suptitle(title)
        return write(figure, destination)


def error_report(
    destination: Path,
    steps: Mapping[str, Sequence[float]],
    channels: Mapping[str, Sequence[float]],
    *,
    observed: int,
    rate: float,
    channel_names: Sequence[str],
    title: str,
    worst: int = 12,
) -> Path:
    """Draw error per step of every model, and per channel of the first against the others.

    `steps`, `channels`: model -> normalised MSE per scored step, per channel.
    """
    main = next(iter(channels))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 7.6), layout="constrained")
        mosaic = figure.subplot_mosaic([["steps", "map"], ["bars", "bars"]])
        step_axes, map_axes, bar_axes = (mosaic[name] for name in ("steps", "map", "bars"))
        _steps_panel(step_axes, steps, observed, rate)
        _channels_panel(map_axes, channels, main)
        _worst_panel(bar_axes, channels, main, channel_names, worst)
        figure.suptitle(title)
        return write(figure, destination)


def _forecast_panel(
    axes: Axes,
    milliseconds: np.ndarray,
    target: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    observed: int,
    channel: int,
) -> None:
    axes.axvspan(milliseconds[observed - 1], milliseconds[-1], color="#f5f5f5", zorder=0)
    before, after = slice(0, observed), slice(observed - 1, None)
    axes.plot(
        milliseconds[before], target[before, channel], color=OBSERVED, marker=".", label="observed"
    )
    axes.plot(milliseconds[after], target[after, channel], color=INK, label="target")
    last = target[observed - 1, channel]
    for name, style in _styles(predictions).items():
        line = np.concatenate([[last], predictions[name][observed:, channel]])
        axes.plot(milliseconds[after], line, label=name, **style)


def _steps_panel(
    axes: Axes, steps: Mapping[str, Sequence[float]], observed: int, rate: float
) -> None:
    for name, style in _styles(steps).items():
        ahead = (np.arange(len(steps[name])) + 1) * 1000.0 / rate
        axes.plot(ahead, list(steps[name]), marker=".", label=name, **style)
    axes.set_ylim(bottom=0.0)
    axes.legend()
    title = f"error per step, from step {observed} on"
    label(axes, title, "time after the last observed step (ms)", "MSE / train variance")


def _styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and line of each name, the same in every panel; persistence is grey and dashed."""
    others = [name for name in names if name != "persistence"]
    styles = {
        name: {
            "color": COLORS[i % len(COLORS)],
            "linestyle": ("-", "-.", ":")[i // len(COLORS) % 3],
        }
        for i, name in enumerate(others)
    }
    if "persistence" in names:
        styles["persistence"] = {"color": MUTED, "linestyle": "--"}
    return styles


def _channels_panel(axes: Axes, channels: Mapping[str, Sequence[float]], main: str) -> None:
    values = np.asarray(channels[main])
    limit = 1.05 * max(1e-12, *(max(errors) for errors in channels.values()))
    for name, style in _styles(channels).items():
        if name != main:
            dots: dict[str, Any] = {"marker": "o", "markersize": 3.5, "linestyle": "none"}
            color = style["color"]
            axes.plot(channels[name], values, alpha=0.75, label=name, color=color, **dots)
    axes.plot([0, limit], [0, limit], color=INK, linewidth=0.8)
    axes.set_xlim(0, limit)
    axes.set_ylim(0, 1.05 * float(values.max()))
    axes.legend(loc="lower right")
    title = f"one dot per channel: below the line, {main} is better"
    label(axes, title, "MSE / train variance, other model", f"MSE / train variance, {main}")


def _worst_panel(
    axes: Axes,
    channels: Mapping[str, Sequence[float]],
    main: str,
    channel_names: Sequence[str],
    worst: int,
) -> None:
    values = np.asarray(channels[main])
    order = np.argsort(-values, kind="stable")[:worst]
    places = np.arange(order.size)
    axes.bar(places, values[order], width=0.6, color=COLORS[0], label=main)
    for name, style in _styles(channels).items():
        if name != main:
            dashes: dict[str, Any] = {
                "marker": "_",
                "markersize": 18,
                "markeredgewidth": 2,
                "linestyle": "none",
            }
            color = style["color"]
            axes.plot(places, np.asarray(channels[name])[order], label=name, color=color, **dashes)
    axes.axhline(float(values.mean()), color=INK, linestyle=":", linewidth=1.0)
    axes.set_xticks(places, [str(channel_names[i]) for i in order])
    axes.set_ylim(top=1.18 * axes.get_ylim()[1])
    axes.legend(ncols=len(channels), loc="upper right")
    count = min(worst, values.size)
    title = f"the {count} worst of {values.size} channels of {main} (dotted: its mean channel)"
    label(axes, title, "channel", "MSE / train variance")


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Name a panel and its axes."""
    axes.set_title(title, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def write(figure: Figure, destination: Path) -> Path:
    """Write a figure as a PNG file without a date or a version."""
    buffer = io.BytesIO()
    # Without this, the library's version would be in the file.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return write_file(destination, buffer.getvalue())
