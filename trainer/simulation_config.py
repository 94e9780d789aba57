"""What a simulation is: one YAML file that names a network, a run and what is observed of it.

The file and `--section.key value` overrides are merged first and validated once. What a part takes
comes from the constructor that its `name` selects, so a new model needs a decorator and nothing
else. `axonnx fit` reads the same sections and one more, see `load_simulation`.
"""

from __future__ import annotations

import json
import math
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from trainer import parameter_config, yaml_source
from trainer.config_document import ConfigError, Document, explain, nearest, read_source
from trainer.data.connectomes import CONNECTOMES, load_connectome
from trainer.dynamics import (
    COUPLINGS,
    NODES,
    NOISES,
    Network,
    NetworkError,
    Param,
    Simulator,
    balloon,
    hemodynamic_response,
    lead_field,
    symmetric,
    temporal_average,
)
from trainer.dynamics.integrators import SCHEMES
from trainer.dynamics.observation import OBSERVATIONS, Observation
from trainer.parameter_config import (
    FITTED_TAG,
    STRICT,
    Fitted,
    ParameterSetting,
    complete,
    settings_of,
)
from trainer.registry import OBJECTIVES, Registry

# Importing these registers the observations.
OBSERVING = (balloon, hemodynamic_response, lead_field, temporal_average)

PositiveInt = Annotated[int, Field(ge=1)]
Values = float | Annotated[list[float], Field(min_length=1)]


def _part(registry: Registry) -> Any:
    """A mapping that names a constructor of a registry, with its settings."""
    return Annotated[dict[str, Any], AfterValidator(lambda given: complete(registry, given))]


class Watched(BaseModel):
    """What an observation takes beside its own settings.

    monitor: the state or output that it looks at (null: the first one kept). transient: ms of what
    it sees that are left out, since an instrument such as BOLD begins at rest.
    """

    model_config = STRICT

    monitor: str | None = None
    transient: Annotated[float, Field(ge=0)] = 0.0


def _complete_observation(given: dict[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in given.items() if key in Watched.model_fields}
    watched = Watched.model_validate_json(json.dumps(own))
    rest = {key: value for key, value in given.items() if key not in own}
    found = complete(OBSERVATIONS, rest)
    return {"name": found.pop("name"), **watched.model_dump(), **found}


# The parts that a name selects, by their keys; * stands for any item of a list.
REGISTRIES: dict[tuple[str, ...], Registry] = {
    ("network", "node"): NODES,
    ("network", "connectome"): CONNECTOMES,
    ("network", "coupling"): COUPLINGS,
    ("network", "noise", "*"): NOISES,
    ("observation", "*"): OBSERVATIONS,
    ("fit", "objectives", "*"): OBJECTIVES,
}


class WeightsConfig(BaseModel):
    """Fits the connectome's weights, from where they are.

    transform: "symmetric" keeps both directions of a connection equal, "identity" does not.
    """

    model_config = STRICT

    fit: bool = True
    transform: Literal["identity", "symmetric"] = "identity"


class NetworkConfig(BaseModel):
    """A network, see `Network`.

    node, connectome, coupling, noise: a `name` and its settings. nodes: how many there are without
    a connection, in place of a connectome. coupling: null for diffusive on the first state, where
    there is a connectome. speed: conduction speed in mm/ms (null: no delays); interpolate: between
    steps, which a fit of the speed needs. weights: null leaves those of the connectome
    fixed.
    """

    model_config = STRICT

    node: _part(NODES)  # type: ignore[valid-type]
    nodes: PositiveInt | None = None
    connectome: _part(CONNECTOMES) | None = None  # type: ignore[valid-type]
    coupling: _part(COUPLINGS) | None = None  # type: ignore[valid-type]
    noise: list[_part(NOISES)] = []  # type: ignore[valid-type]
    speed: ParameterSetting | None = None
    interpolate: bool = False
    weights: WeightsConfig | None = None


class SimulationSettings(BaseModel):
    """One run, see `Simulator.run`.

    duration, dt, transient: in ms; the transient is run and not kept. scheme: of integration.
    batch_size: runs side by side, which differ by noise and random starts. sample_every: of all
    steps, every so many-th is kept. monitors: states or outputs to keep (null: all states).
    inputs, start: by name of an input or state, a number or one per node. engine: "auto" chooses by
    the length of the run. threads: CPU threads, part of what fixes the bytes.
    """

    model_config = STRICT

    duration: Annotated[float, Field(gt=0)]
    dt: Annotated[float, Field(gt=0)] = 0.1
    scheme: str = "heun"
    batch_size: PositiveInt = 1
    transient: Annotated[float, Field(ge=0)] = 0.0
    sample_every: PositiveInt = 1
    monitors: Annotated[list[str], Field(min_length=1)] | None = None
    inputs: dict[str, Values] = {}
    start: dict[str, Values] = {}
    engine: Literal["auto", "plain", "replay", "compiled"] = "auto"
    precision: Literal["float32", "float64"] = "float32"
    threads: PositiveInt = 1

    @field_validator("scheme")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in SCHEMES:
            raise ValueError(f"must be one of {', '.join(SCHEMES)}")
        return value

    @field_validator("transient")
    @classmethod
    def _shorter(cls, value: float, info: ValidationInfo) -> float:
        if value >= info.data.get("duration", math.inf):
            raise ValueError(f"leaves nothing of a duration of {info.data['duration']:g} ms")
        return value

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of `precision`."""
        return {"float32": torch.float32, "float64": torch.float64}[self.precision]


class SimulationConfig(BaseModel):
    """A simulation.

    seed: of noise and random starts. observation: what instruments see of the samples that are
    kept: each a `name`, its settings, and the keys of `Watched`.
    """

    model_config = STRICT

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    network: NetworkConfig
    simulation: SimulationSettings
    observation: list[Annotated[dict[str, Any], AfterValidator(_complete_observation)]] = []

    def resolved(self) -> dict[str, Any]:
        """The whole simulation as plain JSON values, every default filled in."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """`resolved()` as YAML; `load_simulation` reads it back as an equal config."""
        return yaml_source.dump(self.resolved())


Kind = TypeVar("Kind", bound=SimulationConfig)


def load_simulation(
    path: Path,
    overrides: list[tuple[str, str]],
    kind: type[Kind] = SimulationConfig,  # type: ignore[assignment]
) -> Kind:
    """Read a simulation from a YAML file and `("section.key", "value")` overrides.

    kind: a subclass of SimulationConfig reads more sections, each of them a pydantic model whose
    unknown keys are told alike. The simulation is named after the file unless it says otherwise.
    Raises ConfigError: one line per mistake, "file:line: key: what is wrong; what would be right".
    """
    document = Document(path, read_source(Path(path), kind.model_fields))
    for key, text in overrides:
        document.override(key.removeprefix("--"), text)
    document.values = {"name": Path(path).stem, **document.values}
    try:
        return kind.model_validate_json(json.dumps(document.values))
    except ValidationError as error:

        def unknown_key(location: tuple[str, ...], values: dict[str, Any]) -> str:
            return _unknown_key(kind, location, values)

        raise ConfigError(explain(error, document, unknown_key)) from None


def build(config: SimulationConfig) -> tuple[Network, Simulator]:
    """The network and its run loop; raises what `Network` and `Simulator` raise."""
    network = build_network(config.network)
    settings = config.simulation
    simulator = Simulator(
        network, settings.dt, scheme=settings.scheme, engine=settings.engine, dtype=settings.dtype
    )
    return network, simulator


def build_network(config: NetworkConfig) -> Network:
    """The network that a config describes."""
    connectome = None if config.connectome is None else load_connectome(config.connectome)
    coupling = None
    if config.coupling is not None:
        coupling = parameter_config.build(COUPLINGS, config.coupling)
    weights = None
    if config.weights is not None:
        if connectome is None:
            raise NetworkError("weights: need a connectome")
        transform = symmetric() if config.weights.transform == "symmetric" else None
        weights = Param(connectome.weights, fit=config.weights.fit, transform=transform)
    return Network(
        parameter_config.build(NODES, config.node),
        connectome,
        nodes=config.nodes,
        coupling=coupling,
        noise=[parameter_config.build(NOISES, each) for each in config.noise],
        speed=parameter_config.value_of(config.speed),
        interpolate=config.interpolate,
        weights=weights,
    )


def build_observations(config: SimulationConfig) -> dict[str, tuple[Watched, Observation]]:
    """Every observation by its name, numbered if it repeats.

    Raises ConfigError for settings that it does not take.
    """
    found: dict[str, tuple[Watched, Observation]] = {}
    for number, given in enumerate(config.observation):
        name = given["name"]
        watched = Watched(**{key: given[key] for key in Watched.model_fields})
        settings = {key: value for key, value in given.items() if key not in Watched.model_fields}
        key = name if name not in found else f"{name}_{number}"
        try:
            found[key] = (watched, parameter_config.build(OBSERVATIONS, settings))
        except (TypeError, ValidationError) as error:
            raise ConfigError(f"observation.{number}: {name}: {error}") from None
    return found


def run_arguments(config: SimulationConfig) -> dict[str, Any]:
    """The arguments of `Simulator.run` that a config fixes."""
    settings = config.simulation
    return {
        "duration": settings.duration,
        "batch_size": settings.batch_size,
        "inputs": {name: _given(value, 3) for name, value in settings.inputs.items()},
        "monitors": None if settings.monitors is None else tuple(settings.monitors),
        "transient": settings.transient,
        "sample_every": settings.sample_every,
        "seed": config.seed,
        "start": {name: _given(value, 2) for name, value in settings.start.items()},
    }


def _given(value: float | list[float], axes: int) -> float | torch.Tensor:
    """A number, or one per node with axes of length 1 before the nodes."""
    if isinstance(value, float):
        return value
    return torch.tensor(value, dtype=torch.float64).reshape(*[1] * (axes - 1), -1)


def _unknown_key(
    kind: type[SimulationConfig], location: tuple[str, ...], values: dict[str, Any]
) -> str:
    """Why a key is refused: it belongs to another part, is misspelt, or does not exist."""
    *above, key = location
    if above and above[-1] == FITTED_TAG:
        return f"unknown key of a parameter;{nearest(key, list(Fitted.model_fields))}"
    places = tuple("*" if part.isdecimal() else part for part in above)
    registry = REGISTRIES.get(places)
    if registry is None:
        return f"unknown key;{nearest(key, _fields(kind, places))}"
    section: Any = values
    for part in above:
        section = section[int(part) if isinstance(section, list) else part]
    name = section["name"]
    valid = {each: list(settings_of(registry, each).model_fields) for each in registry.names()}
    if registry is OBSERVATIONS:
        valid[name] = [*Watched.model_fields, *valid[name]]
    owners = [each for each, keys in valid.items() if key in keys]
    if owners and not nearest(key, valid[name]).startswith(" did"):
        some = ", ".join(owners[:3]) + (", …" if len(owners) > 3 else "")
        return f"belongs to {registry.kind} {some}, not to {name}; remove it"
    return f"unknown key of {registry.kind} {name};{nearest(key, ['name', *valid[name]])}"


def _fields(kind: type[BaseModel], places: tuple[str, ...]) -> list[str]:
    """The keys of the section at `places`."""
    for place in places:
        if place not in kind.model_fields:
            break
        hint = kind.model_fields[place].annotation
        inner = [each for each in (hint, *typing.get_args(hint)) if isinstance(each, type)]
        models = [each for each in inner if issubclass(each, BaseModel)]
        if models:
            kind = models[0]
    return list(kind.model_fields)
