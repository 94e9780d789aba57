"""Noise whose power falls or rises with the frequency, and Brownian motion.

A power 1/f^β is made by a filter of white noise in time: poles and zeros that alternate along the
logarithm of the frequency, whose staircase of slopes 0 and ±2 has the mean slope −β (Oustaloup et
al. 2000, IEEE Trans. Circuits Syst. I 47:25). Split into partial fractions it is a sum of
first-order processes, one per pole, that share one normal number a step.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.dynamics.noise import Noise, noise
from trainer.dynamics.parameters import ParameterError, Value, parameter

# Pairs of a pole and a zero: three decades of frequency in steps of a factor of four.
_PAIRS = 5


@noise("coloured")
class Coloured(Noise):
    """A current of standard deviation σ whose power is 1/f^β in time: pink 1, blue −1, violet −2.

    beta: from −2 to 2. slowest, fastest: ms; the power follows 1/f^β between the frequencies
    1/(2π slowest) and 1/(2π fastest), is level below and falls above. σ is the standard deviation
    for any dt, which may be up to `fastest`; starts stationary.
    """

    enters = "input"
    memory = _PAIRS + 1

    target: str | None = None
    beta: float = 1.0
    slowest: float = 1000.0
    fastest: float = 1.0
    sigma: Value = parameter(0.1, "unit of the input", "standard deviation")

    def __post_init__(self) -> None:
        if not -2 <= self.beta <= 2:
            raise ParameterError(f"Coloured.beta is {self.beta}; must be from -2 to 2")
        if not 0 < 10 * self.fastest <= self.slowest < math.inf:
            raise ParameterError(
                f"Coloured: slowest {self.slowest} ms, fastest {self.fastest} ms; slowest must be "
                "at least ten times fastest, and that above 0"
            )
        super().__post_init__()

    def start(self, normals: tuple[Tensor, ...], dt: float) -> tuple[Tensor, ...]:
        """A stationary draw of every process."""
        return tuple(_mixed(row, normals) for row in self._filter(dt).mixture)

    def step(
        self, memory: tuple[Tensor, ...], normals: tuple[Tensor, ...], dt: float
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """See the class; every process has variance 1."""
        made = self._filter(dt)
        moved = tuple(
            each * decay + normals[0] * spread
            for each, decay, spread in zip(memory, made.decays, made.spreads, strict=True)
        )
        return moved, self.sigma * _mixed(made.gains, moved)

    def _filter(self, dt: float) -> _Filter:
        if dt > self.fastest:
            raise ParameterError(
                f"Coloured.fastest is {self.fastest:g} ms, shorter than dt, {dt:g} ms"
            )
        return _filter(self.beta, self.slowest, self.fastest, dt)


@noise("brownian")
class Brownian(Noise):
    """A current that walks: dξ = σ dW from 0, of standard deviation σ √t after t ms.

    Never stationary; its power is 1/f². `Coloured` with beta 2 is its bounded form.
    """

    enters = "input"
    memory = 1

    target: str | None = None
    sigma: Value = parameter(0.1, "unit of the input / √ms", "strength")

    def start(self, normals: tuple[Tensor, ...], dt: float) -> tuple[Tensor, ...]:
        """Zero."""
        return (torch.zeros_like(normals[0]),)

    def step(
        self, memory: tuple[Tensor, ...], normals: tuple[Tensor, ...], dt: float
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """See the class; the memory is kept in units of σ."""
        moved = memory[0] + math.sqrt(dt) * normals[0]
        return (moved,), self.sigma * moved


def _mixed(shares: tuple[float, ...], values: tuple[Tensor, ...]) -> Tensor:
    """Σ share · value, in order: the same bits for a batch and its members."""
    total = shares[0] * values[0]
    for share, value in zip(shares[1:], values[1:], strict=True):
        total = total + share * value
    return total


@dataclass(frozen=True)
class _Filter:
    """Processes m ← decay m + spread N(0, 1) of variance 1, whose sum with `gains` has variance 1.

    mixture: (process, normal), takes independent normals to a stationary draw of all processes.
    """

    decays: tuple[float, ...]
    spreads: tuple[float, ...]
    gains: tuple[float, ...]
    mixture: tuple[tuple[float, ...], ...]


@functools.lru_cache(maxsize=64)
def _filter(beta: float, slowest: float, fastest: float, dt: float) -> _Filter:
    """Poles and zeros (1/ms) taken to steps of dt as z = exp(−rate dt), in partial fractions."""
    edges = np.linspace(-math.log(slowest), -math.log(fastest), _PAIRS + 1)
    middles, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    zeros = np.exp(middles + beta / 4 * width)
    # The last pole makes the power fall beyond the band; twice its edge, so that no two coincide.
    poles = np.append(np.exp(middles - beta / 4 * width), 2 / fastest)
    spreads = np.sqrt(-np.expm1(-2 * poles * dt))
    from_zeros = -np.expm1((poles[:, None] - zeros) * dt)
    from_poles = -np.expm1((poles[:, None] - poles) * dt) + np.eye(len(poles))
    gains = from_zeros.prod(axis=1) / from_poles.prod(axis=1) / spreads
    covariance = np.outer(spreads, spreads) / -np.expm1(-np.add.outer(poles, poles) * dt)
    gains /= math.sqrt(gains @ covariance @ gains)
    variances, axes = np.linalg.eigh(covariance)
    mixture = axes * np.sqrt(np.maximum(variances, 0.0))
    return _Filter(
        tuple(np.exp(-poles * dt).tolist()),
        tuple(spreads.tolist()),
        tuple(gains.tolist()),
        tuple(tuple(row) for row in mixture.tolist()),
    )
