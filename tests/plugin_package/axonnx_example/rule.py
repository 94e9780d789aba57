"""Mean absolute error of the forecast steps; its square root is never taken."""

from __future__ import annotations

import numpy as np


def statistics(prediction, reference, options):
    """float64 (row, 2): sum of absolute errors, and how many values."""
    error = np.abs(prediction["arr_0"].astype(np.float64) - reference["arr_0"])
    return np.stack([error.sum(axis=(1, 2)), np.full(len(error), error[0].size)], axis=1)


def columns(totals, options):
    """The one column."""
    errors, count = sum(totals.values())
    return {"absolute_error": float(errors / count)}
