"""A small part of a series, spread over all of it: what is usual there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from recording.contract import Series
from recording.stream_health import MEASURED, STATES, Spectrum

PILOT_BYTES = 24 * 2**20
PILOT_STRETCHES = 32
BLOCK_BYTES = 8 * 2**20
READ_BYTES = 200 * 10**6
READ_STRETCHES = 24


@dataclass(frozen=True, eq=False)
class Pilot:
    """Figures of a small part of a series; every array has one entry per channel.

    median, spread (1.4826 × MAD) in the channels' units; typical: 99.9 % of |x - median| of all
    channels are below it; distinct: different values, up to 100; noise_ratio: see
    ChannelHealth; correlation (channel, channel); whitening (channel, component): of steps from
    sample to sample divided by `step`, their own spread.
    """

    median: np.ndarray
    spread: np.ndarray
    typical: float
    distinct: np.ndarray
    noise_ratio: np.ndarray
    correlation: np.ndarray
    step: np.ndarray
    whitening: np.ndarray
    spectrum: Spectrum | None
    levels: np.ndarray
    """(channel, frequency) power, empty without a spectrum."""


def parts(series: Series, *, full: bool = False, limit: int = READ_BYTES) -> list[tuple[int, int]]:
    """Samples [start, stop) to read: all of them, or of a long series evenly spread stretches.

    None crosses a border of a piece; together they are at most `limit` bytes unless `full`.
    """
    count, width = len(series.values), _sample_bytes(series)
    if full or count * width <= limit:
        wanted = [(0, count)]
    else:
        length = max(1, limit // width // READ_STRETCHES)
        firsts = np.linspace(0, count - length, READ_STRETCHES).astype(np.int64)
        wanted = [(int(first), int(first) + length) for first in firsts]
    return [part for start, stop in wanted for part in _inside(series, start, stop)]


def block_parts(series: Series, wanted: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same parts in blocks of a few MB."""
    size = max(64, BLOCK_BYTES // _sample_bytes(series))
    for start, stop in wanted:
        for at in range(start, stop, size):
            yield at, min(at + size, stop)


def plane(series: Series, start: int, stop: int) -> np.ndarray:
    """Samples [start, stop) of the first feature: (time, channel) float64."""
    with np.errstate(invalid="ignore"):
        # Added to, a signalling NaN is a quiet one, of which nobody warns.
        values = np.asarray(series.values[start:stop], np.float64) + 0.0
    return values[:, :, 0] if values.ndim == 3 else values


def take_pilot(series: Series) -> Pilot:
    """Read a small part of a series and take its figures."""
    stretches = [plane(series, *part) for part in _pilot_parts(series)]
    values = np.concatenate(stretches)
    with np.errstate(invalid="ignore"):
        median = _columns(values, lambda x: float(np.median(x)))
        away = np.abs(values - median)
    spread = _columns(away, lambda x: 1.4826 * float(np.median(x)))
    std = _columns(values, lambda x: float(np.std(x)))
    spread = np.where(spread > 0, spread, std)
    steps = np.concatenate([np.diff(stretch, axis=0) for stretch in stretches])
    calm = np.clip(values - median, -6 * spread, 6 * spread)
    calm_std = _columns(calm, lambda x: float(np.std(x)))
    step_rms = _columns(
        np.clip(steps, -12 * spread, 12 * spread), lambda x: float(np.sqrt(np.mean(x * x)))
    )
    distinct = np.array([min(100, np.unique(column[:20000]).size) for column in values.T])
    measured = np.array([channel.type in (*MEASURED, "eog") for channel in series.channels])
    step, whitening = _whitening(steps, measured & (distinct > STATES))
    spectrum, levels = _spectra(series, stretches, median, spread)
    return Pilot(
        median,
        spread,
        float(np.nanquantile(away, 0.999)) if np.isfinite(away).any() else 0.0,
        distinct,
        step_rms / np.where(calm_std > 0, calm_std * np.sqrt(2), 1),
        _correlation(calm),
        step,
        whitening,
        spectrum,
        levels,
    )


def _pilot_parts(series: Series) -> list[tuple[int, int]]:
    count = len(series.values)
    budget = max(4096, PILOT_BYTES // (8 * series.values.shape[1]))
    if count <= budget:
        return _inside(series, 0, count)
    length = max(64, budget // PILOT_STRETCHES)
    firsts = np.linspace(0, count - length, PILOT_STRETCHES).astype(np.int64)
    return [part for first in firsts for part in _inside(series, int(first), int(first) + length)]


def _inside(series: Series, start: int, stop: int) -> list[tuple[int, int]]:
    """[start, stop) cut at the borders of pieces."""
    firsts = np.array([piece.first for piece in series.pieces])
    inner = firsts[(firsts > start) & (firsts < stop)].tolist()
    edges = [start, *inner, stop]
    return list(pairwise(edges))


def _sample_bytes(series: Series) -> int:
    return int(np.prod(series.values.shape[1:])) * max(4, series.values.dtype.itemsize)


def _columns(values: np.ndarray, figure: Callable[[np.ndarray], float]) -> np.ndarray:
    """The figure of every column's finite values, NaN where it has none."""
    found = np.full(values.shape[1], np.nan)
    for index, column in enumerate(values.T):
        finite = column[np.isfinite(column)]
        if finite.size:
            found[index] = figure(finite)
    return found


def _correlation(calm: np.ndarray) -> np.ndarray:
    """|r| between channels, samples with a missing value left out; 0 for constant channels."""
    whole = np.isfinite(calm)
    usable = whole.mean(axis=0) > 0.2
    rows = calm[whole[:, usable].all(axis=1)] if usable.any() else calm[:0]
    matrix = np.zeros((calm.shape[1],) * 2)
    if not usable.any() or len(rows) < 8:
        return matrix
    centred = np.where(usable, rows - rows.mean(axis=0), 0.0)
    norm = np.sqrt((centred**2).sum(axis=0))
    scaled = centred / np.where(norm > 0, norm, 1)
    return np.asarray(scaled.T @ scaled)


def _whitening(steps: np.ndarray, measured: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(steps):
        return np.full(steps.shape[1], np.inf), np.zeros((steps.shape[1], 0))
    finite = np.where(np.isfinite(steps), steps, 0.0)
    step = 1.4826 * np.median(np.abs(finite), axis=0)
    step = np.where(step > 0, step, np.std(finite, axis=0))
    step = np.where((step > 0) & measured, step, np.inf)
    scaled = np.clip(finite / step, -6, 6)
    values, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    # Channels that are sums of others leave directions without variance.
    kept = values > 1e-4 * values[-1]
    return step, vectors[:, kept] / np.sqrt(values[kept])


def _spectra(
    series: Series, stretches: list[np.ndarray], median: np.ndarray, spread: np.ndarray
) -> tuple[Spectrum | None, np.ndarray]:
    """Welch spectra at a resolution of about 0.5 Hz, outliers clipped; mean dB per type."""
    from scipy.signal import welch

    none = np.zeros((len(series.channels), 0))
    types = [channel.type for channel in series.channels]
    if not any(kind in MEASURED and kind != "spikes" for kind in types):
        return None, none
    length = min(round(2 * series.rate), 2**14)
    usable = [s for s in stretches if len(s) >= length]
    if not usable:
        length = max(map(len, stretches))
        usable = [s for s in stretches if len(s) == length]
    if length < 16:
        return None, none
    total, weight = 0.0, 0
    limit = np.where(np.isfinite(spread) & (spread > 0), 10 * spread, np.inf)
    for stretch in usable:
        calm = np.clip(np.nan_to_num(stretch - median), -limit, limit)
        frequencies, power = welch(calm, series.rate, nperseg=length, axis=0)
        total, weight = total + power * len(stretch), weight + len(stretch)
    levels = np.asarray(total).T / weight
    power = {}
    for kind in dict.fromkeys(types):
        rows = [row for row, t in zip(levels, types, strict=True) if t == kind and row.max() > 0]
        if rows:
            power[kind] = np.median(rows, axis=0)
    return Spectrum(frequencies, power), levels
