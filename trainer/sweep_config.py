"""What a sweep is: a run, the settings it varies, and how it chooses; checked before it starts.

A sweep file names a run (`run`, a path beside it, or `base`, the run itself) and a `space` of its
dotted keys. Every value that the space names is tried on the run's schema first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic import JsonValue as Json

from artifact.manifest import config_digest
from trainer import yaml_source
from trainer.config import ConfigError, RunConfig, load_config, read_values
from trainer.yaml_source import SourceError, dotted

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
Number = int | float
Overrides = list[tuple[str, str]]


class Choices(BaseModel):
    """One of a list of values, which have no order."""

    model_config = _STRICT

    choices: Annotated[list[Json], Field(min_length=1)]

    @model_validator(mode="after")
    def _once(self) -> Choices:
        texts = [json.dumps(choice) for choice in self.choices]
        for text in texts:
            if texts.count(text) > 1:
                raise ValueError(f"{text} is listed twice")
        return self

    def tried(self) -> list[Json]:
        """The values whose validity decides on the others'."""
        return self.choices


class Range(BaseModel):
    """A number from `low` to `high`, both included; whole numbers where both are.

    log: equal shares for equal ratios. step: only low, low + step, …
    """

    model_config = _STRICT

    low: Number
    high: Number
    log: bool = False
    step: Annotated[Number, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _sensible(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, is {self.low}")
        if self.log and self.step is not None:
            raise ValueError("takes log or step, not both")
        if self.whole and isinstance(self.step, float):
            raise ValueError(f"step {self.step} of whole numbers must be whole")
        return self

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def tried(self) -> list[Json]:
        """The values whose validity decides on the others'."""
        return [self.low, self.high]

    def grid(self) -> list[Json]:
        """Every value; raises ConfigError where there are infinitely many."""
        step = self.step or (1 if self.whole else None)
        if step is None or self.log:
            raise ConfigError("a grid needs choices, or low and high with a step")
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        values = [self.low + index * step for index in range(count)]
        return [value if self.whole else round(value, 12) for value in values]


def _kind(value: Any) -> str:
    return "choices" if isinstance(value, Choices) or "choices" in (value or ()) else "range"


Parameter = Annotated[
    Annotated[Choices, Tag("choices")] | Annotated[Range, Tag("range")], Discriminator(_kind)
]


class SweepConfig(BaseModel):
    """A sweep.

    run: path of the run's YAML file, relative to this one; base: or the run itself.
    space: dotted key of the run -> choices or a range.
    trials: how many; sampler: tpe learns from earlier trials, random does not, grid takes all.
    pruner: median ends a trial whose score is worse than the median of others at the same point.
    objective: what is made small: the best held-out metric of the validation part, or its mean
        over `folds` inner folds of the train part. The test part is never looked at.
    refit_best: train the best config at last, export it, and score it on the test part.
    """

    model_config = _STRICT

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,89}$")]
    run: str | None = None
    base: dict[str, Any] | None = None
    space: Annotated[dict[str, Parameter], Field(min_length=1)]
    trials: Annotated[int, Field(ge=1)] = 20
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    pruner: Literal["median", "none"] = "median"
    objective: Literal["validation", "inner_folds"] = "validation"
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    refit_best: bool = True

    @model_validator(mode="after")
    def _one_run(self) -> SweepConfig:
        if (self.run is None) == (self.base is None):
            raise ValueError("give one of `run` (a path) and `base` (the run itself)")
        return self


@dataclass(frozen=True)
class Plan:
    """A checked sweep. `values` are the run's keys as file and overrides name them."""

    settings: SweepConfig
    values: dict[str, Any]

    def config(self, chosen: dict[str, Json]) -> RunConfig:
        """The run with `chosen` values of the space; raises ConfigError."""
        values = json.loads(json.dumps(self.values))
        for key, value in chosen.items():
            *sections, last = key.split(".")
            section = values
            for part in sections:
                if not isinstance(section.get(part), dict):
                    section[part] = {}
                section = section[part]
            section[last] = value
        try:
            return RunConfig.model_validate_json(json.dumps(values))
        except ValidationError as error:
            lines = [f"{dotted(one['loc'])}: {one['msg']}" for one in error.errors()]
            raise ConfigError("; ".join(lines)) from None

    @property
    def base(self) -> RunConfig:
        """The run as it is without the sweep."""
        return self.config({})

    @property
    def combinations(self) -> list[dict[str, Json]]:
        """Every point of the grid, the last key varying fastest."""
        space = self.settings.space
        values = [p.choices if isinstance(p, Choices) else p.grid() for p in space.values()]
        return [dict(zip(space, point, strict=True)) for point in product(*values)]

    def trials(self, asked: int | None = None) -> int:
        """How many trials there shall be: a grid has no more than its points."""
        trials = asked or self.settings.trials
        return min(trials, len(self.combinations)) if self.settings.sampler == "grid" else trials

    def definition(self) -> dict[str, Any]:
        """What trials of one sweep have in common, as plain JSON values."""
        own = self.settings.model_dump(mode="json", exclude={"run", "base", "trials", "refit_best"})
        return {**own, "run": self.base.resolved()}


def load_sweep(path: Path, overrides: Overrides, run: Path | None = None) -> Plan:
    """Read a sweep; `overrides` are of its run, `run` takes the place of the run it names.

    Raises ConfigError: one line per mistake, "file:line: key: what is wrong".
    """
    path = Path(path)
    source = _read(path)
    settings = _settings(path, source)
    within = None
    if run is None:
        within = "base" if settings.base is not None else None
        run = path if settings.run is None else path.parent / settings.run
    load_config(run, overrides, within)
    _check_space(path, source, settings, (run, overrides, within))
    plan = Plan(settings, read_values(run, overrides, within))
    if settings.sampler == "grid":
        for key, parameter in settings.space.items():
            try:
                if isinstance(parameter, Range):
                    parameter.grid()
            except ConfigError as error:
                raise ConfigError(f"{_place(path, source, key)}: {error}") from None
    return plan


def digest(config: RunConfig) -> str:
    """What tells configs apart, but for the name."""
    return config_digest({**config.resolved(), "name": ""})


def _read(path: Path) -> yaml_source.Source:
    try:
        source = yaml_source.parse(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except SourceError as error:
        key = f"{error.key}: " if error.key else ""
        raise ConfigError(f"{path}:{error.line}: {key}{error.text}") from None
    if not isinstance(source.value, dict):
        fields = ", ".join(SweepConfig.model_fields)
        raise ConfigError(f"{path}:1: must be a mapping of {fields}")
    return source


def _settings(path: Path, source: yaml_source.Source) -> SweepConfig:
    values = {"name": path.stem, **source.value}
    try:
        return SweepConfig.model_validate_json(json.dumps(values))
    except ValidationError as error:
        lines = []
        for one in error.errors():
            # A union names its member, which is no key of the file.
            keys = yaml_source.keys_of(one["loc"], values)
            line = yaml_source.nearest(source.lines, keys, 1)
            text = one["msg"].removeprefix("Value error, ")
            if one["type"] == "extra_forbidden":
                text = "unknown key; valid: " + ", ".join(_valid(one["loc"]))
            elif one["type"] == "missing":
                text = f"{one['loc'][-1]} is missing"
            key = f"{dotted(keys)}: " if keys else ""
            lines.append(f"{path}:{line}: {key}{text[:1].lower()}{text[1:]}")
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def _valid(location: Sequence[Any]) -> list[str]:
    if location[0] != "space":
        return list(SweepConfig.model_fields)
    return list((Choices if "choices" in location else Range).model_fields)


def _check_space(
    path: Path,
    source: yaml_source.Source,
    settings: SweepConfig,
    run: tuple[Path, Overrides, str | None],
) -> None:
    """Raise ConfigError where a key or a value of the space does not fit the run's schema."""
    file, overrides, within = run
    lines = []
    for key, parameter in settings.space.items():
        place = _place(path, source, key)
        if key == "name":
            lines.append(f"{place}: a name is nothing to choose")
            continue
        for value in parameter.tried():
            try:
                if isinstance(value, dict):
                    raise ConfigError("is a mapping; give one key for each of its keys")
                load_config(file, [*overrides, (key, json.dumps(value))], within)
            except ConfigError as error:
                found = str(error).replace(f"--{key}: ", "").replace("\n", "; ")
                lines.append(f"{place}: {json.dumps(value)}: {found}")
    if lines:
        raise ConfigError("\n".join(lines))


def _place(path: Path, source: yaml_source.Source, key: str) -> str:
    line = yaml_source.nearest(source.lines, ("space", key), 1)
    return f"{path}:{line}: space.{key}"
