"""Pictures of paired differences: models against the reference, an ablation's items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from recording.style import COLORS, INK, MUTED, OBSERVED
from trainer.benchmark_report import METRIC_NAMES, number
from trainer.benchmark_summary import SMALLER, difference_unit
from trainer.plots import label, write

MARKERS = {"better": "^", "worse": "v"}
HOLLOW = "o"  # any other verdict
FAR = 4.0  # times the median difference: what is further is cut off and written out
LOPSIDED = 10.0  # times an interval's shorter side: what is further runs out of the panel


@dataclass(frozen=True)
class _Drawn:
    """A difference at its place on the y axis; None is the reference itself."""

    place: float
    paired: Mapping[str, Any] | None
    color: str
    marker: str

    def draw(self, axes: Axes) -> None:
        """A dot with its interval, where there is one."""
        if self.paired is None:
            axes.plot([0.0], [self.place], "D", color=INK, markersize=4)
            return
        if self.paired["value"] is None:
            return
        line: dict[str, Any] = {"color": self.color, "linewidth": 1.8, "markersize": 5}
        face = "white" if self.marker == HOLLOW else self.color
        if self.paired["interval"] is not None:
            axes.plot(self.paired["interval"], [self.place] * 2, **line)
        axes.plot([self.paired["value"]], [self.place], self.marker, markerfacecolor=face, **line)


def ranking(found: Mapping[str, Any], destination: Path) -> Path:
    """Every model against the reference on every data set, with paired intervals."""
    sets = found["data"]
    longest = max(len(data["rows"]) for data in sets.values())
    across = min(3, len(sets))
    down = -(-len(sets) // across)
    size = (max(6.4, 1.0 + 4.4 * across), down * (1.4 + 0.28 * longest))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for unused in panels[len(sets) :]:
        unused.set_axis_off()
    for axes, (name, data) in zip(panels, sets.items(), strict=False):
        rows = sorted(data["rows"], key=lambda row: (-row["rank"], row["model"]))
        smaller = data["metric"] in SMALLER
        drawn = [
            _Drawn(place, row["paired"], _told(row["paired"], smaller), "s")
            for place, row in enumerate(rows)
        ]
        texts = [
            f"{row['model']}  {number(row['scores'][data['metric']]['mean'], data['metric'])}"
            for row in rows
        ]
        unit = difference_unit(data["metric"])
        _panel(axes, texts, drawn, " %" * (unit == "%"))
        against = found["reference"]
        if data["compared_with"]:
            against = f"{against} on {data['compared_with']}"
        what = f"change of {METRIC_NAMES[data['metric']]}"
        label(axes, name, f"{what} against {against} ({unit})", "")
    sides = {"left" if data["metric"] in SMALLER else "right" for data in sets.values()}
    better = sides.pop() if len(sides) == 1 else "green"
    figure.suptitle(
        f"{found['title']}: test part, paired 95 % intervals, {better} is better\n"
        "green: better than the reference, orange: worse, grey: cannot be told, diamond: itself"
    )
    return write(figure, destination)


def ablation(found: Mapping[str, Any], destination: Path) -> Path:
    """Every item of an ablation against its recipe on the validation part, the best on top."""
    rows = found["ablation"]
    items = _by_effect(rows)
    sets = list(dict.fromkeys(row["data"] for row in rows))
    units = list(dict.fromkeys(row["unit"] for row in rows))
    height = 1.6 + len(items) * (0.12 + 0.13 * len(sets))
    figure = Figure(figsize=(8.0, height), layout="constrained")
    axes = figure.subplots()
    drawn = []
    for row in rows:
        index = sets.index(row["data"])
        place = items.index(row["item"]) + 0.7 * ((len(sets) - 1) / 2 - index) / len(sets)
        color, marker = COLORS[index % len(COLORS)], MARKERS.get(row["verdict"], HOLLOW)
        drawn.append(_Drawn(place, row["validation"], color, marker))
        seeds = row.get("per_seed", [])
        axes.plot(seeds, [place] * len(seeds), "|", color=color, markersize=6)
    _panel(axes, items, drawn, " %" * (units == ["%"]))
    for between in range(1, len(items)):
        axes.axhline(between - 0.5, color=MUTED, linewidth=0.4)
    metrics = {METRIC_NAMES[found["data"][name]["metric"]] for name in sets}
    what = f" of {' or '.join(sorted(metrics))}"
    better = {"%": ", left is better"}.get(units[0], ", right is better") * (len(units) == 1)
    text = f"change{what} against the recipe, validation part ({' or '.join(units)}{better})"
    label(axes, "", text, "")
    legend = _ablation_legend(sets)
    figure.legend(handles=legend, loc="outside lower center", ncols=len(legend))
    figure.suptitle(f"{found['title']}: one thing changed at a time, paired 95 % intervals")
    return write(figure, destination)


def _ablation_legend(sets: Sequence[str]) -> list[Line2D]:
    dot: dict[str, Any] = {"linestyle": "none", "color": OBSERVED}
    hollow = {**dot, "marker": HOLLOW, "markerfacecolor": "white"}
    return [
        *(Line2D([], [], color=COLORS[i % len(COLORS)], label=name) for i, name in enumerate(sets)),
        *(Line2D([], [], marker=marker, label=name, **dot) for name, marker in MARKERS.items()),
        Line2D([], [], label="no difference", **hollow),
        Line2D([], [], marker="|", label="each seed", **dot),
    ]


def _by_effect(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Items by their mean effect over data sets, from the bottom up: the best one last."""
    effects: dict[str, list[float]] = {}
    for row in rows:
        sign = 1.0 if row["unit"] == "%" else -1.0
        value = row["validation"]["value"]
        effects.setdefault(row["item"], []).extend([] if value is None else [sign * value])
    mean = {item: float(np.mean(each)) if each else np.inf for item, each in effects.items()}
    return sorted(effects, key=lambda item: (-mean[item], item))


def _known(paired: Mapping[str, Any] | None) -> bool:
    return paired is not None and paired["value"] is not None


def _told(paired: Mapping[str, Any] | None, smaller: bool) -> str:
    """A colour for what an interval tells; an intervals' lack tells nothing."""
    if paired is None or not _known(paired):
        return INK
    low, high = paired["interval"] or (0.0, 0.0)
    better = high < 0 if smaller else low > 0
    worse = low > 0 if smaller else high < 0
    return COLORS[2] if better else COLORS[1] if worse else OBSERVED


def _panel(axes: Axes, names: Sequence[str], drawn: Sequence[_Drawn], unit: str) -> None:
    """Draw differences, and write out at the edge those that lie too far off."""
    for each in drawn:
        each.draw(axes)
    axes.axvline(0.0, color=INK, linewidth=0.8, zorder=1.5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="y", visible=False)
    known = [(each, each.paired) for each in drawn if each.paired and _known(each.paired)]
    if not known:
        return
    low, high = _near([paired for _, paired in known])
    axes.set_xlim(low, high)
    for each, paired in known:
        value = paired["value"]
        if low <= value <= high:
            continue
        text = f"{value:+.3g}{unit} →" if value > high else f"← {value:+.3g}{unit}"
        edge, side = (high, "right") if value > high else (low, "left")
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        style: dict[str, Any] = {"ha": side, "va": "center", "fontsize": "small", "bbox": box}
        axes.text(edge, each.place, text, color=each.color, **style)


def _seen(paired: Mapping[str, Any]) -> tuple[float, float]:
    """An interval, without most of a side that is many times as long as the other."""
    value = paired["value"]
    low, high = paired["interval"] or (value, value)
    reach = abs(value) + LOPSIDED * min(value - low, high - value)
    return max(low, value - reach), min(high, value + reach)


def _near(known: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Limits in which most differences can be told apart."""
    values = np.abs([each["value"] for each in known])
    reach = FAR * max(float(np.median(values)), 1e-9)
    near = [each for each, value in zip(known, values, strict=True) if value <= reach]
    edges = np.array([_seen(each) for each in near])
    low, high = min(0.0, float(edges.min())), max(0.0, float(edges.max()))
    room = 0.06 * (high - low or 1.0)
    return low - room, high + room
