"""Minibatch training: seeded, deterministic, stoppable at any instant and resumable bit for bit.

Everything random in an epoch comes from (seed, epoch), and a checkpoint closes every epoch, so a
run that was killed goes on from its last checkpoint and ends with the bytes of one that was not.
Nothing that depends on the clock is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from artifact.bundle import write_file
from artifact.manifest import config_digest
from trainer import checkpoint, folder, scoring
from trainer.checkpoint import Checkpoint, CheckpointError
from trainer.config import RunConfig, TrainingConfig, load_config
from trainer.data import load_dataset
from trainer.data.windows import Batch, Dataset
from trainer.determinism import choose_device, deterministic, seed_everything
from trainer.models import ModelError, build_model
from trainer.progress import Progress


class TrainingError(Exception):
    """Training cannot start, go on or be resumed; the text says why and what would help."""


@dataclass(frozen=True)
class Run:
    """A trained module, on the CPU and in evaluation mode, with all that it came from.

    `metrics`: the epoch of the weights, and held-out metrics such as `test_mse`; `history`: one
    dict per epoch, as in metrics.jsonl.
    """

    folder: Path
    config: RunConfig
    dataset: Dataset
    module: torch.nn.Module
    metrics: dict[str, float]
    history: list[dict[str, Any]]


def train(
    config: RunConfig,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
    dataset: Dataset | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Train `config` in the run folder `output` and return the best module.

    `dataset`: in place of the one that the config names, say one fold of it. `on_epoch` is called
    with every epoch's row of metrics.jsonl once its checkpoint is written; what it raises ends the
    training.

    Writes config.yaml, metrics.jsonl and checkpoint.safetensors, nothing before data and model are
    known to be good; `trainer.pipeline` adds the plots and the artifact. Raises RunFolderError for
    a folder that is taken, TrainingError for a run that cannot go on, CheckpointError for a
    checkpoint that belongs to another config or other data.
    """
    console = console or Console()
    device = choose_device(config.training.device)
    folder.check_free(output, resume=resume, overwrite=overwrite)
    with deterministic(config.training.threads):
        dataset = dataset or load_dataset(config.data)
        saved = None
        if resume and (output / folder.CHECKPOINT).exists():
            saved = checkpoint.load(output / folder.CHECKPOINT)
            check_same_run(saved, config, dataset)
        module = build(config, dataset)
        fit_closed_form = getattr(module, "fit_closed_form", None)
        if fit_closed_form is not None:
            console.print("fitting in closed form …", highlight=False)
            fit_closed_form(dataset.train, dataset.validation)
        trainer = Trainer(config, dataset, module, device)
        if saved is None:
            trainer.begin()
        else:
            trainer.restore(saved)
        # Data and model are good: from here on there is something to put in an old run's place.
        folder.claim(output, resume=resume, overwrite=overwrite)
        write_file(output / folder.CONFIG, config.to_yaml().encode())
        if saved is None:
            trainer.save(output)
        else:
            write_metrics(trainer.history, output)
        trainer.run(output, console, on_epoch)
        return load_run(output, dataset=dataset)


def load_run(output: Path, which: str = "best", *, dataset: Dataset | None = None) -> Run:
    """Rebuild a run's module through the registry from its config and checkpoint.

    `which` is "best" or "last". Raises RunFolderError, ConfigError or CheckpointError.
    """
    config = load_config(folder.check(output) / folder.CONFIG, [])
    saved = checkpoint.load(output / folder.CHECKPOINT)
    with deterministic(config.training.threads):
        dataset = dataset or load_dataset(config.data)
        check_same_run(saved, config, dataset)
        module = build(config, dataset)
        checkpoint.load_weights(module, saved.weights(which))
        module.eval()
        scale = scoring.target_scale(dataset.train)
        epoch = saved.best_epoch if which == "best" else saved.epoch
        metrics: dict[str, float] = {"epoch": epoch}
        for part in ("validation", "test"):
            scores = scoring.held_out(module, dataset.parts[part], scale, torch.device("cpu"))
            metrics |= {f"{part}_{name}": value for name, value in scores.items()}
    return Run(output, config, dataset, module, metrics, saved.history)


def build(config: RunConfig, dataset: Dataset) -> torch.nn.Module:
    """The module that the config names, with the initial weights of its seed, on the CPU.

    Raises ModelError where a setting does not fit the data.
    """
    seed_everything(config.seed, 0)
    try:
        return build_model(config.model, dataset.context())
    except ValueError as error:
        raise ModelError(str(error)) from error


def check_same_run(saved: Checkpoint, config: RunConfig, dataset: Dataset) -> None:
    """Raise CheckpointError, naming what differs, unless config and data are the checkpoint's."""
    resolved = config.resolved()
    if saved.config_sha256 != config_digest(resolved):
        keys = "; ".join(differences(saved.config, resolved)) or "the order of its keys"
        raise CheckpointError(
            f"the checkpoint was made with another config: {keys}. "
            "Give the old values to resume, or --overwrite to start anew"
        )
    if saved.data_fingerprint != dataset.fingerprint:
        raise CheckpointError(
            f"the data behind data set {dataset.name!r} changed since the checkpoint was made "
            f"(fingerprint {saved.data_fingerprint[:12]}… then, {dataset.fingerprint[:12]}… now)"
        )


def differences(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """The keys whose values differ, as `section.key: old, now new`, sorted."""
    lines = []
    for key in sorted(then.keys() | now.keys()):
        old, new = then.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{prefix}{key}.")
        elif old != new or (key in then) != (key in now):
            lines.append(f"{prefix}{key}: {old!r}, now {new!r}")
    return lines


def write_metrics(history: list[dict[str, Any]], output: Path) -> None:
    """Write metrics.jsonl: one JSON object per epoch."""
    lines = (json.dumps(row, allow_nan=False) + "\n" for row in history)
    write_file(output / folder.METRICS, "".join(lines).encode())


class Trainer:
    """Fits one module to one data set: minibatches, epochs, held-out metric, checkpoints.

    `module` moves to `device`. Call `begin` or `restore`, then `run`.
    """

    def __init__(
        self, config: RunConfig, dataset: Dataset, module: torch.nn.Module, device: torch.device
    ) -> None:
        self.config = config
        self.settings: TrainingConfig = config.training
        self.dataset = dataset
        self.module = module.to(device)
        self.device = device
        objective = scoring.objective(self.settings.objective, dataset.task)
        self.objective = scoring.weighted(objective, dataset.train, self.settings.class_weights)
        self.metric = folder.HELD_OUT[dataset.task]
        self.scale = scoring.target_scale(dataset.train)
        target_scale = scoring.target_scale(dataset.train, self.settings.target_scale)
        self.target_scale = torch.tensor(target_scale, dtype=torch.float32, device=device)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters or [torch.zeros(1, requires_grad=True)],
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
        )
        self.epoch = self.step = self.best_epoch = 0
        self.best_metric = math.inf
        self.best: dict[str, torch.Tensor] = {}
        self.history: list[dict[str, Any]] = []

    @property
    def steps_per_epoch(self) -> int:
        """Minibatches in an epoch; the last one may be smaller."""
        return math.ceil(len(self.dataset.train) / self.settings.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of a run that does not stop early; 0 without trainable parameters."""
        if not self.parameters:
            return 0
        steps = self.settings.epochs * self.steps_per_epoch
        return min(steps, self.settings.max_steps or steps)

    @property
    def finished(self) -> bool:
        """Whether no epoch is left: all are done, or the held-out metric stopped improving."""
        waited = self.epoch - self.best_epoch
        return self.step >= self.total_steps or waited >= self.settings.patience

    def begin(self) -> None:
        """Score the module as it is, as epoch 0."""
        self._close_epoch(loss=None)

    def run(
        self,
        output: Path,
        console: Console,
        on_epoch: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Train to the end, one checkpoint in `output` per epoch, see `train`."""
        with Progress(
            console,
            total=self.total_steps,
            done=self.step,
            epochs=math.ceil(self.total_steps / self.steps_per_epoch),
            metric=self.metric,
        ) as progress:
            progress.epoch(self.history[-1], self.best_metric)
            while not self.finished:
                self._run_epoch(progress)
                self.save(output)
                progress.epoch(self.history[-1], self.best_metric)
                if on_epoch is not None:
                    on_epoch(self.history[-1])

    def save(self, output: Path) -> None:
        """Write the checkpoint, then metrics.jsonl."""
        resolved = self.config.resolved()
        checkpoint.save(
            Checkpoint(
                epoch=self.epoch,
                step=self.step,
                last=self.module.state_dict(),
                best=self.best,
                optimizer=self.optimizer.state_dict()["state"],
                history=self.history,
                best_epoch=self.best_epoch,
                best_metric=self.best_metric,
                config=resolved,
                config_sha256=config_digest(resolved),
                data_fingerprint=self.dataset.fingerprint,
            ),
            output / folder.CHECKPOINT,
        )
        write_metrics(self.history, output)

    def restore(self, saved: Checkpoint) -> None:
        """Go back to the state in which `saved` was written."""
        checkpoint.load_weights(self.module, saved.last)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": saved.optimizer, "param_groups": groups})
        self.epoch, self.step, self.history = saved.epoch, saved.step, saved.history
        self.best, self.best_epoch = saved.best, saved.best_epoch
        self.best_metric = saved.best_metric

    def learning_rate(self) -> float:
        """The learning rate of the coming step: linear warm-up, then constant or half a cosine."""
        settings, step = self.settings, self.step
        if step < settings.warmup_steps:
            return settings.learning_rate * (step + 1) / settings.warmup_steps
        if settings.schedule == "constant":
            return settings.learning_rate
        span = max(1, self.total_steps - settings.warmup_steps)
        progress = (step - settings.warmup_steps) / span
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def _run_epoch(self, progress: Progress) -> None:
        self.epoch += 1
        seed_everything(self.config.seed, self.epoch)
        count = len(self.dataset.train)
        order = np.random.default_rng([self.config.seed, self.epoch]).permutation(count)
        self.module.train()
        losses = []
        for start in range(0, count, self.settings.batch_size):
            if self.step >= self.total_steps:
                break
            rows = np.sort(order[start : start + self.settings.batch_size])
            losses.append(self._run_step(rows))
            progress.step(self.epoch, losses[-1])
        self._close_epoch(loss=math.fsum(losses) / len(losses))

    def _run_step(self, rows: np.ndarray) -> float:
        windows = self.dataset.train
        rate = self.learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        batch = windows.batch(rows)
        loss = scoring.loss(
            self.module,
            windows,
            batch,
            self.objective,
            self.target_scale,
            **self._arguments(batch, rows),
        )
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} in epoch {self.epoch}, step {self.step}: "
                "lower training.learning_rate or look for extreme values in the data"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_clip)
        self.optimizer.step()
        self.step += 1
        return value

    def _arguments(self, batch: Batch, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """What the module gets besides its inputs while it trains."""
        out_of_fold = getattr(self.module, "out_of_fold", None)
        if out_of_fold is None:
            return {}
        base = out_of_fold(torch.from_numpy(batch.inputs["neural"]), rows)
        return {} if base is None else {"base": base.to(self.device)}

    def _close_epoch(self, loss: float | None) -> None:
        """Score the held-out part, note the epoch in the history, keep the weights if best."""
        windows = self.dataset.validation
        scores = scoring.held_out(self.module, windows, self.scale, self.device)
        if not math.isfinite(scores[self.metric]):
            raise TrainingError(
                f"held-out {self.metric} is {scores[self.metric]} after epoch {self.epoch}: "
                "lower training.learning_rate or look for extreme values in the data"
            )
        row = {"epoch": self.epoch, "step": self.step, "loss": loss}
        self.history.append({**row, **scores})
        if scores[self.metric] < self.best_metric:
            self.best_metric, self.best_epoch = scores[self.metric], self.epoch
            state = self.module.state_dict()
            self.best = {name: value.detach().clone() for name, value in state.items()}
