"""Noise that drives a network: every process is a step function of standard normal numbers.

The numbers of step n of batch member b are a pure function of (seed, b, n), drawn by numpy's Philox
generator: a batch holds the runs of its members alone, a run in pieces the whole run, and an
exported network takes the same numbers as an input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal, TypeVar, dataclass_transform

import numpy as np
import torch
from torch import Tensor

from artifact.noise import standard_normals as standard_normals
from trainer.dynamics.parameters import (
    ParameterError,
    Parametrized,
    Value,
    parameter,
    parametrized,
)
from trainer.registry import Registry

NOISES = Registry("noise", "axonnx.noises")

Kind = TypeVar("Kind", bound=type)


@dataclass_transform(kw_only_default=True, field_specifiers=(parameter,))
def noise(name: str) -> Callable[[Kind], Kind]:
    """Decorator that makes a class of parameters a noise and registers it under `name`."""

    def decorate(kind: Kind) -> Kind:
        return NOISES.register(name)(parametrized(kind))

    return decorate


class Noise(Parametrized):
    """A noise process per node.

    target: the state (enters "state") or input (enters "input") that it is added to; None for the
    first. An increment of a state is added after the drift; a value of an input is held over a
    step. memory: how many numbers the process carries from step to step. normals: how many standard
    normal numbers it takes a step.
    """

    enters: ClassVar[Literal["state", "input"]]
    memory: ClassVar[int] = 0
    normals: ClassVar[int] = 1

    target: str | None = None

    def start(self, normals: tuple[Tensor, ...], dt: float) -> tuple[Tensor, ...]:
        """The memory (batch, node) before the first step, from `memory` standard normals."""
        return ()

    def step(
        self, memory: tuple[Tensor, ...], normals: tuple[Tensor, ...], dt: float
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The memory after a step of `dt` ms, and what enters, (batch, node)."""
        raise NotImplementedError


@noise("gaussian")
class Gaussian(Noise):
    """White noise: σ dW is added to a state, σ √dt N(0, 1) a step.

    A node that decays at rate L (1/ms) has the stationary standard deviation σ/√(2L) for any dt, to
    first order in L dt; to second order with the scheme "stochastic_heun".
    """

    enters = "state"

    target: str | None = None
    sigma: Value = parameter(0.1, "unit of the state / √ms", "strength")

    def step(
        self, memory: tuple[Tensor, ...], normals: tuple[Tensor, ...], dt: float
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """See the class."""
        return memory, self.sigma * (math.sqrt(dt) * normals[0])


@noise("ornstein_uhlenbeck")
class OrnsteinUhlenbeck(Noise):
    """A current with memory: dξ = −ξ/τ dt + σ/√τ dW, of standard deviation σ/√2 for any dt.

    Stepped exactly: ξ ← ξ e^(−dt/τ) + σ √((1 − e^(−2dt/τ))/2) N(0, 1); starts stationary.
    """

    enters = "input"
    memory = 1

    target: str | None = None
    sigma: Value = parameter(0.1, "unit of the input", "strength, √2 times the standard deviation")
    tau: Value = parameter(10.0, "ms", "correlation time")

    def __post_init__(self) -> None:
        super().__post_init__()
        tau = torch.as_tensor(self.values()["tau"])
        if not bool((tau > 0).all()):
            lowest = tau.min().item()
            raise ParameterError(f"OrnsteinUhlenbeck.tau is {lowest:g} ms; must be above 0")

    def start(self, normals: tuple[Tensor, ...], dt: float) -> tuple[Tensor, ...]:
        """A stationary draw, in units of σ."""
        return (normals[0] * math.sqrt(0.5),)

    def step(
        self, memory: tuple[Tensor, ...], normals: tuple[Tensor, ...], dt: float
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """See the class; the memory is kept in units of σ."""
        ratio = dt / self.tau
        if isinstance(ratio, Tensor):
            decay, spread = torch.exp(-ratio), torch.sqrt(-torch.expm1(-2 * ratio) / 2)
        else:
            decay, spread = math.exp(-ratio), math.sqrt(-math.expm1(-2 * ratio) / 2)
        moved = memory[0] * decay + normals[0] * spread
        return (moved,), self.sigma * moved


def start_generator(seed: int, member: int) -> np.random.Generator:
    """The generator of a batch member's initial state."""
    key = np.array([seed, member], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, 2]))
