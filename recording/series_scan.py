"""One run through a series, block by block: everything the health check counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from recording.contract import Series
from recording.series_sample import Pilot, block_parts, plane
from recording.stream_health import MEASURED

ARTEFACT_SPREADS = 30.0  # no blink, burst or spike is that far from the median
SEARCHED = 2**23  # samples of which the single steps are kept, to look for borders and repeats
RUNS_KEPT = 1000
HELD = 8  # steps without a change that count as held


@dataclass(eq=False)
class Scan:
    """Counts of a series so far; arrays have one entry per channel, runs are samples [from, to).

    missing_runs, artefact_runs: where any channel is missing or far off; held_runs: where no
    channel changes. jumps, hashes: of each part, its first sample and one value per sample: how
    unlikely the step from the sample before is (first of a part: NaN), and what identifies it.
    """

    channels: int
    count: int = 0
    finite: np.ndarray = field(init=False)
    minimum: np.ndarray = field(init=False)
    maximum: np.ndarray = field(init=False)
    at_minimum: np.ndarray = field(init=False)
    at_maximum: np.ndarray = field(init=False)
    total: np.ndarray = field(init=False)
    squares: np.ndarray = field(init=False)
    artefacts: np.ndarray = field(init=False)
    missing_runs: list[tuple[int, int]] = field(default_factory=list)
    artefact_runs: list[tuple[int, int]] = field(default_factory=list)
    held_runs: list[tuple[int, int]] = field(default_factory=list)
    jumps: list[tuple[int, np.ndarray]] = field(default_factory=list)
    hashes: list[tuple[int, np.ndarray]] = field(default_factory=list)

    def __post_init__(self) -> None:
        zeros = np.zeros(self.channels)
        self.finite, self.artefacts = zeros.copy(), zeros.copy()
        self.at_minimum, self.at_maximum = zeros.copy(), zeros.copy()
        self.total, self.squares = zeros.copy(), zeros.copy()
        self.minimum, self.maximum = zeros + np.inf, zeros - np.inf


def run_through(
    series: Series,
    pilot: Pilot,
    wanted: list[tuple[int, int]],
    progress: Callable[[int], None] | None = None,
) -> Scan:
    """Read the parts of a series and count; `progress` gets the samples of each block."""
    scan = Scan(len(series.channels))
    neural = np.array([channel.type in MEASURED for channel in series.channels])
    stop_before, last = -1, np.zeros((0, 0))
    borders = {piece.first for piece in series.pieces}
    for start, stop in block_parts(series, wanted):
        values = plane(series, start, stop)
        joined = start == stop_before and start not in borders
        _figures(scan, values, pilot)
        _runs(scan, values, pilot, start)
        _steps(scan, values, last if joined else None, pilot, neural, start)
        last, stop_before = values[-1:], stop
        scan.count += len(values)
        if progress is not None:
            progress(len(values))
    return scan


def _figures(scan: Scan, values: np.ndarray, pilot: Pilot) -> None:
    finite = np.isfinite(values)
    low = np.min(values, axis=0, where=finite, initial=np.inf)
    high = np.max(values, axis=0, where=finite, initial=-np.inf)
    for extreme, known, counted, lower in (
        (low, scan.minimum, scan.at_minimum, True),
        (high, scan.maximum, scan.at_maximum, False),
    ):
        beyond = extreme < known if lower else extreme > known
        counted[beyond] = 0
        known[beyond] = extreme[beyond]
        for column in np.flatnonzero((extreme == known) & np.isfinite(known)):
            counted[column] += _held(values[:, column] == known[column])
    scan.finite += finite.sum(axis=0)
    away = np.where(finite, values - np.nan_to_num(pilot.median), 0.0)
    scan.total += away.sum(axis=0)
    scan.squares += (away * away).sum(axis=0)
    scan.artefacts += (np.abs(away) > _limits(pilot)).sum(axis=0)


def _runs(scan: Scan, values: np.ndarray, pilot: Pilot, start: int) -> None:
    _extend(scan.missing_runs, ~np.isfinite(values).all(axis=1), start)
    with np.errstate(invalid="ignore"):
        far = (np.abs(values - pilot.median) > _limits(pilot)).any(axis=1)
    _extend(scan.artefact_runs, far, start)


def _steps(
    scan: Scan,
    values: np.ndarray,
    before: np.ndarray | None,
    pilot: Pilot,
    neural: np.ndarray,
    start: int,
) -> None:
    joined = values if before is None else np.concatenate([before, values])
    steps = np.diff(joined, axis=0)
    live = np.isfinite(steps)
    held = (steps == 0).all(axis=1) & live.all(axis=1)
    _extend(scan.held_runs, held, start + (before is None), least=HELD)
    if sum(len(jumps) for _, jumps in scan.jumps) >= SEARCHED or not neural.any():
        return
    scaled = np.clip(np.where(live, steps, 0.0) / pilot.step, -1e6, 1e6)
    strange = ((scaled @ pilot.whitening) ** 2).sum(axis=1) / max(1, pilot.whitening.shape[1])
    strange[~live[:, neural].all(axis=1)] = np.nan
    if before is None:
        strange = np.concatenate([[np.nan], strange])
    with np.errstate(divide="ignore"):
        _append(scan.jumps, start, np.log(strange), before is not None)
    _append(scan.hashes, start, _row_hashes(values[:, neural]), before is not None)


def _append(
    found: list[tuple[int, np.ndarray]], start: int, values: np.ndarray, joined: bool
) -> None:
    if joined and found and found[-1][0] + len(found[-1][1]) == start:
        first, known = found.pop()
        start, values = first, np.concatenate([known, values])
    found.append((start, values))


def _row_hashes(values: np.ndarray) -> np.ndarray:
    """A 64-bit number per sample, the same for samples that are equal in all channels: (time,)."""
    bits = np.ascontiguousarray(values + 0.0).view(np.uint64)
    mixed = (bits ^ (bits >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    weights = np.arange(1, 2 * bits.shape[1], 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return np.asarray(((mixed ^ (mixed >> np.uint64(32))) * weights).sum(axis=1, dtype=np.uint64))


def _held(same: np.ndarray) -> int:
    """Samples in runs of three or more that are true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], same.view(np.int8), [0]])))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= 3].sum())


def _extend(runs: list[tuple[int, int]], mask: np.ndarray, start: int, least: int = 0) -> None:
    """Add the runs of a mask that begins at sample `start`, joined to a run that ends there."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.view(np.int8), [0]]))) + start
    for first, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if runs and runs[-1][1] == first:
            runs[-1] = (runs[-1][0], stop)
        elif len(runs) < RUNS_KEPT and (stop - first > least or stop == start + len(mask)):
            runs.append((first, stop))


def _limits(pilot: Pilot) -> np.ndarray:
    spread = pilot.spread
    return np.where(np.isfinite(spread) & (spread > 0), ARTEFACT_SPREADS * spread, np.inf)
