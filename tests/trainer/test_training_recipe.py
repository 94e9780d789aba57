"""The recipe's keys: what each does to a run, that runs resume with them, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from trainer import checkpoint, export, folder, scoring
from trainer.checkpoint import CheckpointError
from trainer.config import ConfigError, RunConfig, load_config
from trainer.data import Statistics, load_dataset
from trainer.schedule import ScheduleError
from trainer.trained import build, load_run
from trainer.training import Trainer, train

QUIET = Console(file=io.StringIO())
BASE: dict[str, Any] = {"epochs": 3, "batch_size": 32, "device": "cpu", "threads": 1}
DATA = {"name": "synthetic", "channels": 3, "samples": 600}
MODEL = {"name": "patchformer", "width": 8, "heads": 2, "temporal_blocks": 1, "dropout": 0.2}
RECIPE: dict[str, Any] = {
    "ema": 0.9,
    "schedule": "cycles",
    "cycles": 2,
    "snapshots": True,
    "accumulate": 2,
    "augmentation": {"noise": 0.1, "gain": 0.1, "shift": 0.1, "channel_dropout": 0.2, "mixup": 0.4},
    "learning_rates": {"head.*": 0.5},
}


def config(model: dict[str, Any] = MODEL, data: dict[str, Any] = DATA, **keys: Any) -> RunConfig:
    values = {"name": "recipe", "data": data, "model": model, "training": {**BASE, **keys}}
    return RunConfig.model_validate(values)


def trainer_of(run: RunConfig) -> Trainer:
    dataset = load_dataset(run.data)
    return Trainer(run, dataset, build(run, dataset), torch.device("cpu"))


def files(run: Path) -> dict[str, bytes]:
    found = (path for path in run.rglob("*") if path.is_file())
    return {str(path.relative_to(run)): path.read_bytes() for path in found}


def test_the_whole_recipe_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = config(**RECIPE)
    train(run, tmp_path / "whole", console=QUIET)
    run_step = Trainer._run_step

    def interrupted(self: Trainer, rows: np.ndarray) -> float:
        if self.epoch == 2 and self.step == self.steps_per_epoch + 2:
            raise KeyboardInterrupt
        return run_step(self, rows)

    monkeypatch.setattr(Trainer, "_run_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path / "run", console=QUIET)
    monkeypatch.undo()
    train(run, tmp_path / "run", resume=True, console=QUIET)
    assert files(tmp_path / "run") == files(tmp_path / "whole")
    assert {"snapshots/1.safetensors", "snapshots/2.safetensors"} <= set(files(tmp_path / "run"))


def test_snapshots_are_checkpoints_by_name_and_go_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "export_artifact", lambda *parts: parts[-1])
    run = config(**RECIPE)
    train(run, tmp_path / "run", console=QUIET)
    first, last = (load_run(tmp_path / "run", name) for name in ("snapshot-1", "last"))
    second = load_run(tmp_path / "run", "snapshot-2")
    assert first.metrics["epoch"] == 2
    assert second.metrics == last.metrics
    assert first.metrics != second.metrics
    made = export.export_run(tmp_path / "run", "snapshot-1")
    assert made == tmp_path / "run" / "artifact-snapshot-1"
    with pytest.raises(CheckpointError, match="has no snapshot-3; it has: snapshot-1, snapshot-2"):
        load_run(tmp_path / "run", "snapshot-3")
    train(config(), tmp_path / "run", overwrite=True, console=QUIET)
    assert set(files(tmp_path / "run")) == {folder.CONFIG, folder.METRICS, folder.CHECKPOINT}


def test_with_an_average_it_is_what_is_scored_kept_and_loaded(tmp_path: Path) -> None:
    trained = train(config(ema=0.8), tmp_path / "run", console=QUIET)
    saved = checkpoint.load(tmp_path / "run" / folder.CHECKPOINT)
    assert saved.weights("last") is saved.average
    assert any(not torch.equal(saved.average[name], saved.last[name]) for name in saved.last)
    last = load_run(tmp_path / "run", "last")
    assert last.metrics["validation_mse"] == trained.history[-1]["mse"]
    assert trained.metrics["validation_mse"] == min(row["mse"] for row in trained.history)
    plain = train(config(), tmp_path / "plain", console=QUIET)
    assert [row["loss"] for row in plain.history] == [row["loss"] for row in trained.history]


def test_accumulated_minibatches_make_the_step_of_all_their_windows() -> None:
    model = {**MODEL, "dropout": 0.0}
    weights = []
    for keys in ({"batch_size": 60}, {"batch_size": 20, "accumulate": 3}):
        trainer = trainer_of(config(model, **keys))
        trainer.module.train()
        trainer._run_step(np.arange(50))  # 20, 20 and 10 windows
        weights.append(trainer.module.state_dict())
    assert trainer.steps_per_epoch == -(-len(trainer.dataset.train) // 60)
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5)


def test_a_factor_of_0_leaves_parameters_as_they_are() -> None:
    trainer = trainer_of(config(learning_rates={"embed.*": 0.0}))
    before = {name: value.clone() for name, value in trainer.module.state_dict().items()}
    trainer.module.train()
    for _ in range(2):
        trainer._run_step(np.arange(32))
    after = trainer.module.state_dict()
    assert torch.equal(after["embed.weight"], before["embed.weight"])
    assert not torch.equal(after["merge.weight"], before["merge.weight"])


def test_what_a_factor_of_0_freezes_is_no_part_of_the_clipped_norm() -> None:
    trainer = trainer_of(config(learning_rates={"embed.*": 0.0}, gradient_clip=1e-3))
    trainer.module.train()
    trainer._run_step(np.arange(32))
    named = dict(trainer.module.named_parameters())
    moving = [p.grad for name, p in named.items() if not name.startswith("embed.")]
    found = [gradient.square().sum() for gradient in moving if gradient is not None]
    assert float(torch.stack(found).sum().sqrt()) == pytest.approx(1e-3, rel=1e-2)


def test_cycles_that_would_leave_no_snapshot_are_refused() -> None:
    recipe = {"schedule": "cycles", "cycles": 50, "snapshots": True, "epochs": 1, "max_steps": 3}
    with pytest.raises(ScheduleError, match=r"50 cycles .* do not fit into 3 steps"):
        trainer_of(config(**recipe))


@pytest.mark.parametrize(("warmup", "told"), [(3, True), (2, False)])
def test_a_warm_up_that_never_ends_is_told(warmup: int, told: bool, tmp_path: Path) -> None:
    screen = io.StringIO()
    own = config(warmup_steps=warmup, max_steps=3, epochs=1)
    train(own, tmp_path / "run", console=Console(file=screen))
    line = "training.warmup_steps is 3, but the run has 3 steps"
    assert (line in screen.getvalue()) == told


def test_patterns_are_checked_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match=r"'tail\.\*' matches no parameter; the model has .*"):
        train(config(learning_rates={"tail.*": 2.0}), tmp_path / "run", console=QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("keep", "kept"), [("best", "best"), ("last", "last"), ("auto", "last")])
def test_which_epoch_is_exported_where_validation_is_of_another_kind(
    keep: str, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "export_artifact", lambda *parts: parts[-1])
    series = np.random.default_rng(0).normal(size=(600, 2)).astype(np.float32)
    series[420:] *= 3
    np.save(tmp_path / "x.npy", series)
    data = {"name": "array", "path": str(tmp_path / "x.npy"), "rate": 100.0}
    keys = {"learning_rate": 0.3, "patience": 1, "epochs": 4, "keep": keep}
    console = Console(file=io.StringIO())
    run = train(config(MODEL, data, **keys), tmp_path / "run", console=console)
    assert run.metrics == load_run(tmp_path / "run", kept).metrics
    if kept == "last":
        assert run.metrics["epoch"] == 4  # nothing stops it
        assert export.export_run(tmp_path / "run", "last").name == folder.ARTIFACT
        assert export.export_run(tmp_path / "run", "best").name == "artifact-best"
    said = "the last epoch is kept" in console.file.getvalue()  # type: ignore[attr-defined]
    assert said == (keep == "auto")


@pytest.mark.parametrize("model", [MODEL, {"name": "gru", "hidden_size": 4}])
def test_bfloat16_trains_nearly_alike_with_float32_weights(
    model: dict[str, Any], tmp_path: Path
) -> None:
    runs = [
        train(config(model, precision=precision), tmp_path / precision, console=QUIET)
        for precision in ("float32", "bfloat16")
    ]
    assert all(value.dtype != torch.bfloat16 for value in runs[1].module.state_dict().values())
    errors = [run.history[-1]["mse"] for run in runs]
    assert errors[0] != errors[1]
    assert errors[0] == pytest.approx(errors[1], rel=0.03)


def test_mixup_of_classes_trains(tmp_path: Path) -> None:
    data = {"name": "synthetic_decoding", "trials": 120}
    keys = {"augmentation": {"mixup": 0.5, "noise": 0.1}, "precision": "bfloat16", "epochs": 6}
    run = train(config({"name": "decoder"}, data, **keys), tmp_path / "run", console=QUIET)
    assert run.history[-1]["cross_entropy"] < run.history[0]["cross_entropy"]


def test_session_numbers_reach_a_module_that_takes_them() -> None:
    class Sessions(torch.nn.Module):
        takes_session = True

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.seen: list[torch.Tensor] = []

        def forward(
            self, neural: torch.Tensor, session: torch.Tensor | None = None
        ) -> torch.Tensor:
            if session is not None:
                self.seen.append(session)
            return neural[..., 0] * self.weight

    run = config()
    dataset, module = load_dataset(run.data), Sessions()
    trainer = Trainer(run, dataset, module, torch.device("cpu"))
    trainer._run_step(np.arange(20))
    assert module.seen[0].dtype == torch.int64
    assert module.seen[0].tolist() == dataset.train.sessions[:20].tolist()


@pytest.mark.slow
def test_compiled_training_equals_eager_and_resumes(tmp_path: Path) -> None:
    model = {**MODEL, "dropout": 0.0, "base": "last"}
    runs = [
        train(config(model, compile=compiled, epochs=2), tmp_path / str(compiled), console=QUIET)
        for compiled in (False, True)
    ]
    assert runs[0].module.state_dict().keys() == runs[1].module.state_dict().keys()
    errors = [run.history[-1]["mse"] for run in runs]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)
    before = files(tmp_path / "True")
    train(runs[1].config, tmp_path / "True", resume=True, console=QUIET)
    assert files(tmp_path / "True") == before


def test_weights_of_channels_are_clamped_around_their_median() -> None:
    std = np.array([1.0, 2.0, 3.0, 10.0, 0.0])
    windows = type("W", (), {"target_statistics": lambda self: Statistics(0 * std, std)})()
    for ratio in (1.0, 4.0, 1e9):
        weight = (std[:4] / scoring.target_scale(windows, "pooled", ratio)[:4]) ** 2
        assert weight.max() / weight.min() <= ratio * (1 + 1e-9)
        assert weight.mean() == pytest.approx(1)
    even = scoring.target_scale(windows, "pooled", 1.0)[:4]
    assert even == pytest.approx(std[:4])
    # Without a limit that matters it is the pooled scale, up to the constant channel's share.
    loose = scoring.target_scale(windows, "pooled", 1e9)[:4]
    assert loose / loose[0] == pytest.approx(np.ones(4))


MISTAKES = {
    "cycles without their schedule": (
        "{cycles: 3}",
        "run.yaml:2: training.cycles: is 3; needs training.schedule: cycles, not constant",
    ),
    "snapshots": ("{schedule: cosine, snapshots: true}", "training.snapshots: is true; needs"),
    "weight_ratio": ("{weight_ratio: 4}", "training.weight_ratio: is 4; needs training.target_"),
    "precision": ("{device: mps, precision: bfloat16}", 'training.precision: is "bfloat16"; needs'),
    "compile": ("{device: mps, compile: true}", "training.compile: is true; needs training.device"),
    "ema": ("{ema: 1.0}", "training.ema: is 1"),
    "augmentation": (
        "{augmentation: {nois: 0.1}}",
        "training.augmentation.nois: unknown key; did you mean 'noise'? valid: noise, gain",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_what_does_not_go_together_is_named_by_its_key(case: str, tmp_path: Path) -> None:
    text, expected = MISTAKES[case]
    (tmp_path / "run.yaml").write_text(f"data: {{name: synthetic}}\ntraining: {text}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "run.yaml", [])
    assert expected in str(caught.value)


def test_the_recipe_comes_back_from_its_yaml(tmp_path: Path) -> None:
    run = config(**RECIPE, precision="bfloat16", keep="auto")
    (tmp_path / "recipe.yaml").write_text(run.to_yaml())
    found = load_config(tmp_path / "recipe.yaml", [("training.augmentation.noise", "0.3")])
    assert found.training.augmentation.noise == 0.3
    assert json.dumps(found.resolved()).replace("0.3", "0.1", 1) == json.dumps(run.resolved())
