"""What is wrong with single channels, from the figures of a scan: grouped, with what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from recording.contract import NEURAL_TYPES, Finding, Series
from recording.pilot import Pilot
from recording.scan import Scan
from recording.streams import ChannelHealth, listed, patterns

ELECTRIC = ("eeg", "ecog", "seeg", "lfp")
MICROVOLTS = {"V": 1e6, "mV": 1e3, "µV": 1.0, "uV": 1.0, "nV": 1e-3}
PLAUSIBLE = (0.5, 2000.0)  # µV of standard deviation
STATES = 16  # a channel with no more different values is a code, not a measurement
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
        code = pilot.distinct[index] <= STATES
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
    yield from _odd(name, channels)
    yield from _clipped(name, channels)
    yield from _twins(name, channels, pilot)
    if name == "neural":
        yield from _artefacts(name, series, pilot, scan, channels)
        yield from _scale(name, channels)
        yield from _no_unit(name, channels)
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


def _odd(name: str, channels: Sequence[ChannelHealth]) -> Iterator[Finding]:
    """Channels whose spread is far from the others' and which do not follow them; white noise."""
    for kind in dict.fromkeys(c.type for c in channels if c.type in NEURAL_TYPES):
        group = [c for c in channels if c.type == kind and not c.flat and c.spread]
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
    return Finding(
        "noisy",
        f"{each}{more}: unlike the other {bad[0].type} channels "
        f"(std {_figure(typical)}{unit}, correlation {follows:.2f}): a bad contact",
        "leave out, before any re-referencing",
        name,
        channels=names,
        steps=_drop(name, names),
    )


def _clipped(name: str, channels: Sequence[ChannelHealth]) -> Iterator[Finding]:
    bad = [c for c in channels if c.type in NEURAL_TYPES and c.clipped > CLIPPED_SHARE]
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
    live = np.array([not c.flat and c.missing < 1 and c.type in NEURAL_TYPES for c in channels])
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
        if 0 < c.artefacts < ARTEFACT_SHARE and c.type in NEURAL_TYPES and c.type != "spikes"
    ]
    if not runs or not bad or any(pilot.distinct[i] <= STATES for i, _ in bad):
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


def _scale(name: str, channels: Sequence[ChannelHealth]) -> Iterator[Finding]:
    """Electric channels of one type and unit whose spread no electrode gives; one per factor."""
    wrong: dict[float, list[tuple[str, list[ChannelHealth], float]]] = {}
    for kind, unit in dict.fromkeys((c.type, c.unit) for c in channels):
        group = [c for c in channels if (c.type, c.unit) == (kind, unit) and c.spread]
        if kind not in ELECTRIC or unit not in MICROVOLTS or not group:
            continue
        spread = float(np.median([c.spread or 0.0 for c in group])) * MICROVOLTS[unit]
        if not PLAUSIBLE[0] <= spread <= PLAUSIBLE[1]:
            # Wrong prefixes are wrong by thousands.
            factor = 10.0 ** (3 * round(np.log10(30.0 / spread) / 3)) * MICROVOLTS[unit]
            wrong.setdefault(float(f"{factor:g}"), []).append((kind, group, spread))
    for factor, groups in wrong.items():
        each = "; ".join(f"{kind} by {spread:.3g} µV" for kind, _, spread in groups)
        after = " and ".join(
            f"{float(np.median([c.spread or 0.0 for c in group])) * factor:.3g} µV"
            for _, group, _ in groups
        )
        names = [c.name for _, group, _ in groups for c in group]
        yield Finding(
            "scale",
            f"as the file states its unit, the channels spread by too much or too little: {each}; "
            f"usual are {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g} µV. The stated unit is probably wrong",
            f"declare it: times {factor:g} the spread is {after}",
            name,
            channels=tuple(names),
            steps=(
                {
                    "step": "declare",
                    "unit": "µV",
                    "factor": factor,
                    "types": list(dict.fromkeys(kind for kind, _, _ in groups)),
                },
            ),
        )


def _no_unit(name: str, channels: Sequence[ChannelHealth]) -> Iterator[Finding]:
    bare = [c for c in channels if not c.unit and c.type not in ("spikes", "stimulus")]
    if not bare:
        return
    electric = [c for c in bare if c.type in ELECTRIC]
    spread = float(np.median([c.spread or 0.0 for c in electric or bare]))
    known = bool(electric) and len(electric) == len(bare)
    likely = known and PLAUSIBLE[0] <= spread <= PLAUSIBLE[1]
    guess = "as µV that would be usual" if likely else "not known to be µV"
    yield Finding(
        "unit",
        f"no unit is stated for {len(bare)} channels ({listed([c.name for c in bare], 3)}); "
        f"they spread by {spread:.3g}" + (f", {guess}" if electric else ""),
        "declare the unit where you know it: {step: declare, unit: µV}",
        name,
        channels=tuple(c.name for c in bare),
        level="note",
        steps=({"step": "declare", "unit": "µV"},) if likely else (),
    )


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
