from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contexts import decode_dataset
from rich.console import Console

from trainer import checkpoint, folder, scoring
from trainer.checkpoint import CheckpointError
from trainer.config import RunConfig, TrainingConfig, load_config
from trainer.data import DataError, Statistics, load_dataset
from trainer.determinism import DeviceError, choose_device, deterministic, seed_everything
from trainer.folder import RunFolderError
from trainer.models import ModelError
from trainer.scoring import ScoringError
from trainer.trained import build, differences, load_run
from trainer.training import Trainer, TrainingError, check_device, train

QUIET = Console(file=io.StringIO())
SMALL = """
data: {name: synthetic, channels: 3, samples: 600}
model: {name: gru, hidden_size: 4}
training: {epochs: 3, batch_size: 32, device: cpu, threads: 1}
"""
DROPOUT = SMALL.replace(
    "{name: gru, hidden_size: 4}",
    "{name: patchformer, width: 8, heads: 2, temporal_blocks: 1, dropout: 0.3}",
)
DECODING = """
data: {name: synthetic_decoding, trials: 200}
model: {name: decoder, hidden_size: 8}
training: {epochs: 4, objective: cross_entropy, device: cpu, threads: 1}
"""


def small(tmp_path: Path, *overrides: tuple[str, str], text: str = SMALL) -> RunConfig:
    path = tmp_path / "small.yaml"
    path.write_text(text)
    return load_config(path, list(overrides))


def of_model(name: str) -> str:
    return SMALL.replace("{name: gru, hidden_size: 4}", f"{{name: {name}}}")


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir()}


def test_training_lowers_the_held_out_error_and_keeps_the_best(tmp_path: Path) -> None:
    config = small(tmp_path, ("training.epochs", "8"), ("training.learning_rate", "0.01"))
    run = train(config, tmp_path / "run", console=QUIET)
    errors = [row["mse"] for row in run.history]
    assert min(errors) < 0.9 * errors[0]
    best = min(run.history, key=lambda row: row["mse"])
    assert run.metrics["epoch"] == best["epoch"]
    assert run.metrics["validation_mse"] == best["mse"]
    assert set(run.metrics) == {
        "epoch",
        *(f"{part}_{name}" for part in ("validation", "test") for name in ("mse", "mse_raw")),
    }
    assert not run.module.training
    lines = (tmp_path / "run" / folder.METRICS).read_text().splitlines()
    assert [json.loads(line) for line in lines] == run.history


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return str(request.param)


def test_same_config_same_bytes_another_seed_others(device: str, tmp_path: Path) -> None:
    config = small(tmp_path, ("training.device", device), text=DROPOUT)
    for name in ("one", "two"):
        train(config, tmp_path / name, console=QUIET)
        # Draws in between must not matter.
        torch.rand(3), np.random.rand(3)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    other = train(small(tmp_path, ("seed", "1"), text=DROPOUT), tmp_path / "three", console=QUIET)
    assert other.history[-1] != load_run(tmp_path / "one").history[-1]


@pytest.mark.parametrize("epoch", [1, 2])
def test_interrupted_in_an_epoch_and_resumed(
    epoch: int, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after some minibatches of an epoch with dropout; `test_resume` kills processes."""
    config = small(tmp_path, ("training.device", device), text=DROPOUT)
    train(config, tmp_path / "whole", console=QUIET)
    run_step = Trainer._run_step

    def interrupted(self: Trainer, rows: np.ndarray) -> float:
        if self.epoch == epoch and self.step % self.steps_per_epoch == 3:
            raise KeyboardInterrupt
        return run_step(self, rows)

    monkeypatch.setattr(Trainer, "_run_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", console=QUIET)
    monkeypatch.undo()
    assert checkpoint.load(tmp_path / "run" / folder.CHECKPOINT).epoch == epoch - 1
    train(config, tmp_path / "run", resume=True, console=QUIET)
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_a_terminal_shows_loss_metric_and_time_left(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    train(small(tmp_path), tmp_path / "run", console=console)
    last = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", screen.getvalue().rsplit("\r", 1)[-1])
    for word in ("epoch 3/3", "18/18", "loss ", "held-out mse ", "(best ", "0:00:00"):
        assert word in last


def test_elsewhere_there_is_one_line_per_epoch(tmp_path: Path) -> None:
    out = io.StringIO()
    train(small(tmp_path), tmp_path / "run", console=Console(file=out))
    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["0/3", "1/3", "2/3", "3/3"]
    assert "s left" in lines[1]
    assert "\x1b" not in out.getvalue()


def test_resume_refuses_another_config_naming_the_keys(tmp_path: Path) -> None:
    train(small(tmp_path), tmp_path / "run", console=QUIET)
    before = files(tmp_path / "run")
    other = small(tmp_path, ("training.learning_rate", "0.5"), ("model.hidden_size", "5"))
    with pytest.raises(CheckpointError) as caught:
        train(other, tmp_path / "run", resume=True, console=QUIET)
    assert "training.learning_rate: 0.001, now 0.5" in str(caught.value)
    assert "model.hidden_size: 4, now 5" in str(caught.value)
    assert "epochs" not in str(caught.value)
    assert files(tmp_path / "run") == before


def test_resume_refuses_changed_data(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(500, 2)))
    text = SMALL.replace(
        "{name: synthetic, channels: 3, samples: 600}",
        f"{{name: array, path: {tmp_path}/x.npy, rate: 100}}",
    )
    config = small(tmp_path, ("training.epochs", "1"), text=text)
    train(config, tmp_path / "run", console=QUIET)
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(500, 2)))
    with pytest.raises(CheckpointError, match="data behind data set 'array' changed"):
        train(config, tmp_path / "run", resume=True, console=QUIET)


def test_a_run_is_not_overwritten_unasked(tmp_path: Path) -> None:
    config = small(tmp_path, ("training.epochs", "1"))
    train(config, tmp_path / "run", console=QUIET)
    before = files(tmp_path / "run")
    with pytest.raises(RunFolderError, match="--resume continues it, --overwrite starts it anew"):
        train(config, tmp_path / "run", console=QUIET)
    assert files(tmp_path / "run") == before
    (tmp_path / "run" / "notes.txt").write_text("mine")
    train(small(tmp_path), tmp_path / "run", overwrite=True, console=QUIET)
    assert load_run(tmp_path / "run").history[-1]["epoch"] == 3
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    for way in ({"resume": True}, {"overwrite": True}, {}):
        with pytest.raises(RunFolderError, match=r"holds chapter\.txt and no run"):
            train(small(tmp_path), tmp_path / "thesis", console=QUIET, **way)
    assert files(tmp_path / "thesis") == {"chapter.txt": b"mine"}
    with pytest.raises(RunFolderError, match="is a file"):
        train(small(tmp_path), tmp_path / "thesis" / "chapter.txt", console=QUIET)


@pytest.mark.parametrize("names", [["config.yaml", "manifest.json"], ["config.yaml", "model.py"]])
def test_artifacts_and_folders_with_a_config_of_ones_own_are_left_alone(
    tmp_path: Path, names: list[str]
) -> None:
    for name in (*names, "checkpoint.safetensors.tmp-1"):
        (tmp_path / "mine" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "mine" / name).write_text("mine")
    before = files(tmp_path / "mine")
    for way in ({"resume": True}, {"overwrite": True}, {}):
        with pytest.raises(RunFolderError, match="and no run; choose another --output"):
            train(small(tmp_path), tmp_path / "mine", console=QUIET, **way)
    with pytest.raises(RunFolderError, match="is no run folder"):
        load_run(tmp_path / "mine")
    assert files(tmp_path / "mine") == before


@pytest.mark.parametrize(
    "wrong",
    [
        [("model.name", "patchformer"), ("model.width", "30"), ("model.heads", "4")],
        [("data.name", "array"), ("data.path", "none.npy"), ("data.rate", "100")],
        [("training.objective", "cross_entropy")],
    ],
    ids=["model", "data", "objective"],
)
def test_a_run_is_replaced_only_by_one_that_can_begin(
    tmp_path: Path, wrong: list[tuple[str, str]]
) -> None:
    run = tmp_path / "run"
    text = (
        "data: {name: synthetic, channels: 3, samples: 600}\ntraining: {device: cpu, epochs: 1}\n"
    )
    if wrong[0][0] == "data.name":
        text = "data: {name: synthetic}\ntraining: {device: cpu, epochs: 1}\n"
    with pytest.raises((DataError, ModelError, ScoringError)):
        train(small(tmp_path, *wrong, text=text), run, console=QUIET)
    assert not run.exists()
    train(small(tmp_path, ("training.epochs", "1")), run, console=QUIET)
    before = files(run)
    with pytest.raises((DataError, ModelError, ScoringError)):
        train(small(tmp_path, *wrong, text=text), run, overwrite=True, console=QUIET)
    assert files(run) == before


def test_early_stopping_counts_epochs_without_improvement(tmp_path: Path) -> None:
    # Steps that are much too long: the error rises from some epoch on.
    config = small(
        tmp_path,
        ("training.epochs", "40"),
        ("training.learning_rate", "0.3"),
        ("training.patience", "3"),
    )
    run = train(config, tmp_path / "run", console=QUIET)
    assert run.history[-1]["epoch"] == run.metrics["epoch"] + 3 < 40


def test_max_steps_ends_training_inside_an_epoch(tmp_path: Path) -> None:
    run = train(small(tmp_path, ("training.max_steps", "8")), tmp_path / "run", console=QUIET)
    assert [row["step"] for row in run.history] == [0, 6, 8]


@pytest.mark.parametrize("model", ["persistence", "linear"])
def test_models_without_parameters_have_no_epochs_but_the_same_files(
    model: str, tmp_path: Path
) -> None:
    run = train(small(tmp_path, text=of_model(model)), tmp_path / "run", console=QUIET)
    assert [row["epoch"] for row in run.history] == [0]
    assert run.history[0]["loss"] is None
    assert set(files(tmp_path / "run")) == {folder.CONFIG, folder.METRICS, folder.CHECKPOINT}
    before = files(tmp_path / "run")
    train(run.config, tmp_path / "run", resume=True, console=QUIET)
    assert files(tmp_path / "run") == before


def test_last_and_best_weights(tmp_path: Path) -> None:
    config = small(tmp_path, ("training.learning_rate", "0.3"), ("training.epochs", "12"))
    train(config, tmp_path / "run", console=QUIET)
    best, last = load_run(tmp_path / "run"), load_run(tmp_path / "run", "last")
    assert best.metrics["epoch"] < last.metrics["epoch"] == last.history[-1]["epoch"]
    assert best.metrics["validation_mse"] < last.metrics["validation_mse"]
    assert last.metrics["validation_mse"] == last.history[-1]["mse"]


def test_decoding_is_judged_by_cross_entropy_and_accuracy(tmp_path: Path) -> None:
    run = train(small(tmp_path, text=DECODING), tmp_path / "run", console=QUIET)
    assert {"test_cross_entropy", "test_accuracy"} <= set(run.metrics)
    assert run.history[-1]["cross_entropy"] < run.history[0]["cross_entropy"] < 3
    assert 0 <= run.metrics["test_accuracy"] <= 1


def test_the_loss_of_a_task_is_its_own_unless_one_is_named(tmp_path: Path) -> None:
    text = DECODING.replace("objective: cross_entropy, ", "")
    one = train(small(tmp_path, text=text), tmp_path / "one", console=QUIET)
    named = train(small(tmp_path, text=DECODING), tmp_path / "two", console=QUIET)
    assert one.history == named.history


def test_rare_classes_weigh_more_in_the_loss_alone(tmp_path: Path) -> None:
    dataset = load_dataset({"name": "synthetic_decoding", "trials": 200})
    windows = dataset.train
    rare = np.flatnonzero((windows.targets != 2) | (np.arange(len(windows)) % 8 == 0))
    windows = dataclasses.replace(
        windows,
        sessions=windows.sessions[rare],
        starts=windows.starts[rare],
        targets=windows.targets[rare],
    )
    plain = scoring.objective(None, "classify")
    weighted = scoring.weighted(plain, windows, "balanced")
    assert scoring.weighted(plain, windows, "none") is plain
    assert scoring.weighted(scoring.objective("mse", "decode"), windows, "balanced") is not plain
    counts = np.bincount(windows.targets)
    probability = torch.softmax(torch.randn(len(windows), 3), 1)
    choice = torch.from_numpy(windows.targets)
    costs = -probability.gather(1, choice[:, None])[:, 0].log()
    wanted = np.mean([float(costs[choice == c].mean()) for c in range(3)])
    assert float(weighted(probability, choice)) == pytest.approx(wanted, rel=1e-5)
    assert counts.min() < 0.2 * counts.max()
    even = dataclasses.replace(
        windows,
        sessions=windows.sessions[:30],
        starts=windows.starts[:30],
        targets=np.arange(30) % 3,
    )
    assert scoring.weighted(plain, even, "balanced") is plain


def test_what_was_not_measured_costs_nothing_and_has_no_gradient() -> None:
    dataset = decode_dataset(300)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(40, 2))
    objective = scoring.objective("huber", "decode")
    batch = dataset.train.batch(slice(0, 60))
    lost = np.isnan(batch.targets["behavior"])
    assert lost.any()
    scale = torch.tensor(scoring.target_scale(dataset.train), dtype=torch.float32)
    gradients = []
    for filler in (np.nan, None):
        answers = module(torch.from_numpy(batch.inputs["neural"])).detach().numpy()
        batch.targets["behavior"][lost] = answers[lost] if filler is None else filler
        module.zero_grad()
        scoring.loss(module, dataset.train, batch, objective, scale).backward()
        gradients.append(module[1].weight.grad.clone())
    assert torch.isfinite(gradients[0]).all()
    torch.testing.assert_close(gradients[0], gradients[1])


def test_objective_and_model_must_suit_the_task(tmp_path: Path) -> None:
    wrong = small(tmp_path, ("training.objective", "mse"), text=DECODING)
    with pytest.raises(
        ScoringError, match=r"'mse' does not suit .* 'classify'; take cross_entropy"
    ):
        train(wrong, tmp_path / "one", console=QUIET)
    text = DECODING.replace("{name: decoder, hidden_size: 8}", "{name: gru}")
    with pytest.raises(ModelError, match="does not do the data set's task 'classify'"):
        train(small(tmp_path, text=text), tmp_path / "two", console=QUIET)


def test_settings_that_do_not_fit_the_data_are_named(tmp_path: Path) -> None:
    config = small(tmp_path, ("model.patch_len", "11"), text=DROPOUT)
    with pytest.raises(ModelError, match="patch_len"):
        train(config, tmp_path / "run", console=QUIET)


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path: Path) -> None:
    config = small(tmp_path, ("training.learning_rate", "1e30"))
    with pytest.raises(TrainingError, match=r"lower training\.learning_rate"):
        train(config, tmp_path / "run", console=QUIET)
    assert checkpoint.load(tmp_path / "run" / folder.CHECKPOINT).epoch == 0


def test_learning_rate_schedule(tmp_path: Path) -> None:
    config = small(
        tmp_path,
        ("training.schedule", "cosine"),
        ("training.warmup_steps", "4"),
        ("training.learning_rate", "0.1"),
    )
    dataset = load_dataset(config.data)
    trainer = Trainer(config, dataset, build(config, dataset), torch.device("cpu"))
    rates = []
    for step in range(trainer.total_steps):
        trainer.step = step
        rates.append(trainer.learning_rate())
    assert rates[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert all(a > b for a, b in itertools.pairwise(rates[4:]))
    assert 0 < rates[-1] < 0.01


def test_gru_trains_the_same_whatever_units_it_answers_in(tmp_path: Path) -> None:
    """The loss is taken in raw units over scale, also where the output is normalized."""
    runs = []
    for units in ("normalized", "raw"):
        config = small(tmp_path, ("model.output_units", units), ("training.epochs", "2"))
        runs.append(train(config, tmp_path / units, console=QUIET))
    for one, other in zip(runs[0].history, runs[1].history, strict=True):
        assert one["mse"] == pytest.approx(other["mse"], rel=1e-4)


def test_held_out_mse_is_scored_on_the_horizon_in_units_of_train_variance(tmp_path: Path) -> None:
    config = small(tmp_path, text=of_model("persistence"))
    dataset = load_dataset(config.data)
    statistics = dataset.train.statistics()
    batch = dataset.test.batch(slice(None))
    target = batch.targets["forecast"].astype(np.float64)
    error = target[:, 10:] - target[:, 9:10]
    scale = scoring.target_scale(dataset.train)
    found = scoring.held_out(build(config, dataset), dataset.test, scale, torch.device("cpu"))
    assert found["mse_raw"] == pytest.approx((error**2).mean(), rel=1e-12)
    assert found["mse"] == pytest.approx((error**2 / statistics.std[:, 0] ** 2).mean(), rel=1e-12)


def test_scale_of_constant_channels_and_pooled_scale() -> None:
    statistics = Statistics(np.zeros(3), np.array([3.0, 4.0, 0.0]))
    windows = type("W", (), {"target_statistics": lambda self: statistics})()
    assert scoring.target_scale(windows).tolist() == [3.0, 4.0, 1.0]
    pooled = scoring.target_scale(windows, "pooled")
    assert pooled == pytest.approx([math.sqrt(25 / 3)] * 3)


def test_deterministic_puts_everything_back() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with deterministic(1):
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_seeds_differ_between_seeds_and_epochs() -> None:
    draws = set()
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1)):
        seed_everything(seed, epoch)
        draws.add((float(torch.rand(())), float(np.random.rand())))
    assert len(draws) == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(DeviceError, match="'cuda', but torch finds no such device"):
        choose_device("cuda")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("key", ["precision: bfloat16", "compile: true"])
def test_auto_that_comes_to_mps_is_refused_what_mps_cannot_do(key: str) -> None:
    name, value = key.split(": ")
    settings = TrainingConfig.model_validate({name: value == "true" or value})
    check_device(settings, torch.device("cpu"))
    with pytest.raises(DeviceError, match=rf"'auto', which is mps here, and training\.{key} needs"):
        check_device(settings, torch.device("mps"))


def test_keys_that_only_one_config_has_are_named() -> None:
    then: dict[str, Any] = {"a": {"b": None, "c": 1}, "d": [2]}
    now: dict[str, Any] = {"a": {"c": 1, "e": 3}, "d": [2], "f": {}}
    assert differences(then, now) == [
        "a.b: None, now not there",
        "a.e: not there, now 3",
        "f: not there, now {}",
    ]
    assert differences(then, then) == []


def test_checkpoint_of_other_shapes_is_refused(tmp_path: Path) -> None:
    config = small(tmp_path, ("training.epochs", "1"))
    train(config, tmp_path / "run", console=QUIET)
    path = tmp_path / "run" / folder.CHECKPOINT
    saved = checkpoint.load(path)
    weights = dict(saved.best)
    weights.pop(next(iter(weights)))
    checkpoint.save(dataclasses.replace(saved, best=weights), path)
    with pytest.raises(CheckpointError, match="is missing"):
        load_run(tmp_path / "run")
