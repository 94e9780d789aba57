"""Pearson correlation over time by parcel, averaged over parcels and subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
KEY = "arr_0"
TRIM = 5
BLOCK = 20
SUMS = 7
_ROUNDING = 64.0 * np.finfo(np.float64).eps


def statistics(
    prediction: Mapping[str, Array], reference: Mapping[str, Array], options: Mapping[str, Any]
) -> Array:
    """Sums over blocks of consecutive samples, from which the correlation of any of them follows.

    prediction and reference: `arr_0` (sample, parcel) of one episode of one subject, the prediction
    floating. options["trim"] samples at both ends are left out (5), options["block"] samples make a
    row (20): a row by sample would be as large as the data times seven, and neighbouring samples
    are not independent anyway.

    Gives (block, 1 + 7 * parcel): the number of samples, then by parcel the sums of: the shift of
    the prediction and of the reference; both, from their shifts; their squares; their product. The
    shift is a sample near the episode's mean, so that large means cost no digits.
    """
    truth = _truth(reference)
    answer = _answer(prediction, truth.shape)
    trim, block = int(options.get("trim", TRIM)), int(options.get("block", BLOCK))
    if len(truth) < 2 * trim + 2:
        raise ValueError(
            f"the reference has {len(truth)} samples, of which {2 * trim} are left out"
        )
    kept = slice(trim, len(truth) - trim)
    _require_finite(answer[kept], trim)
    one, one_shift = _shifted(answer[kept])
    other, other_shift = _shifted(truth[kept])
    starts = np.arange(0, len(one), block)
    counts = np.diff(np.append(starts, len(one))).astype(np.float64)[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        products = (one, other, one * one, other * other, one * other)
        sums = [np.add.reduceat(product, starts, axis=0) for product in products]
    result = np.concatenate([counts, counts * one_shift, counts * other_shift, *sums], axis=1)
    if not np.isfinite(result).all():
        largest = float(np.abs(answer[kept]).max())
        raise ValueError(f"holds values up to {largest:.3g}, too large to be squared")
    return result


def columns(totals: Mapping[str, Array], options: Mapping[str, Any]) -> dict[str, float]:
    """The correlation of every subject, and `mean`, that of all subjects.

    options["subjects"] maps sets (episodes) to subjects. A subject's episodes count as one long
    recording; a parcel whose prediction or reference never changes has correlation 0.
    """
    subjects: Mapping[str, str] = options["subjects"]
    if missing := [name for name in subjects if name not in totals]:
        raise ValueError(f"no statistics of {', '.join(missing)}")
    scores = {}
    for subject in dict.fromkeys(subjects.values()):
        parts = [totals[name] for name, owner in subjects.items() if owner == subject]
        if len({len(part) for part in parts}) > 1:
            raise ValueError(f"the reference of {subject} has episodes of unequal parcels")
        scores[subject] = float(np.mean(_correlation(parts)))
    return {**scores, "mean": float(np.mean(list(scores.values())))}


def by_row(statistics: Array, options: Mapping[str, Any]) -> tuple[str, Array]:
    """The correlation within each block, averaged over parcels."""
    values = [float(np.mean(_correlation([row]))) for row in statistics]
    return "correlation within a block of samples, mean over parcels", np.array(values)


def _correlation(parts: Sequence[Array]) -> Array:
    """Pearson r by parcel over everything that the summed statistics stand for."""
    counts = np.array([part[0] for part in parts])[:, None]
    # (part, sum, parcel)
    sums = np.stack([part[1:].reshape(SUMS, -1) for part in parts])
    total = counts.sum()
    moved, centres = [], []
    for shift, values in ((sums[:, 0], sums[:, 2]), (sums[:, 1], sums[:, 3])):
        centre = (shift + values).sum(axis=0) / total
        centres.append(centre)
        moved.append(shift / counts - centre)
    one, other = moved
    x = (sums[:, 2] + counts * one).sum(axis=0)
    y = (sums[:, 3] + counts * other).sum(axis=0)
    xx = (sums[:, 4] + 2.0 * one * sums[:, 2] + counts * one**2).sum(axis=0) - x * x / total
    yy = (sums[:, 5] + 2.0 * other * sums[:, 3] + counts * other**2).sum(axis=0) - y * y / total
    xy = (sums[:, 6] + one * sums[:, 3] + other * sums[:, 2] + counts * one * other).sum(axis=0)
    xy -= x * y / total
    varies = (xx > total * (_ROUNDING * centres[0]) ** 2) & (
        yy > total * (_ROUNDING * centres[1]) ** 2
    )
    scale = np.sqrt(np.where(varies, xx, 1.0)) * np.sqrt(np.where(varies, yy, 1.0))
    return np.clip(np.where(varies, xy / scale, 0.0), -1.0, 1.0)


def _shifted(values: Array) -> tuple[Array, Array]:
    """`values` (sample, parcel) from a sample of each parcel near its mean, and that sample."""
    values = values.astype(np.float64)
    nearest = np.argmin(np.abs(values - values.mean(axis=0)), axis=0)
    shift = values[nearest, np.arange(values.shape[1])]
    return values - shift, shift


def _truth(reference: Mapping[str, Array]) -> Array:
    if KEY not in reference:
        raise ValueError(f"the reference holds {_names(reference)}; must hold {KEY}")
    truth = np.asarray(reference[KEY])
    if truth.ndim != 2 or not truth.size or truth.dtype.kind not in "fiu":
        raise ValueError(f"the reference is {truth.dtype} {truth.shape}, no (sample, parcel)")
    if not np.isfinite(truth).all():
        raise ValueError("the reference holds NaN or infinite values")
    return truth


def _answer(prediction: Mapping[str, Array], shape: tuple[int, ...]) -> Array:
    if KEY not in prediction:
        raise ValueError(f"holds {_names(prediction)}; must hold {KEY}")
    answer = np.asarray(prediction[KEY])
    found = []
    if answer.shape != shape:
        found.append(f"has shape {answer.shape}; must be {shape}: (sample, parcel)")
    if answer.dtype.kind != "f":
        found.append(f"is {answer.dtype}; must be floating, such as float32")
    if found:
        raise ValueError("; ".join(found))
    return answer


def _require_finite(answer: Array, first: int) -> None:
    wrong = ~np.isfinite(answer)
    if wrong.any():
        row, count = first + int(np.argmax(wrong.any(axis=1))), int(np.count_nonzero(wrong))
        raise ValueError(f"holds {count} NaN or infinite values, the first in sample {row}")


def _names(arrays: Mapping[str, Array]) -> str:
    return ", ".join(sorted(arrays)) or "no array"
