"""Runs as members of one model: weights, folds, self-contained run folders, one graph."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from contexts import decode_dataset, forecast_context
from interrupted_run import contents
from rich.console import Console

import artifact
from trainer import ensemble_report, ensembles, folder, runs, scoring
from trainer.checkpoint import CheckpointError
from trainer.config import RunConfig
from trainer.data import load_dataset
from trainer.export import export_run
from trainer.folder import RunFolderError
from trainer.graph import to_onnx
from trainer.models import ModelError, build_model
from trainer.pipeline import train_and_export
from trainer.trained import Run, load_run
from trainer.training import Trainer

QUIET = Console(file=io.StringIO())
DATA = {"name": "synthetic", "channels": 3, "samples": 600}
TRIALS = {"name": "synthetic_decoding", "trials": 240}
GRU = {"name": "gru", "hidden_size": 4}


def config(
    name: str, model: dict[str, Any], data: dict[str, Any] = DATA, seed: int = 0, **training: Any
) -> RunConfig:
    values = {"epochs": 2, "batch_size": 64, "device": "cpu", "threads": 1, **training}
    values = {"name": name, "seed": seed, "data": data, "model": model, "training": values}
    values["export"] = {"golden_rows": 1}
    return RunConfig.model_validate_json(json.dumps(values))


def blend(*members: Path | str, data: dict[str, Any] = DATA, **model: Any) -> RunConfig:
    settings = {"name": "ensemble", "members": [str(m) for m in members], "folds": 2, **model}
    return config("blend", settings, data)


def member(root: Path, name: str, model: dict[str, Any], **others: Any) -> Path:
    dataset = others.pop("dataset", None)
    made = config(name, model, **others)
    ensembles.train(made, root / name, console=QUIET, dataset=dataset)
    return root / name


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained members."""
    root = tmp_path_factory.mktemp("members")
    member(root, "gru", GRU, learning_rate=0.02)
    member(root, "ar", {"name": "ar"})
    return root


@pytest.fixture(scope="module")
def made(root: Path) -> Run:
    return train_and_export(blend(root / "gru", root / "ar"), root / "made", console=QUIET)


def weights_of(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder / folder.WEIGHTS).read_text())
    return found


def answer(module: torch.nn.Module, run: Run) -> np.ndarray:
    batch = run.dataset.test.batch(slice(0, 9))
    with torch.no_grad():
        output = scoring.forward(module, run.dataset.test, batch, torch.device("cpu"))
    return output.numpy()


def test_one_graph_answers_with_the_weighted_mean_of_its_members(made: Run, root: Path) -> None:
    weights = np.array([row["weights"] for row in weights_of(made)["members"]])
    assert weights.shape == (2, 10)
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-6)
    parts = [answer(load_run(root / name).module, made)[:, 10:] for name in ("gru", "ar")]
    wanted = sum(w[:, None] * part for w, part in zip(weights, parts, strict=True))
    batch = made.dataset.test.batch(slice(0, 9))
    model = artifact.load(made.folder / folder.ARTIFACT)
    given = model.predict(batch.inputs)["forecast"]
    spread = float(np.std(wanted))
    np.testing.assert_allclose(given[:, 10:], wanted, rtol=0, atol=2e-6 * spread)
    np.testing.assert_allclose(answer(made.module, made)[:, 10:], wanted, atol=2e-6 * spread)
    np.testing.assert_array_equal(given[:, :10], batch.inputs["neural"][:, :10, :, 0])
    assert model.manifest.model == "ensemble"


def test_the_blend_is_no_worse_than_its_best_member_where_it_was_fitted(made: Run) -> None:
    report = weights_of(made)
    errors = [row["out_of_fold"] for row in report["members"]]
    assert report["blend"]["out_of_fold"] <= min(errors) + 1e-9
    assert report["blend"]["validation"] == made.metrics["validation_mse"]


def test_manifest_and_card_name_the_members_and_no_path(made: Run, root: Path) -> None:
    place = made.folder / folder.ARTIFACT
    manifest = artifact.load(place).manifest
    rows = manifest.provenance["members"]
    assert [(row["name"], row["model"], row["seed"]) for row in rows] == [
        ("gru", "gru", 0),
        ("ar", "ar", 0),
    ]
    assert manifest.config["model"]["members"] == ["gru", "ar"]
    assert manifest.config["model"]["trained"][0]["checkpoint"] == rows[0]["checkpoint"]
    assert "| `gru` | `gru` | 0 | " in (place / "README.md").read_text()
    for data in contents(place).values():
        assert str(root).encode() not in data


def test_killed_in_a_fold_resumed_and_moved_it_has_the_same_bytes(
    made: Run, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = blend(root / "gru", root / "ar")
    run_epoch, epochs = Trainer._run_epoch, iter(range(100))

    def interrupted(self: Trainer, progress: Any) -> None:
        if next(epochs) == 3:
            raise KeyboardInterrupt
        run_epoch(self, progress)

    monkeypatch.setattr(Trainer, "_run_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_and_export(own, tmp_path / "run", console=QUIET)
    monkeypatch.undo()
    with pytest.raises(RunFolderError, match="holds a run: --resume"):
        train_and_export(own, tmp_path / "run", console=QUIET)
    train_and_export(own, tmp_path / "run", resume=True, console=QUIET)
    assert contents(tmp_path / "run") == contents(made.folder)


@pytest.mark.slow
def test_it_needs_its_members_no_more(made: Run, root: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    shutil.copytree(root, gone)
    own = blend(gone / "gru", gone / "ar", weights="equal")
    run = train_and_export(own, tmp_path / "run", console=QUIET)
    before = contents(run.folder / folder.ARTIFACT)
    shutil.rmtree(gone)
    assert np.array_equal(answer(load_run(run.folder).module, made), answer(run.module, made))
    assert contents(export_run(run.folder)) == before
    again = train_and_export(own, run.folder, resume=True, console=QUIET)
    assert again.metrics == run.metrics
    with pytest.raises(CheckpointError, match=r"model\.per: 'step', now 'all'"):
        ensembles.train(
            blend(gone / "gru", gone / "ar", weights="equal", per="all"),
            run.folder,
            resume=True,
            console=QUIET,
        )
    record = runs.read(run.folder)
    assert runs.compare_table([record, runs.read(root / "gru")]).row_count
    assert not any("trained" in str(cell) for cell in runs.list_table([record]).columns)


def test_the_channel_axis_is_open_where_all_members_leave_it_open(tmp_path: Path) -> None:
    ar = {"name": "ar", "statistics": "pooled"}
    paths = [member(tmp_path, f"ar{k}", {**ar, "penalty": 10.0**k}) for k in range(2)]
    paths.append(member(tmp_path, "own", {"name": "ar", "penalty": 1e6}))
    open_run = ensembles.train(blend(*paths[:2], weights="equal"), tmp_path / "open", console=QUIET)
    assert open_run.module.dynamic_channel
    fixed = ensembles.train(blend(*paths, weights="equal"), tmp_path / "fixed", console=QUIET)
    assert not fixed.module.dynamic_channel
    # Without the one that gets no weight, it may be again.
    fixed.module.weight[:2], fixed.module.weight[2] = 0.5, 0.0
    assert fixed.module.without_idle().dynamic_channel
    assert np.array_equal(
        answer(fixed.module.without_idle(), open_run), answer(open_run.module, open_run)
    )


def test_the_same_run_twice_is_trained_once_and_shares_its_weight(
    root: Path, tmp_path: Path
) -> None:
    own = blend(root / "ar", f"{root / 'ar'}:last", per="all")
    run = ensembles.train(own, tmp_path / "run", console=QUIET)
    assert [path.name for path in (run.folder / folder.FOLDS).iterdir()] == ["0-ar"]
    np.testing.assert_allclose(run.module.weight.flatten(), 0.5, atol=1e-4)
    assert [row["name"] for row in weights_of(run)["members"]] == ["ar", "ar:last"]


@pytest.mark.slow
def test_classes_are_blended_by_cross_entropy(tmp_path: Path) -> None:
    paths = [
        member(tmp_path, "net", {"name": "decoder", "hidden_size": 4}, data=TRIALS),
        member(tmp_path, "line", {"name": "linear_readout"}, data=TRIALS),
    ]
    run = train_and_export(blend(*paths, data=TRIALS), tmp_path / "run", console=QUIET)
    report = weights_of(run)
    assert report["metric"] == "cross_entropy"
    assert all(len(row["weights"]) == 1 for row in report["members"])
    best = min(row["out_of_fold"] for row in report["members"])
    assert report["blend"]["out_of_fold"] <= best + 1e-9
    given = artifact.load(run.folder / folder.ARTIFACT).predict(
        run.dataset.test.batch(slice(0, 9)).inputs
    )["probability"]
    np.testing.assert_allclose(given, answer(run.module, run), atol=1e-6)
    np.testing.assert_allclose(given.sum(axis=1), 1, atol=1e-6)


def test_behaviour_is_blended_where_it_was_measured(tmp_path: Path) -> None:
    dataset = decode_dataset()
    own: dict[str, Any] = {"data": TRIALS, "dataset": dataset}
    paths = [
        member(tmp_path, "net", {"name": "decoder", "hidden_size": 4, "base": "mean"}, **own),
        member(tmp_path, "line", {"name": "linear_readout"}, **own),
    ]
    run = ensembles.train(
        blend(*paths, data=TRIALS), tmp_path / "run", console=QUIET, dataset=dataset
    )
    report = weights_of(run)
    best = min(row["out_of_fold"] for row in report["members"])
    assert 0 < report["blend"]["out_of_fold"] <= best + 1e-9
    validation = blend(*paths, data=TRIALS, weights="validation")
    run = ensembles.train(validation, tmp_path / "again", console=QUIET, dataset=dataset)
    best = min(row["validation"] for row in weights_of(run)["members"])
    assert weights_of(run)["blend"]["validation"] <= best + 1e-9
    heads = [str(column.header) for column in ensemble_report.table(weights_of(run)).columns]
    assert heads[-1] == "validation (fitted on) mse"
    assert not (run.folder / folder.FOLDS).exists()


def faulty(root: Path, made: Run, tmp_path: Path) -> dict[str, tuple[RunConfig, str]]:
    (tmp_path / "empty").mkdir()
    return {
        "none": (blend(), "is made of run folders that are there"),
        "no run": (blend(tmp_path / "empty"), f"{tmp_path / 'empty'}: .* is no run folder"),
        "ensemble": (blend(made.folder), "made: is an ensemble itself; name its members"),
        "epoch": (blend(f"{root / 'gru'}:snapshot-3"), "gru:snapshot-3: .*has no snapshot-3"),
        "data": (
            blend(root / "gru", data={**DATA, "samples": 700}),
            r"gru: was trained on other data .*samples: 600, now 700",
        ),
    }


@pytest.mark.parametrize("fault", ["none", "no run", "ensemble", "epoch", "data"])
def test_a_member_that_cannot_be_one_is_named(
    fault: str, made: Run, root: Path, tmp_path: Path
) -> None:
    own, text = faulty(root, made, tmp_path)[fault]
    with pytest.raises(ModelError, match=f"^model.members: .*{text}"):
        ensembles.train(own, tmp_path / "run", console=QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("end", "text"),
    [
        ("-fold-1-of-3", "was trained without fold 2 of 3 of the train part"),
        ("-without-test-fold-0-of-5", "was trained without fold 1 of 5 of the train part"),
        ("-without-test", "is a trial of a sweep, .*; train its config"),
    ],
)
def test_a_member_trained_on_a_part_says_on_which(
    end: str, text: str, root: Path, tmp_path: Path
) -> None:
    dataset = load_dataset(DATA)
    part = replace(dataset, fingerprint=dataset.fingerprint + end)
    place = member(tmp_path, "ar", {"name": "ar"}, dataset=part)
    with pytest.raises(ModelError, match=f"^model.members: {place}: {text}"):
        ensembles.train(blend(root / "gru", place), tmp_path / "run", console=QUIET)


def test_a_fold_of_a_cross_validation_is_called_one() -> None:
    split = {"by": "fold", "unit": "block", "folds": 5, "fold": 1}
    recording = {"name": "recording", "path": "a.h5"}
    own = config("own", {"name": "ar"}, {**recording, "split": split})
    text = ensembles._other_data(own, config("blend", {"name": "ar"}, recording), "a", "b")
    assert text.startswith("is fold 2 of 5 of a cross-validation")
    other = config("blend", {"name": "ar"}, {**recording, "path": "b.h5", "split": split})
    assert "path: 'a.h5', now 'b.h5'" in ensembles._other_data(own, other, "a", "b")


def test_members_are_called_by_what_tells_them_apart() -> None:
    assert ensembles.distinct_names(["runs/a", "/else/b"]) == ["a", "b"]
    same = ["runs/a/seed-0", "runs/b/seed-0", "runs/b/seed-1", "runs/b/seed-0:last"]
    told = ["a/seed-0", "b/seed-0", "seed-1", "seed-0:last"]
    assert ensembles.distinct_names(same) == told
    assert ensembles.distinct_names(["seed-0", "/b/seed-0"]) == ["seed-0", "b/seed-0"]
    assert ensembles.distinct_names(["runs/a", "runs/a"]) == ["a", "a"]


def test_a_member_that_changed_since_is_named(made: Run, root: Path, tmp_path: Path) -> None:
    values = made.config.resolved()
    values["model"]["trained"][1]["checkpoint"] = "0" * 64
    changed = RunConfig.model_validate_json(json.dumps(values))
    with pytest.raises(ModelError, match=r"ar: is not the run that model\.trained describes"):
        ensembles.train(changed, tmp_path / "run", console=QUIET)


def test_without_training_there_are_no_members() -> None:
    with pytest.raises(ValueError, match=r"model\.members: .*axonnx train"):
        build_model({"name": "ensemble", "members": ["runs/a"]}, forecast_context(3))


def test_a_person_sees_weights_errors_and_what_is_next(root: Path, tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=120)
    ensembles.train(blend(root / "gru", root / "ar"), tmp_path / "run", console=console)
    shown = screen.getvalue()
    assert "4 of 4" in shown
    assert "ar without fold 2 of 2" in shown
    for word in ("weights of members", "out of fold mse", "validation mse", "ensemble"):
        assert word in shown
    assert (tmp_path / "run" / folder.WEIGHTS_PLOT).read_bytes()[:4] == b"\x89PNG"


def test_what_members_do_alike_is_in_the_graph_once() -> None:
    context = forecast_context(3)
    one = {"name": "gru", "hidden_size": 4, "output_units": "raw"}
    trained = [
        {"name": f"gru{seed}", "checkpoint": "0" * 64, "seed": seed, "model": one, "training": {}}
        for seed in range(2)
    ]
    whole = build_model({"name": "ensemble", "trained": trained}, context)

    def operations(module: torch.nn.Module) -> dict[str, int]:
        nodes = onnx.load_from_string(to_onnx(module, context)).graph.node
        return {kind: [node.op_type for node in nodes].count(kind) for kind in ("Sub", "GRU")}

    alone = operations(build_model(one, context))
    assert operations(whole) == {"Sub": alone["Sub"], "GRU": 2 * alone["GRU"]}
    assert alone["Sub"] > 0
