"""Which answers are drawn: of a run on a few test windows, of a report on the whole test part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer import answer_plots, metrics, plots
from trainer.candidates import Predict, output_units
from trainer.data.windows import Batch, Dataset, Windows

EXAMPLES = 64
PICTURED_CHANNELS = 4
PICTURED_WINDOWS = 400


def examples(windows: Windows) -> Batch:
    """Some windows, evenly spread over a part."""
    places = np.linspace(0, len(windows) - 1, EXAMPLES).round().astype(np.int64)
    return windows.batch(np.unique(places))


def stretch(windows: Windows, count: int = PICTURED_WINDOWS) -> np.ndarray:
    """The first windows of a part's first session, in the order of time: (window,) rows."""
    order = np.lexsort((windows.starts, windows.sessions))
    return order[windows.sessions[order] == windows.sessions[order[0]]][:count]


def names_of(dataset: Dataset) -> tuple[str, ...]:
    """The classes of classify or the variables of decode; numbers where the data name none."""
    count = dataset.test.outputs[0].shape[1] or 0
    return dataset.output_names or tuple(map(str, range(count)))


def draw_example(
    dataset: Dataset, predictors: Mapping[str, Predict], destination: Path, title: str
) -> Path:
    """Draw what models answer on the test part; the first one's answers choose what is shown.

    Forecast: the window with the median error among some of them, beside persistence; classify: the
    first model's confusion matrix; decode: behaviour over time.
    """
    if dataset.task == "classify":
        return _draw_confusion(dataset, predictors, destination, title)
    if dataset.task == "decode":
        return _draw_decoded(dataset, predictors, destination, title)
    return _draw_forecast(dataset, predictors, destination, title)


def draw_report(found: Mapping[str, Any], destination: Path) -> Path:
    """Draw a report: errors per step and channel, a confusion matrix, or decoded behaviour."""
    rows, data = found["models"], found["data"]
    title = f"{rows[0]['label']}: {data['windows']} test windows of {data['name']}"
    title += " (SYNTHETIC data)" * data["synthetic"]
    if found["task"] == "classify":
        return answer_plots.confusion(
            destination,
            np.array(rows[0]["confusion"]),
            class_names=data["output_names"],
            title=title,
            scores={row["label"]: row["balanced_accuracy"] for row in rows},
            intervals={row["label"]: row["balanced_accuracy_interval"] for row in rows},
            chance=rows[0]["chance"],
        )
    if found["task"] == "decode":
        trace = found["trace"]
        score = rows[0]["r2"]
        return answer_plots.decoded(
            destination,
            np.array(trace["seconds"]),
            np.array(trace["target"], np.float64),
            {name: np.array(values) for name, values in trace["answers"].items()},
            names=_with_scores(data["output_names"], rows[0]["r2_per_variable"]),
            units=data["output_units"],
            title=title if score is None else f"{title}, R² {score:.3f}",
            time_label=f"time in session {trace['session']} (s)",
        )
    # Normalized output scored as raw is off by orders of magnitude and would flatten the rest.
    kept = [row for row in rows if "as published" not in row["note"]] or rows
    return plots.error_report(
        destination,
        {row["label"]: row["mse_per_step"] for row in kept},
        {row["label"]: row["mse_per_channel"] for row in kept},
        observed=data["observed"],
        rate=data["rate_hz"],
        channel_names=data["channel_names"],
        title=title,
    )


def _draw_forecast(
    dataset: Dataset, predictors: Mapping[str, Predict], destination: Path, title: str
) -> Path:
    windows = dataset.test
    batch = examples(windows)
    answers = {name: predict(batch.inputs) for name, predict in predictors.items()}
    target = batch.targets["forecast"]
    first = next(iter(answers.values()))
    error = ((first - target)[:, windows.observed :] ** 2).mean(axis=(1, 2))
    row = int(np.argsort(error, kind="stable")[len(error) // 2])
    count = min(PICTURED_CHANNELS, target.shape[2])
    chosen = np.linspace(0, target.shape[2] - 1, count).round().astype(np.int64)
    answers["persistence"] = np.broadcast_to(
        target[:, windows.observed - 1 : windows.observed], target.shape
    )
    return plots.forecast_example(
        destination,
        target[row][:, chosen],
        {name: values[row][:, chosen] for name, values in answers.items()},
        observed=windows.observed,
        rate=dataset.rate,
        channel_names=[dataset.channel_names[i] for i in chosen],
        unit=dataset.unit,
        title=f"{title}: a test window with median error",
    )


def _draw_confusion(
    dataset: Dataset, predictors: Mapping[str, Predict], destination: Path, title: str
) -> Path:
    windows, names = dataset.test, names_of(dataset)
    assert windows.targets is not None
    resampled = metrics.resampling(windows.sessions, windows.starts, windows.trials)
    counts, scores, intervals = {}, {}, {}
    for name, predict in predictors.items():
        parts = [predict(windows.batch(rows).inputs).argmax(axis=1) for rows in windows.chunks()]
        decided = np.concatenate(parts)
        counts[name] = metrics.confusion(decided, windows.targets, len(names))
        scores[name] = metrics.balanced_accuracy(counts[name])
        intervals[name] = metrics.balanced_accuracy_interval(
            decided, windows.targets, len(names), resampled
        )
    first = next(iter(counts.values()))
    return answer_plots.confusion(
        destination,
        first,
        class_names=names,
        title=f"{title}: the test part",
        scores=scores,
        intervals=intervals,
        chance=1.0 / int((first.sum(axis=1) > 0).sum()),
    )


def _draw_decoded(
    dataset: Dataset, predictors: Mapping[str, Predict], destination: Path, title: str
) -> Path:
    windows = dataset.test
    rows = stretch(windows)
    batch = windows.batch(rows)
    return answer_plots.decoded(
        destination,
        dataset.ends(windows)[rows],
        batch.targets["behavior"],
        {name: predict(batch.inputs) for name, predict in predictors.items()},
        names=names_of(dataset),
        units=output_units(dataset),
        title=f"{title}: behaviour in the test part",
        time_label=f"time in session {dataset.session_names[windows.sessions[rows[0]]]} (s)",
    )


def _with_scores(names: list[str], scores: list[float | None]) -> list[str]:
    return [
        name if score is None else f"{name}, R² {score:.3f}"
        for name, score in zip(names, scores, strict=True)
    ]
