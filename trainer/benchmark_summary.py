"""From kept scores to a benchmark's tables: a pure function of what `benchmark_scores` wrote.

Per data set and model: the mean over seeds with its 95 % interval, the change against the reference
model on the same windows, the skill over the best linear model, and what it costs; over data sets
the mean rank. Goals and the ablation are in `benchmark_goals`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from trainer import metrics, paired
from trainer.benchmark_config import Benchmark
from trainer.benchmark_scores import Kept
from trainer.config import TrainingConfig
from trainer.metrics import Resampling
from trainer.models import MODELS
from trainer.paired import Difference, MovingBlocks, Score
from trainer.registry import UnknownNameError

RANKED = {"forecast": "mse", "classify": "balanced_accuracy", "decode": "r2"}
SMALLER = frozenset({"mse", "mse_raw", "median_error", "median_error_share", "median_along_share"})
METRICS = {
    "forecast": ("mse", "mse_raw"),
    "classify": ("accuracy", "balanced_accuracy"),
    "decode": ("r2", "median_error", "median_error_share", "median_along_share"),
}


@dataclass(frozen=True, eq=False)
class Results:
    """What was kept: data sets by label, and runs by (data, model), seed by seed."""

    data: Mapping[str, Kept]
    runs: Mapping[tuple[str, str], Sequence[Kept]]


def summarize(benchmark: Benchmark, results: Results) -> dict[str, Any]:
    """Everything that tables and pictures show, as plain JSON values."""
    sets = {label: _data_set(benchmark, results, label) for label in results.data}
    return {
        "name": benchmark.name,
        "title": benchmark.title or benchmark.name,
        "text": benchmark.text,
        "reference": benchmark.reference,
        "data": sets,
        "ranks": _ranks(benchmark, sets),
        "models": _models(benchmark, results),
    }


def ranked_by(benchmark: Benchmark, data: Kept) -> str:
    """The metric by which models are ranked on a data set."""
    chosen = benchmark.metric
    return chosen if chosen is not None and chosen in measures(data) else RANKED[data.facts["task"]]


def measures(data: Kept) -> list[str]:
    """The metrics that a data set has: distances are of variables with one unit."""
    return [
        name
        for name in METRICS[data.facts["task"]]
        if not name.startswith("median_") or data.facts["shared_unit"]
    ]


def scorer(data: Kept, runs: Sequence[Kept], metric: str, part: str = "test") -> Score:
    """A metric of a model on a part's windows, the mean over its seeds."""
    return paired.average([_score(data, run, metric, part) for run in runs])


def has(run: Kept, part: str) -> bool:
    """Whether a run has answers to a part; to what its model was fitted on there are none."""
    return any(name.startswith(f"{part}_") for name in run.arrays)


def drawing(data: Kept, part: str = "test") -> MovingBlocks | Resampling:
    """What a bootstrap draws: trials where there are some, else blocks of windows."""
    arrays, task = data.arrays, data.facts["task"]
    sessions, starts = arrays[f"{part}_sessions"], arrays[f"{part}_starts"]
    trials = arrays.get(f"{part}_trials")
    spacing = {
        each: _spacing(arrays[f"{each}_sessions"], arrays[f"{each}_starts"])
        for each in ("validation", "test")
    }
    ratio = spacing["test"] / spacing[part]
    return paired.drawing(task, sessions, starts, trials, ratio)


def _spacing(sessions: np.ndarray, starts: np.ndarray) -> float:
    """Samples between neighbouring windows of a session, the median."""
    order = np.lexsort((starts, sessions))
    steps = np.diff(starts[order])[np.diff(sessions[order]) == 0]
    return float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0


def _score(data: Kept, run: Kept, metric: str, part: str) -> Score:
    if metric in ("mse", "mse_raw"):
        return paired.mean(run.arrays[f"{part}_{metric}"])
    answer = run.arrays[f"{part}_answer"].astype(np.float64)
    target = data.arrays[f"{part}_target"]
    if metric in ("accuracy", "balanced_accuracy"):
        hits = 100.0 * (answer.argmax(axis=1) == target)
        balanced = metric == "balanced_accuracy"
        return paired.balanced_accuracy(hits, target) if balanced else paired.mean(hits)
    target = target.astype(np.float64)
    if metric == "r2":
        return paired.r2(answer, target)
    if metric == "median_along_share":  # the track is the main axis of the train part's targets
        distance = np.abs(((answer - target) * data.arrays["axis"]).sum(axis=1))
    else:
        distance = np.sqrt(np.square(answer - target).sum(axis=1))
    share = metric != "median_error"
    return paired.median(100.0 * distance / data.facts["extent"] if share else distance)


def per_seed(
    results: Results, place: tuple[str, str], metric: str, part: str = "test"
) -> list[float]:
    """A metric of (data, model) on a part, seed by seed."""
    data = results.data[place[0]]
    once = np.ones((1, len(data.arrays[f"{part}_starts"])))
    return [float(_score(data, run, metric, part)(once)[0]) for run in results.runs[place]]


def over_windows(results: Results, place: tuple[str, str], metric: str) -> list[float] | None:
    """The 95 % interval of `value` over test windows: trials, or blocks of them."""
    data = results.data[place[0]]
    score = scorer(data, results.runs[place], metric)
    drawn = drawing(data)
    return paired.compare(score, lambda counts: 0.0 * counts[:, 0], drawn, relative=False).interval


def _data_set(benchmark: Benchmark, results: Results, label: str) -> dict[str, Any]:
    data = results.data[label]
    metric = ranked_by(benchmark, data)
    order = [model for model in benchmark.models if (label, model) in results.runs]
    rows = [_row(results, label, model, measures(data)) for model in order]
    linear = [row for row in rows if row["model"] in benchmark.linear_models()]
    best = None
    if linear:
        sign = 1.0 if metric in SMALLER else -1.0
        best = min(linear, key=lambda row: sign * row["scores"][metric]["mean"])
    places = _places({row["model"]: row["scores"][metric]["mean"] for row in rows}, metric)
    for row in rows:
        row["rank"] = places[row["model"]]
        row["skill"] = _skill(row, best, metric)
        row["paired"] = _against(benchmark, results, label, row["model"], metric)
    return {
        **{key: value for key, value in data.facts.items() if key != "channel_names"},
        "metric": metric,
        "unit_of_metric": unit(metric, data.facts),
        "best_linear": None if best is None else best["model"],
        "compared_with": benchmark.compared_with.get(label),
        "rows": rows,
    }


def unit(metric: str, facts: Mapping[str, Any]) -> str:
    """The unit of a metric on a data set."""
    return {
        "mse": "train variance",
        "mse_raw": f"({facts['unit']})²",
        "accuracy": "%",
        "balanced_accuracy": "%",
        "r2": "1",
        "median_error": str(facts.get("shared_unit")),
        "median_error_share": "% of the range",
        "median_along_share": "% of the range",
    }[metric]


def _row(results: Results, label: str, model: str, names: Sequence[str]) -> dict[str, Any]:
    runs = results.runs[label, model]
    scores = {}
    for name in names:
        held_out = None
        if all(has(run, "validation") for run in runs):
            held_out = float(np.mean(per_seed(results, (label, model), name, "validation")))
        own = per_seed(results, (label, model), name)
        scores[name] = {**spread(own), "validation": held_out}
    facts = [run.facts for run in runs]
    return {
        "model": model,
        "seeds": [one["seed"] for one in facts],
        "scores": scores,
        **{key: facts[0][key] for key in ("parameters", "artifact_bytes", "members")},
        "latency_ms": float(np.median([one["latency_ms"] for one in facts])),
        "training_cpu_s": _mean([one["training_cpu_s"] for one in facts]),
        "resumed": any(one["resumed"] for one in facts),
        "artifacts": [one["artifact"] for one in facts],
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds with standard deviation and Student's 95 % half width; null for one seed."""
    found: dict[str, Any] = {"mean": float(np.mean(values)), "per_seed": list(values)}
    found["sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    found["half_width"] = None
    if len(values) > 1:
        student = float(stats.t.ppf(0.5 + metrics.LEVEL / 200.0, len(values) - 1))
        found["half_width"] = student * found["sd"] / float(np.sqrt(len(values)))
    return found


def settings(config: Mapping[str, Any], epochs: int | None) -> dict[str, Any]:
    """What a run's model and training set otherwise than by default; paths are left out.

    Without `epochs` nothing was trained, and its settings did nothing.
    """
    model = dict(config["model"])
    name = model.pop("name")
    try:
        usual = {
            key: field.get_default(call_default_factory=True)
            for key, field in MODELS.settings(name).model_fields.items()
        }
    except UnknownNameError:
        usual = {}
    chosen = {
        key: value
        for key, value in model.items()
        if key not in ("members", "trained") and value != usual.get(key)
    }
    defaults = TrainingConfig().model_dump(mode="json")
    trained = {
        key: value for key, value in config["training"].items() if value != defaults.get(key)
    }
    return {"model": chosen, "training": trained if epochs else {}}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _skill(row: Mapping[str, Any], best: Mapping[str, Any] | None, metric: str) -> float | None:
    """Share of the best linear model's error that is gone; of accuracies, of its mistakes."""
    if best is None:
        return None
    own, linear = (each["scores"][metric]["mean"] for each in (row, best))
    if metric not in SMALLER:
        full = 1.0 if metric == "r2" else 100.0
        own, linear = full - own, full - linear
    return 1.0 - own / linear if linear > 0 else None


def _against(
    benchmark: Benchmark, results: Results, label: str, model: str, metric: str
) -> dict[str, Any] | None:
    other = benchmark.compared_with.get(label, label)
    if (other, benchmark.reference) not in results.runs or (
        model == benchmark.reference and other == label
    ):
        return None
    found, windows = difference(results, (label, model), (other, benchmark.reference), metric)
    against = benchmark.reference if other == label else f"{benchmark.reference} on {other}"
    return {
        "against": against,
        "value": found.value,
        "interval": found.interval,
        "unit": difference_unit(metric),
        "windows": windows,
    }


def difference_unit(metric: str) -> str:
    """How two models' scores are compared: errors by their change, shares by their difference."""
    return "%" if metric in SMALLER else "points" if metric != "r2" else "R²"


def difference(
    results: Results,
    mine: tuple[str, str],
    other: tuple[str, str],
    metric: str,
    part: str = "test",
) -> tuple[Difference, int]:
    """(data, model) against another on the windows of the first; how many windows it was.

    Where the data differ, both are forecasts of one recording: the targets that both have count, in
    units of the other's scale.
    """
    if mine[0] != other[0]:
        return _on_common_targets(results, mine, other, metric)
    data = results.data[mine[0]]
    found = paired.compare(
        scorer(data, results.runs[mine], metric, part),
        scorer(data, results.runs[other], metric, part),
        drawing(data, part),
        relative=metric in SMALLER,
    )
    return found, len(data.arrays[f"{part}_starts"])


def _on_common_targets(
    results: Results, mine: tuple[str, str], other: tuple[str, str], metric: str
) -> tuple[Difference, int]:
    sides = [results.data[place[0]] for place in (mine, other)]
    if any(side.facts["task"] != "forecast" for side in sides):
        raise ValueError(f"{mine[0]} and {other[0]}: only forecasts have targets in common")
    keys = [
        list(
            zip(
                side.arrays["test_sessions"].tolist(),
                (side.arrays["test_starts"] + side.facts["observed"]).tolist(),
                strict=True,
            )
        )
        for side in sides
    ]
    shared = sorted(set(keys[0]) & set(keys[1]))
    if not shared:
        return Difference(None, None), 0
    scale = sides[1].arrays["scale"] if metric == "mse" else np.ones(1)
    scores = []
    for place, side, own in zip((mine, other), sides, keys, strict=True):
        rows = np.array([own.index(key) for key in shared])
        target = side.arrays["test_neural"][rows][:, side.facts["observed"] :]
        scores.append(
            paired.average(
                [
                    paired.mean(
                        np.square((run.arrays["test_answer"][rows] - target) / scale).mean((1, 2))
                    )
                    for run in results.runs[place]
                ]
            )
        )
    sessions, starts = np.array(shared).T
    drawn = paired.drawing("forecast", sessions, starts)
    return paired.compare(scores[0], scores[1], drawn, relative=True), len(shared)


def _places(values: Mapping[str, float], metric: str) -> dict[str, float]:
    """Ranks from 1, the best first; equal ones share their mean rank."""
    sign = 1.0 if metric in SMALLER else -1.0
    ranks = stats.rankdata([sign * value for value in values.values()])
    return dict(zip(values, map(float, ranks), strict=True))


def _ranks(benchmark: Benchmark, sets: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Mean rank of every model that was run on all data sets, the best first."""
    found = []
    for model in benchmark.models:
        ranks = {
            label: row["rank"]
            for label, one in sets.items()
            if label not in benchmark.compared_with
            for row in one["rows"]
            if row["model"] == model
        }
        wanted = [label for label in sets if label not in benchmark.compared_with]
        if wanted and set(ranks) == set(wanted):
            mean = float(np.mean(list(ranks.values())))
            found.append({"model": model, "mean_rank": mean, "ranks": ranks})
    return sorted(found, key=lambda row: (row["mean_rank"], row["model"]))


def _models(benchmark: Benchmark, results: Results) -> dict[str, Any]:
    """What each model is: its registered name, and the settings of its first run on each data."""
    found: dict[str, Any] = {}
    for label, entry in benchmark.entries().items():
        runs = {data: kept[0] for (data, model), kept in results.runs.items() if model == label}
        if runs:
            found[label] = {
                "registered": next(iter(runs.values())).facts["model"],
                "ensemble_of": list(entry.ensemble_of),
                "settings": {
                    data: settings(run.facts["config"], run.facts["epochs"])
                    for data, run in runs.items()
                },
            }
    return found
