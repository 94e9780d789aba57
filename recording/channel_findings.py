"""What is wrong with single channels, from the figures of a scan: grouped, with what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from recording.contract import Finding, Series
from recording.readers.potential_scale import ELECTRIC
from recording.series_sample import Pilot
from recording.series_scan import Scan
from recording.stream_health import MEASURED, STATES, ChannelHealth, listed, patterns
from recording.unit_findings import unit_findings

CLIPPED_SHARE = 5e-4
ARTEFACT_SHARE = 0.01
LEAST_AVERAGES = 8  # spectra of fewer stretches have peaks by chance
FEWEST = 6  # channels that can be compared with one another


def channel_figures(series: Series, pilot: Pilot, scan: Scan) -> tuple[ChannelHealth, ...]:
    """Figures of every channel."""
    types = np.array([channel.type for channel in series.channels])
    found = []
    for index, channel in enumerate(series.channels):
        count = scan.finite[index]
        base = ChannelHealth(channel.name, channel.type, channel.unit, position=channel.position)
        if not count:
            found.append(replace(base, missing=1.0))
            continue
        mean = scan.total[index] / count
        std = float(np.sqrt(max(0.0, scan.squares[index] / count - mean**2)))
        low, high = float(scan.minimum[index]), float(scan.maximum[index])
        flat = high - low <= 1e-9 * max(abs(low), abs(high))
        others = (types == channel.type) & (np.arange(len(types)) != index)
        held = scan.at_minimum[index] + scan.at_maximum[index]
        code = not flat and channel.type != "spikes" and bool(pilot.distinct[index] <= STATES)
        found.append(
            replace(
                base,
                minimum=low,
                maximum=high,
                mean=float(mean + pilot.median[index]),
                std=std,
                spread=float(pilot.spread[index]),
                missing=float(1 - count / scan.count),
                clipped=0.0 if flat or code or held < 10 else float(held / count),
                artefacts=float(scan.artefacts[index] / count),
                flat=flat,
                code=code,
                noise_ratio=None if flat else float(pilot.noise_ratio[index]),
                correlation=(
                    float(np.abs(pilot.correlation[index, others]).mean()) if others.any() else None
                ),
            )
        )
    return tuple(found)


def channel_findings(
    name: str, series: Series, pilot: Pilot, scan: Scan, channels: Sequence[ChannelHealth]
) -> Iterator[Finding]:
    """Findings about the channels of one regular series."""
    yield from _flat(name, channels)
    if name == "neural":
        yield from _codes(name, channels)
        yield from _odd(name, channels)
        yield from _clipped(name, channels)
        yield from _twins(name, channels, pilot)
        yield from _artefacts(name, series, pilot, scan, channels)
        yield from unit_findings(name, channels)
        yield from _mains(name, series, pilot, scan.count)


def _flat(name: str, channels: Sequence[ChannelHealth]) -> Iterator[Finding]:
    empty = tuple(c.name for c in channels if c.missing == 1)
    if empty:
        yield Finding(
            "missing", f"{listed(empty)}: no value at all", "leave out", name, channels=empty,
            steps=_drop(name, empty),
        )  # fmt: skip
    flat = [c for c in channels if c.flat]
    if flat:
        names = tuple(c.name for c in flat)
        values = sorted({_figure(c.minimum) for c in flat})
        unit = f" {flat[0].unit}" if flat[0].unit else ""
        yield Finding(
            "flat",
            f"{listed(names)}: the same value throughout ({listed(values, 3)}{unit})",
            "leave out: nothing can be learned from a channel that never changes",
            name,
            channels=names,
            steps=_drop(name, names),
        )


def _codes(name: str, channels: Sequence[ChannelHealth]) -> Iterator[Finding]:
    codes = tuple(c.name for c in channels if c.code and c.type in MEASURED)
    if codes:
        yield Finding(
            "code",
            f"{listed(codes)}: few different values: states or labels, not a signal",
            "take them out of what is modelled, as behaviour",
            name,
            channels=codes,
            level="note",
            steps=({"step": "behavior", "channels": patterns(codes)},),
        )


def _odd(name: str, channels: Sequence[ChannelHealth]) -> Iterator[Finding]:
    """Channels whose spread is far from the others' and which do not follow them; white noise."""
    for kind in dict.fromkeys(c.type for c in channels if c.type in MEASURED):
        group = [c for c in channels if c.type == kind and not (c.flat or c.code) and c.spread]
        if len(group) < FEWEST:
            continue
        spreads = np.log([c.spread or 1.0 for c in group])
        follows = np.array([c.correlation or 0.0 for c in group])
        noise = np.array([c.noise_ratio or 0.0 for c in group])
        away = spreads - np.median(spreads)
        usual = max(1.4826 * float(np.median(np.abs(away))), 0.1)
        alone = follows < 0.5 * np.median(follows)
        beyond = np.abs(away) > max(np.log(3.0), 4 * usual)
        extreme = np.abs(away) > max(np.log(12.0), 5 * usual)
        white = (noise > 0.8) & (np.median(noise) < 0.5) & alone
        bad = [c for c, odd in zip(group, (beyond & alone) | extreme | white, strict=True) if odd]
        if bad and len(bad) <= len(group) // 3:
            yield _odd_finding(name, bad, group, float(np.median(follows)))


def _odd_finding(
    name: str, bad: list[ChannelHealth], group: list[ChannelHealth], follows: float
) -> Finding:
    typical = float(np.median([c.std or 0.0 for c in group]))
    unit = f" {bad[0].unit}" if bad[0].unit else ""
    each = "; ".join(
        f"{c.name} (std {_figure(c.std)}{unit}, correlation {c.correlation or 0:.2f})"
        for c in bad[:4]
    )
    more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
    names = tuple(c.name for c in bad)
    kind = "" if bad[0].type == "other" else f"{bad[0].type} "
    return Finding(
        "noisy",
        f"{each}{more}: unlike the other {kind}channels "
        f"(std {_figure(typical)}{unit}, correlation {follows:.2f}): a bad contact",
        "leave out, before any re-referencing",
        name,
        channels=names,
        steps=_drop(name, names),
    )


def _clipped(name: str, channels: Sequence[ChannelHealth]) -> Iterator[Finding]:
    bad = [c for c in channels if c.type in MEASURED and c.clipped > CLIPPED_SHARE]
    if bad:
        worst = max(bad, key=lambda c: c.clipped)
        names = tuple(c.name for c in bad)
        yield Finding(
            "clipped",
            f"{listed(names)}: held at the least or greatest value, {worst.name} "
            f"{100 * worst.clipped:.2g} % of the time ({_figure(worst.minimum)} … "
            f"{_figure(worst.maximum)}): the amplifier was at its limit",
            "leave out, or keep and know that what was beyond the limit is lost",
            name,
            channels=names,
            steps=_drop(name, names) if worst.clipped > 0.05 else (),
        )


def _twins(name: str, channels: Sequence[ChannelHealth], pilot: Pilot) -> Iterator[Finding]:
    live = np.array(
        [not (c.flat or c.code) and c.missing < 1 and c.type in MEASURED for c in channels]
    )
    same = np.triu(np.abs(pilot.correlation) > 1 - 1e-9, 1) & live & live[:, None]
    if not same.any():
        return
    pairs = [(channels[i].name, channels[j].name) for i, j in np.argwhere(same)]
    names = tuple(dict.fromkeys(second for _, second in pairs))
    yield Finding(
        "duplicate",
        f"the same signal twice: {listed([f'{b} = {a}' for a, b in pairs], 4)}",
        "leave the second ones out",
        name,
        channels=names,
        steps=_drop(name, names),
    )


def _artefacts(
    name: str, series: Series, pilot: Pilot, scan: Scan, channels: Sequence[ChannelHealth]
) -> Iterator[Finding]:
    runs = scan.artefact_runs
    bad = [
        (i, c)
        for i, c in enumerate(channels)
        if 0 < c.artefacts < ARTEFACT_SHARE
        and not c.code
        and c.type in MEASURED
        and c.type != "spikes"
    ]
    if not runs or not bad:
        return
    rows = sum(stop - first for first, stop in runs)
    far = max(
        max(abs((c.minimum or 0) - pilot.median[i]), abs((c.maximum or 0) - pilot.median[i]))
        for i, c in bad
    )
    typical = float(np.nanmedian(pilot.spread))
    by = clip_limit(pilot)
    names = tuple(c.name for _, c in bad)
    unit = f" {channels[0].unit}" if channels[0].unit else ""
    times = [float(series.times(first, first + 1)[0]) for first, _ in runs[:12]]
    yield Finding(
        "artefact",
        f"{rows} samples in {len(runs)} places up to {far:.2g}{unit} from the median of channels "
        f"that spread by {typical:.2g}{unit}: {listed(names)}",
        f"clip to the median of the train part ± {by:g}",
        name,
        tuple(times),
        names,
        steps=({"step": "clip", "around": "median", "by": by},),
    )


def clip_limit(pilot: Pilot) -> float:
    """A round distance from the median that some 0.1 % of the values exceed."""
    least = 5 * float(np.nanmax(np.where(np.isfinite(pilot.spread), pilot.spread, 0.0)))
    return _round(max(pilot.typical, least))


def _mains(name: str, series: Series, pilot: Pilot, count: int) -> Iterator[Finding]:
    spectrum = pilot.spectrum
    if spectrum is None or count < LEAST_AVERAGES * len(spectrum.frequencies):
        return
    found: dict[float, list[tuple[str, float]]] = {50.0: [], 60.0: []}
    for index, channel in enumerate(series.channels):
        if channel.type in (*ELECTRIC, "meg") and pilot.levels[index].max() > 0:
            for mains, each in found.items():
                level = mains_level(spectrum.frequencies, pilot.levels[index], mains)
                if level is not None:
                    each.append((channel.name, level))
    for mains, levels in found.items():
        high = [(n, level) for n, level in levels if level > 6]
        low = [level for _, level in levels if level < -6]
        if len(high) >= max(1, len(levels) // 10):
            names = tuple(n for n, _ in high)
            yield Finding(
                "line",
                f"mains at {mains:g} Hz, up to {max(level for _, level in high):.0f} dB above its "
                f"surroundings, in {len(high)} of {len(levels)} channels",
                f"a notch filter: {{step: notch, frequency: {mains:g}}}",
                name,
                channels=names,
                level="note",
                steps=({"step": "notch", "frequency": mains},),
            )
        elif levels and len(low) > len(levels) / 2:
            yield Finding(
                "line",
                f"a notch filter was applied at {mains:g} Hz "
                f"({-float(np.median(low)):.0f} dB below its surroundings)",
                f"nothing to do; a model cannot learn anything about {mains:g} Hz",
                name,
                level="note",
            )


def mains_level(frequencies: np.ndarray, power: np.ndarray, mains: float) -> float | None:
    """dB of the power within 1 Hz of `mains` over that 2 to 7 Hz away; None where not resolved."""
    if len(frequencies) < 8 or frequencies[1] > 1.1 or frequencies[-1] < mains + 1.5:
        return None
    apart = np.abs(frequencies - mains)
    here, around = power[apart <= 1.0], power[(apart >= 2.0) & (apart <= 7.0)]
    peak, level = float(here.max()), float(np.median(around))
    dip = float(here.min())
    if level <= 0 or dip <= 0:
        return None
    return 10 * float(np.log10(peak / level if peak > 2 * level else dip / level))


def _drop(name: str, names: tuple[str, ...]) -> tuple[dict[str, object], ...]:
    return ({"step": "drop", "names": patterns(names)},) if name == "neural" else ()


def _round(value: float) -> float:
    """The nearest of 1, 1.5, 2, 3, 5, 7.5 times a power of ten."""
    if not value > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    steps = np.array([1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0])
    return float(steps[np.argmin(np.abs(np.log(steps * power / value)))] * power)


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
