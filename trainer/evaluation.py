"""How good an artifact is on the test part, beside the baselines that it must beat.

Artifacts answer through `artifact.load(...).predict`, the code that serves and submits them, from
the windows as they take them; every sum is in float64. Forecasts are scored on the steps after the
observed ones, in raw units and in units of each channel's standard deviation in the train part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

import artifact
from artifact.bundle import write_file
from artifact.manifest import canonical_json
from trainer import comparison, metrics, report, scoring
from trainer.candidates import (
    Candidate,
    EvaluationError,
    Predict,
    baselines,
    labels,
    of_artifact,
    of_module,
    output_units,
    own_dataset,
    shared_unit,
)
from trainer.config import RunConfig
from trainer.data import load_dataset
from trainer.data.windows import Dataset, Windows
from trainer.determinism import deterministic
from trainer.metrics import Resampling
from trainer.pictures import draw_example, draw_report, examples, names_of, stretch

__all__ = [
    "Candidate",
    "EvaluationError",
    "Predict",
    "baselines",
    "draw_example",
    "draw_report",
    "evaluate",
    "examples",
    "labels",
    "of_artifact",
    "of_module",
    "own_dataset",
    "score_classify",
    "score_decode",
    "score_forecast",
]

THREADS = 2  # torch's: part of the bits of the baselines


def evaluate(
    artifacts: Sequence[Path],
    output: Path,
    *,
    config: RunConfig | None = None,
    legacy: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Score artifacts and baselines on the test part; write report.json, report.md, report.png.

    The data set is that of `config`, or else the one the first artifact was trained on. `legacy` is
    an artifact of the legacy model to compare with. Returns the report as written to report.json.
    Raises EvaluationError, DataError, and the errors of `artifact.errors`.
    """
    console = console or Console()
    models = [artifact.load(path) for path in artifacts]
    dataset = load_dataset(config.data) if config else own_dataset(models[0], artifacts[0])
    statistics = dataset.train.statistics()
    candidates = [
        candidate
        for model, label in zip(models, labels(models), strict=True)
        for candidate in of_artifact(model, label, dataset, statistics)
    ]
    if legacy is not None:
        candidates += of_artifact(artifact.load(legacy), "legacy", dataset, statistics)
    scale = scoring.target_scale(dataset.train)
    outside = dataset.test.outside()
    rows, evidence = [], []
    with deterministic(THREADS):
        candidates += baselines(dataset, models)
        for candidate in track(candidates, "scoring", console=console, transient=True):
            facts = {
                key: value
                for key, value in vars(candidate).items()
                if key not in ("predict", "outside")
            }
            inputs = outside if candidate.outside else dataset.test
            scores, errors = SCORES[dataset.task](candidate.predict, dataset, scale, inputs)
            rows.append(facts | scores)
            evidence.append(errors)
    _compare(rows, dataset)
    comparison.add(rows, evidence, dataset)
    found = {"task": dataset.task, "part": "test", "data": _data(dataset), "models": rows}
    if dataset.task == "decode":
        found["trace"] = _trace(candidates, dataset)
    write_file(output / "report.json", canonical_json(found))
    write_file(output / "report.md", report.markdown(found).encode())
    draw_report(found, output / "report.png")
    return found


def score_forecast(
    predict: Predict, dataset: Dataset, scale: np.ndarray, inputs: Windows | None = None
) -> tuple[dict[str, Any], np.ndarray]:
    """Mean squared error over test windows: in all, per step, channel and session.

    `mse` is in units of `scale` (channel,) squared, `mse_raw` in those of the recording squared.
    `inputs` are the test windows as `predict` takes them, the test part where left out. Returns
    the scores and, for paired tests, each window's own `mse` (window,).
    """
    windows = dataset.test
    horizon = windows.steps - windows.observed
    sums = np.zeros((len(dataset.session_names), horizon, len(scale)))
    counts = np.bincount(windows.sessions, minlength=len(sums))
    per_window = []
    for rows, answer in _answers(predict, inputs or windows):
        target = windows.batch(rows).targets["forecast"][:, windows.observed :].astype(np.float64)
        errors = (answer[:, windows.observed :] - target) ** 2
        np.add.at(sums, windows.sessions[rows], errors)
        per_window.append((errors / scale**2).mean(axis=(1, 2)))
    scores: dict[str, Any] = {}
    for name, errors in (("mse", sums / scale**2), ("mse_raw", sums)):
        mean = errors.sum(axis=0) / counts.sum()
        scores[name] = float(mean.mean())
        scores[f"{name}_per_step"] = mean.mean(axis=1).tolist()
        scores[f"{name}_per_channel"] = mean.mean(axis=0).tolist()
        scores[f"{name}_per_session"] = {
            session: float(errors[index].mean() / counts[index])
            for index, session in enumerate(dataset.session_names)
            if counts[index]
        }
    error = np.concatenate(per_window)
    scores["mse_interval"] = _resampling(windows).interval(
        np.stack([error, np.ones_like(error)], axis=1), lambda drawn: drawn[:, 0] / drawn[:, 1]
    )
    return scores, error


def score_classify(
    predict: Predict, dataset: Dataset, scale: np.ndarray, inputs: Windows | None = None
) -> tuple[dict[str, Any], np.ndarray]:
    """Accuracy, balanced accuracy with interval, cross-entropy (nats), confusion, AUROC.

    `chance` is the balanced accuracy of an answer that does not look at the window; `auroc` is of
    two classes, for the second one. `inputs`: as in `score_forecast`. Returns the scores and the
    probabilities (window, class).
    """
    windows = dataset.test
    probability = np.concatenate([each for _, each in _answers(predict, inputs or windows)])
    choice = windows.batch(slice(None)).targets["choice"]
    classes = probability.shape[1]
    decided = probability.argmax(axis=1)
    counts = metrics.confusion(decided, choice, classes)
    given = probability[np.arange(len(choice)), choice]
    resampled = _resampling(windows)
    two = classes == 2
    scores = {
        "accuracy": float(counts.diagonal().sum() / counts.sum()),
        "balanced_accuracy": metrics.balanced_accuracy(counts),
        "balanced_accuracy_interval": metrics.balanced_accuracy_interval(
            decided, choice, classes, resampled
        ),
        "chance": 1.0 / int((counts.sum(axis=1) > 0).sum()),
        "cross_entropy": float(-np.log(np.maximum(given, 1e-12)).mean()),
        "auroc": metrics.auroc(probability[:, 1], choice == 1) if two else None,
        "confusion": counts.tolist(),
        "balanced_accuracy_per_session": _per_session(
            dataset,
            lambda rows: metrics.balanced_accuracy(
                metrics.confusion(decided[rows], choice[rows], classes)
            ),
        ),
    }
    return scores, probability


def score_decode(
    predict: Predict, dataset: Dataset, scale: np.ndarray, inputs: Windows | None = None
) -> tuple[dict[str, Any], np.ndarray]:
    """R² with interval, correlation, squared errors and, in one unit, the median distance.

    Of measured values alone. R² is 1 - SSE / SST with SST about the mean of the test values; `r2`
    is its mean over the variables that vary. `mse` is in units of `scale` (variable,) squared,
    `mse_raw_per_variable` in the variable's own; `median_error_share` is of the range of the train
    targets along their main axis, such as the length of a track. `inputs`: as in `score_forecast`.
    Returns the scores and the answers (window, variable).
    """
    windows = dataset.test
    answer = np.concatenate([each for _, each in _answers(predict, inputs or windows)])
    target = windows.batch(slice(None)).targets["behavior"].astype(np.float64)
    if not np.isfinite(target).any():
        raise EvaluationError(f"data set {dataset.name!r}: its test part measured no behaviour")
    resampled = _resampling(windows)
    squares = (answer - target) ** 2
    raw = np.array([_mean(each[np.isfinite(each)]) for each in squares.T])
    determined = metrics.r2(answer, target)
    scores = {
        "r2": _mean_known(determined),
        "r2_interval": metrics.r2_interval(answer, target, resampled),
        "r2_per_variable": _known(determined),
        "r_per_variable": _known(metrics.pearson(answer, target)),
        "mse": _mean((squares / scale**2)[np.isfinite(squares)]),
        "mse_per_variable": _known(raw / scale**2),
        "mse_raw_per_variable": _known(raw),
        "r2_per_session": _per_session(
            dataset, lambda rows: _mean_known(metrics.r2(answer[rows], target[rows]))
        ),
    }
    distance = metrics.distances(answer, target)
    if shared_unit(dataset) is not None and len(distance):
        scores["median_error"] = float(np.median(distance))
        assert dataset.train.targets is not None
        extent = metrics.extent(dataset.train.targets)
        scores["median_error_share"] = scores["median_error"] / extent if extent > 0 else None
    return scores, answer


SCORES = {"forecast": score_forecast, "classify": score_classify, "decode": score_decode}


def _answers(predict: Predict, inputs: Windows) -> Iterator[tuple[slice, np.ndarray]]:
    """Answers in float64, chunk by chunk, with the rows that they belong to."""
    for start in range(0, len(inputs), scoring.CHUNK):
        rows = slice(start, min(start + scoring.CHUNK, len(inputs)))
        yield rows, predict(inputs.batch(rows).inputs).astype(np.float64)


def _compare(rows: list[dict[str, Any]], dataset: Dataset) -> None:
    """Add every forecast's skill, 1 - MSE / MSE of persistence and of the train mean."""
    if dataset.task != "forecast":
        return
    for floor, key in (("persistence", "skill"), ("train mean", "skill_train_mean")):
        error = next(row["mse"] for row in rows if row["label"] == floor and not row["artifact"])
        for row in rows:
            row[key] = 1.0 - row["mse"] / error if error > 0 else None


def _trace(candidates: Sequence[Candidate], dataset: Dataset) -> dict[str, Any]:
    """A stretch of true and decoded behaviour, in the order of time, for the report's picture."""
    windows = dataset.test
    order = stretch(windows)
    shown = [candidates[0], *(c for c in candidates[1:] if c.model and not c.artifact)][:2]
    answers = {}
    for candidate in shown:
        inputs = windows.outside() if candidate.outside else windows
        answers[candidate.label] = candidate.predict(inputs.batch(order).inputs).tolist()
    assert windows.targets is not None
    return {
        "session": dataset.session_names[windows.sessions[order[0]]],
        "seconds": dataset.ends(windows)[order].tolist(),
        "target": [_known(row) for row in windows.targets[order]],
        "answers": answers,
    }


def _data(dataset: Dataset) -> dict[str, Any]:
    resampled = _resampling(dataset.test)
    facts = {
        "name": dataset.name,
        "description": dataset.description,
        "fingerprint": dataset.fingerprint,
        "synthetic": dataset.synthetic,
        "windows": len(dataset.test),
        "observed": dataset.test.observed,
        "steps": dataset.test.steps,
        "rate_hz": float(dataset.rate),
        "unit": dataset.unit,
        "channel_names": list(dataset.channel_names),
        "resampled": {
            "unit": resampled.unit,
            "count": resampled.count,
            "independent": resampled.independent,
        },
    }
    if dataset.task == "forecast":
        return facts
    facts["output_names"] = list(names_of(dataset))
    if dataset.task == "decode":
        facts |= {"output_units": list(output_units(dataset)), "shared_unit": shared_unit(dataset)}
    return facts


def _resampling(windows: Windows) -> Resampling:
    return metrics.resampling(windows.sessions, windows.starts, windows.trials)


def _per_session(dataset: Dataset, score: Any) -> dict[str, Any]:
    sessions = dataset.test.sessions
    return {
        name: score(np.flatnonzero(sessions == index))
        for index, name in enumerate(dataset.session_names)
        if (sessions == index).any()
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _mean_known(values: np.ndarray) -> float | None:
    """Mean of the finite values, None where there is none: JSON has no NaN."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _known(values: np.ndarray) -> list[float | None]:
    """Values with None for NaN."""
    return [float(value) if np.isfinite(value) else None for value in values]
