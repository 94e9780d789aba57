"""Root mean squared error over the standard deviation of the target."""

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
    """Count, squared error, target and squared target of each window.

    prediction and reference: `arr_0` (window, 1) or (window,), the prediction floating. The targets
    are taken from one of them near their mean, so that no digits are lost. Gives (window, 4).
    """
    truth = _truth(reference)
    answer = _answer(prediction, len(truth))
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.square(np.subtract(answer, truth, dtype=np.float64))
    _require_finite(answer, squares)
    target = truth.astype(np.float64)
    target -= target[np.argmin(np.abs(target - target.mean()))]
    return np.stack([np.ones(len(target)), squares, target, np.square(target)], axis=1)


def columns(totals: Mapping[str, Array], options: Mapping[str, Any]) -> dict[str, float]:
    """The normalised error of every set in order, and `overall`, their weighted sum.

    options["weights"] maps set names to weights (0.3 and 0.7 in the challenge). 1 is what the
    constant mean scores; a constant target has no score (NaN).
    """
    weights: Mapping[str, float] = options["weights"]
    names = list(options.get("sets", weights))
    if missing := [name for name in {**dict.fromkeys(names), **weights} if name not in totals]:
        raise ValueError(f"no statistics of {', '.join(missing)}")
    scores = {name: _score(totals[name]) for name in {**dict.fromkeys(names), **weights}}
    overall = sum(weight * scores[name] for name, weight in weights.items())
    return {**{name: scores[name] for name in names}, "overall": float(overall)}


def by_row(statistics: Array, options: Mapping[str, Any]) -> tuple[str, Array]:
    """The absolute error of each window."""
    return "absolute error of a window", np.sqrt(statistics[:, 1] / statistics[:, 0])


def _score(total: Array) -> float:
    count, squares, target, target_squares = (float(value) for value in total)
    variance = target_squares / count - (target / count) ** 2
    return float(np.sqrt(squares / count / variance)) if variance > 0.0 else float("nan")


def _truth(reference: Mapping[str, Array]) -> Array:
    if KEY not in reference:
        raise ValueError(f"the reference holds {_names(reference)}; must hold {KEY}")
    truth = np.asarray(reference[KEY])
    if truth.shape not in ((truth.size,), (truth.size, 1)) or not truth.size:
        raise ValueError(f"the reference has shape {truth.shape}, no (window,) or (window, 1)")
    if truth.dtype.kind not in "fiu" or not np.isfinite(truth).all():
        raise ValueError("the reference holds values that are not finite numbers")
    return truth.reshape(-1)


def _answer(prediction: Mapping[str, Array], rows: int) -> Array:
    if KEY not in prediction:
        raise ValueError(f"holds {_names(prediction)}; must hold {KEY}")
    answer = np.asarray(prediction[KEY])
    found = []
    if answer.shape not in ((rows,), (rows, 1)):
        found.append(f"has shape {answer.shape}; must be ({rows}, 1): (window, 1)")
    if answer.dtype.kind != "f":
        found.append(f"is {answer.dtype}; must be floating, such as float32")
    if found:
        raise ValueError("; ".join(found))
    return answer.reshape(-1)


def _require_finite(answer: Array, result: Array) -> None:
    wrong = ~np.isfinite(answer)
    if wrong.any():
        count, row = int(np.count_nonzero(wrong)), int(np.argmax(wrong))
        raise ValueError(f"holds {count} NaN or infinite values, the first in row {row}")
    if not np.isfinite(result).all():
        raise ValueError(f"holds values up to {np.abs(answer).max():.3g}, too large to be squared")


def _names(arrays: Mapping[str, Array]) -> str:
    return ", ".join(sorted(arrays)) or "no array"
