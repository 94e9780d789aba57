"""Where the channels are, or how they go together where no positions are known."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from recording.health import ChannelHealth, StreamHealth
from recording.style import COLORS, INK

BAD = COLORS[1]
NAMED = 64
TICKS = 24


def positions(channels: tuple[ChannelHealth, ...]) -> np.ndarray | None:
    """Places on the page, (channel, 2) in mm, NaN where unknown; None where most are unknown.

    Sensors around a head are seen from above, rolled out by their distance from the top.
    """
    known = [channel.position is not None for channel in channels]
    if sum(known) < max(3, len(channels) / 2):
        return None
    places = np.array([channel.position or (np.nan,) * 3 for channel in channels], np.float64)
    if np.nanmax(np.nanstd(places, axis=0)) == 0:
        return None
    flat = places[:, :2] * 1000
    if not any(channel.type in ("eeg", "meg", "fnirs") for channel in channels):
        return flat
    across = np.hypot(places[:, 0], places[:, 1])
    radius = np.hypot(across, places[:, 2])
    angle = np.arctan2(across, places[:, 2]) / (np.pi / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        out = np.where(across > 0, angle * np.nanmedian(radius) * 1000 / across, 0.0)
    return np.asarray(places[:, :2] * out[:, None])


def map_of(axes: Axes, channels: tuple[ChannelHealth, ...]) -> None:
    """Channels at their places, coloured by their spread, bad ones ringed."""
    places = positions(channels)
    assert places is not None
    spreads = np.array([channel.spread or np.nan for channel in channels])
    spreads[~(spreads > 0)] = np.nan
    size = float(np.clip(4000 / len(channels), 25, 130))
    # A bad contact would take the whole scale for itself.
    low, high = np.nanquantile(spreads, [0.05, 0.95]) if np.isfinite(spreads).any() else (1, 2)
    dots = axes.scatter(
        places[:, 0],
        places[:, 1],
        c=spreads,
        s=size,
        cmap="viridis",
        norm=LogNorm(low, high if high > low else 1.01 * low),
        edgecolors="white",
        linewidths=0.5,
        plotnonfinite=True,
    )
    bad = np.array([bool(channel.marks) for channel in channels])
    if bad.any():
        axes.scatter(
            places[bad, 0],
            places[bad, 1],
            s=2.2 * size,
            facecolors="none",
            edgecolors=BAD,
            linewidths=1.8,
            label="with a finding",
        )
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.97), borderpad=0.0)
    named: list[np.ndarray] = []
    apart = 0.04 * float(np.nanmax(np.ptp(places[np.isfinite(places).all(axis=1)], axis=0)))
    for channel, place in zip(channels, places, strict=True):
        # One name where several would lie on one another.
        free = all(np.hypot(*(place - other)) > apart for other in named)
        if np.isfinite(place).all() and (channel.marks or (len(channels) <= NAMED and free)):
            named.append(place)
            axes.annotate(
                channel.name,
                place,
                xytext=(0, -(size**0.5) * 0.55),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=6,
                color=BAD if channel.marks else INK,
            )
    assert axes.figure is not None
    bar = axes.figure.colorbar(dots, ax=axes, extend="both")
    units = {channel.unit for channel in channels}
    unit = f" ({units.pop()})" if len(units) == 1 and "" not in units else ""
    bar.set_label(f"spread{unit}")
    bar.ax.yaxis.set_major_formatter("{x:.3g}")
    bar.ax.yaxis.set_minor_formatter("{x:.2g}")
    bar.ax.tick_params(which="both", labelsize=7)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.12)
    axes.set_title("channels", loc="left")
    axes.set_xlabel("x (mm)")
    axes.set_ylabel("y (mm)")


def correlations(axes: Axes, stream: StreamHealth) -> None:
    """Correlation between the channels, those with a finding marked."""
    assert stream.correlation is not None
    image = axes.imshow(stream.correlation, cmap="PuOr", vmin=-1, vmax=1, interpolation="nearest")
    assert axes.figure is not None
    axes.figure.colorbar(image, ax=axes, label="correlation")
    count = len(stream.channels)
    every = -(-count // TICKS)
    shown = [i for i in range(count) if i % every == 0]
    names = [stream.channels[index].name for index in shown]
    axes.set_yticks(shown, names, fontsize=7)
    axes.set_xticks(shown, names, fontsize=7, rotation=90)
    for labels in (axes.get_yticklabels(), axes.get_xticklabels()):
        for label, index in zip(labels, shown, strict=True):
            label.set_color(BAD if stream.channels[index].marks else INK)
    axes.grid(visible=False)
    axes.set_title("correlation of the channels", loc="left")
