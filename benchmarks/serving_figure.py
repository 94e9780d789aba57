"""The picture of the serving benchmark: processor time, rate and latency of every way to ask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from serving_servers import OURS

COLORS = {1: "#56B4E9", 8: "#0072B2", 32: "#D55E00"}
LATENCY_AT = 8


def draw(points: Sequence[dict[str, Any]], raws: Sequence[dict[str, float]], path: Path) -> None:
    """Write the picture: medians over the rounds, cheapest way (at concurrency 8) on top."""
    ways = list(dict.fromkeys((point["server"], point["protocol"]) for point in points))
    ways.sort(key=lambda way: _order(points, way))
    figure = Figure(figsize=(13.0, 1.6 + 0.34 * len(ways)), layout="constrained")
    cost, rate, wait = figure.subplots(1, 3, sharey=True)
    for concurrency, color in COLORS.items():
        for axes, metric in ((cost, "cpu_ms_per_request"), (rate, "requests_per_second")):
            found = [_values(points, way, concurrency, metric) for way in ways]
            places = [place for place, values in enumerate(found) if values]
            label = f"{concurrency} connection{'s' if concurrency > 1 else ''}"
            middles = [median(values) for values in found if values]
            axes.plot(middles, places, "o", color=color, label=label, zorder=3)
            for place, values in zip(places, filter(None, found), strict=True):
                axes.plot([min(values), max(values)], [place, place], color=color, linewidth=1.5)
    raw = median(sample["raw_ms"] for sample in raws)
    cost.axvline(raw, color="black", linewidth=1, label=f"session.run alone, {raw:.2f} ms")
    most = median(sample["raw_2_threads_per_second"] for sample in raws)
    rate.axvline(most, color="black", linewidth=1, linestyle="--", label="session.run, two threads")
    for place, way in enumerate(ways):
        low = _values(points, way, LATENCY_AT, "p50_ms")
        high = _values(points, way, LATENCY_AT, "p99_ms")
        if low and high:
            color = COLORS[LATENCY_AT]
            wait.plot([median(low), median(high)], [place, place], color=color, linewidth=1.5)
            wait.plot(median(low), place, "o", color=color)
            wait.plot(median(high), place, "|", color=color, markersize=9)
    cost.set_yticks(range(len(ways)), [f"{server}: {protocol}" for server, protocol in ways])
    for label, (server, _) in zip(cost.get_yticklabels(), ways, strict=True):
        label.set_fontweight("bold" if server == OURS else "normal")
    cost.invert_yaxis()
    _finish(cost, "processor time per request (ms), process tree", "log")
    _finish(rate, "requests per second", "linear")
    rate.set_xlim(left=0)
    _finish(wait, f"latency at {LATENCY_AT} connections (ms): p50 to p99", "log")
    figure.legend(
        *_legend(cost, rate), loc="outside lower center", ncols=5, frameon=False, fontsize=9
    )
    figure.suptitle("one ONNX model on one machine; median and range over the rounds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _finish(axes: Axes, label: str, scale: str) -> None:
    axes.set_xlabel(label)
    axes.set_xscale(scale)
    axes.grid(axis="both", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    if scale == "log":
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        low, high = axes.get_xlim()
        ticks = [step * 10.0**power for power in range(-2, 6) for step in (1, 1.5, 2, 3, 5, 7)]
        axes.set_xticks([tick for tick in ticks if low <= tick <= high])


def _legend(cost: Axes, rate: Axes) -> tuple[list[Any], list[str]]:
    handles, labels = cost.get_legend_handles_labels()
    more, names = rate.get_legend_handles_labels()
    return [*handles, more[-1]], [*labels, names[-1]]


def _order(points: Sequence[dict[str, Any]], way: tuple[str, str]) -> float:
    """Processor time in units of the raw run's, at the concurrency that is compared."""
    ratios = [
        point["cpu_ms_per_request"] / point["raw_ms"]
        for point in points
        if (point["server"], point["protocol"]) == way and point["concurrency"] == LATENCY_AT
    ]
    return median(ratios) if ratios else float("inf")


def _values(
    points: Sequence[dict[str, Any]], way: tuple[str, str], concurrency: int, metric: str
) -> list[float]:
    return [
        point[metric]
        for point in points
        if (point["server"], point["protocol"], point["concurrency"]) == (*way, concurrency)
    ]
