"""Every model of a report against the best simple baseline, on the same test windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trainer import metrics, paired
from trainer.data.windows import Dataset


def add(rows: list[dict[str, Any]], evidence: list[np.ndarray], dataset: Dataset) -> None:
    """Add every row's paired test against the best simple baseline, None for that one itself.

    `paired`: `against` its label, `value` the difference with its `interval`, in `unit`: of a
    forecast the change of MSE in per cent, of classify the difference of balanced accuracy in
    points, with McNemar's `p` where trials are independent, of decode the difference of R², with
    the `block` of windows that stay together. That score also tells which baseline is the best.
    """
    best = min((row for row in rows if row["baseline"]), key=_ERRORS[dataset.task])
    at = next(index for index, row in enumerate(rows) if row is best)
    for row, own in zip(rows, evidence, strict=True):
        if row is best:
            row["paired"] = None
            continue
        row["paired"] = {
            "against": best["label"],
            **_PAIRED[dataset.task](own, evidence[at], dataset),
        }


def _pair_forecast(own: np.ndarray, other: np.ndarray, dataset: Dataset) -> dict[str, Any]:
    windows = dataset.test
    found = paired.paired_interval(own, other, windows.sessions, windows.starts)
    return {"value": found.value, "interval": found.interval, "unit": "%"}


def _pair_classify(own: np.ndarray, other: np.ndarray, dataset: Dataset) -> dict[str, Any]:
    windows, choice = dataset.test, dataset.test.targets
    assert choice is not None
    hits, reference = (each.argmax(axis=1) == choice for each in (own, other))
    resampled = metrics.resampling(windows.sessions, windows.starts, windows.trials)
    found = paired.compare(
        paired.balanced_accuracy(100.0 * hits, choice),
        paired.balanced_accuracy(100.0 * reference, choice),
        resampled,
        relative=False,
    )
    p = paired.mcnemar(hits, reference) if resampled.independent else None
    return {"value": found.value, "interval": found.interval, "unit": "points", "p": p}


def _pair_decode(own: np.ndarray, other: np.ndarray, dataset: Dataset) -> dict[str, Any]:
    windows = dataset.test
    assert windows.targets is not None
    target = windows.targets.astype(np.float64)
    block = paired.block_length("decode", len(windows))
    found = paired.compare(
        paired.r2(own, target),
        paired.r2(other, target),
        paired.moving_blocks(windows.sessions, windows.starts, block),
        relative=False,
    )
    return {"value": found.value, "interval": found.interval, "unit": "R²", "block": block}


_PAIRED = {"forecast": _pair_forecast, "classify": _pair_classify, "decode": _pair_decode}
_ERRORS: dict[str, Callable[[dict[str, Any]], float]] = {
    "forecast": lambda row: float(row["mse"]),
    "classify": lambda row: -float(row["balanced_accuracy"]),
    "decode": lambda row: float("inf") if row["r2"] is None else -float(row["r2"]),
}
