"""Mean squared error of a forecast beyond the observed steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
KEY = "arr_0"


def statistics(
    prediction: Mapping[str, Array], reference: Mapping[str, Array], options: Mapping[str, Any]
) -> Array:
    """Squared error and number of values of each window, over the steps that are forecast.

    prediction: `arr_0` (window, step, channel), floating, raw units. reference: `arr_0` (window,
    step, channel, feature), whose feature 0 is the target, or (window, step, channel).
    options["observed"] steps come before the forecast. Gives (window, 2).
    """
    truth = _truth(reference)
    observed = int(options["observed"])
    answer = _answer(prediction, truth.shape)[:, observed:]
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.subtract(answer, truth[:, observed:], dtype=np.float64)
        squares = np.einsum("wsc,wsc->w", error, error)
    _require_finite(answer, squares, f" from step {observed} on")
    return np.stack([squares, np.full(len(squares), error[0].size, np.float64)], axis=1)


def columns(totals: Mapping[str, Array], options: Mapping[str, Any]) -> dict[str, float]:
    """`MSE_<set>` of every set in order, and `total_MSR`, their plain mean."""
    names = list(options.get("sets", totals))
    if missing := [name for name in names if name not in totals]:
        raise ValueError(f"no statistics of {', '.join(missing)}")
    scores = {f"MSE_{name}": float(totals[name][0] / totals[name][1]) for name in names}
    return {**scores, "total_MSR": float(np.mean(list(scores.values())))}


def by_row(statistics: Array, options: Mapping[str, Any]) -> tuple[str, Array]:
    """The mean squared error of each window."""
    return "mean squared error of a window", statistics[:, 0] / statistics[:, 1]


def _truth(reference: Mapping[str, Array]) -> Array:
    if KEY not in reference:
        raise ValueError(f"the reference holds {_names(reference)}; must hold {KEY}")
    truth = np.asarray(reference[KEY])
    truth = truth[..., 0] if truth.ndim == 4 else truth
    if truth.ndim != 3 or not truth.size or truth.dtype.kind not in "fiu":
        raise ValueError(
            f"the reference is {truth.dtype} {truth.shape}, no (window, step, channel)"
        )
    if not np.isfinite(truth).all():
        raise ValueError("the reference holds NaN or infinite values")
    return truth


def _answer(prediction: Mapping[str, Array], shape: tuple[int, ...]) -> Array:
    if KEY not in prediction:
        raise ValueError(f"holds {_names(prediction)}; must hold {KEY}")
    answer = np.asarray(prediction[KEY])
    found = []
    if answer.shape != shape:
        found.append(f"has shape {answer.shape}; must be {shape}: (window, step, channel)")
    if answer.dtype.kind != "f":
        found.append(f"is {answer.dtype}; must be floating, such as float32")
    if found:
        raise ValueError("; ".join(found))
    return answer


def _require_finite(answer: Array, result: Array, where: str) -> None:
    wrong = ~np.isfinite(answer)
    if wrong.any():
        row = int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1)))
        count = int(np.count_nonzero(wrong))
        raise ValueError(f"holds {count} NaN or infinite values{where}, the first in row {row}")
    if not np.isfinite(result).all():
        raise ValueError(f"holds values up to {np.abs(answer).max():.3g}, too large to be squared")


def _names(arrays: Mapping[str, Array]) -> str:
    return ", ".join(sorted(arrays)) or "no array"
