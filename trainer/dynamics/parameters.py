"""Parameters of a dynamical model: plain numbers are constants, a `Param` is fitted.

A node, coupling or noise is a `Parametrized` dataclass. Each of its parameters is a number, a
tensor that broadcasts against (batch, node), or a `Param`; nothing else becomes trainable.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn


class ParameterError(ValueError):
    """A parameter's value, shape or transform is not one; the text names it."""


@dataclass(frozen=True)
class Transform:
    """A map from unconstrained numbers to the values that a parameter may have.

    forward, inverse: element-wise or, for "symmetric" and "simplex", over the last axes. low, high:
    the open range of the values, infinite where there is none.
    """

    name: str
    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    low: float = -math.inf
    high: float = math.inf


def identity() -> Transform:
    """Any number."""
    return Transform("identity", lambda raw: raw, lambda value: value)


def positive(low: float = 0.0) -> Transform:
    """Numbers above `low`, by a softplus: low + log(1 + exp(raw))."""

    def inverse(value: Tensor) -> Tensor:
        above = value - low
        return above + torch.log(-torch.expm1(-above))

    return Transform(
        "positive", lambda raw: low + torch.nn.functional.softplus(raw), inverse, low=low
    )


def bounded(low: float, high: float) -> Transform:
    """Numbers between `low` and `high`, by a logistic function."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ParameterError(f"bounded({low}, {high}): needs finite bounds, the lower one first")

    def forward(raw: Tensor) -> Tensor:
        # From the nearer end: a share beside 1 rounds to 1, where there is no gradient any more.
        below, above = (high - low) * torch.sigmoid(raw), (high - low) * torch.sigmoid(-raw)
        return torch.where(raw < 0, low + below, high - above)

    def inverse(value: Tensor) -> Tensor:
        return torch.log((value - low) / (high - value))

    return Transform("bounded", forward, inverse, low, high)


def simplex() -> Transform:
    """Positive numbers whose sum over the last axis is 1, by a softmax."""
    return Transform(
        "simplex",
        lambda raw: torch.softmax(raw, dim=-1),
        lambda value: torch.log(value) - torch.log(value).mean(dim=-1, keepdim=True),
        0.0,
        1.0,
    )


def symmetric() -> Transform:
    """Matrices (node, node) equal to their transpose: (raw + rawᵀ) / 2."""
    return Transform("symmetric", lambda raw: (raw + raw.mT) / 2, lambda value: value)


class Param(nn.Module):
    """A parameter that is fitted: its value, and the constraint that it always meets.

    value: number or array in the parameter's own unit; shape () is shared by all nodes, (node,) is
    one per node, (batch, 1) or (batch, node) one per member of a batch. fit: whether an optimiser
    may move it. transform: identity, positive, bounded, simplex or symmetric. Raises ParameterError
    for a value outside the transform's range.
    """

    def __init__(self, value: Any, *, fit: bool = True, transform: Transform | None = None) -> None:
        super().__init__()
        self.transform = transform or identity()
        self.raw = nn.Parameter(self._inverse(value), requires_grad=fit)

    @property
    def fit(self) -> bool:
        """Whether an optimiser may move it."""
        return self.raw.requires_grad

    def value(self) -> Tensor:
        """The constrained value, differentiable in `raw`."""
        return self.transform.forward(self.raw)

    @torch.no_grad()
    def assign(self, value: Any) -> None:
        """Set the constrained value; raises ParameterError outside its range or shape."""
        raw = self._inverse(value)
        if raw.shape != self.raw.shape:
            raise ParameterError(
                f"value of shape {tuple(raw.shape)}; this parameter has {tuple(self.raw.shape)}"
            )
        self.raw.copy_(raw)

    def _inverse(self, value: Any) -> Tensor:
        tensor = _tensor(value, "Param")
        transform = self.transform
        outside = (tensor <= transform.low) | (tensor >= transform.high)
        if bool(outside.any()):
            raise ParameterError(
                f"value {_first(tensor, outside)} is outside ({transform.low}, {transform.high}), "
                f"the range of {transform.name}"
            )
        sums = tensor.sum(dim=-1) if tensor.ndim else tensor
        if transform.name == "simplex" and bool(((sums - 1).abs() > 1e-4).any()):
            raise ParameterError(
                f"a simplex Param starts from shares that add up to 1; these add up to "
                f"{sums.flatten()[(sums - 1).abs().argmax()].item():g}"
            )
        if transform.name == "symmetric" and not _is_symmetric(tensor):
            raise ParameterError("a symmetric Param starts from a symmetric matrix")
        return transform.inverse(tensor)

    def extra_repr(self) -> str:
        """Value, transform and whether it is fitted."""
        value = self.value().detach()
        shown = f"{value.item():g}" if value.ndim == 0 else f"shape {tuple(value.shape)}"
        return f"{shown}, transform={self.transform.name}, fit={self.fit}"


Value: TypeAlias = float | Tensor | Param


def parameter(default: float, unit: str, meaning: str) -> Any:
    """Field of a `Parametrized` class: its default, unit ("1" where it has none) and meaning."""
    return dataclasses.field(default=default, metadata={"unit": unit, "meaning": meaning})


Own = TypeVar("Own", bound="Parametrized")
Kind = TypeVar("Kind", bound=type)


def parametrized(kind: Kind) -> Kind:
    """Make a subclass of `Parametrized` a dataclass with keyword-only fields."""
    made = dataclass(kw_only=True, eq=False, repr=False)(kind)
    for name in made.parameter_names():  # type: ignore[attr-defined]
        # A default left on the class would hide the Param or buffer of that name.
        if name in vars(made):
            delattr(made, name)
    return made


class Parametrized(nn.Module):
    """A dataclass whose fields made by `parameter` are numbers, tensors or Params.

    Params are its submodules and tensors its buffers, so that state_dict, `to` and optimisers see
    them under the names of the fields.
    """

    def __new__(cls: type[Own], *_: Any, **__: Any) -> Own:
        """Make it a module before the dataclass's own __init__ assigns its fields."""
        instance = super().__new__(cls)
        nn.Module.__init__(instance)
        return instance

    def __post_init__(self) -> None:
        for name in self.parameter_names():
            value = getattr(self, name)
            if isinstance(value, Param):
                continue
            if isinstance(value, nn.Parameter):
                raise ParameterError(f"{type(self).__name__}.{name}: wrap it as Param(value)")
            delattr(self, name)
            where = f"{type(self).__name__}.{name}"
            if isinstance(value, bool) or not isinstance(value, int | float):
                self.register_buffer(name, _tensor(value, where))
            elif not math.isfinite(value):
                raise ParameterError(f"{where} is {value}; must be a finite number")
            else:
                self.__dict__[name] = float(value)

    @classmethod
    def parameter_names(cls) -> list[str]:
        """Names of the parameters, in the order of their declaration."""
        return [field.name for field in dataclasses.fields(cls) if "unit" in field.metadata]

    @classmethod
    def units(cls) -> dict[str, str]:
        """Unit of each parameter, "1" where it has none."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        return {name: fields[name].metadata["unit"] for name in cls.parameter_names()}

    def values(self) -> dict[str, float | Tensor]:
        """Current value of every parameter, Params read through their transform."""
        read = {name: getattr(self, name) for name in self.parameter_names()}
        return {k: v.value() if isinstance(v, Param) else v for k, v in read.items()}

    def having(self: Own, values: dict[str, Any]) -> Own:
        """A copy with some parameters at other values, which may be tensors in a graph.

        Raises ParameterError for names that it has not.
        """
        unknown = sorted(set(values) - set(self.parameter_names()))
        if unknown:
            raise ParameterError(
                f"{type(self).__name__} has no parameter {', '.join(unknown)}; "
                f"it has {', '.join(self.parameter_names()) or 'none'}"
            )
        other = copy.copy(self)
        # Shared with the original otherwise: nn.Module keeps these dicts by reference.
        for kept in ("_modules", "_buffers", "_parameters"):
            other.__dict__[kept] = dict(self.__dict__[kept])
        for name, value in values.items():
            for kept in ("_modules", "_buffers"):
                other.__dict__[kept].pop(name, None)
            other.__dict__.pop(name, None)
            if isinstance(value, Param):
                other._modules[name] = value
            else:
                other.__dict__[name] = value
        return other


def _tensor(value: Any, where: str) -> Tensor:
    """`value` as a floating tensor of finite numbers."""
    if isinstance(value, Tensor):
        tensor = value.detach().clone()
    else:
        try:
            tensor = torch.from_numpy(np.array(value, dtype=np.float64))
        except (TypeError, ValueError):
            raise ParameterError(f"{where} is {value!r}; must be a number or an array") from None
    if not tensor.is_floating_point() or not isinstance(value, Tensor | np.ndarray):
        tensor = tensor.to(torch.get_default_dtype())
    bad = ~torch.isfinite(tensor)
    if bool(bad.any()):
        raise ParameterError(f"{where}: {_first(tensor, bad)} is no finite number")
    return tensor


def _is_symmetric(tensor: Tensor) -> bool:
    square = tensor.ndim > 1 and tensor.shape[-1] == tensor.shape[-2]
    return square and bool((tensor == tensor.mT).all())


def _first(tensor: Tensor, where: Tensor) -> str:
    """The first entry of `tensor` at which `where` holds, with its place."""
    place = tuple(int(k) for k in where.nonzero()[0])
    text = f"{tensor[place].item():g}"
    return f"{text} at {list(place)}" if place else text
