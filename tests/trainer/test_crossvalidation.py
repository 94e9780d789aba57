"""Cross-validation: every fold trained once, resumable, the same bytes, in table and picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trainer import cli, crossvalidation, fold_report, sweep_trial
from trainer.config import ConfigError, RunConfig, load_config
from trainer.data import Dataset, load_dataset
from trainer.sweep_config import load_sweep

CONFIG = """
data:
  name: array
  path: [one.npy, two.npy, three.npy]
  rate: 100.0
  subjects: [x, y, z]
  window: 12
  observed: 6
  stride: {train: 6, validation: 6, test: 6}
model: {name: gru, hidden_size: 3}
training: {epochs: 1, batch_size: 64, device: cpu, threads: 1}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config of three short sessions in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    random = np.random.default_rng(0)
    for name in ("one", "two", "three"):
        values = np.cumsum(random.standard_normal((300, 2)), axis=0)
        np.save(f"{name}.npy", values.astype(np.float32))
    Path("small.yaml").write_text(CONFIG)
    return Path("small.yaml")


def axonnx(*words: object) -> int:
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as left:
        return int(left.code or 0)


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_folds_are_trained_once_summed_up_and_drawn(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("crossvalidate", config, "--folds", 3, "--seed", 2)
    assert axonnx(*words) == 0
    out = capsys.readouterr().out
    output = Path("runs/small-crossvalidation")
    found = json.loads((output / "crossvalidation.json").read_bytes())
    assert [row["fold"] for row in found["rows"]] == [0, 1, 2]
    assert (found["unit"], found["folds"], found["name"]) == ("block", 3, "small")
    scores = np.array([row["metrics"]["mse"] for row in found["rows"]])
    error = scores.std(ddof=1) / np.sqrt(3)
    reach = 4.302653 * error  # Student's t of two degrees of freedom
    assert found["metrics"]["mse"] == {
        "mean": pytest.approx(scores.mean()),
        "standard_error": pytest.approx(error),
        "interval": pytest.approx([scores.mean() - reach, scores.mean() + reach]),
        "fold_spread": pytest.approx(scores.std(ddof=1)),
        "seed_spread": None,
        "folds": 3,
    }
    assert f"{scores.mean():.4g} ± " in out
    assert "fold 3 of 3 is test" in out
    assert (output / "crossvalidation.png").read_bytes()[:4] == b"\x89PNG"
    for fold in range(3):
        own = load_config(output / f"fold-{fold}" / "config.yaml", [])
        assert own.data["split"]["fold"] == fold
        assert (own.seed, own.name) == (2, f"small-fold-{fold}")

    before = files(output)
    shutil.rmtree(output / "fold-1" / "artifact")  # as where a run was stopped
    trained = []
    train = crossvalidation.train_and_export
    monkeypatch.setattr(
        crossvalidation,
        "train_and_export",
        lambda config, *rest, **more: trained.append(config.name) or train(config, *rest, **more),
    )
    assert axonnx(*words) == 0
    assert "fold 1 of 3 is complete" in capsys.readouterr().out
    assert trained == ["small-fold-1"]
    assert files(output) == before

    assert axonnx(*words, "--gap", 3) == 2
    assert "data.split.gap" in capsys.readouterr().err
    np.save("two.npy", np.load("two.npy") + 1)
    assert axonnx(*words) == 2
    assert "changed since the checkpoint was made" in capsys.readouterr().err


def test_every_fold_gets_its_own_part_of_the_data(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without training: what the folds' configs hold, and that together they test everything."""
    seen = []

    def train(own: RunConfig, place: Path, **_: object) -> SimpleNamespace:
        seen.append((place.name, load_dataset(own.data)))
        return SimpleNamespace(dataset=seen[-1][1])

    def scores(place: Path) -> dict[str, object]:
        return {"artifact": "", "metrics": {"mse": int(place.name[-1]) + 1.0}}

    monkeypatch.setattr(crossvalidation, "train_and_export", train)
    monkeypatch.setattr(crossvalidation, "_scores", scores)
    found = crossvalidation.crossvalidate(
        load_config(config, []), Path("out"), folds=3, unit="subject"
    )
    assert [name for name, _ in seen] == ["fold-0", "fold-1", "fold-2"]
    tested = [set(dataset.test.sessions) for _, dataset in seen]
    assert sorted(map(sorted, tested)) == [[0], [1], [2]]
    assert len({dataset.fingerprint for _, dataset in seen}) == 3
    assert found["metrics"]["mse"]["mean"] == 2.0
    assert json.loads(Path("out/crossvalidation.json").read_bytes()) == found


def test_units_follow_the_split_of_the_config(config: Path) -> None:
    def unit(**split: object) -> str:
        text = json.dumps(split)
        loaded = load_config(config, [])
        values = loaded.resolved()
        values["data"]["split"] = json.loads(text)
        return crossvalidation.unit_of_split(type(loaded).model_validate_json(json.dumps(values)))

    names = {"train": ["x"], "validation": ["y"], "test": ["z"]}
    assert unit(by="time") == "block"
    assert unit(by="trial") == "trial"
    assert unit(by="segment") == "segment"
    assert unit(by="subject", **names) == "subject"
    assert unit(by="fold", unit="site") == "site"


def test_mistakes_are_told_before_anything_is_trained(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert axonnx("crossvalidate", config, "--folds", 2) == 2
    assert "must be 3 or more" in capsys.readouterr().err
    assert axonnx("crossvalidate", config, "--unit", "site") == 2
    assert "session 'one' names no site" in capsys.readouterr().err
    assert axonnx("crossvalidate", config, "--unit", "subject", "--folds", 4) == 2
    assert "4 folds of 3 subject" in capsys.readouterr().err
    assert not Path("runs/small-crossvalidation/fold-0/config.yaml").exists()
    Path("else").mkdir()
    Path("else/notes.txt").write_text("mine")
    assert axonnx("crossvalidate", config, "--output", "else") == 2
    assert "notes.txt, which is no fold of 5" in capsys.readouterr().err
    assert axonnx("crossvalidate", config, "--output", "one.npy") == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("name: synthetic", "takes no such split (split.by: Input should be 'time')"),
        (
            "name: challenge, train: a.npz",
            "takes no such split (split.by: Input should be 'trial')",
        ),
    ],
)
def test_data_that_take_no_folds_say_so(tmp_path: Path, data: str, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"data: {{{data}}}\n")
    with pytest.raises(ConfigError) as caught:
        crossvalidation.crossvalidate(load_config(path, []), tmp_path / "out")
    assert text in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_metric_that_a_fold_lacks_is_left_out_of_the_mean(tmp_path: Path) -> None:
    rows = [
        {"fold": fold, "windows": {"test": 3}, "metrics": {"mse": score, "r2": None}}
        for fold, score in enumerate([1.0, 3.0, None])
    ]
    summary = fold_report.summary(rows)
    assert (summary["mse"]["mean"], summary["mse"]["standard_error"]) == (2.0, 1.0)
    assert summary["mse"]["folds"] == 2
    more = {"folds": 3, "unit": "trial", "seeds": 1}
    found = {"name": "a", **more, "metrics": summary, "rows": rows}
    assert fold_report.draw(found, tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert fold_report.table(found).row_count == 5


def test_the_spread_of_seeds_is_told_from_that_of_folds() -> None:
    random = np.random.default_rng(0)
    folds, seeds = 400, 4
    drawn = 5 + 2 * random.standard_normal((folds, 1)) + 3 * random.standard_normal((folds, seeds))
    rows = [
        {"fold": fold, "seed": seed, "metrics": {"mse": drawn[fold, seed]}}
        for fold in range(folds)
        for seed in range(seeds)
    ]
    found = fold_report.summary(rows)["mse"]
    assert found["fold_spread"] == pytest.approx(2, rel=0.1)
    assert found["seed_spread"] == pytest.approx(3, rel=0.1)
    assert found["interval"][0] < 5 < found["interval"][1]
    assert found["standard_error"] == pytest.approx(np.sqrt((4 + 9 / seeds) / folds), rel=0.1)


SWEEP = """
base: {data: {name: synthetic}}
space:
  model.hidden_size: {low: 2, high: 6}
  training.learning_rate: {low: 1.0e-3, high: 1.0e-1, log: true}
  training.schedule: {choices: [constant, cosine]}
trials: 2
"""


def test_parameters_that_folds_disagree_on_are_unstable(config: Path) -> None:
    Path("sweep.yaml").write_text(SWEEP)
    plan = load_sweep(Path("sweep.yaml"), [], run=config)
    keys = ("model.hidden_size", "training.learning_rate", "training.schedule")
    values = [(3, 0.01, "cosine"), (4, 0.03, "cosine")]
    chosen = [dict(zip(keys, own, strict=True)) for own in values]
    assert crossvalidation.unstable(plan, chosen) == []
    chosen.append(dict(zip(keys, (3, 0.1, "constant"), strict=True)))
    assert crossvalidation.unstable(plan, chosen) == [keys[1], keys[2]]


@pytest.mark.slow
def test_settings_are_chosen_within_each_fold(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep of a fold sees nothing of its test part; the winner is trained with each seed."""
    Path("sweep.yaml").write_text(SWEEP + "folds: 2\n")
    seen = []
    fold_dataset = sweep_trial.fold_dataset

    def watched(dataset: Dataset, folds: int, fold: int) -> Dataset:
        seen.append(dataset)
        return fold_dataset(dataset, folds, fold)

    monkeypatch.setattr(sweep_trial, "fold_dataset", watched)
    words = ("crossvalidate", config, "--folds", 3, "--sweep", "sweep.yaml", "--seeds", 2)
    assert axonnx(*words, "--output", "out") == 0
    out = capsys.readouterr().out
    assert "chosen within each fold" in out
    assert "s.d. of seeds" in out
    found = json.loads(Path("out/crossvalidation.json").read_bytes())
    assert [(row["fold"], row["seed"]) for row in found["rows"]] == [
        (fold, seed) for fold in range(3) for seed in (0, 1)
    ]
    for dataset in seen:
        assert dataset.test is dataset.validation
    for fold, chosen in enumerate(found["chosen"]):
        report = json.loads(Path(f"out/fold-{fold}-sweep/sweep.json").read_bytes())
        assert (report["objective"], report["scored_on_test"]) == ("inner_folds", [])
        assert report["best"]["values"] == chosen
        own = load_config(Path(f"out/fold-{fold}/config.yaml"), [])
        assert own.model["hidden_size"] == chosen["model.hidden_size"]
        assert own.data["split"]["fold"] == fold
    before = files(Path("out"))
    assert axonnx(*words, "--output", "out") == 0
    after = files(Path("out"))
    assert {k: v for k, v in after.items() if ".db" not in k} == {
        k: v for k, v in before.items() if ".db" not in k
    }
