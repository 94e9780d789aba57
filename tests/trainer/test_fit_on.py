"""Models fitted on the validation part too: no figure of that part is shown as held out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from contexts import classify_dataset
from rich.console import Console

import artifact
from trainer import cli, ensembles, folder, runs, sweep_trial, training
from trainer.config import RunConfig, load_config
from trainer.data.windows import Dataset
from trainer.models import ModelError

FINGER = Path(__file__).resolve().parents[2] / "configs" / "finger_movements.yaml"
QUIET = Console(file=io.StringIO())
BANDS = {"name": "band_power", "bands": [[10, 20]], "fit_on": "both"}


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Dataset:
    """In place of every data set, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    made = classify_dataset()
    monkeypatch.setattr(training, "load_dataset", lambda config: made)
    monkeypatch.setattr(sweep_trial, "_dataset", lambda config: made)
    return made


def config(name: str, model: dict[str, Any]) -> RunConfig:
    training = {"device": "cpu", "threads": 1, "epochs": 1}
    values = {"name": name, "data": {"name": "synthetic"}, "model": model, "training": training}
    return RunConfig.model_validate_json(json.dumps(values))


def parts(metrics: Any) -> set[str]:
    return {name.split("_")[0] for name in metrics} - {"epoch"}


@pytest.mark.slow
def test_the_config_of_finger_movements_has_no_validation_figures(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_config(FINGER, []).model["fit_on"] == "both"
    assert cli.main(["train", str(FINGER), "--export.golden_rows", "1"]) == 0
    said = capsys.readouterr().out
    assert "held-out" not in said
    (line,) = (line for line in said.splitlines() if "balanced_accuracy" in line)
    assert line.split("│")[2].strip() == "–"
    place = Path("runs/finger_movements")
    assert parts(artifact.load(place / folder.ARTIFACT).manifest.metrics) == {"test"}
    record = runs.read(place)
    assert (record.saw_validation, runs._scores(record, "validation")) == (True, {})
    with pytest.raises(folder.RunFolderError, match="fitted on both parts"):
        runs.compare_plot([record], Path("plot.png"))


def test_fitted_on_the_train_part_there_are_some(dataset: Dataset) -> None:
    run = training.train(config("train", {**BANDS, "fit_on": "train"}), Path("run"), console=QUIET)
    assert parts(run.metrics) == {"validation", "test"}
    assert not runs.read(Path("run")).saw_validation


def test_a_sweep_does_not_choose_by_it(dataset: Dataset) -> None:
    with pytest.raises(ModelError, match="objective: inner_folds"):
        sweep_trial._validated(config("trial", BANDS), Path("trial"), None, lambda text: None)

    class Trial:
        def report(self, score: float, step: int) -> None: ...

        def should_prune(self) -> bool:
            return False

    assert sweep_trial._folded(config("t", BANDS), Path("t"), 2, Trial(), lambda text: None) > 0


def test_weights_of_an_ensemble_are_not_fitted_to_it(dataset: Dataset) -> None:
    both, readout = config("both", BANDS), config("readout", {"name": "linear_readout"})
    for one in (both, readout):
        training.train(one, Path(one.name), console=QUIET)
    members = {"name": "ensemble", "members": ["readout", "both"]}
    blend = config("blend", {**members, "weights": "validation"})
    with pytest.raises(ModelError, match=r"model\.members: both: was fitted on the validation"):
        ensembles.train(blend, Path("blend"), console=QUIET, dataset=dataset)
    blend = config("blend", {**members, "weights": "equal"})
    run = ensembles.train(blend, Path("blend"), console=QUIET, dataset=dataset)
    assert parts(run.metrics) == {"test"}
    report = json.loads((run.folder / folder.WEIGHTS).read_text())
    assert "validation" not in report["blend"]
    assert runs.read(run.folder).saw_validation
