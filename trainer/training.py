"""Minibatch training: seeded, deterministic, stoppable at any instant and resumable bit for bit.

Everything random in an epoch comes from (seed, epoch), and a checkpoint closes every epoch, so a
run that was killed goes on from its last checkpoint and ends with the bytes of one that was not.
Nothing that depends on the clock is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from artifact.bundle import write_file
from artifact.manifest import config_digest
from trainer import augmentation, averaging, checkpoint, folder, schedule, scoring
from trainer.augmentation import Minibatch
from trainer.averaging import Weights
from trainer.checkpoint import Checkpoint, Snapshot
from trainer.config import Augmentation, RunConfig, TrainingConfig
from trainer.data import load_dataset
from trainer.data.windows import Batch, Dataset
from trainer.determinism import DeviceError, choose_device, deterministic, seed_everything
from trainer.models.stages import listening
from trainer.progress import Progress, fit_teller
from trainer.schedule import ScheduleError, parameter_groups
from trainer.trained import Run, build, check_same_run, kept, load_run, saw_validation


class TrainingError(Exception):
    """Training cannot start, go on or be resumed; the text says why and what would help."""


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
    """Train `config` in the run folder `output` and return the module that it keeps.

    `dataset`: in place of the one that the config names, say one fold of it. `on_epoch` is called
    with every epoch's row of metrics.jsonl once its checkpoint is written; what it raises ends the
    training.

    Writes config.yaml, metrics.jsonl, checkpoint.safetensors and snapshots, nothing before data and
    model are known to be good; `trainer.pipeline` adds the plots and the artifact. Raises
    RunFolderError for a folder that is taken, TrainingError for a run that cannot go on,
    ScheduleError for parameters that are not there, CheckpointError for a checkpoint that belongs
    to another config or other data.
    """
    console = console or Console()
    device = choose_device(config.training.device)
    check_device(config.training, device)
    folder.check_free(output, resume=resume, overwrite=overwrite)
    with deterministic(config.training.threads):
        dataset = dataset or load_dataset(config.data)
        saved = None
        if resume and (output / folder.CHECKPOINT).exists():
            saved = checkpoint.load(output / folder.CHECKPOINT)
            check_same_run(saved, config, dataset)
        elif resume:
            console.print(f"{output} holds nothing to continue: begun anew", soft_wrap=True)
        module = build(config, dataset)
        fit_closed_form = getattr(module, "fit_closed_form", None)
        if fit_closed_form is not None:
            console.print("fitting scales and what else needs no epochs …", highlight=False)
            with listening(fit_teller(console)):
                fit_closed_form(dataset.train, dataset.validation)
        trainer = Trainer(config, dataset, module, device)
        if saved is None:
            trainer.begin()
        else:
            trainer.restore(saved)
        if config.training.keep == "auto" and trainer.keep == "last":
            console.print(
                "the validation part does not look like the train part: the last epoch is kept",
                highlight=False,
                soft_wrap=True,
            )
        if 0 < trainer.total_steps <= config.training.warmup_steps:
            console.print(
                f"training.warmup_steps is {config.training.warmup_steps}, but the run has "
                f"{trainer.total_steps} steps: the learning rate never gets past its rise",
                highlight=False,
                soft_wrap=True,
            )
        # Data and model are good: from here on there is something to put in an old run's place.
        folder.claim(output, resume=resume, overwrite=overwrite)
        write_file(output / folder.CONFIG, config.to_yaml().encode())
        if saved is None:
            trainer.save(output)
        else:
            write_metrics(trainer.history, output)
        trainer.run(output, console, on_epoch)
        return load_run(output, dataset=dataset)


def check_device(settings: TrainingConfig, device: torch.device) -> None:
    """Raise DeviceError where `device`, which "auto" may have chosen, cannot do the settings."""
    for key, asked in (
        ("precision: bfloat16", settings.precision == "bfloat16"),
        ("compile: true", settings.compile),
    ):
        if asked and device.type == "mps":
            raise DeviceError(
                f"training.device is {settings.device!r}, which is mps here, and training.{key} "
                "needs cpu or cuda; give training.device: cpu, or leave it out"
            )


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
        # Shares the parameters of `module`, which is what is scored, saved and exported. One graph
        # for each batch size: a general one would make bits depend on the minibatches before.
        compiled = self.settings.compile
        self.network: Any = torch.compile(module, dynamic=False) if compiled else module
        self.device = device
        objective = scoring.objective(self.settings.objective, dataset.task)
        self.objective = scoring.weighted(objective, dataset.train, self.settings.class_weights)
        self.metric = folder.HELD_OUT[dataset.task]
        self.keep = kept(config, dataset)
        self.scale = scoring.target_scale(dataset.train)
        target_scale = scoring.target_scale(
            dataset.train, self.settings.target_scale, self.settings.weight_ratio
        )
        self.target_scale = torch.tensor(target_scale, dtype=torch.float32, device=device)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        groups = parameter_groups(module, self.settings.learning_rates)
        # A gradient that moves nothing is no part of the norm that the others are clipped to.
        still = {id(p) for group in groups if group["factor"] == 0 for p in group["params"]}
        self.clipped = [p for p in self.parameters if id(p) not in still]
        self.optimizer = torch.optim.AdamW(
            groups or [{"params": [torch.zeros(1, requires_grad=True)], "factor": 1.0}],
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
        )
        self.epoch = self.step = self.best_epoch = 0
        self.best_metric = math.inf
        self.best: Weights = {}
        self.average: Weights = {}
        self.snapshots: dict[int, Snapshot] = {}
        self.history: list[dict[str, Any]] = []
        if self.settings.snapshots and self.total_steps:
            self._check_cycles()

    def _cycle_ends(self) -> list[int]:
        settings = self.settings
        return schedule.cycle_ends(
            self.total_steps, warmup=settings.warmup_steps, cycles=settings.cycles
        )

    def _check_cycles(self) -> None:
        """Raise ScheduleError where a cycle would have no step, and so no snapshot."""
        ends = [self.settings.warmup_steps, *self._cycle_ends()]
        if len(set(ends)) < len(ends) or ends[-1] > self.total_steps:
            raise ScheduleError(
                f"training.cycles: {self.settings.cycles} cycles after "
                f"{self.settings.warmup_steps} steps of warm-up do not fit into "
                f"{self.total_steps} steps; give fewer, or more epochs"
            )

    @property
    def windows_per_step(self) -> int:
        """Windows of an optimizer step; the last one of an epoch may have fewer."""
        return self.settings.batch_size * self.settings.accumulate

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return math.ceil(len(self.dataset.train) / self.windows_per_step)

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
        if self.step >= self.total_steps:
            return True
        may_stop = self.keep == "best" and not self.settings.snapshots
        return may_stop and self.epoch - self.best_epoch >= self.settings.patience

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
            held_out=not saw_validation(self.module),
        ) as progress:
            progress.epoch(self.history[-1], self.best_metric)
            while not self.finished:
                self._run_epoch(progress)
                self.save(output)
                progress.epoch(self.history[-1], self.best_metric)
                if on_epoch is not None:
                    on_epoch(self.history[-1])

    def save(self, output: Path) -> None:
        """Write the snapshots of the epoch, the checkpoint, then metrics.jsonl."""
        for number in sorted(self.snapshots):
            snapshot = self.snapshots.pop(number)
            checkpoint.save_snapshot(snapshot, folder.snapshot(output, number))
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
                average=self.average,
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
        self.average = {name: value.to(self.device) for name, value in saved.average.items()}

    def learning_rate(self) -> float:
        """The learning rate of the coming step, before the factors of `learning_rates`."""
        settings = self.settings
        return settings.learning_rate * schedule.factor(
            self.step,
            self.total_steps,
            schedule=settings.schedule,
            warmup=settings.warmup_steps,
            cycles=settings.cycles,
        )

    def _run_epoch(self, progress: Progress) -> None:
        self.epoch += 1
        seed_everything(self.config.seed, self.epoch)
        count = len(self.dataset.train)
        order = np.random.default_rng([self.config.seed, self.epoch]).permutation(count)
        self.module.train()
        losses = []
        for start in range(0, count, self.windows_per_step):
            if self.step >= self.total_steps:
                break
            losses.append(self._run_step(order[start : start + self.windows_per_step]))
            progress.step(self.epoch, losses[-1])
        self._close_epoch(loss=math.fsum(losses) / len(losses))

    def _run_step(self, rows: np.ndarray) -> float:
        """One optimizer step on the train windows `rows`; returns their mean loss."""
        rate = self.learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.zero_grad()
        losses = []
        for part, start in enumerate(range(0, len(rows), self.settings.batch_size)):
            own = np.sort(rows[start : start + self.settings.batch_size])
            loss = self._loss(own, part)
            if len(own) < len(rows):
                loss = loss * (len(own) / len(rows))
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise TrainingError(
                    f"the loss is {losses[-1]} in epoch {self.epoch}, step {self.step}: "
                    "lower training.learning_rate or look for extreme values in the data"
                )
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.clipped, self.settings.gradient_clip)
        self.optimizer.step()
        self.step += 1
        self._follow()
        return math.fsum(losses)

    def _loss(self, rows: np.ndarray, part: int) -> torch.Tensor:
        """The loss of one minibatch, varied at random where the settings say so."""
        windows, settings = self.dataset.train, self.settings
        batch = windows.batch(rows)
        minibatch = Minibatch(batch, self._out_of_fold(batch, rows))
        if settings.augmentation != Augmentation():
            draws = augmentation.generator(self.config.seed, self.epoch, self.step, part)
            minibatch = augmentation.augmented(minibatch, windows, settings.augmentation, draws)
        arguments = {}
        if minibatch.base is not None:
            arguments["base"] = torch.from_numpy(minibatch.base).to(self.device)
        if getattr(self.module, "takes_session", False):
            sessions = windows.sessions[rows].astype(np.int64)
            arguments["session"] = torch.from_numpy(sessions).to(self.device)
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"
        ):
            return scoring.loss(
                self.network,
                windows,
                minibatch.batch,
                self.objective,
                self.target_scale,
                **arguments,
            )

    def _out_of_fold(self, batch: Batch, rows: np.ndarray) -> np.ndarray | None:
        """What the module corrects, by fits without these windows: (batch, horizon, channel)."""
        out_of_fold = getattr(self.module, "out_of_fold", None)
        if out_of_fold is None:
            return None
        base: torch.Tensor | None = out_of_fold(torch.from_numpy(batch.inputs["neural"]), rows)
        return None if base is None else base.numpy()

    def _follow(self) -> None:
        """Move the average after a step, and keep the weights where a cycle ends."""
        settings = self.settings
        if settings.ema is not None:
            averaging.update(self.average, self.module.state_dict(), settings.ema, self.step)
        if not settings.snapshots:
            return
        ends = self._cycle_ends()
        if self.step in ends:
            weights = self.average or self.module.state_dict()
            self.snapshots[ends.index(self.step) + 1] = Snapshot(
                weights={name: value.detach().clone() for name, value in weights.items()},
                epoch=self.epoch,
                step=self.step,
                config_sha256=config_digest(self.config.resolved()),
                data_fingerprint=self.dataset.fingerprint,
            )

    def _close_epoch(self, loss: float | None) -> None:
        """Score the held-out part, note the epoch in the history, keep the weights if best."""
        if self.average:
            with averaging.swapped(self.module, self.average):
                self._score(loss)
        else:
            self._score(loss)

    def _score(self, loss: float | None) -> None:
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
