"""Values of one stream at the times of another."""

from __future__ import annotations

import numpy as np

from recording.contract import Samples, Series


def nearest_rows(stream: Series | Samples, times: np.ndarray, within: float) -> np.ndarray:
    """The sample nearest to each time (time, channel) float64; NaN where none is `within` seconds.

    Of a series only the rows that are needed are read.
    """
    own = stream.times if isinstance(stream, Samples) else stream.times()
    order = np.argsort(own, kind="stable")
    after = np.clip(np.searchsorted(own[order], times), 1, max(1, len(own) - 1))
    before = after - 1
    after = np.minimum(after, len(own) - 1)
    nearer = np.abs(own[order][before] - times) <= np.abs(own[order][after] - times)
    rows = order[np.where(nearer, before, after)]
    values = np.full((len(times), len(stream.channels)), np.nan)
    close = np.abs(own[rows] - times) <= within
    if isinstance(stream, Samples):
        values[close] = stream.values[rows[close]]
        return values
    for index in np.flatnonzero(close):
        row = int(rows[index])
        values[index] = np.asarray(stream.values[row : row + 1], np.float64).reshape(1, -1)[0]
    return values
