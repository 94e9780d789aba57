"""What a benchmark keeps of every run: its answers and costs, so that no table needs a training.

SCORES/DATA/data.npz and data.json hold what is common to the runs on a data set, SCORES/DATA/MODEL/
seed-S.npz a run's answers, .json its facts. SCORES/looks.jsonl gets a line each time that a test
part is scored; nothing is ever taken out of it. Labels differ from benchmark to benchmark; looks
are counted by the registered name of the data.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import artifact
from artifact.arrays import encode_npz
from artifact.bundle import write_file
from artifact.manifest import canonical_json
from artifact.model import Model
from trainer import candidates, metrics, scoring
from trainer.candidates import Predict
from trainer.data.errors import DataError
from trainer.data.windows import TARGETS, Dataset, Windows

LOOKS = "looks.jsonl"
LATENCY_RUNS = 60
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)


@dataclass(frozen=True, eq=False)
class Kept:
    """The arrays and facts of one run, or of a data set."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]


def keep_data(dataset: Dataset, label: str, scores: Path) -> None:
    """Write what runs on a data set share: targets, places in time, scales, electrode positions."""
    arrays: dict[str, np.ndarray] = {"scale": scoring.target_scale(dataset.train)}
    for part in ("validation", "test"):
        windows = dataset.parts[part]
        arrays |= {
            f"{part}_sessions": windows.sessions,
            f"{part}_starts": windows.starts,
            f"{part}_seconds": dataset.ends(windows),
        }
        if windows.trials is not None and (windows.trials >= 0).all():
            arrays[f"{part}_trials"] = windows.trials
        if windows.task != "forecast":
            arrays[f"{part}_target"] = windows.batch(slice(None)).targets[TARGETS[windows.task]]
        if windows.task == "decode":
            _check_movement(arrays[f"{part}_target"], dataset, label, part)
    if dataset.task != "decode":
        arrays["test_neural"] = dataset.test.recorded(slice(None))["neural"][..., 0]
    if dataset.positions is not None:
        arrays["positions"] = dataset.positions
    facts = {
        "label": label,
        "name": dataset.name,
        "description": dataset.description,
        "fingerprint": dataset.fingerprint,
        "task": dataset.task,
        "observed": dataset.test.observed,
        "steps": dataset.test.steps,
        "rate_hz": float(dataset.rate),
        "unit": dataset.unit,
        "channel_names": list(dataset.channel_names),
        "session_names": list(dataset.session_names),
        "output_names": list(dataset.output_names),
        "windows": {part: len(windows) for part, windows in dataset.parts.items()},
        "synthetic": dataset.synthetic,
    }
    if dataset.task == "decode":
        facts["output_units"] = list(candidates.output_units(dataset))
        facts["shared_unit"] = candidates.shared_unit(dataset)
        assert dataset.train.targets is not None
        facts["extent"] = metrics.extent(dataset.train.targets)
        arrays["axis"] = metrics.principal_axis(dataset.train.targets)
    _write(scores / label / "data", arrays, facts)


def _check_movement(targets: np.ndarray, dataset: Dataset, label: str, part: str) -> None:
    """Raise DataError where targets (window, variable) stand still, and there is no R²."""
    for name, values in zip(dataset.output_names, targets.T, strict=True):
        if len(np.unique(values[np.isfinite(values)])) < 2:
            raise DataError(
                f"data.{label}: {name} does not change in the {part} part, where R² is not defined "
                "then: split otherwise"
            )


def keep_run(
    dataset: Dataset,
    place: Path,
    run: Path,
    scores: Path,
    facts: Mapping[str, Any],
    parts: Sequence[str] = ("validation", "test"),
) -> None:
    """Score the artifact of a finished run on those parts that it was not fitted on; write answers.

    `facts` are added to those that are written. Answers in normalized units are brought to raw
    ones. Raises EvaluationError where the artifact does not suit the data.
    """
    path = run / "artifact"
    model = artifact.load(path)
    statistics = dataset.train.statistics()
    predict = candidates.of_artifact(model, str(place), dataset, statistics)[0].predict
    arrays: dict[str, np.ndarray] = {}
    scale = scoring.target_scale(dataset.train)
    for part in held_out(model.manifest.metrics):
        if part in parts:
            arrays |= _answers(predict, dataset.parts[part], part, scale)
    look = {
        "data": facts["config"]["data"]["name"],
        "place": str(place),
        "config": facts["settings_sha256"],
        "artifact": model.id,
    }
    if "test" in parts:
        _count(look, scores / LOOKS)
    kept = {
        **facts,
        "fingerprint": dataset.fingerprint,
        "artifact": model.id,
        "model": model.manifest.model,
        "sources": dict(model.manifest.provenance["sources"]),
        "parameters": _parameters(path / "model.onnx"),
        "artifact_bytes": sum(file.stat().st_size for file in path.iterdir() if file.is_file()),
        "latency_ms": _latency(model, dataset.test),
    }
    _write(scores / place, arrays, kept)


def _count(look: Mapping[str, str], looks: Path) -> None:
    looks.parent.mkdir(parents=True, exist_ok=True)
    with looks.open("a") as file:
        file.write(json.dumps(look, sort_keys=True) + "\n")


def held_out(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts that an artifact was not fitted on, by the names of its metrics."""
    seen = not any(name.startswith("validation_") for name in metrics)
    return ("test",) if seen else ("validation", "test")


def read(path: Path) -> Kept | None:
    """What `keep_data` or `keep_run` wrote to `path`, which has no suffix; None if absent."""
    facts, arrays = read_facts(path), path.with_name(path.name + ".npz")
    if facts is None or not arrays.is_file():
        return None
    with np.load(arrays, allow_pickle=False) as file:
        return Kept({name: file[name] for name in file.files}, facts)


def read_facts(path: Path) -> dict[str, Any] | None:
    """The facts of `read` alone."""
    facts = path.with_name(path.name + ".json")
    return dict(json.loads(facts.read_text())) if facts.is_file() else None


def looks(scores: Path) -> list[dict[str, str]]:
    """Every time that a run was scored on its test part, from the first."""
    path = scores / LOOKS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def count_looks(
    scores: Path, names: Mapping[str, str], earlier: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """By the name of the data: times that runs were scored, how many configs that was, and all.

    names: label -> name of the data that count. earlier: looks by name from before the harness,
    told apart and part of the `total`.
    """
    counted = {}
    # Lines of old have a label in their place and no name.
    found = [{"data": names.get(each["place"].split("/")[0]), **each} for each in looks(scores)]
    for name in dict.fromkeys(names.values()):
        own = [look["config"] for look in found if look["data"] == name]
        counted[name] = {
            "runs": len(own),
            "configs": len(set(own)),
            "earlier": earlier.get(name, 0),
        }
        counted[name]["total"] = counted[name]["runs"] + counted[name]["earlier"]
    return counted


def at_least(
    counted: Mapping[str, Mapping[str, int]], before: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    """Counted looks, none fewer than were published `before`, also of data that are gone."""
    both: dict[str, dict[str, int]] = {}
    for name in [*counted, *(name for name in before if name not in counted)]:
        sides = counted.get(name, {}), before.get(name, {})
        both[name] = {
            key: max(side.get(key, 0) for side in sides) for key in ("runs", "configs", "earlier")
        }
        both[name]["total"] = both[name]["runs"] + both[name]["earlier"]
    return both


def _answers(
    predict: Predict, windows: Windows, part: str, scale: np.ndarray
) -> dict[str, np.ndarray]:
    """Answers to a part's windows, of a forecast only the scored steps, with errors per window."""
    found, errors, raw = [], [], []
    inputs = windows.outside()
    for start in range(0, len(windows), scoring.CHUNK):
        rows = slice(start, min(start + scoring.CHUNK, len(windows)))
        answer = predict(inputs.batch(rows).inputs)
        if windows.task == "forecast":
            answer = answer[:, windows.observed :]
            target = windows.batch(rows).targets["forecast"][:, windows.observed :]
            squares = (answer.astype(np.float64) - target) ** 2
            errors.append((squares / scale**2).mean(axis=(1, 2)))
            raw.append(squares.mean(axis=(1, 2)))
        found.append(answer)
    if windows.task != "forecast":
        return {f"{part}_answer": np.concatenate(found)}
    arrays = {f"{part}_mse": np.concatenate(errors), f"{part}_mse_raw": np.concatenate(raw)}
    # Those of the test part are drawn and compared on common targets.
    return arrays | ({"test_answer": np.concatenate(found)} if part == "test" else {})


def _parameters(path: Path) -> int:
    """Floating-point numbers in the graph: what was fitted, and the constants among it."""
    graph = onnx.load(path).graph
    tensors = [*graph.initializer]
    tensors += [a.t for node in graph.node for a in node.attribute if a.HasField("t")]
    return int(sum(np.prod(list(t.dims)) for t in tensors if t.data_type in FLOATS))


def _latency(model: Model, windows: Windows) -> float:
    """Median processor time of one window through Model.predict, in ms; sessions use one core."""
    inputs = windows.outside().batch(slice(0, 1)).inputs
    for _ in range(5):
        model.predict(inputs)
    spent = []
    for _ in range(LATENCY_RUNS):
        start = time.process_time_ns()
        model.predict(inputs)
        spent.append(time.process_time_ns() - start)
    return float(np.median(spent)) / 1e6


def _write(path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    write_file(path.with_name(path.name + ".npz"), encode_npz(arrays))
    # The facts come last: where they are, the arrays are whole.
    write_file(path.with_name(path.name + ".json"), canonical_json(dict(facts)))
