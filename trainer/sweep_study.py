"""The study of a sweep: an Optuna database that several processes share and that outlives them.

Each trial has an index, which names its folder and seeds its choices. A trial that was killed is
failed and tried again under its index, with the same values, so that a sweep that was stopped ends
as one that was not. Of several trials under one index, the first that was not given up holds it:
trials are numbered by the database, so that all commands agree on which one that is.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import time
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from pydantic import JsonValue as Json
from sqlalchemy.exc import ArgumentError, DBAPIError

from trainer.config import ConfigError
from trainer.sweep_config import Choices, Parameter, Plan

DATABASE = "sweep.db"
HEARTBEAT, GRACE = 20, 90  # seconds: a trial that was silent for GRACE is dead
ERROR, SAME, RETRIES, WORKER, CONFIG = "error", "same_as", "retries", "worker", "config"
DEFINITION, DATA, SCORED = "definition", "data", "scored"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
SQLITE = "sqlite"
OPENINGS = 20  # tries to open a database that other commands may be setting up


def database(named: str | None, output: Path) -> str:
    """The URL of a sweep's database: `named` is one, or the environment variable that holds it.

    Raises ConfigError for a variable that is not set, for what is no URL, for one on the command
    line that holds or may hold a password, and for an SQLite file whose folder is missing.
    """
    if named is None:
        return f"sqlite:///{(output / DATABASE).resolve()}"
    variable = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", named)
    if variable and not os.environ.get(named):
        raise ConfigError(f"--storage {named}: no such environment variable")
    url = os.environ[named] if variable else named
    try:
        address = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):  # whose texts may hold a password
        raise ConfigError(
            "--storage: takes a URL, such as postgresql://user@host/name, or the name of an "
            "environment variable with one"
        ) from None
    if not variable and (address.password is not None or address.query):
        raise ConfigError(
            "--storage: holds a password, or a query (?…) that may, which others can read on a "
            "command line; put the URL into an environment variable, such as AXONNX_STORAGE, and "
            "give its name: --storage AXONNX_STORAGE"
        )
    if address.get_backend_name() != SQLITE:
        return url
    if address.database in (None, "", ":memory:"):
        raise ConfigError("--storage: an SQLite database in memory ends with the command")
    path = Path(str(address.database)).resolve()
    if not path.parent.is_dir():
        raise ConfigError(f"--storage: no folder {path.parent} for the SQLite file {path.name}")
    return f"sqlite:///{path}"


def open_study(plan: Plan, url: str) -> optuna.Study:
    """The study of `plan`, made where there is none; raises ConfigError without a database."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    settings = plan.settings
    median = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    return optuna.create_study(
        study_name=settings.name,
        storage=_storage(url),
        load_if_exists=True,
        direction="minimize",
        sampler=PerTrial(plan),
        pruner=median if settings.pruner == "median" else optuna.pruners.NopPruner(),
    )


def _storage(url: str) -> optuna.storages.RDBStorage:
    """The database at `url`; another command may be making its tables at the same time."""
    for tried in range(1, OPENINGS + 1):
        try:
            return _connected(url)
        except Exception as error:  # of a driver that this project does not know
            if tried < OPENINGS and isinstance(error, DBAPIError) and _is_race(error):
                time.sleep(0.1)
                continue
            # The error's own text may hold the URL.
            raise ConfigError(f"--storage: no database there ({type(error).__name__})") from None
    raise AssertionError


def _connected(url: str) -> optuna.storages.RDBStorage:
    options: dict[str, Any] = {}
    address = sqlalchemy.make_url(url)
    sqlite = address.get_backend_name() == SQLITE
    if sqlite:
        options = {"connect_args": {"timeout": 120, "isolation_level": None}}
        with closing(sqlite3.connect(str(address.database), timeout=120)) as file:
            file.execute("PRAGMA journal_mode=WAL")  # commits that cost less
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        storage = optuna.storages.RDBStorage(
            url.replace("{", "{{").replace("}", "}}"),  # which Optuna fills in
            options,
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
        )
    if sqlite:
        # SQLite has no SELECT … FOR UPDATE, and two processes could begin one waiting trial:
        # https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#pysqlite-serializable
        sqlalchemy.event.listen(
            storage.engine, "begin", lambda own: own.exec_driver_sql("BEGIN IMMEDIATE")
        )
    return storage


def _is_race(error: DBAPIError) -> bool:
    return isinstance(error, sqlalchemy.exc.IntegrityError) or "already exists" in str(error.orig)


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
            # None is left for a trial that was one too many, see `claim`.
            self.point = dict(enumerate(self.plan.combinations)).get(index, {})
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


def attempts(study: optuna.Study) -> dict[int, FrozenTrial]:
    """The trial that holds each index, in order: the first that was not given up, or any."""
    trials = study.get_trials(deepcopy=False)
    found: dict[int, FrozenTrial] = {}
    for trial in trials:
        index = index_of(trial, trials)
        if index not in found or is_given_up(found[index]):
            found[index] = trial
    return dict(sorted(found.items()))


def is_done(trial: FrozenTrial) -> bool:
    """Whether nothing more will come of a trial: scored, pruned, impossible or a duplicate."""
    told = ERROR in trial.user_attrs or SAME in trial.user_attrs
    return trial.state in ENDED or (trial.state == TrialState.FAIL and told)


def is_given_up(trial: FrozenTrial) -> bool:
    """Whether a trial was stopped, or was one too many."""
    return trial.state == TrialState.FAIL and not is_done(trial)


def done(study: optuna.Study, wanted: int) -> int:
    """How many of the first `wanted` indices are done."""
    return sum(index < wanted and is_done(trial) for index, trial in attempts(study).items())


def left(study: optuna.Study, wanted: int) -> int:
    """How many of the first `wanted` indices are neither done nor running anywhere."""
    begun = (
        index < wanted and (is_done(trial) or trial.state == TrialState.RUNNING)
        for index, trial in attempts(study).items()
    )
    return wanted - sum(begun)


def claim(study: optuna.Study, number: int, wanted: int) -> int | None:
    """The index of a trial that has begun; None where it is not to go on.

    That is where commands began more trials at once than are `wanted`, or one twice.
    """
    trials = study.get_trials(deepcopy=False)
    index = index_of(trials[number], trials)
    return index if index < wanted and attempts(study)[index].number == number else None


def recover(study: optuna.Study, wanted: int) -> int:
    """Put trials that were killed in line again; returns how many of the wanted run elsewhere.

    Two commands may put the same one in line: `claim` lets one of them go on.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    elsewhere = 0
    for index, trial in attempts(study).items():
        dead = trial.state == TrialState.RUNNING and _is_dead(trial)
        if dead:
            with suppress(UpdateFinishedTrialError):  # another command was first
                study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        if index >= wanted:
            continue
        if dead or is_given_up(trial):
            study.enqueue_trial(trial.params, user_attrs={RETRIES: index})
        elsewhere += trial.state == TrialState.RUNNING and not dead
    return elsewhere


def best(study: optuna.Study) -> tuple[int, FrozenTrial] | None:
    """Index and trial of the best score, the first of equal ones."""
    scored = [(i, t) for i, t in attempts(study).items() if t.state == TrialState.COMPLETE]
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
