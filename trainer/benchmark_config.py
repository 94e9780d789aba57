"""What a benchmark is: models × data sets × seeds, checked whole before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from trainer import yaml_source
from trainer.config import REGISTRIES, ConfigError, RunConfig
from trainer.yaml_source import Keys, Source, SourceError, dotted

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
ENSEMBLE = "ensemble"  # the registered model whose members are other runs
# Closed-form models that count as linear where the file names none.
LINEAR = frozenset({"ar", "linear", "linear_readout"})

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)]
Section = dict[str, Any]
Metric = Literal[
    "mse",
    "mse_raw",
    "accuracy",
    "balanced_accuracy",
    "r2",
    "median_error",
    "median_error_share",
    "median_along_share",
]


class Changes(BaseModel):
    """Settings of a model on one data set, laid over its others."""

    model_config = _STRICT

    model: Section = {}
    training: Section = {}


class Entry(BaseModel):
    """One model: a run's `model` and `training`, or an ensemble of other models.

    ensemble_of: labels of its members, which must stand above it; member_seeds: whether it joins
        its members' runs of its own "same" seed (their first one where they lack it) or of "all".
    seeds, data: seeds and data sets of its own (null: the benchmark's).
    per_data: what differs on one data set.
    """

    model_config = _STRICT

    model: Section = {}
    ensemble_of: tuple[Label, ...] = ()
    member_seeds: Literal["same", "all"] = "same"
    training: Section = {}
    seeds: Seeds | None = None
    data: tuple[Label, ...] | None = None
    per_data: dict[Label, Changes] = {}


class Goal(BaseModel):
    """What a model shall reach on data sets (null: all on which it is run).

    below, above: another model, by `percent` of its error or by `points` of its score; `interval`:
        the paired 95 % interval shall reach beyond no difference, too. On a data set that is
        `compared_with` another, the other model is that set's.
    at_most, at_least: a number, in the metric's unit; with `interval` for the 95 % interval over
        seeds, too, or over test windows where there is one seed.
    about: a figure of others, to be met within `percent` of it.
    """

    model_config = _STRICT

    model: Label
    data: Label | tuple[Label, ...] | None = None
    metric: Metric | None = None
    below: Label | None = None
    above: Label | None = None
    percent: float = 0.0
    points: float = 0.0
    at_most: float | None = None
    at_least: float | None = None
    about: float | None = None
    interval: bool = False

    @model_validator(mode="after")
    def _one_bound(self) -> Goal:
        bounds = (self.below, self.above, self.at_most, self.at_least, self.about)
        if sum(bound is not None for bound in bounds) != 1:
            raise ValueError("must have one of below, above, at_most, at_least and about")
        return self


class Ablation(BaseModel):
    """One recipe with one thing changed at a time.

    reference: the model that is the recipe; data: where (null: where the reference is run);
    items: name -> what is changed in it.
    """

    model_config = _STRICT

    reference: Label
    data: tuple[Label, ...] | None = None
    items: Annotated[dict[Label, Changes], Field(min_length=1)]


class Benchmark(BaseModel):
    """A benchmark.

    title, text: for people. seeds: of every model that names none.
    reference: the model with which every other one is compared, window by window.
    linear: models of which the best is the linear floor (null: every `ar`, `linear` and
        `linear_readout`).
    metric: what models are ranked by (null: mse, balanced_accuracy or r2, by the data's task).
    data: label -> a run's `data`. compared_with: a data set -> the one whose reference model it is
        compared with, on the targets that both have.
    models: label -> model. training: what every model's training starts from, the same budget.
    goals: what shall be reached. ablations: a recipe item by item.
    earlier_looks: name of the data -> how many test scores on it were seen before this harness
        counted them; they are published with those that it counts.
    """

    model_config = _STRICT

    name: Label
    title: str = ""
    text: str = ""
    seeds: Seeds = (0,)
    reference: Label
    linear: tuple[Label, ...] | None = None
    metric: Metric | None = None
    data: Annotated[dict[Label, Section], Field(min_length=1)]
    compared_with: dict[Label, Label] = {}
    models: Annotated[dict[Label, Entry], Field(min_length=1)]
    training: Section = {}
    goals: tuple[Goal, ...] = ()
    ablations: Ablation | None = None
    earlier_looks: dict[str, Annotated[int, Field(ge=0)]] = {}

    @model_validator(mode="after")
    def _labels_exist(self) -> Benchmark:
        models, data = list(self.models), list(self.data)
        ablated = () if self.ablations is None else (self.ablations,)
        named = [("reference", self.reference), *(("ablations", a.reference) for a in ablated)]
        named += [("linear", label) for label in self.linear or ()]
        for goal in self.goals:
            named += [("goals", x) for x in (goal.model, goal.below, goal.above) if x is not None]
        for key, label in named:
            _known(key, label, models, "models")
        for above, (label, entry) in enumerate(self.models.items()):
            for member in entry.ensemble_of:
                _known(f"models.{label}.ensemble_of", member, models[:above], "models above it")
        used = [("compared_with", x) for pair in self.compared_with.items() for x in pair]
        for label, entry in self.models.items():
            used += [(f"models.{label}", x) for x in (*(entry.data or ()), *entry.per_data)]
        used += [("goals", x) for goal in self.goals for x in _listed(goal.data)]
        used += [("ablations", x) for ablation in ablated for x in ablation.data or ()]
        for key, label in used:
            _known(key, label, data, "data")
        names = list(dict.fromkeys(map(self.data_name, data)))
        for name in self.earlier_looks:
            _known("earlier_looks", name, names, "names of the data")
        return self

    def data_name(self, label: str) -> str:
        """The registered name of the data that `label` stands for; labels may share it."""
        return str(self.data[label].get("name"))

    def entries(self) -> dict[str, Entry]:
        """Every model, those of the ablation included: they are called "reference/item"."""
        found = dict(self.models)
        if self.ablations is not None:
            base = self.models[self.ablations.reference]
            for item, changes in self.ablations.items.items():
                found[f"{self.ablations.reference}/{item}"] = base.model_copy(
                    update={
                        "model": _merged(base.model, changes.model),
                        "training": _merged(base.training, changes.training),
                        "data": self.ablations.data or base.data,
                        "per_data": {
                            data: Changes(
                                model=_merged(own.model, changes.model),
                                training=_merged(own.training, changes.training),
                            )
                            for data, own in base.per_data.items()
                        },
                    }
                )
        return found

    def linear_models(self) -> tuple[str, ...]:
        """Labels of the models of which the best is the linear floor."""
        if self.linear is not None:
            return self.linear
        named = {label: entry.model.get("name") for label, entry in self.models.items()}
        return tuple(label for label, name in named.items() if name in LINEAR)


@dataclass(frozen=True)
class Job:
    """One run of a benchmark; `members` are the jobs whose runs an ensemble joins."""

    data: str
    model: str
    seed: int
    values: Mapping[str, Any]
    members: tuple[Job, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """What its artifact is scored on: the test part does not judge an ablation's items."""
        return ("validation",) if "/" in self.model else ("validation", "test")

    @property
    def place(self) -> Path:
        """Its folder below those of runs and of scores."""
        return Path(self.data, *self.model.split("/"), f"seed-{self.seed}")

    def config(self, runs: Path) -> RunConfig:
        """The run; `runs` is the folder of all runs, in which an ensemble finds its members."""
        values = dict(self.values)
        if self.members:
            paths = [str(runs / member.place) for member in self.members]
            values["model"] = {"name": ENSEMBLE, **values["model"], "members": paths}
        return RunConfig.model_validate_json(json.dumps(values))


def jobs(benchmark: Benchmark, only: str | None = None, seeds: int | None = None) -> list[Job]:
    """Every run, data set by data set, members before the ensembles that join them.

    only: a pattern such as "goose/*" for "data/model"; an ensemble's members come along, and with
    an ablation's items what they are compared with. seeds: how many of each model's, the first.
    """
    found: dict[tuple[str, str, int], Job] = {}
    wanted: list[Job] = []
    for data in benchmark.data:
        for label, entry in benchmark.entries().items():
            if entry.data is not None and data not in entry.data:
                continue
            for seed in (entry.seeds or benchmark.seeds)[:seeds]:
                job = _job(benchmark, data, label, entry, seed, found)
                found[data, label, seed] = job
                if only is None or fnmatchcase(f"{data}/{label}", only):
                    recipe = found.get((data, label.partition("/")[0], seed), job)
                    wanted += [*recipe.members, recipe, *job.members, job]
    return list(_unique(wanted))


def _unique(jobs: list[Job]) -> Iterator[Job]:
    seen = set()
    for job in jobs:
        if job.place not in seen:
            seen.add(job.place)
            yield job


def _job(
    benchmark: Benchmark,
    data: str,
    label: str,
    entry: Entry,
    seed: int,
    found: Mapping[tuple[str, str, int], Job],
) -> Job:
    changes = entry.per_data.get(data, Changes())
    values = {
        "name": "-".join([benchmark.name, data, label.replace("/", "-"), str(seed)])[:100],
        "seed": seed,
        "data": benchmark.data[data],
        "model": _merged(entry.model, changes.model),
        "training": _merged(_merged(benchmark.training, entry.training), changes.training),
    }
    members: list[Job] = []
    for member in entry.ensemble_of:
        own = [job for key, job in found.items() if key[:2] == (data, member)]
        same = [job for job in own if job.seed == seed] or own[:1]
        if not own:
            raise ConfigError(f"models.{label}: its member {member} is not run on {data}")
        members += own if entry.member_seeds == "all" else same
    return Job(data, label, seed, values, tuple(members))


def load_benchmark(path: Path) -> Benchmark:
    """Read and check a benchmark and every run in it.

    Raises ConfigError: one line per mistake, "file:line: key: what is wrong; what would be right".
    """
    source = _read(Path(path))
    places = {keys: f"{path}:{line}" for keys, line in source.lines.items()}
    values = {"name": Path(path).stem, **source.value}
    try:
        benchmark = Benchmark.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise ConfigError(_lines(error, values, places, str(path))) from None
    for job in jobs(benchmark, seeds=1):
        try:
            job.config(Path("runs"))
        except ValidationError as error:
            raise ConfigError(_lines(error, job.values, places, str(path), job)) from None
    return benchmark


def _read(path: Path) -> Source:
    try:
        source = yaml_source.parse(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except SourceError as error:
        raise ConfigError(f"{path}:{error.line}: {error.text}") from None
    if not isinstance(source.value, dict):
        raise ConfigError(f"{path}:1: must be a mapping of {', '.join(Benchmark.model_fields)}")
    return source


def _lines(
    error: ValidationError,
    values: Mapping[str, Any],
    places: Mapping[Keys, str],
    file: str,
    job: Job | None = None,
) -> str:
    """One line per mistake, of the file's own or, where a `job` is given, of its run."""
    texts = []
    for details in error.errors():
        missing = details["type"] in ("missing", "unknown_name")
        keys = yaml_source.keys_of(details["loc"], dict(values), missing=missing)
        if job is not None:
            keys = _in_file(keys, job, places)
        place = yaml_source.nearest(places, keys, file)
        text = _text(details, values, Benchmark if job is None else RunConfig)
        texts.append(": ".join(filter(None, [place, dotted(keys), text])))
    return "\n".join(dict.fromkeys(texts))


def _in_file(keys: Keys, job: Job, places: Mapping[Keys, str]) -> Keys:
    """Where the file says what a run's `keys` hold: the innermost of the sections that do."""
    if keys[:1] == ("data",):
        return ("data", job.data, *keys[1:])
    model, _, item = job.model.partition("/")
    own: Keys = ("ablations", "items", item) if item else ("models", model)
    sections: list[Keys] = [own, ("models", model, "per_data", job.data), ("models", model), ()]
    found = [(*section, *keys) for section in sections if (*section, *keys) in places]
    return found[0] if found else (*own, *keys)


def _text(error: ErrorDetails, values: Mapping[str, Any], owner: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        valid = _valid_keys(tuple(map(str, error["loc"])), values, owner)
        return "unknown key; " + (f"valid: {', '.join(valid)}" if valid else "remove it")
    message = error["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _valid_keys(
    location: Sequence[str], values: Mapping[str, Any], owner: type[BaseModel]
) -> list[str]:
    """Keys of the section in which an unknown one stands, of a run or of the benchmark."""
    kinds: list[Any] = [owner]
    first: list[str] = []
    if owner is RunConfig and location[0] in REGISTRIES:
        settings = REGISTRIES[location[0]].settings(values[location[0]].get("name", ENSEMBLE))
        kinds, first = [settings], ["name"] * (len(location) == 2)
        location = location[1:]
    for part in location[:-1]:
        kinds = [inner for kind in kinds for inner in _inside(kind, part)]
    found = [key for kind in kinds if get_origin(kind) is None for key in kind.model_fields]
    return [*first, *dict.fromkeys(found)]


def _inside(kind: Any, part: str) -> list[Any]:
    """The models, or mappings and lists of them, below `part` of one; a union's tag is no part."""
    if get_origin(kind) is not None:
        return _plain(get_args(kind)[-1 if get_origin(kind) is dict else 0])
    field = kind.model_fields.get(part)
    return [kind] if field is None else _plain(field.annotation)


def _plain(hint: Any) -> list[Any]:
    """Models, mappings and lists in a type; numbers and texts hold no keys."""
    if get_origin(hint) in (dict, tuple, list):
        return [hint]
    if get_origin(hint) is None:
        return [hint] if isinstance(hint, type) and issubclass(hint, BaseModel) else []
    inner = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    return [each for one in inner for each in _plain(one)]


def _known(key: str, label: str, valid: list[str], where: str) -> None:
    if label not in valid:
        raise ValueError(f"{key}: {label!r} is none of the {where}: {', '.join(valid) or 'none'}")


def _listed(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else value


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Section:
    """`over` laid over `base`, section by section; another model's name starts anew."""
    if "name" in over and over["name"] != base.get("name"):
        return dict(over)
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        if isinstance(inner, dict) and isinstance(value, dict):
            value = _merged(inner, value)
        merged[key] = value
    return merged
