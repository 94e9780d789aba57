"""What is wrong with time: gaps, missing stretches, joined segments, repeats, clocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from recording.borders import find_regular, find_single
from recording.contract import Events, Finding, Modality, Samples, Series
from recording.repeats import find_repeats
from recording.series_scan import Scan
from recording.stream_health import MEASURED

SHOWN = 12
LEAST_HELD = 0.25  # seconds
SHORT = 64  # samples of an artefact
# A join: the step onto it is JUMP times those of BESIDE samples around, in MOST of the channels.
LOOKED_AT, BESIDE, JUMP, MOST = 200, 8, 1.5, 0.75


def series_findings(name: str, series: Series, scan: Scan) -> Iterator[Finding]:
    """Findings about the samples of one regular series in time."""
    yield from _gaps(name, series)
    yield from _missing(name, series, scan)
    if name == "neural":
        yield from _held(name, series, scan)
        yield from _borders(name, series, scan)
        yield from _repeats(name, series, scan)


def samples_findings(name: str, samples: Samples) -> Iterator[Finding]:
    """Findings about the time stamps of an irregular modality."""
    steps = np.diff(samples.times)
    if len(steps) < 4:
        return
    usual = float(np.median(steps))
    far = np.flatnonzero(steps > 10 * usual)
    if far.size:
        yield Finding(
            "gap",
            f"{far.size} gaps of more than ten usual steps ({usual:.4g} s); the longest lasts "
            f"{steps.max():.3g} s",
            "state how far a measurement holds: {step: align, gap: seconds}",
            name,
            tuple(float(samples.times[at]) for at in far[:SHOWN]),
            level="note",
            steps=({"step": "align", "method": "linear", "gap": float(f"{10 * usual:.2g}")},),
        )
    bare = ~np.isfinite(samples.values).any(axis=1)
    if bare.any():
        yield Finding(
            "missing",
            f"{int(bare.sum())} of {len(bare)} samples have no value",
            "nothing to do: they are left out of what is learned",
            name,
            tuple(float(t) for t in samples.times[bare][:SHOWN]),
            level="note",
        )


def clock_findings(modalities: Mapping[str, Modality], markers: Events | None) -> Iterator[Finding]:
    """Modalities that hardly share a time, which one clock would not give."""
    spans = {name: span for name, one in modalities.items() if (span := _span(one)) is not None}
    if markers is not None and (span := _span(markers)) is not None:
        spans["markers"] = span
    names = list(spans)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            (a, b), (c, d) = spans[first], spans[second]
            shared = min(b, d) - max(a, c)
            shorter = min(b - a, d - c)
            if shared < 0.5 * shorter or (shorter == 0 and shared < 0):
                yield Finding(
                    "clock",
                    f"{first} lasts from {a:.6g} to {b:.6g} s, {second} from {c:.6g} to "
                    f"{d:.6g} s: they share {max(0.0, shared):.3g} s",
                    "check that both are in seconds of one clock; what is apart is not aligned",
                    f"{first}, {second}",
                    (max(a, c),),
                )


def _span(modality: Modality) -> tuple[float, float] | None:
    if isinstance(modality, Events):
        if modality.span is not None:
            return modality.span
        if len(modality) < 2:
            return None
        return float(modality.times[0]), float(modality.stops.max())
    return modality.span


def _gaps(name: str, series: Series) -> Iterator[Finding]:
    pieces = series.pieces
    if len(pieces) < 2:
        return
    ends = np.array([piece.start + len(piece) / series.rate for piece in pieces])
    apart = np.array([piece.start for piece in pieces[1:]]) - ends[:-1]
    far = np.flatnonzero(apart > 1.5 / series.rate)
    if not far.size:
        return
    yield Finding(
        "gap",
        f"{far.size} gaps between pieces, {apart[far].sum():.4g} s together, the longest "
        f"{apart.max():.4g} s",
        "nothing to do: no window and no filter crosses them",
        name,
        tuple(float(ends[at]) for at in far[:SHOWN]),
        level="note",
    )


def _missing(name: str, series: Series, scan: Scan) -> Iterator[Finding]:
    runs = scan.missing_runs
    share = 1 - scan.finite / max(scan.count, 1)
    if not runs or share.min() == 1:
        return
    bad = tuple(c.name for c, lost in zip(series.channels, share, strict=True) if 0 < lost < 1)
    if not bad:
        return
    rows = sum(stop - first for first, stop in runs)
    longest = max(stop - first for first, stop in runs) / series.rate
    yield Finding(
        "missing",
        f"{rows} samples ({100 * rows / scan.count:.2g} %) lack a value of {len(bad)} of "
        f"{len(share)} channels, in {len(runs)} runs of up to {longest:.3g} s",
        "cut it there: no window and no filter crosses what is missing",
        name,
        _times(series, [first for first, _ in runs]),
        bad,
        steps=({"step": "split_missing"},) if name == "neural" else (),
    )


def _held(name: str, series: Series, scan: Scan) -> Iterator[Finding]:
    least = max(8, round(LEAST_HELD * series.rate))
    runs = [(a, b) for a, b in scan.held_runs if b - a >= least]
    total = sum(b - a for a, b in runs)
    if runs and total < 0.95 * scan.count:
        yield Finding(
            "flat",
            f"no channel changes in {len(runs)} stretches, {total / series.rate:.3g} s together: "
            "lost packets or a pause",
            "leave these times out: {step: crop}, or train where none of them is",
            name,
            _times(series, [a - 1 for a, _ in runs]),
        )


def _borders(name: str, series: Series, scan: Scan) -> Iterator[Finding]:
    count = len(series.values)
    regular = find_regular(scan.jumps)
    if regular is not None and not _most_jump(series, regular.starts(count)[1:]):
        regular = None  # a stimulus, or what it leaves in some channels, comes as regularly
    if regular is not None:
        starts = regular.starts(count)
        lengths = f"{regular.length} samples ({regular.length / series.rate:.4g} s) each"
        if regular.first != regular.length:
            lengths = f"the first has {regular.first}, the others {lengths}"
        yield Finding(
            "joined",
            f"not continuous: {len(starts)} segments were joined; {lengths}. The channels jump at "
            f"samples {regular.first} + {regular.length} k ({regular.score:.0f} standard "
            "deviations above chance)",
            "cut it there: no window and no filter crosses a border",
            name,
            _times(series, starts[1:]),
            steps=({"step": "segment", "first": regular.first, "length": regular.length},),
        )
    # A single far value jumps there and back; a change that lasts is no artefact.
    short = [run for run in scan.artefact_runs if run[1] - run[0] <= SHORT]
    avoid = np.array([at for run in short for at in run], np.int64)
    single = find_single(scan.jumps, avoid, regular)
    if single:
        yield Finding(
            "discontinuity",
            f"all channels jump at once in {len(single)} place{'s' if len(single) > 1 else ''} "
            f"(sample{'s' if len(single) > 1 else ''} "
            f"{', '.join(map(str, single[:6]))}{' …' if len(single) > 6 else ''})",
            "look at them in the picture; cut there where something was joined or restarted",
            name,
            _times(series, single),
            steps=({"step": "segment", "starts": [0, *single]},),
        )


def _most_jump(series: Series, borders: list[int]) -> bool:
    """Whether most measuring channels jump at these samples: a join leaves none of them out.

    A channel jumps where its median step onto a border is well above its steps around.
    """
    measuring = [index for index, one in enumerate(series.channels) if one.type in MEASURED]
    step = max(1, len(borders) // LOOKED_AT)
    across, around = [], []
    for border in borders[::step]:
        first = max(0, border - BESIDE)
        values = np.asarray(series.values[first : border + BESIDE], np.float64)
        values = values.reshape(len(values), len(series.channels), -1)[:, measuring, 0]
        steps = np.abs(np.diff(values, axis=0))
        across.append(steps[border - first - 1])
        around.append(np.delete(steps, border - first - 1, axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.nanmedian(across, axis=0) / np.nanmedian(np.concatenate(around), axis=0)
    return bool((ratio > JUMP).mean() >= MOST)


def _repeats(name: str, series: Series, scan: Scan) -> Iterator[Finding]:
    neural = sum(channel.type in MEASURED for channel in series.channels)
    found = find_repeats(scan.hashes, neural)
    if not found:
        return
    lengths = [repeat.length for repeat in found]
    apart = max(repeat.second - repeat.first - repeat.length for repeat in found)
    beside = "neighbouring stretches" if apart <= 0 else "stretches up to "
    if apart > 0:
        beside += f"{apart / series.rate:.4g} s apart"
    yield Finding(
        "duplicate",
        f"{sum(lengths)} samples occur twice, in {len(found)} pairs of {beside} of "
        f"{min(lengths)} to {max(lengths)} samples",
        "keep both of a pair in the same part of the split: by blocks or segments, never shuffled",
        name,
        _times(series, [repeat.second for repeat in found]),
    )


def _times(series: Series, samples: Sequence[int]) -> tuple[float, ...]:
    return tuple(float(series.times(at, at + 1)[0]) for at in samples[:SHOWN])
