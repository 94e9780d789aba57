"""Electric potentials: whether their spread can be what a header says it is."""

from __future__ import annotations

import numpy as np

from recording.contract import Finding, Series

# Standard deviations over two seconds, in µV, of what electrodes on or in a brain give.
PLAUSIBLE = (0.5, 2000.0)
ELECTRIC = ("eeg", "ecog", "seeg", "lfp")
_FACTORS = (1e-6, 1e-3, 1.0, 1e3, 1e6)
_BLOCKS, _SECONDS = 8, 2.0


def scale_findings(series: Series) -> list[Finding]:
    """What the spread of a sample of blocks says about the unit: wrong, or not stated at all."""
    judged = [i for i, c in enumerate(series.channels) if c.type in ELECTRIC]
    stated = [i for i in judged if series.channels[i].unit == "µV"]
    unstated = [i for i, c in enumerate(series.channels) if not c.unit]
    if not stated and not unstated:
        return []
    spread = _spread(series)
    findings = []
    by_factor: dict[tuple[float, ...], list[int]] = {}
    for kind in dict.fromkeys(series.channels[i].type for i in stated):
        columns = [i for i in stated if series.channels[i].type == kind]
        median = _median(spread[columns])
        if median is not None and not _plausible(median):
            by_factor.setdefault(_better(median), []).extend(columns)
    for factors, columns in by_factor.items():
        findings.append(_scale(series, columns, spread, factors, whole=columns == stated))
    if unstated:
        findings.append(_unit(series, unstated, judged, spread))
    return findings


def _scale(
    series: Series, columns: list[int], spread: np.ndarray, factors: tuple[float, ...], whole: bool
) -> Finding:
    kinds = list(dict.fromkeys(series.channels[i].type for i in columns))
    text = (
        f"by the file, {' and '.join(kinds)} channels have standard deviations of "
        f"{_range(spread[columns])} µV; electrodes give {PLAUSIBLE[0]:g}–{PLAUSIBLE[1]:g} µV"
    )
    chosen = tuple(series.channels[i].name for i in columns)
    if not factors:
        remedy = "find out the unit and declare it: {step: declare, unit: µV, factor: …}"
        return Finding("scale", text, remedy, "neural", channels=chosen)
    better = " or ".join(f"{f:g} ({_range(spread[columns] * f)} µV)" for f in factors)
    step: dict[str, object] = {"step": "declare", "unit": "µV", "factor": factors[0]}
    if not whole:
        step["types"] = kinds
    types = "" if whole else f", types: [{', '.join(kinds)}]"
    return Finding(
        "scale",
        f"{text}; plausible with a factor of {better}",
        f"if the header is wrong, begin the preparation with {{step: declare, unit: µV, "
        f"factor: {factors[0]:g}{types}}}",
        "neural",
        channels=chosen,
        steps=(step,),
    )


def _unit(series: Series, columns: list[int], judged: list[int], spread: np.ndarray) -> Finding:
    names = tuple(series.channels[i].name for i in columns)
    median = _median(spread[[i for i in columns if i in judged] or columns])
    factor, odd = 1.0, False
    if median is not None and not _plausible(median):
        factor, odd = next(iter(_better(median)), 1.0), True
    step: dict[str, object] = {"step": "declare", "unit": "µV", "factor": factor}
    if len(columns) < len(series.channels):
        step["names"] = list(names)
    fit = "not plausible" if odd else "plausible"
    return Finding(
        "unit",
        f"the file states no unit for {len(columns)} of {len(series.channels)} channels; "
        f"standard deviations of {_range(spread[columns])} are {fit} as µV",
        f"declare it: {{step: declare, unit: µV, factor: {factor:g}}}",
        "neural",
        channels=names,
        level="warning" if odd else "note",
        steps=(step,),
    )


def _spread(series: Series) -> np.ndarray:
    """Median over some blocks of each channel's standard deviation: (channel,), NaN where flat."""
    total = len(series.values)
    size = min(total, max(2, round(_SECONDS * series.rate)))
    starts = sorted({round(at) for at in np.linspace(0, total - size, _BLOCKS)})
    stds = np.full((len(starts), len(series.channels)), np.nan)
    for row, start in enumerate(starts):
        block = np.asarray(series.values[start : start + size], np.float64)
        counts = np.isfinite(block).all(axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            stds[row, counts] = block[:, counts].std(axis=0)
    stds[~(np.isfinite(stds) & (stds > 0))] = np.nan
    return np.array([np.nan if (m := _median(column)) is None else m for column in stds.T])


def _median(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else None


def _plausible(value: float) -> bool:
    return PLAUSIBLE[0] <= value <= PLAUSIBLE[1]


def _better(value: float) -> tuple[float, ...]:
    """Factors that make the value plausible, the one nearest to the middle of the range first."""
    middle = np.sqrt(PLAUSIBLE[0] * PLAUSIBLE[1])
    found = [factor for factor in _FACTORS if _plausible(value * factor)]
    return tuple(sorted(found, key=lambda factor: abs(np.log(value * factor / middle))))


def _range(values: np.ndarray) -> str:
    values = values[np.isfinite(values)]
    if not values.size:
        return "0"
    low, high = f"{values.min():.2g}", f"{values.max():.2g}"
    return low if low == high else f"{low}–{high}"
