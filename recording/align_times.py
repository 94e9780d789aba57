"""Values of one stream at the times of another."""

from __future__ import annotations

import numpy as np

from recording.contract import Samples, Series

MOST_BETWEEN = 64  # samples that are read for each one that is wanted


def nearest_rows(stream: Series | Samples, times: np.ndarray, within: float) -> np.ndarray:
    """The sample nearest to each time (time, channel) float64; NaN where none is `within` seconds.

    Of a series only the rows that are needed are read.
    """
    own = stream.times if isinstance(stream, Samples) else stream.times()
    values = np.full((len(times), len(stream.channels)), np.nan)
    if len(own) == 0:
        return values
    sorted_already = bool((np.diff(own) >= 0).all())
    order = np.arange(len(own)) if sorted_already else np.argsort(own, kind="stable")
    clock = own if sorted_already else own[order]
    after = np.minimum(np.searchsorted(clock, times), len(own) - 1)
    before = np.maximum(after - 1, 0)
    nearer = np.abs(clock[before] - times) <= np.abs(clock[after] - times)
    rows = order[np.where(nearer, before, after)]
    close = np.abs(own[rows] - times) <= within
    if isinstance(stream, Samples):
        values[close] = stream.values[rows[close]]
    elif close.any():
        values[close] = _rows(stream, rows[close])
    return values


def _rows(stream: Series, rows: np.ndarray) -> np.ndarray:
    """Single samples of a series (row, channel), read at once where they lie close together."""
    first, stop = int(rows.min()), int(rows.max()) + 1
    if stop - first <= MOST_BETWEEN * len(rows):
        found = np.asarray(stream.values[first:stop], np.float64)[rows - first]
    else:
        parts = [np.asarray(stream.values[int(row) : int(row) + 1], np.float64) for row in rows]
        found = np.concatenate(parts)
    return np.asarray(found.reshape(len(rows), -1))
