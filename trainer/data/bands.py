"""Causal band power: nothing in a feature comes from a later sample."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from trainer.data.errors import DataError


def band_power(
    potential: np.ndarray,
    *,
    rate: float,
    edges: Sequence[float],
    smoothing: float,
    order: int,
    floor: float,
) -> np.ndarray:
    """Log of trailing-mean power between consecutive `edges` (Hz): (time, channel, band) float32.

    `potential` (time, channel); `smoothing` in seconds, over fewer samples at the very start;
    natural logarithm of power plus `floor` (unit²). Butterworth band-passes of `order`, as
    second-order sections that start settled on the first sample.
    """
    # Imported here: it takes longer than all other imports together.
    from scipy.signal import butter, sosfilt, sosfilt_zi  # type: ignore[import-untyped]

    if list(edges) != sorted(set(edges)) or len(edges) < 2:
        raise DataError(f"band_edges: {list(edges)} must rise, and be two or more")
    if not 0 < edges[0] < edges[-1] < rate / 2:
        raise DataError(f"band_edges: must lie between 0 and {rate / 2:g} Hz, half the rate")
    span = max(1, round(smoothing * rate))
    counts = np.minimum(np.arange(1, len(potential) + 1), span)[:, np.newaxis]
    features = np.empty((*potential.shape, len(edges) - 1), np.float32)
    for band, passed in enumerate(pairwise(edges)):
        sections = butter(order, passed, btype="bandpass", fs=rate, output="sos")
        settled = sosfilt_zi(sections)[:, :, np.newaxis] * potential[0].astype(np.float64)
        filtered, _ = sosfilt(sections, potential.astype(np.float64), axis=0, zi=settled)
        power = np.square(filtered)
        total = power.copy()
        # One shifted sum per lag: a running sum would carry rounding from sample to sample.
        for lag in range(1, min(span, len(power))):
            total[lag:] += power[:-lag]
        features[:, :, band] = np.log(total / counts + floor)
    return features
