"""Every model of a report against the best simple baseline, on the same test windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer import paired
from trainer.data.windows import Dataset
from trainer.metrics import Resampling
from trainer.paired import Score

# What tells the best baseline and by what models are compared: metric, -1 where more is better.
_METRICS = {"forecast": ("mse", 1.0), "classify": ("balanced_accuracy", -1.0), "decode": ("r2", -1)}
_UNITS = {"forecast": "%", "classify": "points", "decode": "R²"}


def add(rows: list[dict[str, Any]], evidence: list[np.ndarray], dataset: Dataset) -> None:
    """Add every row's paired test against the best simple baseline, None for that one itself.

    `paired`: `against` its label, `value` the difference with its `interval`, in `unit`: of a
    forecast the change of MSE in per cent, of classify the difference of balanced accuracy in
    points, with McNemar's `p` where trials are independent, of decode the difference of R², with
    the `block` of windows that stay together. That score also tells which baseline is the best.
    """
    task, windows = dataset.task, dataset.test
    metric, sign = _METRICS[task]
    errors = {
        index: np.inf if row[metric] is None else sign * row[metric]
        for index, row in enumerate(rows)
        if row["baseline"]
    }
    best = min(errors, key=lambda index: errors[index])
    drawn = paired.drawing(task, windows.sessions, windows.starts, windows.trials)
    scores = [_score(each, dataset) for each in evidence]
    for index, row in enumerate(rows):
        if index == best:
            row["paired"] = None
            continue
        found = paired.compare(scores[index], scores[best], drawn, relative=task == "forecast")
        row["paired"] = {
            "against": rows[best]["label"],
            "value": found.value,
            "interval": found.interval,
            "unit": _UNITS[task],
        }
        if task == "decode" and isinstance(drawn, paired.MovingBlocks):
            row["paired"]["block"] = drawn.block
        if isinstance(drawn, Resampling):
            hits, reference = (_hits(evidence[at], dataset) for at in (index, best))
            p = paired.mcnemar(hits, reference) if drawn.independent else None
            row["paired"]["p"] = p


def _score(evidence: np.ndarray, dataset: Dataset) -> Score:
    """Of a forecast's errors per window, of probabilities, or of decoded behaviour."""
    targets = dataset.test.targets
    if targets is None:
        return paired.mean(evidence)
    if dataset.task == "classify":
        return paired.balanced_accuracy(100.0 * _hits(evidence, dataset), targets)
    return paired.r2(evidence, targets.astype(np.float64))


def _hits(probability: np.ndarray, dataset: Dataset) -> np.ndarray:
    return np.asarray(probability.argmax(axis=1) == dataset.test.targets)
