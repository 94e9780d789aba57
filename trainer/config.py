"""What a run is: one YAML file, checked whole before anything starts.

The file and `--section.key value` overrides are merged first and validated once. The schema of
`data` and `model` comes from the constructor that their `name` selects.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from trainer import yaml_source
from trainer.config_document import ConfigError as ConfigError
from trainer.config_document import Document, explain, nearest, read_source
from trainer.data.paths import path_keys, public_path
from trainer.models import MODELS
from trainer.objectives import OBJECTIVES
from trainer.registry import DATASETS, Registry, UnknownNameError

REGISTRIES: dict[str, Registry] = {"data": DATASETS, "model": MODELS}
DEFAULT_MODEL = "gru"
_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

PositiveInt = Annotated[int, Field(ge=1)]


class Augmentation(BaseModel):
    """How the train windows of a minibatch are varied, anew each time; 0 leaves them as they are.

    The observed steps of `neural` are varied, in units of train standard deviations:
    noise: standard deviation of white noise on every step, channel and feature.
    gain: spread of a factor on each channel of a window, around its train mean (log-normal).
    shift: standard deviation of an offset of each channel of a window.
        A forecast's base and targets change units along with its inputs; classes and decoded
        variables stay.
    channel_dropout: share of channels whose inputs are their train mean.
    mixup: alpha of Beta(alpha, alpha), which gives the share of a second window in each window of
        a minibatch: inputs, base and targets are mixed, of classify the losses of both classes.
    """

    model_config = _STRICT

    noise: Annotated[float, Field(ge=0)] = 0.0
    gain: Annotated[float, Field(ge=0)] = 0.0
    shift: Annotated[float, Field(ge=0)] = 0.0
    channel_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0


class TrainingConfig(BaseModel):
    """How a model is trained; the same keys for every model.

    epochs, batch_size, max_steps: length of training; max_steps ends it early (null: never).
    accumulate: minibatches whose gradients make one optimizer step, as one of their windows would.
    learning_rate, weight_decay: of AdamW. learning_rates: factors on the learning rate of the
        parameters whose names match a pattern, as in {"head.*": 0.1}; where several match, their
        product; 0 leaves parameters as they are.
    schedule, warmup_steps: of the learning rate: a linear rise, then "constant", half a "cosine",
        or `cycles` halves of a cosine that each start anew ("cycles").
    snapshots: keep the weights at the end of each cycle as snapshots/1.safetensors, …, the
        checkpoints snapshot-1, … of the run; every cycle is run to its end.
    ema: decay of a running average of the weights, one update a step, without a bias towards the
        first ones; where it is set, the average is what is scored, kept and exported.
    keep: the epoch whose weights the run exports: "best" by the held-out metric, "last", or "auto",
        the best where the validation part looks like the train part (its targets' mean square,
        z-scored by the train part, is within a factor 2 of 1), else the last.
    patience: epochs without a better held-out metric before training stops; it does not where
        `keep` comes to "last", nor with `snapshots`.
    gradient_clip: largest norm of the gradient.
    objective: the loss (null: cross_entropy of classify, mse of other tasks); target_scale: what
        predictions and targets are divided by before it: the train standard deviation of each
        "channel" or decoded variable, or one for all ("pooled"), where the error of a channel
        counts by its variance, as in a score of raw units.
    weight_ratio: of "pooled": the most that one channel may count over another; variances beyond
        the square root of it above or below their median are clamped (null: no limit).
    class_weights: of classify, in the loss alone: "balanced" lets every class count the same
        however rare it is in the train part, "none" every window.
    augmentation: how train windows are varied, see `Augmentation`.
    precision: "bfloat16" trains with the network's products in bfloat16 (autocast), some 1.4 times
        as fast on processors that have them; weights, loss and all scores stay float32.
    compile: train through torch.compile; compilation takes minutes and needs a C++ compiler, so it
        pays for long runs alone. Scores and artifact come from the module as it is written.
    device: where to train; threads: CPU threads, part of what fixes the bytes.
    """

    model_config = _STRICT

    epochs: PositiveInt = 20
    batch_size: PositiveInt = 64
    accumulate: PositiveInt = 1
    max_steps: PositiveInt | None = None
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    learning_rates: dict[str, Annotated[float, Field(ge=0)]] = {}
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["constant", "cosine", "cycles"] = "constant"
    cycles: PositiveInt = 1
    snapshots: bool = False
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    keep: Literal["best", "last", "auto"] = "best"
    patience: PositiveInt = 5
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    objective: str | None = None
    target_scale: Literal["channel", "pooled"] = "channel"
    weight_ratio: Annotated[float, Field(ge=1)] | None = None
    class_weights: Literal["balanced", "none"] = "balanced"
    augmentation: Augmentation = Augmentation()
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    threads: PositiveInt = 2

    @field_validator("objective")
    @classmethod
    def _known_objective(cls, value: str | None) -> str | None:
        if value is not None:
            OBJECTIVES.get(value)
        return value

    @field_validator("cycles")
    @classmethod
    def _cycles_go_with_their_schedule(cls, value: int, info: ValidationInfo) -> int:
        schedule = info.data.get("schedule")
        if schedule in ("constant", "cosine") and value > 1:
            raise ValueError(f"needs training.schedule: cycles, not {schedule}")
        return value

    @field_validator("snapshots")
    @classmethod
    def _snapshots_need_cycles(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("schedule") in ("constant", "cosine"):
            raise ValueError("needs training.schedule: cycles, at whose ends they are taken")
        return value

    @field_validator("weight_ratio")
    @classmethod
    def _weights_are_of_pooled(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("target_scale") == "channel":
            raise ValueError(
                "needs training.target_scale: pooled; with channel every channel counts the same"
            )
        return value

    @field_validator("precision", "compile")
    @classmethod
    def _not_on_mps(cls, value: Any, info: ValidationInfo) -> Any:
        if value in ("bfloat16", True) and info.data.get("device") == "mps":
            raise ValueError("needs training.device: cpu or cuda, not mps")
        return value


class ExportConfig(BaseModel):
    """What the artifact carries besides the model.

    golden, golden_rows: the stored test rows, real ones of the data set or synthetic ones.
    version: text that names this version of the model.
    """

    model_config = _STRICT

    golden: Literal["real", "synthetic"] = "real"
    golden_rows: Annotated[int, Field(ge=1, le=64)] = 4
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "1"


# What holds the keys of a section that no registry fills.
SECTIONS: dict[tuple[str, ...], type[BaseModel]] = {
    ("training",): TrainingConfig,
    ("training", "augmentation"): Augmentation,
    ("export",): ExportConfig,
}


class RunConfig(BaseModel):
    """One run. `data` and `model` hold `name` and every setting of what it selects."""

    model_config = _STRICT

    # It names a folder and a model on a server.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: dict[str, Any]
    model: dict[str, Any] = Field(default={}, validate_default=True)
    training: TrainingConfig = TrainingConfig()
    export: ExportConfig = ExportConfig()

    @field_validator("data")
    @classmethod
    def _complete_data(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _complete(DATASETS, value)

    @field_validator("model")
    @classmethod
    def _complete_model(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _complete(MODELS, {"name": DEFAULT_MODEL, **value})

    def resolved(self) -> dict[str, Any]:
        """The whole run as plain JSON values, every default filled in."""
        return self.model_dump(mode="json")

    def public(self) -> dict[str, Any]:
        """`resolved()` without paths of this machine: what an artifact carries.

        A path below `${AXONNX_DATA}` is kept, of any other its last part.
        """
        values = self.resolved()
        for section, registry in REGISTRIES.items():
            for key in path_keys(registry.settings(values[section]["name"])):
                values[section][key] = public_path(values[section][key])
        return values

    def to_yaml(self) -> str:
        """`resolved()` as YAML; `load_config` reads it back as an equal config."""
        return yaml_source.dump(self.resolved())


def load_config(
    path: Path, overrides: list[tuple[str, str]], within: str | None = None
) -> RunConfig:
    """Read a run from a YAML file and `("section.key", "value")` overrides.

    `within`: the key of the file below which the run stands. The run is named after the file
    unless it says otherwise. Raises ConfigError: one line per mistake, "file:line: key: what is
    wrong; what would be right".
    """
    document = _document(Path(path), overrides, within)
    values = document.values
    try:
        return RunConfig.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise ConfigError(explain(error, document, _unknown_key)) from None


def read_values(
    path: Path, overrides: list[tuple[str, str]], within: str | None = None
) -> dict[str, Any]:
    """What `load_config` checks, unchecked: the keys that file and overrides name, no defaults."""
    return _document(Path(path), overrides, within).values


def _document(path: Path, overrides: list[tuple[str, str]], within: str | None) -> Document:
    source = read_source(path, RunConfig.model_fields)
    if within is not None:
        lines = {keys[1:]: line for keys, line in source.lines.items() if keys[:1] == (within,)}
        source = yaml_source.Source(source.value.get(within) or {}, lines)
    document = Document(path, source)
    for key, text in overrides:
        document.override(key.removeprefix("--"), text)
    document.values = {"name": path.stem, "data": {}, **document.values}
    # A section whose keys are all commented out is an empty one.
    for section in ("data", "model", "training", "export"):
        if document.values.get(section, {}) is None:
            document.values[section] = {}
    return document


def _complete(registry: Registry, values: dict[str, Any]) -> dict[str, Any]:
    """`values` with every setting filled in; raises ValidationError, which pydantic nests."""
    rest = dict(values)
    name = rest.pop("name", None)
    problem = None
    if not isinstance(name, str):
        problem = f"must be the name of a {registry.kind}: one of {', '.join(registry.names())}"
    else:
        try:
            registry.get(name)
        except UnknownNameError as error:
            problem = str(error)
    if problem:
        fault = PydanticCustomError("unknown_name", "{problem}", {"problem": problem})
        line = InitErrorDetails(type=fault, loc=("name",), input=name)
        raise ValidationError.from_exception_data(registry.kind, [line])
    settings = registry.settings(str(name)).model_validate_json(
        json.dumps(rest, default=str), strict=True
    )
    return {"name": name, **settings.model_dump(mode="json")}


def _unknown_key(location: tuple[str, ...], values: dict[str, Any]) -> str:
    """Why a key is refused: it belongs to another model, is misspelt, or does not exist."""
    section, key = location[0], location[-1]
    registry = REGISTRIES.get(section) if len(location) == 2 else None
    if registry is None:
        owner = SECTIONS.get(location[:-1], RunConfig)
        return f"unknown key;{nearest(key, list(owner.model_fields))}"
    name = values.get(section, {}).get("name", DEFAULT_MODEL)
    settings = {n: list(registry.settings(n).model_fields) for n in registry.names()}
    owners = [n for n, keys in settings.items() if key in keys]
    kind = registry.kind
    if owners:
        return f"belongs to {kind} {', '.join(owners)}, not to {name}; remove it"
    return f"unknown key of {kind} {name};{nearest(key, ['name', *settings[name]])}"
