"""How good an artifact is on the test part, beside the baselines that it must beat.

Artifacts answer through `artifact.load(...).predict`, the code that serves and submits them; every
sum is in float64. Forecasts are scored on the steps after the observed ones, in raw units and in
units of each channel's standard deviation in the train part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

import artifact
from artifact.bundle import write_file
from artifact.manifest import canonical_json
from artifact.model import Model
from trainer import folder, plots, report, scoring
from trainer.config import RunConfig, load_config
from trainer.data import DataError, load_dataset
from trainer.data.windows import Batch, Dataset, Statistics, Windows
from trainer.determinism import deterministic
from trainer.models import build_model

# Answers to masked inputs: (batch, time, channel) in raw units, or (batch, class) probabilities.
Predict = Callable[[Mapping[str, np.ndarray]], np.ndarray]
EXAMPLES = 64
THREADS = 2  # torch's: part of the bits of the baselines
PICTURED_CHANNELS = 4


class EvaluationError(ValueError):
    """The artifact cannot be scored on these data; the text says why and what would help."""


@dataclass(frozen=True)
class Candidate:
    """Something to score: `artifact` is its id, empty for a baseline fitted here."""

    label: str
    model: str
    predict: Predict
    artifact: str = ""
    note: str = ""


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
    score = score_forecast if dataset.task == "forecast" else score_classify
    scale = scoring.target_scale(dataset.train)
    rows = []
    with deterministic(THREADS):
        candidates += baselines(dataset)
        for candidate in track(candidates, "scoring", console=console, transient=True):
            facts = {key: value for key, value in vars(candidate).items() if key != "predict"}
            rows.append(facts | score(candidate.predict, dataset, scale))
    found = {"task": dataset.task, "part": "test", "data": _data(dataset), "models": rows}
    write_file(output / "report.json", canonical_json(found))
    write_file(output / "report.md", report.markdown(found).encode())
    draw_report(found, output / "report.png")
    return found


def own_dataset(model: Model, path: Path) -> Dataset:
    """The data set that the artifact at `path` was trained on.

    Its run folder, where it still lies in one, knows the path of the data; the configuration inside
    an artifact keeps no path of the machine it was made on. Raises EvaluationError where the data
    cannot be read, or are not the same.
    """
    name = model.manifest.name
    beside = path.resolve().parent
    if (beside / folder.CHECKPOINT).is_file():
        data: Any = load_config(beside / folder.CONFIG, []).data
    else:
        data = model.manifest.config.get("data")
    if not isinstance(data, Mapping):
        raise EvaluationError(f"{name}: its configuration names no data set; give --config CONFIG")
    try:
        dataset = load_dataset(data)
    except DataError as error:
        raise EvaluationError(
            f"{name}: the data set of its configuration cannot be read here ({error}); "
            "give --config CONFIG"
        ) from None
    trained = model.manifest.provenance.get("data_fingerprint")
    if dataset.fingerprint != trained:
        raise EvaluationError(
            f"{name}: the data that its configuration names hold something else here (fingerprint "
            f"{dataset.fingerprint[:12]}…, trained on {str(trained)[:12]}…); give --config CONFIG "
            "to score it on other data"
        )
    return dataset


def labels(models: Sequence[Model]) -> list[str]:
    """The artifacts' names, with the beginning of the id where two share one."""
    names = [model.manifest.name for model in models]
    return [
        f"{name} {model.id[:8]}" if names.count(name) > 1 else name
        for name, model in zip(names, models, strict=True)
    ]


def of_artifact(
    model: Model, label: str, dataset: Dataset, statistics: Statistics
) -> list[Candidate]:
    """An artifact as it answers; where its output is normalized, also brought to raw units.

    The second is possible where the artifact was trained on these data, whose statistics undo
    z = (x - mean) / (4 std).
    """
    manifest = model.manifest
    if manifest.task != dataset.task:
        raise EvaluationError(
            f"{label}: its task is {manifest.task}, that of data set {dataset.name!r} is "
            f"{dataset.task}; give --config CONFIG with other data"
        )
    (name,) = (spec.name for spec in manifest.outputs)
    same_data = manifest.provenance.get("data_fingerprint") == dataset.fingerprint
    note = "" if same_data else "trained on other data"

    def predict(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(model.predict(inputs)[name])

    def predict_raw(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(predict(inputs) * (4.0 * statistics.std[:, 0]) + statistics.mean[:, 0])

    if manifest.outputs[0].unit != "normalized":
        return [Candidate(label, manifest.model, predict, model.id, note)]
    as_is = "; ".join(filter(None, [note, "normalized output scored as it is, as published"]))
    found = [Candidate(f"{label} (as published)", manifest.model, predict, model.id, as_is)]
    if same_data:
        undone = "its normalized output brought to raw units here"
        found.insert(0, Candidate(label, manifest.model, predict_raw, model.id, undone))
    return found


def baselines(dataset: Dataset) -> list[Candidate]:
    """Models without training: persistence and linear, or the most frequent class."""
    if dataset.task == "classify":
        return [Candidate("most frequent", "", _class_shares(dataset))]
    return [Candidate(name, name, _fitted(name, dataset)) for name in ("linear", "persistence")]


def score_forecast(predict: Predict, dataset: Dataset, scale: np.ndarray) -> dict[str, Any]:
    """Mean squared error over test windows: in all, per step, channel and session.

    `mse` is in units of `scale` (channel,) squared, `mse_raw` in those of the recording squared.
    """
    windows = dataset.test
    horizon = windows.steps - windows.observed
    sums = np.zeros((len(dataset.session_names), horizon, len(scale)))
    counts = np.bincount(windows.sessions, minlength=len(sums))
    for rows in _chunks(windows):
        batch = windows.batch(rows)
        answer = predict(batch.inputs).astype(np.float64)[:, windows.observed :]
        target = batch.targets["forecast"][:, windows.observed :].astype(np.float64)
        np.add.at(sums, windows.sessions[rows], (answer - target) ** 2)
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
    return scores


def score_classify(predict: Predict, dataset: Dataset, scale: np.ndarray) -> dict[str, Any]:
    """Accuracy, balanced accuracy, cross-entropy (nats) and confusion matrix on the test part."""
    windows = dataset.test
    answers = [predict(windows.batch(rows).inputs) for rows in _chunks(windows)]
    probability = np.concatenate(answers).astype(np.float64)
    choice = windows.batch(slice(None)).targets["choice"]
    confusion = np.zeros((probability.shape[1],) * 2, np.int64)
    np.add.at(confusion, (choice, probability.argmax(axis=1)), 1)
    trials = confusion.sum(axis=1)
    hits = confusion.diagonal()
    given = probability[np.arange(len(choice)), choice]
    return {
        "accuracy": float(hits.sum() / trials.sum()),
        "balanced_accuracy": float((hits[trials > 0] / trials[trials > 0]).mean()),
        "cross_entropy": float(-np.log(np.maximum(given, 1e-12)).mean()),
        "confusion": confusion.tolist(),
    }


def of_module(module: torch.nn.Module, windows: Windows) -> Predict:
    """A torch module as something that answers, in raw units."""

    def predict(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        with torch.no_grad():
            batch = Batch(dict(inputs), {})
            return scoring.forward(module.eval(), windows, batch, device).cpu().numpy()

    return predict


def examples(windows: Windows) -> Batch:
    """Some windows, evenly spread over a part."""
    places = np.linspace(0, len(windows) - 1, EXAMPLES).round().astype(np.int64)
    return windows.batch(np.unique(places))


def draw_example(
    dataset: Dataset, predictors: Mapping[str, Predict], destination: Path, title: str
) -> Path:
    """Draw what models answer on the test part; the first one's answers choose what is shown.

    Forecast: the window with the median error among some of them, beside persistence; decode: the
    first model's confusion matrix.
    """
    windows = dataset.test
    if dataset.task == "classify":
        scores = score_classify(next(iter(predictors.values())), dataset, np.ones(1))
        shown = {"accuracy": scores["accuracy"], "balanced": scores["balanced_accuracy"]}
        matrix = np.array(scores["confusion"])
        return plots.confusion(
            destination, matrix, title=title, scores=shown, score_label="accuracy"
        )
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


def draw_report(found: Mapping[str, Any], destination: Path) -> Path:
    """Draw a report: errors per step and channel, or a confusion matrix and accuracies."""
    rows, data = found["models"], found["data"]
    title = f"{rows[0]['label']}: {data['windows']} test windows of {data['name']}"
    title += " (SYNTHETIC data)" * data["synthetic"]
    if found["task"] == "classify":
        shown = {row["label"]: row["balanced_accuracy"] for row in rows}
        matrix = np.array(rows[0]["confusion"])
        return plots.confusion(
            destination, matrix, title=title, scores=shown, score_label="balanced accuracy"
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


def _data(dataset: Dataset) -> dict[str, Any]:
    return {
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
    }


def _chunks(windows: Windows) -> list[slice]:
    starts = range(0, len(windows), scoring.CHUNK)
    return [slice(start, min(start + scoring.CHUNK, len(windows))) for start in starts]


def _fitted(name: str, dataset: Dataset) -> Predict:
    module = build_model({"name": name}, dataset.context())
    fit = getattr(module, "fit_closed_form", None)
    if fit is not None:
        fit(dataset.train, dataset.validation)
    return of_module(module, dataset.test)


def _class_shares(dataset: Dataset) -> Predict:
    """Every trial gets the classes' shares of the train part."""
    choice = dataset.train.batch(slice(None)).targets["choice"]
    classes = dataset.context().classes
    shares = np.bincount(choice, minlength=classes or 0) / len(choice)

    def predict(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        rows = len(next(iter(inputs.values())))
        return np.broadcast_to(shares, (rows, len(shares)))

    return predict
