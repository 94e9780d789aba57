"""The picture of a recording: traces, spectra, events, behaviour, and where the channels are."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from recording.behavior_findings import position_groups
from recording.channel_maps import correlations, map_of, positions
from recording.contract import Events, Recording, Samples, Series
from recording.event_pictures import CURVES, curves, event_rows, path, raster, titled
from recording.health import ChannelHealth, Health, StreamHealth
from recording.series_sample import plane
from recording.style import COLORS, DPI, INK, MUTED, STYLE

TRACES = 10
TRACE_SAMPLES = 2000
BAD = COLORS[1]

Panel = tuple[float, Callable[[Axes], None]]  # its width among the others of its row
Row = tuple[float, list[Panel]]


def draw(recording: Recording, health: Health, destination: Path) -> Path:
    """Draw a recording and what its health check found as a PNG file.

    The bytes depend on the recording alone; nothing half-written is left behind.
    """
    rows = _rows(recording, health)
    heights = [height for height, _ in rows]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 0.5 + sum(heights)), layout="constrained")
        # Each row lays out its own panels, so that a colour bar in one moves nothing in another.
        strips = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
        for strip, (_, panels) in zip(strips, rows, strict=True):
            widths = [width for width, _ in panels]
            axes = strip.subplots(1, len(panels), width_ratios=widths, squeeze=False)[0]
            for one, (_, drawing) in zip(axes, panels, strict=True):
                drawing(one)
        figure.suptitle(_title(health), x=0.01, ha="left", fontsize=12)
        return _write(figure, destination)


def _title(health: Health) -> str:
    parts = [health.source, health.format]
    parts += [health.subject and f"subject {health.subject}", f"session {health.session}"]
    return " · ".join(part for part in parts if part)


def _rows(recording: Recording, health: Health) -> list[Row]:
    """What this recording has to show: height of each row, and its panels with their widths."""
    rows: list[Row] = []
    span = _span(health)
    neural, stream = recording.modalities.get("neural"), health.stream("neural")
    if isinstance(neural, Series):
        rows.append(
            (3.6, [(1, partial(_traces, recording=recording, series=neural, health=health))])
        )
    spikes = recording.modalities.get("spikes")
    if isinstance(spikes, Events) and len(spikes):
        drawing = partial(raster, events=spikes, title="spikes", kind="unit", span=span)
        rows.append((3.0, [(1, drawing)]))
    events = event_rows(recording)
    if events is not None:
        both = recording.trials is not None and recording.markers is not None
        title = "trials and markers" if both else "markers" if recording.markers else "trials"
        drawing = partial(raster, events=events, title=title, kind="", span=span)
        rows.append((1.1 + 0.2 * min(10, len(events.names)), [(1, drawing)]))
    behavior = recording.modalities.get("behavior")
    if isinstance(behavior, Series | Samples):
        count = min(CURVES, len(behavior.channels))
        panels: list[Panel] = [(2, partial(curves, behavior=behavior, span=span))]
        if groups := position_groups(behavior.channels):
            panels.append((1, partial(path, behavior=behavior, group=groups[0])))
        rows.append((3.0 if groups else 1.0 + 0.7 * count, panels))
    if isinstance(neural, Series) and stream is not None:
        panels = []
        if stream.spectrum is not None and stream.spectrum.power:
            panels.append((1, partial(_spectra, stream=stream)))
        if positions(stream.channels) is not None:
            panels.append((1, partial(map_of, channels=stream.channels)))
        elif len(stream.channels) > 1:
            panels.append((1, partial(correlations, stream=stream)))
        if panels:
            rows.append((3.8, panels))
    return rows or [(1.5, [(1, _nothing)])]


def _span(health: Health) -> tuple[float, float]:
    """From the first to the last second of any stream."""
    spans = [(stream.start, stream.stop) for stream in health.streams]
    return min((a for a, _ in spans), default=0.0), max((b for _, b in spans), default=1.0)


def _traces(axes: Axes, recording: Recording, series: Series, health: Health) -> None:
    stream = health.stream("neural")
    assert stream is not None
    chosen = _choose(stream.channels)
    start = _trace_start(recording, series)
    stop = min(len(series.values), start + TRACE_SAMPLES)
    values, times = plane(series, start, stop), series.times(start, stop)
    borders = [p.first for p in series.pieces if start < p.first < stop]
    borders += _found_borders(health, start, stop)
    gaps = _gaps(stream.channels)
    for row, index in enumerate(chosen):
        channel = stream.channels[index]
        gap = gaps[channel.type]
        column = values[:, index]
        middle = np.median(column[np.isfinite(column)]) if np.isfinite(column).any() else 0.0
        line = np.clip((column - middle) / gap, -1.4, 1.4) - row
        line, moments = (
            np.insert(line, _at(borders, start), np.nan),
            _insert_at(times, borders, start),
        )
        color = BAD if channel.marks else COLORS[0] if row % 2 == 0 else INK
        axes.plot(moments, line, color=color, linewidth=0.7)
    ends = series.times(stop - 1, stop)[0] + 1 / series.rate
    axes.set_xlim(times[0], ends)
    axes.set_ylim(-len(chosen) + 0.1, 0.9)
    for border in borders:
        label = "border of segments" if border == borders[0] else None
        axes.axvline(
            series.times(border, border + 1)[0], color=MUTED, ls="--", lw=1.0, zorder=0, label=label
        )
    _moments(axes, recording, times[0], ends)
    axes.set_yticks(-np.arange(len(chosen)), [stream.channels[i].name for i in chosen])
    for tick, index in zip(axes.get_yticklabels(), chosen, strict=True):
        tick.set_color(BAD if stream.channels[index].marks else INK)
    apart = ", ".join(_apart(stream, kind, gap) for kind, gap in gaps.items())
    titled(axes, f"traces; from line to line: {apart}", "time (s)", "channel")
    _legend(axes, any(stream.channels[i].marks for i in chosen))


def _apart(stream: StreamHealth, kind: str, gap: float) -> str:
    units = {channel.unit for channel in stream.channels if channel.type == kind}
    unit = next(iter(units)) if len(units) == 1 else ""
    return f"{kind} {gap:.3g} {unit or '(no unit)'}"


def _choose(channels: tuple[ChannelHealth, ...]) -> list[int]:
    """Some channels that a finding names, and others spread over all of them."""
    bad = [index for index, channel in enumerate(channels) if channel.marks]
    bad = bad if len(bad) <= 3 else []
    codes = [index for index, channel in enumerate(channels) if channel.code or channel.flat]
    rest = [index for index in range(len(channels)) if index not in (*bad, *codes)]
    count = min(len(rest), TRACES - len(bad))
    places = np.linspace(0, max(0, len(rest) - 1), count).round().astype(int)
    return sorted(bad + [rest[place] for place in places]) or list(range(len(channels)))[:TRACES]


def _gaps(channels: tuple[ChannelHealth, ...]) -> dict[str, float]:
    """Distance between traces of each type, in its unit: six times the usual spread, rounded."""
    gaps = {}
    for kind in dict.fromkeys(channel.type for channel in channels):
        spreads = [c.spread or c.std or 0.0 for c in channels if c.type == kind]
        gaps[kind] = float(f"{6 * float(np.median(spreads)):.2g}") or 1.0
    return gaps


def _trace_start(recording: Recording, series: Series) -> int:
    """The first sample, or one second before the first marker where that comes much later."""
    if recording.markers is None or not len(recording.markers):
        return 0
    seconds = TRACE_SAMPLES / series.rate
    first = float(recording.markers.times[0]) - seconds / 10
    for piece in series.pieces:
        at = round((first - piece.start) * series.rate)
        if TRACE_SAMPLES // 2 < piece.first + at < piece.stop and 0 <= at < len(piece):
            return min(piece.first + at, max(0, len(series.values) - TRACE_SAMPLES))
    return 0


def _found_borders(health: Health, start: int, stop: int) -> list[int]:
    borders = []
    for finding in health.findings:
        for step in finding.steps:
            if step.get("step") == "segment" and "length" in step:
                every = range(step["first"], stop, step["length"])
                borders += [at for at in every if at > start]
            elif step.get("step") == "segment":
                borders += [at for at in step.get("starts", ()) if start < at < stop]
    return borders


def _at(borders: list[int], start: int) -> list[int]:
    return [border - start for border in borders]


def _insert_at(times: np.ndarray, borders: list[int], start: int) -> np.ndarray:
    places = _at(borders, start)
    return np.insert(times, places, times[places])


def _moments(axes: Axes, recording: Recording, start: float, stop: float) -> None:
    """Markers as lines with their kind on top, trials as shades of their class."""
    trials, markers = recording.trials, recording.markers
    if trials is not None:
        shown: set[int] = set()
        for at, end, kind in zip(trials.times, trials.stops, trials.kinds, strict=True):
            if at < stop and end > start:
                label = None if kind in shown else trials.names[kind]
                shown.add(int(kind))
                color = COLORS[(kind + 2) % len(COLORS)]
                axes.axvspan(
                    max(at, start), min(end, stop), color=color, alpha=0.12, lw=0, label=label
                )
    if markers is None:
        return
    order = np.argsort(-np.bincount(markers.kinds, minlength=len(markers.names)), kind="stable")
    for place, kind in enumerate(order[:4]):
        inside = (markers.kinds == kind) & (markers.times >= start) & (markers.times < stop)
        color = COLORS[(place + 2) % len(COLORS)]
        for count, at in enumerate(markers.times[inside][:80]):
            axes.axvline(
                at, color=color, lw=1.2, zorder=1, label=None if count else markers.names[kind]
            )


def _legend(axes: Axes, bad: bool) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if bad:
        handles.append(mpl.lines.Line2D([], [], color=BAD))
        labels.append("channel with a finding")
    if handles:
        axes.legend(
            handles[:8],
            labels[:8],
            loc="lower right",
            bbox_to_anchor=(1.0, 0.98),
            ncols=8,
            handlelength=1.2,
            columnspacing=1.2,
        )


def _spectra(axes: Axes, stream: StreamHealth) -> None:
    spectrum = stream.spectrum
    assert spectrum is not None
    inside = spectrum.frequencies > 0
    for place, (kind, power) in enumerate(spectrum.power.items()):
        style = ("-", "--", ":")[place // len(COLORS) % 3]
        axes.plot(
            spectrum.frequencies[inside],
            power[inside],
            color=COLORS[place % len(COLORS)],
            linestyle=style,
            linewidth=1.3,
            label=kind,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for mains in (50.0, 60.0):
        if mains < spectrum.frequencies[-1]:
            axes.axvline(mains, color=MUTED, ls=":", lw=1.0, zorder=0)
            axes.text(
                mains,
                0.02,
                f" {mains:g} ",
                transform=axes.get_xaxis_transform(),
                ha="right" if mains == 50 else "left",
                va="bottom",
                fontsize=7,
                color="#666666",
            )
    axes.xaxis.set_major_formatter("{x:g}")
    if spectrum.frequencies[-1] < 100 * spectrum.frequencies[1]:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend()
    unit = f"{stream.unit}²/Hz" if stream.unit not in ("", "mixed") else "unit²/Hz"
    titled(axes, "power spectra: median of the channels", "frequency (Hz)", f"power ({unit})")


def _nothing(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, "nothing that can be drawn", ha="center", va="center", color=INK)


def _write(figure: Figure, destination: Path) -> Path:
    stream = io.BytesIO()
    # Without this, the library's version would be in the file.
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    beside = destination.with_name(f"{destination.name}.tmp-{os.getpid()}")
    beside.write_bytes(stream.getvalue())
    beside.rename(destination)
    return destination
