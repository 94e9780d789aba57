"""One trial of a sweep: choose values, train on what may be seen, score what was held out.

The test part stays out of it: the data that a trial gets hold other windows in its place.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from rich.console import Console

from trainer import checkpoint, folder, sweep_study
from trainer.config import ConfigError, RunConfig
from trainer.data import DataError, Dataset, load_dataset
from trainer.data.inner_folds import fold_dataset
from trainer.models import ModelError
from trainer.schedule import ScheduleError
from trainer.scoring import ScoringError
from trainer.sweep_config import Plan, digest
from trainer.training import TrainingError, train

Note = Callable[[str], None]
# What the values of one trial can cause: others may still be good.
FAULTS = (ConfigError, DataError, ModelError, ScheduleError, ScoringError, TrainingError)


class Duplicate(Exception):
    """Another trial has, or had, the same config and did not end with a score."""


class Surplus(Exception):
    """Other commands have begun all trials that are wanted."""


def run_one(plan: Plan, output: Path, url: str, wanted: int) -> None:
    """As `run_next`, of the study of `plan` in the database at `url`."""
    run_next(sweep_study.open_study(plan, url), plan, output, wanted, lambda text: None)


def run_next(study: optuna.Study, plan: Plan, output: Path, wanted: int, note: Note) -> None:
    """Run the study's next trial in `output`/trial-<index>; the study keeps what came of it.

    Nothing is run where `wanted` trials are done or running. Raises what ends the whole sweep:
    RunFolderError, CheckpointError, DeviceError.
    """
    if sweep_study.left(study, wanted) > 0:
        study.optimize(
            functools.partial(objective, plan, output, wanted, note),
            n_trials=1,
            catch=(*FAULTS, Duplicate, Surplus),
        )


def objective(plan: Plan, output: Path, wanted: int, note: Note, trial: optuna.Trial) -> float:
    """The score of one trial, the smaller the better.

    Raises TrialPruned, Surplus, Duplicate or FAULTS.
    """
    trial.set_user_attr(sweep_study.WORKER, sweep_study.worker())
    index = sweep_study.claim(trial.study, trial.number, wanted)
    if index is None:
        raise Surplus
    values = sweep_study.suggest(plan, trial)
    try:
        config = plan.config(values)
        trial.set_user_attr(sweep_study.CONFIG, digest(config))
        twin = _twin(trial, digest(config))
        if twin is not None:
            return _as(twin, trial)
        note(f"trial {index}")
        place = output / f"trial-{index}"
        if plan.settings.objective == "validation":
            return _validated(config, place, trial, note)
        return _folded(config, place, plan.settings.folds, trial, note)
    except FAULTS as error:
        trial.set_user_attr(sweep_study.ERROR, str(error))
        raise


def _validated(config: RunConfig, place: Path, trial: optuna.Trial, note: Note) -> float:
    """The best held-out metric of the validation part."""
    dataset = without_test(_dataset(json.dumps(config.data)))
    metric = folder.HELD_OUT[dataset.task]

    def on_epoch(row: dict[str, Any]) -> None:
        if row["epoch"] == 0:
            return
        note(f"epoch {row['epoch']}")
        trial.report(row[metric], row["epoch"])
        # After the last epoch there is nothing left to save.
        if row["epoch"] < config.training.epochs and trial.should_prune():
            raise optuna.TrialPruned

    # What a trial that was killed had reported already.
    saved = place / folder.CHECKPOINT
    for row in checkpoint.load(saved).history if saved.exists() else ():
        on_epoch(row)
    run = train(config, place, resume=True, console=_quiet(), dataset=dataset, on_epoch=on_epoch)
    if f"validation_{metric}" not in run.metrics:
        raise ModelError(
            "the model is fitted on the validation part (model.fit_on: both), by which nothing can "
            "be chosen then: give objective: inner_folds, or model.fit_on: train"
        )
    return run.metrics[f"validation_{metric}"]


def _folded(config: RunConfig, place: Path, folds: int, trial: optuna.Trial, note: Note) -> float:
    """The mean held-out metric over inner folds; each is the test part of its training."""
    dataset = without_test(_dataset(json.dumps(config.data)))
    metric = folder.HELD_OUT[dataset.task]
    scores: list[float] = []
    for fold in range(folds):
        note(f"fold {fold + 1} of {folds}")
        inner = fold_dataset(dataset, folds, fold)
        run = train(config, place / f"fold-{fold}", resume=True, console=_quiet(), dataset=inner)
        scores.append(run.metrics[f"test_{metric}"])
        trial.report(float(np.mean(scores)), fold + 1)
        if fold + 1 < folds and trial.should_prune():
            raise optuna.TrialPruned
    return float(np.mean(scores))


def without_test(dataset: Dataset) -> Dataset:
    """`dataset` with the validation part in place of its test part."""
    return replace(
        dataset,
        test=dataset.validation,
        fingerprint=f"{dataset.fingerprint}-without-test",
    )


@functools.lru_cache(maxsize=1)
def _dataset(data: str) -> Dataset:
    return load_dataset(json.loads(data))


def _twin(trial: optuna.Trial, sha256: str) -> optuna.trial.FrozenTrial | None:
    """An earlier trial of the same config that is not one which this trial tries again."""
    for other in trial.study.get_trials(deepcopy=False):
        killed = other.state.is_finished() and not sweep_study.is_done(other)
        same = other.user_attrs.get(sweep_study.CONFIG) == sha256
        first = other.number < trial.number and sweep_study.SAME not in other.user_attrs
        if first and same and not killed:
            return other
    return None


def _as(twin: optuna.trial.FrozenTrial, trial: optuna.Trial) -> float:
    """The score of a trial's twin; raises Duplicate where it has none."""
    trials = trial.study.get_trials(deepcopy=False)
    trial.set_user_attr(sweep_study.SAME, sweep_study.index_of(twin, trials))
    if twin.state != optuna.trial.TrialState.COMPLETE or twin.value is None:
        raise Duplicate(f"trial {twin.number}")
    return twin.value


def _quiet() -> Console:
    return Console(quiet=True, force_terminal=False)
