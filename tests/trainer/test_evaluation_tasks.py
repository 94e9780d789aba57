"""Evaluation of classes and of decoded behaviour: artifacts, baselines, reports, pictures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from contexts import decode_dataset
from PIL import Image

import artifact
from artifact.manifest import Axis
from recording.preparation.operations import Scale, Take
from trainer import candidates, evaluation, report
from trainer.config import RunConfig
from trainer.data import load_dataset
from trainer.data.windows import Dataset
from trainer.evaluation import EvaluationError, evaluate
from trainer.export import export_artifact
from trainer.metrics import r2
from trainer.models import build_model
from trainer.pipeline import train_and_export
from trainer.scoring import held_out, target_scale

DECODING = {"name": "synthetic_decoding", "trials": 200}
# The data set itself is put in place of what this names.
STAND_IN = {"name": "synthetic", "channels": 8, "samples": 600}


def behind_a_graph(dataset: Dataset) -> Dataset:
    """The data set as from a file with two more channels, in units a thousandth as large."""
    channels = len(dataset.channel_names)
    operations = (
        Take(tuple(range(1, channels + 1))),
        Scale(np.zeros((channels, 1), np.float32), np.full((channels, 1), 1e-3, np.float32)),
    )
    parts = {}
    for part, windows in dataset.parts.items():
        (neural,) = windows.series["neural"]
        raw = np.pad(1000.0 * neural, ((0, 0), (1, 1), (0, 0))).astype(np.float32)
        (spec,) = windows.inputs
        axes = [Axis("channel", channels + 2) if a.name == "channel" else a for a in spec.axes]
        parts[part] = dataclasses.replace(
            windows,
            raw={"neural": (raw,)},
            raw_inputs=(dataclasses.replace(spec, axes=tuple(axes)),),
        )
    return dataclasses.replace(dataset, **parts, operations=operations)


@pytest.fixture
def plane(request, monkeypatch) -> Dataset:
    """A decoding, behind every name that is loaded; by a parameter, one prepared in the graph."""
    dataset = decode_dataset()
    if getattr(request, "param", False):
        dataset = behind_a_graph(dataset)
    for module in ("candidates", "evaluation", "training"):
        monkeypatch.setattr(f"trainer.{module}.load_dataset", lambda config: dataset)
    return dataset


def make(folder: Path, name: str, model: dict, dataset: Dataset, data: dict = STAND_IN) -> Path:
    config = RunConfig(name=name, data=data, model=model, training={"threads": 1})
    torch.manual_seed(0)
    module = build_model(config.model, dataset.context())
    module.fit_closed_form(dataset.train, dataset.validation)
    return export_artifact(module, dataset, config, {}, folder / name)


def by_label(found: dict) -> dict:
    return {row["label"]: row for row in found["models"]}


@pytest.mark.parametrize("plane", [False, True], ids=["as it is", "in the graph"], indirect=True)
def test_decoded_behaviour_is_scored_beside_its_baselines(plane, tmp_path):
    made = make(tmp_path, "mine", {"name": "linear_readout", "penalty": 30.0}, plane)
    found = evaluate([made], tmp_path / "report")
    rows = by_label(found)
    assert list(rows) == ["mine", "linear_readout", "train mean", "train median"]
    windows = plane.test
    inputs = windows.outside().batch(slice(None)).inputs
    answer = artifact.load(made).predict(inputs)["behavior"].astype(np.float64)
    target = windows.targets.astype(np.float64)
    mine = rows["mine"]
    assert mine["r2_per_variable"] == pytest.approx(r2(answer, target).tolist())
    assert mine["r2"] == pytest.approx(r2(answer, target).mean())
    assert mine["r2_interval"][0] < mine["r2"] < mine["r2_interval"][1]
    distance = np.sqrt(((answer - target) ** 2).sum(axis=1))
    assert mine["median_error"] == pytest.approx(np.nanmedian(distance))
    errors = np.nanmean((answer - target) ** 2, axis=0)
    assert mine["mse_raw_per_variable"] == pytest.approx(errors.tolist())
    scale = target_scale(plane.train)
    assert mine["mse_per_variable"] == pytest.approx((errors / scale**2).tolist())
    assert mine["r2"] > 0.8 > 0.1 > rows["train mean"]["r2"]
    assert rows["train mean"]["r_per_variable"] == [None, None]
    assert mine["median_error"] < 0.5 * rows["train median"]["median_error"]
    assert mine["r2_per_session"] == {"walk": pytest.approx(mine["r2"])}
    assert rows["linear_readout"]["r2"] == pytest.approx(mine["r2"], abs=0.1)
    assert found["data"]["output_units"] == ["m", "m"]


def test_a_report_of_decoding_reads_and_repeats(plane, tmp_path):
    made = make(tmp_path, "mine", {"name": "linear_readout"}, plane)
    for name in ("a", "b"):
        found = evaluate([made], tmp_path / name)
    assert list(by_label(found)) == ["mine", "train mean", "train median"]
    for name in ("report.json", "report.md", "report.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    text = (tmp_path / "a" / "report.md").read_text()
    assert "median error (m, share of the range)" in text
    assert "| x (m) |" in text
    assert "it is the baseline linear_readout itself" in text
    assert "bootstrap interval over 20 blocks" in text
    assert json.loads((tmp_path / "a" / "report.json").read_text())["task"] == "decode"
    assert report.table(found).row_count == 3
    with Image.open(tmp_path / "a" / "report.png") as image:
        assert image.width > 1000


@pytest.mark.parametrize("plane", [True], ids=["in the graph"], indirect=True)
def test_training_decodes_and_evaluation_agrees(plane, tmp_path):
    config = RunConfig(
        name="walk",
        data=STAND_IN,
        model={"name": "decoder", "hidden_size": 8, "dropout": 0.0, "base": "mean"},
        training={"epochs": 8, "batch_size": 32, "device": "cpu", "threads": 1},
    )
    run = train_and_export(config, tmp_path / "run")
    history = [row["mse"] for row in run.history]
    assert min(history) < 0.5 * history[0]
    assert run.metrics["test_r2"] > 0.5
    row = by_label(evaluate([tmp_path / "run" / "artifact"], tmp_path / "report"))["walk"]
    assert row["mse"] == pytest.approx(run.metrics["test_mse"], rel=1e-3)
    assert row["r2"] == pytest.approx(run.metrics["test_r2"], rel=1e-3)
    with Image.open(tmp_path / "run" / "forecast.png") as image:
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 20


def test_an_artifact_that_answers_with_other_variables_is_refused(plane, tmp_path, monkeypatch):
    made = make(tmp_path, "mine", {"name": "linear_readout"}, plane)
    first = {p: dataclasses.replace(w, targets=w.targets[:, :1]) for p, w in plane.parts.items()}
    for part, windows in first.items():
        (output,) = windows.outputs
        axes = (output.axes[0], Axis("variable", 1))
        outputs = (dataclasses.replace(output, axes=axes),)
        first[part] = dataclasses.replace(windows, outputs=outputs)
    other = dataclasses.replace(plane, **first, output_names=("x",))
    monkeypatch.setattr("trainer.evaluation.load_dataset", lambda config: other)
    config = RunConfig(name="other", data=STAND_IN)
    with pytest.raises(EvaluationError, match="axis variable of its answer is 2; the data's 1"):
        evaluate([made], tmp_path / "report", config=config)


def test_variables_of_unlike_units_have_no_distance():
    dataset = decode_dataset()
    assert candidates.shared_unit(dataset) == "m"
    for part, windows in dataset.parts.items():
        outputs = (dataclasses.replace(windows.outputs[0], unit="raw"),)
        dataset = dataclasses.replace(
            dataset, **{part: dataclasses.replace(windows, outputs=outputs)}
        )
    assert candidates.shared_unit(dataset) is None
    labels = [each.label for each in evaluation.baselines(dataset)]
    assert labels == ["linear_readout", "train mean"]
    mean = evaluation.baselines(dataset)[1]
    found, _ = evaluation.score_decode(mean.predict, dataset, target_scale(dataset.train))
    assert "median_error" not in found


def test_a_classifier_is_scored_with_names_chance_and_interval(tmp_path):
    dataset = load_dataset(DECODING)
    made = make(tmp_path, "choices", {"name": "linear_readout", "bins": 5}, dataset, DECODING)
    found = evaluate([made], tmp_path / "report")
    rows = by_label(found)
    assert list(rows) == ["choices", "linear_readout", "most frequent"]
    mine, frequent = rows["choices"], rows["most frequent"]
    assert mine["chance"] == frequent["balanced_accuracy"] == pytest.approx(1 / 3)
    assert mine["auroc"] is None
    low, high = mine["balanced_accuracy_interval"]
    assert 1 / 3 < low < high <= 1
    assert low < mine["balanced_accuracy"]
    assert found["data"]["output_names"] == ["0", "1", "2"]
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| true class | decoded 0 | decoded 1 | decoded 2 |" in text
    module = build_model({"name": "linear_readout", "bins": 5}, dataset.context())
    module.fit_closed_form(dataset.train, dataset.validation)
    scores = held_out(module, dataset.test, np.ones(1), torch.device("cpu"))
    assert mine["balanced_accuracy"] == pytest.approx(scores["balanced_accuracy"])
    assert mine["cross_entropy"] == pytest.approx(scores["cross_entropy"], rel=1e-5)
