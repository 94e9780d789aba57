"""The paired column of a report: which baseline it is against, and by what score."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trainer import comparison, metrics


def compared(
    task: str, metric: str, scores: list[float | None], evidence: list[np.ndarray], **windows: Any
) -> list[dict[str, Any]]:
    """Rows of which all but the first are baselines, with their paired tests."""
    count = len(evidence[0])
    test = {"sessions": np.zeros(count, int), "starts": np.arange(count), "targets": None}
    rows = [
        {"label": str(index), "baseline": index > 0, metric: score, "mse": float(index)}
        | {metric: score}
        for index, score in enumerate(scores)
    ]
    dataset: Any = SimpleNamespace(
        task=task, test=SimpleNamespace(**{**test, "trials": None, **windows})
    )
    comparison.add(rows, evidence, dataset)
    return rows


def test_decoders_meet_the_baseline_of_the_best_r2_which_may_be_absent() -> None:
    random = np.random.default_rng(0)
    target = random.normal(size=(500, 1))
    answers = [target + scale * random.normal(size=target.shape) for scale in (0.1, 0.6, 0.3)]
    scores = [float(metrics.r2(answer, target)[0]) for answer in answers]
    rows = compared("decode", "r2", scores, answers, targets=target)
    assert rows[2]["paired"] is None
    own = rows[0]["paired"]
    assert (own["against"], own["unit"], own["block"]) == ("2", "R²", 25)
    assert own["value"] == pytest.approx(scores[0] - scores[2])
    assert own["interval"][0] <= own["value"] <= own["interval"][1]
    rows = compared("decode", "r2", [0.5, None, -3.0], answers, targets=target)
    assert rows[2]["paired"] is None


def test_few_windows_have_a_difference_and_no_interval() -> None:
    errors = [np.full(25, value) for value in (1.0, 2.0)]
    rows = compared("forecast", "mse", [1.0, 2.0], errors)
    assert (rows[0]["paired"]["value"], rows[0]["paired"]["interval"]) == (-50.0, None)


def test_independent_trials_have_mcnemars_p() -> None:
    choice = np.arange(40) % 2
    right, wrong = np.eye(2)[choice], np.eye(2)[1 - choice]
    half = np.where((np.arange(40) < 20)[:, None], right, wrong)
    found = compared(
        "classify",
        "balanced_accuracy",
        [1.0, 0.5],
        [right, half],
        targets=choice,
        trials=np.arange(40),
    )[0]["paired"]
    assert found["value"] == pytest.approx(50.0)
    assert found["p"] < 1e-4
