"""How a config names a part of a network and gives the values of its parameters.

A parameter is a number, a list with one number per node, or a mapping that says what a fit may do:

    a: 0.25
    a: [0.1, 0.2, 0.3]
    a: {value: 0.25, fit: true, transform: bounded, low: 0, high: 2}
"""

from __future__ import annotations

import functools
import inspect
import json
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from trainer.dynamics import (
    Param,
    ParameterError,
    bounded,
    identity,
    positive,
    simplex,
    symmetric,
)
from trainer.dynamics.parameters import Transform
from trainer.registry import Registry, UnknownNameError

STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
TransformName = Literal["identity", "positive", "bounded", "simplex", "symmetric"]

# What of a network's own settings a fit may do goes by these names.
FITTED_TAG = "fitted"


class Fitted(BaseModel):
    """A parameter with what a fit may do to it.

    value: where it starts: a number, or one per node. fit: whether it is moved. transform: the
    values that it may have: any ("identity"), above `low` ("positive", low 0 by default), between
    `low` and `high` ("bounded"), shares that sum to 1 ("simplex").
    """

    model_config = STRICT

    value: float | list[float]
    fit: bool = True
    transform: TransformName = "identity"
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _starts_inside(self) -> Fitted:
        self.param()
        return self

    def param(self) -> Param:
        """The `Param` that it describes; raises ParameterError."""
        return Param(self.value, fit=self.fit, transform=self._transform())

    def _transform(self) -> Transform:
        kind = self.transform
        if kind == "bounded":
            if self.low is None or self.high is None:
                raise ParameterError("transform bounded needs low and high")
            return bounded(self.low, self.high)
        if self.high is not None or (self.low is not None and kind != "positive"):
            raise ParameterError(
                f"transform {kind} takes {'low alone' if kind == 'positive' else 'no low or high'};"
                " bounded takes both"
            )
        if kind == "positive":
            return positive(self.low or 0.0)
        return {"identity": identity, "simplex": simplex, "symmetric": symmetric}[kind]()


def _kind(value: Any) -> str:
    if isinstance(value, Mapping | BaseModel):
        return FITTED_TAG
    return "list" if isinstance(value, list) else "number"


ParameterSetting = Annotated[
    Annotated[float, Tag("number")]
    | Annotated[list[float], Field(min_length=1), Tag("list")]
    | Annotated[Fitted, Tag(FITTED_TAG)],
    Discriminator(_kind),
]


def value_of(setting: Any) -> Any:
    """What a constructor takes for a completed setting: mappings with a `value` become Params."""
    if isinstance(setting, BaseModel):
        setting = setting.model_dump()
    if isinstance(setting, Mapping):
        if "value" in setting and set(setting) <= set(Fitted.model_fields):
            return Fitted.model_validate(dict(setting)).param()
        return {key: value_of(each) for key, each in setting.items()}
    return setting


@functools.cache
def settings_of(registry: Registry, name: str) -> type[BaseModel]:
    """The schema of a constructor's keyword-only arguments; those that may be a `Param` are
    parameter settings.
    """
    constructor = registry.get(name)
    own = constructor.__init__ if inspect.isclass(constructor) else constructor
    hints = typing.get_type_hints(own, include_extras=True)
    if inspect.isclass(constructor):
        # The fields of a dataclass are annotated on the class, out of reach of its __init__.
        hints |= typing.get_type_hints(constructor, include_extras=True)
    fields: dict[str, Any] = {}
    for key, argument in inspect.signature(constructor).parameters.items():
        if argument.kind is not argument.KEYWORD_ONLY:
            continue
        default = ... if argument.default is argument.empty else argument.default
        fields[key] = (_setting(hints.get(key, Any)), default)
    config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), arbitrary_types_allowed=True
    )
    return create_model(f"{registry.kind} {name}", __config__=config, **fields)


def complete(registry: Registry, values: dict[str, Any]) -> dict[str, Any]:
    """`values` with the name of a part and every setting of it, defaults filled in.

    Raises ValidationError, which pydantic nests where a validator calls this.
    """
    rest = dict(values)
    name = rest.pop("name", None)
    if not isinstance(name, str):
        valid = ", ".join(registry.names())
        _unknown_name(registry, name, f"must be the name of a {registry.kind}: one of {valid}")
    try:
        settings = settings_of(registry, str(name))
    except UnknownNameError as error:
        _unknown_name(registry, name, str(error))
    found = settings.model_validate_json(json.dumps(rest, default=str), strict=True)
    return {"name": name, **found.model_dump(mode="json")}


def build(registry: Registry, values: Mapping[str, Any]) -> Any:
    """The part that completed `values` describe."""
    arguments = {key: value_of(value) for key, value in values.items() if key != "name"}
    return registry.get(values["name"])(**arguments)


def _setting(hint: Any) -> Any:
    members = typing.get_args(hint)
    if Param not in members:
        return hint
    return ParameterSetting | None if type(None) in members else ParameterSetting


def _unknown_name(registry: Registry, name: Any, problem: str) -> typing.NoReturn:
    fault = PydanticCustomError("unknown_name", "{problem}", {"problem": problem})
    line = InitErrorDetails(type=fault, loc=("name",), input=name)
    raise ValidationError.from_exception_data(registry.kind, [line])
