"""The study of a sweep: an Optuna database that several processes share and that outlives them.

Each trial has an index, which names its folder and seeds its choices. A trial that was killed is
failed and tried again under its index, with the same values, so that a sweep that was stopped ends
as one that was not.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from pydantic import JsonValue as Json

from trainer.config import ConfigError
from trainer.sweep_config import Choices, Parameter, Plan

DATABASE = "sweep.db"
HEARTBEAT, GRACE = 20, 90  # seconds: a trial that was silent for GRACE is dead
ERROR, SAME, RETRIES, WORKER, CONFIG = "error", "same_as", "retries", "worker", "config"
DEFINITION, DATA, SCORED = "definition", "data", "scored"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


def database(named: str | None, output: Path) -> str:
    """The URL of a sweep's database: `named` is one, or the environment variable that holds it.

    Raises ConfigError for a variable that is not set, and for a password on the command line.
    """
    if named is None:
        return f"sqlite:///{(output / DATABASE).resolve()}"
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", named):
        if not os.environ.get(named):
            raise ConfigError(f"--storage {named}: no such environment variable")
        return os.environ[named]
    if "://" not in named:
        raise ConfigError("--storage: takes a URL, or the name of an environment variable with one")
    if re.match(r"[^:/]+://[^/@]*:[^/@]*@", named):
        raise ConfigError(
            "--storage: holds a password, which others can read on a command line; "
            "put the URL into an environment variable and give its name"
        )
    return named


def open_study(plan: Plan, url: str) -> optuna.Study:
    """The study of `plan`, made where there is none; raises ConfigError without a database."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    options: dict[str, Any] = {}
    if url.startswith("sqlite:///"):
        options = {"connect_args": {"timeout": 120}}
        with sqlite3.connect(url.removeprefix("sqlite:///"), timeout=120) as file:
            file.execute("PRAGMA journal_mode=WAL")  # readers and a writer at once
        file.close()
    settings = plan.settings
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            storage = optuna.storages.RDBStorage(
                url, options, heartbeat_interval=HEARTBEAT, grace_period=GRACE
            )
    except Exception as error:  # of a driver that this project does not know
        # The error's own text may hold the URL.
        raise ConfigError(f"--storage: no database there ({type(error).__name__})") from None
    median = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    return optuna.create_study(
        study_name=settings.name,
        storage=storage,
        load_if_exists=True,
        direction="minimize",
        sampler=PerTrial(plan),
        pruner=median if settings.pruner == "median" else optuna.pruners.NopPruner(),
    )


class PerTrial(BaseSampler):
    """Every trial chooses by a generator of its own, of the sweep's seed and the trial's index."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.point: dict[str, Json] = {}
        self.own: BaseSampler = RandomSampler(seed=0)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Make the trial's own sampler."""
        index, settings = index_of(trial, study.get_trials(deepcopy=False)), self.plan.settings
        seed = int(np.random.SeedSequence([settings.seed, index]).generate_state(1)[0])
        if settings.sampler == "grid":
            self.point = self.plan.combinations[index]
        elif settings.sampler == "tpe":
            self.own = TPESampler(seed=seed)
        else:
            self.own = RandomSampler(seed=seed)
        self.own.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What is chosen at once."""
        return self.own.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values of what is chosen at once."""
        return self.own.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The value of one parameter."""
        if self.plan.settings.sampler == "grid":
            return _stored(self.plan.settings.space[param_name], self.point[param_name])
        return self.own.sample_independent(study, trial, param_name, param_distribution)


def distribution(parameter: Parameter) -> BaseDistribution:
    """What a parameter is to Optuna; choices are stored as JSON texts."""
    if isinstance(parameter, Choices):
        return CategoricalDistribution([json.dumps(choice) for choice in parameter.choices])
    low, high, log, step = parameter.low, parameter.high, parameter.log, parameter.step
    if parameter.whole:
        last = high if step is None else low + (high - low) // step * step
        return IntDistribution(int(low), int(last), log, 1 if step is None else int(step))
    last = high if step is None else parameter.grid()[-1]  # type: ignore[assignment]
    return FloatDistribution(float(low), float(last), log, None if step is None else float(step))


def chosen(plan: Plan, trial: FrozenTrial) -> dict[str, Json]:
    """The values of a trial by dotted key, as a config takes them."""
    space = plan.settings.space
    return {
        key: json.loads(value) if isinstance(space[key], Choices) else value
        for key, value in trial.params.items()
    }


def index_of(trial: FrozenTrial, trials: list[FrozenTrial]) -> int:
    """The index of a trial of the study's `trials`: that of the one it tries again, or the next."""
    if RETRIES in trial.user_attrs:
        return int(trial.user_attrs[RETRIES])
    return sum(t.number < trial.number and RETRIES not in t.user_attrs for t in trials)


def latest(study: optuna.Study) -> dict[int, FrozenTrial]:
    """The last attempt at every index, in order."""
    trials = study.get_trials(deepcopy=False)
    found = {index_of(trial, trials): trial for trial in trials}
    return dict(sorted(found.items()))


def is_done(trial: FrozenTrial) -> bool:
    """Whether nothing more will come of a trial: scored, pruned, impossible or a duplicate."""
    told = ERROR in trial.user_attrs or SAME in trial.user_attrs
    return trial.state in ENDED or (trial.state == TrialState.FAIL and told)


def recover(study: optuna.Study) -> int:
    """Fail trials that were killed and put them in line again; returns how many run elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    elsewhere = 0
    for index, trial in latest(study).items():
        state = trial.state
        if state == TrialState.RUNNING:
            if not _is_dead(trial):
                elsewhere += 1
                continue
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            state = TrialState.FAIL
        if state == TrialState.FAIL and not is_done(trial):
            study.enqueue_trial(trial.params, user_attrs={RETRIES: index})
    return elsewhere


def best(study: optuna.Study) -> tuple[int, FrozenTrial] | None:
    """Index and trial of the best score, the first of equal ones."""
    scored = [(i, t) for i, t in latest(study).items() if t.state == TrialState.COMPLETE]
    return min(scored, key=lambda pair: (pair[1].value or 0.0, pair[0]), default=None)


def importance(study: optuna.Study) -> dict[str, float]:
    """Share of each parameter in how much scores differ, the greatest first; {} for too few."""
    scored = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    if len(scored) < 4 or len({t.value for t in scored}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(value) for key, value in found.items()}


def worker() -> str:
    """What names this process among all machines that share a study."""
    return f"{socket.gethostname()} {os.getpid()}"


def suggest(plan: Plan, trial: optuna.Trial) -> dict[str, Json]:
    """The values that a trial is to try."""
    values: dict[str, Json] = {}
    for key, parameter in plan.settings.space.items():
        value = _ask(trial)(key, distribution(parameter))
        values[key] = json.loads(value) if isinstance(parameter, Choices) else value
    return values


def _ask(trial: optuna.Trial) -> Callable[[str, BaseDistribution], Any]:
    def ask(key: str, kind: BaseDistribution) -> Any:
        if isinstance(kind, CategoricalDistribution):
            return trial.suggest_categorical(key, kind.choices)
        if isinstance(kind, IntDistribution):
            return trial.suggest_int(key, kind.low, kind.high, step=kind.step, log=kind.log)
        assert isinstance(kind, FloatDistribution)
        return trial.suggest_float(key, kind.low, kind.high, step=kind.step, log=kind.log)

    return ask


def _stored(parameter: Parameter, value: Json) -> Any:
    return json.dumps(value) if isinstance(parameter, Choices) else value


def _is_dead(trial: FrozenTrial) -> bool:
    """Whether a running trial's process is known to be gone: of this machine only."""
    host, _, process = str(trial.user_attrs.get(WORKER, "")).rpartition(" ")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
