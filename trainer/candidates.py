"""What an evaluation scores: artifacts as they answer, and the baselines that they must beat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from artifact.model import Model
from trainer import folder, scoring
from trainer.config import load_config
from trainer.data import DataError, load_dataset
from trainer.data.windows import Batch, Dataset, Statistics, Windows
from trainer.models import MODELS, build_model

# Answers to inputs of a batch: (batch, time, channel) in raw units, (batch, class) probabilities,
# or (batch, variable) in raw units.
Predict = Callable[[Mapping[str, np.ndarray]], np.ndarray]
# Models that are fitted here to compare with, by task.
FITTED = {
    "forecast": ("linear", "persistence"),
    "classify": ("linear_readout",),
    "decode": ("linear_readout",),
}


class EvaluationError(ValueError):
    """The artifact cannot be scored on these data; the text says why and what would help."""


@dataclass(frozen=True)
class Candidate:
    """Something to score: `artifact` is its id, empty for a baseline fitted here.

    `baseline`: it is one of the models that are fitted here to compare with, or an artifact of one.
    `outside`: it takes the windows before the preparation inside an artifact's graph.
    """

    label: str
    model: str
    predict: Predict
    artifact: str = ""
    note: str = ""
    baseline: bool = False
    outside: bool = False


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
    z = (x - mean) / (4 std). Raises EvaluationError where it does another task or takes or gives
    arrays of other shapes.
    """
    manifest = model.manifest
    if manifest.task != dataset.task:
        raise EvaluationError(
            f"{label}: its task is {manifest.task}, that of data set {dataset.name!r} is "
            f"{dataset.task}; give --config CONFIG with other data"
        )
    (name,) = (spec.name for spec in manifest.outputs)
    _check_answers(model, label, dataset)
    same_data = manifest.provenance.get("data_fingerprint") == dataset.fingerprint
    note = "" if same_data else "trained on other data"
    simple = is_baseline(model, dataset)
    if simple and manifest.model != "persistence":
        note = f"it is the baseline {manifest.model} itself"

    def predict(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(model.predict(inputs)[name])

    def predict_raw(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(predict(inputs) * (4.0 * statistics.std[:, 0]) + statistics.mean[:, 0])

    as_is = Candidate(label, manifest.model, predict, model.id, note, simple, outside=True)
    if manifest.outputs[0].unit != "normalized":
        return [as_is]
    told = "; ".join(filter(None, [note, "normalized output scored as it is, as published"]))
    found = [replace(as_is, label=f"{label} (as published)", note=told)]
    if same_data:
        undone = "its normalized output brought to raw units here"
        found.insert(0, replace(as_is, predict=predict_raw, note=undone))
    return found


def _check_answers(model: Model, label: str, dataset: Dataset) -> None:
    """Raise EvaluationError unless the artifact answers with these very classes or variables."""
    if dataset.task == "forecast":
        return
    given, wanted = model.manifest.outputs[0].shape[1], dataset.test.outputs[0].shape[1]
    axis = dataset.test.outputs[0].axes[1].name
    if given != wanted:
        raise EvaluationError(f"{label}: axis {axis} of its answer is {given}; the data's {wanted}")
    plan = model.manifest.provenance.get("data", {}).get("plan")
    names = tuple(plan["outputs"]) if plan else dataset.output_names
    if names != dataset.output_names:
        raise EvaluationError(
            f"{label}: it answers with {', '.join(names)}; the data hold "
            f"{', '.join(dataset.output_names)}"
        )


def is_baseline(model: Model, dataset: Dataset) -> bool:
    """Whether an artifact is one of the models that `baselines` would fit here."""
    name = model.manifest.model
    return (
        name in FITTED[dataset.task]
        and model.manifest.provenance.get("data_fingerprint") == dataset.fingerprint
        and model.manifest.config.get("model")
        == {"name": name, **MODELS.settings(name)().model_dump(mode="json")}
    )


def baselines(dataset: Dataset, given: Iterable[Model] = ()) -> list[Candidate]:
    """Models that need no training: fitted in closed form, or nothing but the train part's mean.

    One that is among the artifacts `given` already is left out, but for persistence, by which
    others are measured.
    """
    same = {model.manifest.model for model in given if is_baseline(model, dataset)}
    found = [
        Candidate(name, name, _fitted(name, dataset), baseline=True)
        for name in FITTED[dataset.task]
        if name == "persistence" or name not in same
    ]
    if dataset.task == "classify":
        return [*found, Candidate("most frequent", "", _class_shares(dataset), baseline=True)]
    mean = _constant(dataset, _train_mean(dataset))
    found.append(Candidate("train mean", "", mean, baseline=True))
    if dataset.task == "decode" and shared_unit(dataset) is not None:
        assert dataset.train.targets is not None
        median = np.nanmedian(dataset.train.targets.astype(np.float64), axis=0)
        found.append(Candidate("train median", "", _constant(dataset, median), baseline=True))
    return found


def output_units(dataset: Dataset) -> tuple[str, ...]:
    """The unit of each decoded variable, "raw" where it is not known."""
    if dataset.plan is not None:
        return tuple(unit or "raw" for unit in dataset.plan.output_units)
    spec = dataset.train.outputs[0]
    return (spec.unit,) * (spec.shape[1] or 0)


def shared_unit(dataset: Dataset) -> str | None:
    """The unit that all decoded variables share, so that distances mean something; else None."""
    units = set(output_units(dataset))
    return units.pop() if len(units) == 1 and "raw" not in units else None


def of_module(module: torch.nn.Module, windows: Windows) -> Predict:
    """A torch module as something that answers, in raw units."""

    def predict(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        with torch.no_grad():
            batch = Batch(dict(inputs), {})
            return scoring.forward(module.eval(), windows, batch, device).cpu().numpy()

    return predict


def _fitted(name: str, dataset: Dataset) -> Predict:
    module = build_model({"name": name}, dataset.context())
    fit = getattr(module, "fit_closed_form", None)
    if fit is not None:
        fit(dataset.train, dataset.validation)
    return of_module(module, dataset.test)


def _class_shares(dataset: Dataset) -> Predict:
    """Every window gets the classes' shares of the train part."""
    assert dataset.train.targets is not None
    classes = dataset.context().classes
    counts = np.bincount(dataset.train.targets, minlength=classes or 0)
    return _constant(dataset, counts / len(dataset.train))


def _train_mean(dataset: Dataset) -> np.ndarray:
    return np.asarray(dataset.train.target_statistics().mean)


def _constant(dataset: Dataset, answer: np.ndarray) -> Predict:
    """The same answer (class, variable or channel) to every window, and at every step."""
    steps = (dataset.test.steps,) if dataset.task == "forecast" else ()

    def predict(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        rows = len(next(iter(inputs.values())))
        return np.broadcast_to(answer, (rows, *steps, len(answer)))

    return predict
