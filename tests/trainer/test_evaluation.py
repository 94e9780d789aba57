"""Evaluation: scores against hand-made sums, baselines, reports that repeat byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import artifact
from trainer import evaluation
from trainer.config import RunConfig
from trainer.data import load_dataset
from trainer.evaluation import EvaluationError, evaluate
from trainer.export import export_artifact
from trainer.models import build_model
from trainer.scoring import held_out, target_scale

SMALL = {"name": "synthetic", "channels": 5, "samples": 600}
DECODING = {"name": "synthetic_decoding", "trials": 200}


def make(folder: Path, name: str, model: dict, data: dict = SMALL) -> Path:
    config = RunConfig(name=name, data=data, model=model, training={"threads": 1})
    dataset = load_dataset(config.data)
    torch.manual_seed(0)
    module = build_model(config.model, dataset.context())
    if hasattr(module, "fit_closed_form"):
        module.fit_closed_form(dataset.train, dataset.validation)
    return export_artifact(module, dataset, config, {}, folder / name)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders of a linear, a persistence and a normalized artifact."""
    folder = tmp_path_factory.mktemp("artifacts")
    return {
        "ridge": make(folder, "ridge", {"name": "linear"}),
        "last": make(folder, "last", {"name": "persistence"}),
        "legacy": make(folder, "legacy", {"name": "gru", "hidden_size": 4}),
    }


def by_label(found: dict) -> dict:
    return {row["label"]: row for row in found["models"]}


def test_scores_are_those_of_an_independent_sum(made, tmp_path):
    found = evaluate([made["last"]], tmp_path)
    row = by_label(found)["last"]
    dataset = load_dataset(SMALL)
    windows = dataset.test
    recorded = windows.recorded(slice(None))["neural"][..., 0].astype(np.float64)
    errors = (recorded[:, 10:] - recorded[:, 9:10]) ** 2
    scale = dataset.train.statistics().std[:, 0] ** 2
    np.testing.assert_allclose(row["mse_raw"], errors.mean(), rtol=1e-12)
    np.testing.assert_allclose(row["mse_raw_per_step"], errors.mean(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(row["mse_raw_per_channel"], errors.mean(axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(row["mse"], (errors / scale).mean(), rtol=1e-12)
    np.testing.assert_allclose(row["mse_per_step"], (errors / scale).mean(axis=(0, 2)), rtol=1e-12)
    (session,) = dataset.session_names
    np.testing.assert_allclose(row["mse_raw_per_session"][session], errors.mean(), rtol=1e-12)


def test_an_artifact_of_a_baseline_scores_as_the_baseline(made, tmp_path):
    rows = by_label(evaluate([made["ridge"], made["last"]], tmp_path))
    assert rows["last"]["mse"] == rows["persistence"]["mse"]
    assert rows["ridge"]["artifact"] == artifact.load(made["ridge"]).id
    assert rows["ridge"]["note"] == "it is the baseline linear itself"
    assert set(rows) == {"ridge", "last", "persistence", "train mean"}
    dataset = load_dataset(SMALL)
    linear = next(each for each in evaluation.baselines(dataset) if each.label == "linear")
    found, _ = evaluation.score_forecast(linear.predict, dataset, target_scale(dataset.train))
    assert rows["ridge"]["mse"] == pytest.approx(found["mse"], rel=1e-6)
    assert rows["persistence"]["artifact"] == linear.artifact == ""


def test_skill_is_what_is_left_of_the_errors_of_persistence_and_of_the_train_mean(made, tmp_path):
    rows = by_label(evaluate([made["last"]], tmp_path))
    for row in rows.values():
        assert row["skill"] == pytest.approx(1 - row["mse"] / rows["persistence"]["mse"])
        assert row["skill_train_mean"] == pytest.approx(1 - row["mse"] / rows["train mean"]["mse"])
        low, high = row["mse_interval"]
        assert low < row["mse"] < high
    assert rows["linear"]["skill"] > 0.2
    assert rows["train mean"]["mse"] == pytest.approx(1.0, abs=0.3)


def test_training_and_evaluation_agree(made, tmp_path):
    rows = by_label(evaluate([made["last"]], tmp_path))
    dataset = load_dataset(SMALL)
    module = build_model({"name": "persistence"}, dataset.context())
    scale = target_scale(dataset.train)
    scores = held_out(module, dataset.test, scale, torch.device("cpu"))
    assert rows["last"]["mse"] == pytest.approx(scores["mse"], rel=1e-9)


def test_normalized_output_is_scored_as_it_is_and_brought_back(made, tmp_path):
    found = evaluate([made["last"]], tmp_path, legacy=made["legacy"])
    rows = by_label(found)
    assert rows["legacy (as published)"]["note"].startswith("normalized output scored as it is")
    dataset = load_dataset(SMALL)
    statistics = dataset.train.statistics()
    batch = dataset.test.batch(slice(None))
    z = artifact.load(made["legacy"]).predict(batch.inputs)["forecast"][:, 10:].astype(np.float64)
    raw = z * 4.0 * statistics.std[:, 0] + statistics.mean[:, 0]
    target = batch.targets["forecast"][:, 10:]
    assert rows["legacy (as published)"]["mse_raw"] == pytest.approx(((z - target) ** 2).mean())
    assert rows["legacy"]["mse_raw"] == pytest.approx(((raw - target) ** 2).mean(), rel=1e-6)


def test_reports_repeat_byte_for_byte_and_name_no_folder(made, tmp_path):
    for name in ("a", "b"):
        evaluate([made["ridge"], made["last"]], tmp_path / name)
    for name in ("report.json", "report.md", "report.png"):
        data = (tmp_path / "a" / name).read_bytes()
        assert data == (tmp_path / "b" / name).read_bytes(), name
        assert str(tmp_path).encode() not in data
        assert b"Software" not in data
    assert json.loads((tmp_path / "a" / "report.json").read_text())["data"]["synthetic"] is True
    assert "Synthetic data: these scores say nothing" in (tmp_path / "a/report.md").read_text()
    with Image.open(tmp_path / "a" / "report.png") as image:
        assert image.width > 1000


def test_other_data_are_named_as_such(made, tmp_path):
    config = RunConfig(name="other", data={**SMALL, "seed": 9})
    rows = by_label(evaluate([made["last"]], tmp_path, config=config))
    assert rows["last"]["note"] == "trained on other data"


def test_two_artifacts_of_one_name_are_told_apart(made):
    models = [artifact.load(made["ridge"]), artifact.load(made["ridge"])]
    assert all(label.startswith("ridge ") for label in evaluation.labels(models))


def test_a_decoder(tmp_path):
    folder = make(tmp_path, "choices", {"name": "decoder"}, DECODING)
    found = evaluate([folder], tmp_path / "report")
    row = by_label(found)["choices"]
    dataset = load_dataset(DECODING)
    batch = dataset.test.batch(slice(None))
    probability = artifact.load(folder).predict(batch.inputs)["probability"].astype(np.float64)
    choice = batch.targets["choice"]
    hits = probability.argmax(axis=1) == choice
    recalls = [hits[choice == c].mean() for c in np.unique(choice)]
    assert row["accuracy"] == pytest.approx(hits.mean())
    assert row["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    given = probability[np.arange(len(choice)), choice]
    assert row["cross_entropy"] == pytest.approx(-np.log(given).mean())
    assert np.sum(row["confusion"]) == len(choice)
    frequent = np.array(by_label(found)["most frequent"]["confusion"])
    assert np.count_nonzero(frequent.sum(axis=0)) == 1
    assert by_label(found)["most frequent"]["balanced_accuracy"] == pytest.approx(1 / len(recalls))
    assert (tmp_path / "report" / "report.png").stat().st_size > 5000


def test_data_that_are_not_here_are_asked_for(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((600, 3)))
    data = {"name": "array", "path": str(tmp_path / "x.npy"), "rate": 100.0}
    folder = make(tmp_path, "own", {"name": "persistence"}, data)
    with pytest.raises(EvaluationError, match=r"own: the data set .*x\.npy.*; give --config"):
        evaluate([folder], tmp_path / "report")
    config = RunConfig(name="own", data=data)
    rows = by_label(evaluate([folder], tmp_path / "report", config=config))
    assert rows["own"]["note"] == ""


def test_another_task_is_refused(made, tmp_path):
    config = RunConfig(name="d", data=DECODING, model={"name": "decoder"})
    with pytest.raises(
        EvaluationError, match=r"its task is forecast, .* is classify; give --config"
    ):
        evaluate([made["last"]], tmp_path, config=config)


@pytest.mark.parametrize("data", [SMALL, DECODING])
def test_an_example_is_drawn_for_every_task(tmp_path, data):
    dataset = load_dataset(data)
    decode = data is DECODING
    module = build_model({"name": "decoder" if decode else "persistence"}, dataset.context())
    predict = evaluation.of_module(module, dataset.test)
    path = evaluation.draw_example(
        dataset, {"prediction": predict}, tmp_path / "forecast.png", "an example"
    )
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_another_recording_under_the_same_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    series = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    np.save("session.npy", series)
    data = {"name": "array", "path": "session.npy", "rate": 100.0}
    made = make(tmp_path, "mine", {"name": "persistence"}, data)
    assert by_label(evaluate([made], tmp_path / "report"))["mine"]["note"] == ""
    np.save("session.npy", np.where(np.arange(3) == 1, 0, series).astype(np.float32))
    with pytest.raises(EvaluationError, match="something else here"):
        evaluate([made], tmp_path / "report")
