"""Where segments were joined: borders found from the samples alone.

At a border all channels jump at once and then go on as if nothing had been. Each step from sample
to sample is judged by how unlikely it is among the others around it; a regular pattern of borders
stands out of the sum over all its places even where single ones do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_LENGTH = 16
LEAST_BORDERS = 4
PATTERN_SCORE = 10.0  # continuous recordings stay below 6
CANDIDATES = 24
SINGLE_SCORE = 16.0  # continuous recordings stay below 13
LOCAL = 65


@dataclass(frozen=True)
class Regular:
    """Borders at sample first + k · length, k = 0, 1, …; score: in standard deviations."""

    first: int
    length: int
    score: float

    def starts(self, count: int) -> list[int]:
        """First sample of every segment of a recording of `count` samples."""
        return [0, *range(self.first, count, self.length)]


def find_regular(jumps: list[tuple[int, np.ndarray]]) -> Regular | None:
    """The regular pattern of borders, None where there is none.

    `jumps`: of each part its first sample and, per sample, the log of how unlikely the step to it
    is, NaN where there is no step.
    """
    parts = [(start, _scores(values)) for start, values in local(jumps)]
    if not parts:
        return None
    longest = max((scores for _, scores in parts), key=len)
    best: Regular | None = None
    for length in _lengths(longest):
        found = _fold(parts, length)
        if found is not None and (best is None or found.score > best.score):
            best = found
    return best


def find_single(
    jumps: list[tuple[int, np.ndarray]], avoid: np.ndarray, known: Regular | None
) -> list[int]:
    """Samples where everything jumps far beyond what the steps around it do, just once.

    `avoid`: samples (ascending) near which values are far off anyway; `known`: borders that need no
    second mention.
    """
    found = []
    for start, scores in local(jumps):
        for at in np.flatnonzero(scores > SINGLE_SCORE):
            around = np.concatenate([scores[max(0, at - 4) : at], scores[at + 1 : at + 5]])
            sample = start + int(at)
            near = np.searchsorted(avoid, [sample - 4, sample + 5])
            of_known = (
                known is not None
                and sample >= known.first
                and (sample - known.first) % known.length == 0
            )
            if np.nanmax(around, initial=0.0) < scores[at] / 2 and near[0] == near[1]:
                found += [] if of_known else [sample]
    return found


def local(jumps: list[tuple[int, np.ndarray]]) -> list[tuple[int, np.ndarray]]:
    """Log unlikeliness against the median around, in robust standard deviations of all parts."""
    from scipy.ndimage import median_filter

    away = []
    for _, values in jumps:
        missing = ~np.isfinite(values)
        middle = np.median(values[~missing]) if not missing.all() else 0.0
        filled = np.where(missing, middle, values)
        around = median_filter(filled, LOCAL, mode="nearest") if len(filled) > LOCAL else middle
        away.append(np.where(missing, np.nan, filled - around))
    known = np.concatenate([part[np.isfinite(part)] for part in away] or [np.zeros(0)])
    spread = 1.4826 * float(np.median(np.abs(known))) if known.size else 0.0
    return [
        (start, np.nan_to_num(part / spread) if spread > 0 else np.zeros_like(part))
        for (start, _), part in zip(jumps, away, strict=True)
    ]


def _scores(values: np.ndarray) -> np.ndarray:
    """Normal scores of the upper half by rank, mean 0 and variance 1: no single one can rule."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    scores = np.maximum(ndtri((rankdata(values) - 0.5) / len(values)), 0.0)
    std = float(scores.std())
    return np.asarray((scores - scores.mean()) / std) if std > 0 else np.zeros_like(scores)


def _lengths(scores: np.ndarray) -> list[int]:
    """Distances at which unlikely steps return, the clearest first."""
    count = len(scores)
    if count < LEAST_BORDERS * LEAST_LENGTH:
        return []
    size = 1 << (2 * count - 1).bit_length()
    spectrum = np.fft.rfft(scores, size)
    returns = np.fft.irfft(spectrum * np.conj(spectrum), size)[:count]
    returns /= np.sqrt(np.arange(count, 0, -1))
    inner = returns[LEAST_LENGTH : count // LEAST_BORDERS + 1]
    clearest = np.argsort(-inner, kind="stable")[:CANDIDATES]
    return [int(at) + LEAST_LENGTH for at in clearest]


def _fold(parts: list[tuple[int, np.ndarray]], length: int) -> Regular | None:
    """The best phase of a pattern; None where it is not clear, not sharp or lacks borders."""
    total, count, high = (np.zeros(length) for _ in range(3))
    for start, scores in parts:
        phases = (start + np.arange(len(scores))) % length
        total += np.bincount(phases, scores, length)
        count += np.bincount(phases, minlength=length)
        high += np.bincount(phases, scores > 1.0, length)
    folded = total / np.sqrt(np.maximum(count, 1))
    best = int(folded.argmax())
    beside = max(folded[(best + 1) % length], folded[best - 1])
    if folded[best] < PATTERN_SCORE or beside > folded[best] / 2:
        return None
    if count[best] < LEAST_BORDERS or high[best] < 0.6 * count[best]:
        return None
    return Regular(best or length, length, float(folded[best]))
