"""The usual metrics for any benchmark: mse, mae, rmse, r2, pearson, accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Totals = tuple[float, ...]
_ROUNDING = 64.0 * float(np.finfo(np.float64).eps)


def statistics(
    prediction: Mapping[str, Array], reference: Mapping[str, Array], options: Mapping[str, Any]
) -> Array:
    """Sums of each row, from which options["metric"] follows: (row, statistic).

    prediction and reference: the array called options["output"]; where that is None, the only one.
    Both (row, ...) of one shape, the prediction floating. For accuracy the prediction is labels
    (row, ...) as the reference, or scores with one more axis (row, ..., class), of which the
    highest counts; scores of both are compared by their highest too.
    """
    metric, name = str(options["metric"]), options.get("output")
    if metric not in _METRICS:
        raise ValueError(f"the reference: no metric {metric!r}; there are {', '.join(_METRICS)}")
    truth = _pick(reference, name, "the reference ")
    answer = _pick(prediction, name, "")
    if not truth.ndim or not truth.size or not _numbers(truth):
        raise ValueError(f"the reference is {truth.dtype} {truth.shape}, no finite (row, ...)")
    if metric == "accuracy":
        return _matches(answer, truth)
    _compare(answer, truth)
    with np.errstate(over="ignore", invalid="ignore"):
        result = _METRICS[metric](_flat(answer), _flat(truth))
    if not np.isfinite(result).all():
        raise ValueError(f"holds values up to {np.abs(answer).max():.3g}, too large to be squared")
    return result


def columns(totals: Mapping[str, Array], options: Mapping[str, Any]) -> dict[str, float]:
    """`<key>_<set>` of every set in order, and `<key>`, their plain mean.

    options["key"] is the metric's name where it is not given. r2 and pearson are taken over all
    values of a set together. r2 of a constant reference is NaN; pearson is 0 where prediction or
    reference never change.
    """
    metric = str(options["metric"])
    key = str(options.get("key") or metric)
    names = list(options.get("sets", totals))
    if missing := [name for name in names if name not in totals]:
        raise ValueError(f"no statistics of {', '.join(missing)}")
    scores = {
        f"{key}_{name}": _SCORES[metric](tuple(float(value) for value in totals[name]))
        for name in names
    }
    return {**scores, key: float(np.mean(list(scores.values())))}


def by_row(statistics: Array, options: Mapping[str, Any]) -> tuple[str, Array]:
    """The error of each row, for r2 and pearson the mean squared one; for accuracy its share."""
    metric, values = str(options["metric"]), statistics[:, 1] / statistics[:, 0]
    if metric == "rmse":
        return "root mean squared error of a row", np.sqrt(values)
    label = {"mae": "mean absolute error", "accuracy": "share of right labels"}.get(metric)
    return f"{label or 'mean squared error'} of a row", values


def _squares(answer: Array, truth: Array) -> Array:
    return _rows(np.square(answer - truth))


def _absolutes(answer: Array, truth: Array) -> Array:
    return _rows(np.abs(answer - truth))


def _explained(answer: Array, truth: Array) -> Array:
    moved = truth - _near_mean(truth)
    return _rows(np.square(answer - truth), moved, np.square(moved))


def _products(answer: Array, truth: Array) -> Array:
    x, y = answer - _near_mean(answer), truth - _near_mean(truth)
    scales = np.full_like(x, _near_mean(answer)), np.full_like(y, _near_mean(truth))
    sums = (x, y, np.square(x), np.square(y), x * y, *(np.square(scale) for scale in scales))
    return _rows(np.square(answer - truth), *sums)


def _matches(answer: Array, truth: Array) -> Array:
    if not _numbers(answer):
        raise ValueError(f"is {answer.dtype}, or holds NaN; must be labels, or scores by class")
    classes = answer.shape[-1] if answer.ndim else 0
    if answer.dtype.kind == "f" and classes > 1:
        if answer.ndim == truth.ndim + 1:
            answer = answer.argmax(axis=-1)
        elif truth.dtype.kind == "f" and answer.shape == truth.shape and answer.ndim > 1:
            answer, truth = answer.argmax(axis=-1), truth.argmax(axis=-1)
    if answer.shape != truth.shape:
        raise ValueError(
            f"has shape {answer.shape}; must be {truth.shape}, or scores with one more axis"
        )
    return _rows(_flat(answer == truth))


_METRICS: dict[str, Callable[[Array, Array], Array]] = {
    "mse": _squares,
    "mae": _absolutes,
    "rmse": _squares,
    "r2": _explained,
    "pearson": _products,
    "accuracy": _matches,
}


def _mean(total: Totals) -> float:
    return total[1] / total[0]


def _root(total: Totals) -> float:
    return float(np.sqrt(total[1] / total[0]))


def _determination(total: Totals) -> float:
    count, error, value, square = total
    spread = square - value * value / count
    return 1.0 - error / spread if spread > 0.0 else float("nan")


def _pearson(total: Totals) -> float:
    count, _, x, y, xx, yy, xy, x_scale, y_scale = total
    xx, yy, xy = xx - x * x / count, yy - y * y / count, xy - x * y / count
    if xx <= _ROUNDING**2 * x_scale or yy <= _ROUNDING**2 * y_scale:
        return 0.0
    return float(np.clip(xy / np.sqrt(xx) / np.sqrt(yy), -1.0, 1.0))


_SCORES: dict[str, Callable[[Totals], float]] = {
    "mse": _mean,
    "mae": _mean,
    "rmse": _root,
    "r2": _determination,
    "pearson": _pearson,
    "accuracy": _mean,
}


def _rows(*values: Array) -> Array:
    """Number of values and sums of (row, value) arrays: (row, 1 + array)."""
    counts = np.full(len(values[0]), values[0].shape[1], np.float64)
    return np.stack([counts, *(value.sum(axis=1) for value in values)], axis=1)


def _flat(array: Array) -> Array:
    return array.reshape(len(array), -1).astype(np.float64)


def _near_mean(values: Array) -> float:
    """A value near the mean: sums of differences from it lose no digits to a large mean."""
    flat = values.reshape(-1)
    return float(flat[np.argmin(np.abs(flat - flat.mean()))])


def _numbers(array: Array) -> bool:
    return array.dtype.kind in "fiub" and bool(np.isfinite(array).all())


def _pick(arrays: Mapping[str, Array], name: str | None, whose: str) -> Array:
    found = ", ".join(sorted(arrays)) or "no array"
    if name is None and len(arrays) != 1:
        raise ValueError(f"{whose}holds {found}; must hold one array")
    if name is not None and name not in arrays:
        raise ValueError(f"{whose}holds {found}; must hold {name}")
    return np.asarray(arrays[name] if name is not None else next(iter(arrays.values())))


def _compare(answer: Array, truth: Array) -> None:
    found = []
    if answer.shape != truth.shape:
        found.append(f"has shape {answer.shape}; must be {truth.shape}")
    if answer.dtype.kind != "f":
        found.append(f"is {answer.dtype}; must be floating, such as float32")
    if found:
        raise ValueError("; ".join(found))
    wrong = ~np.isfinite(answer)
    if wrong.any():
        row = int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1)))
        count = int(np.count_nonzero(wrong))
        raise ValueError(f"holds {count} NaN or infinite values, the first in row {row}")
