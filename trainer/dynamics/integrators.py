"""Integration schemes: one step of size dt of a system of ordinary differential equations.

A scheme is a function (derivative, state, increments, dt) -> state. derivative: state -> tuple of
time derivatives; increments: what noise adds to each state in this step (None where it adds
nothing); all tensors are (batch, node). Noise is added after the drift, except by
`stochastic_heun`, whose two slopes both see it.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from trainer.dynamics.node import State

Derivative: TypeAlias = Callable[[State], State]
Increments: TypeAlias = tuple[Tensor | None, ...]
Scheme: TypeAlias = Callable[[Derivative, State, Increments, float], State]


def euler(derivative: Derivative, state: State, increments: Increments, dt: float) -> State:
    """x + dt f(x): first order; with noise, Euler–Maruyama."""
    return _plus(_along(state, derivative(state), dt), increments)


def heun(derivative: Derivative, state: State, increments: Increments, dt: float) -> State:
    """x + dt/2 (f(x) + f(x + dt f(x))): second order."""
    first = derivative(state)
    second = derivative(_along(state, first, dt))
    slope = tuple(a + b for a, b in zip(first, second, strict=True))
    return _plus(_along(state, slope, dt / 2), increments)


def stochastic_heun(
    derivative: Derivative, state: State, increments: Increments, dt: float
) -> State:
    """Heun whose predictor holds the noise: converges to the Stratonovich solution."""
    first = derivative(state)
    second = derivative(_plus(_along(state, first, dt), increments))
    slope = tuple(a + b for a, b in zip(first, second, strict=True))
    return _plus(_along(state, slope, dt / 2), increments)


def rk4(derivative: Derivative, state: State, increments: Increments, dt: float) -> State:
    """The classical Runge–Kutta scheme: fourth order."""
    first = derivative(state)
    second = derivative(_along(state, first, dt / 2))
    third = derivative(_along(state, second, dt / 2))
    fourth = derivative(_along(state, third, dt))
    slopes = zip(first, second, third, fourth, strict=True)
    slope = tuple(a + 2 * (b + c) + d for a, b, c, d in slopes)
    return _plus(_along(state, slope, dt / 6), increments)


def exponential_euler(
    derivative: Derivative, state: State, increments: Increments, dt: float
) -> State:
    """x + dt φ(dt J) f(x), φ(z) = (eᶻ − 1)/z, J_i = ∂f_i/∂x_i: exact for uncoupled linear decay.

    First order otherwise; only the diagonal of the Jacobian is used.
    """
    slopes: list[Tensor] = []
    factors: list[Tensor] = []
    for place, own in enumerate(state):

        def of_own(value: Tensor, place: int = place) -> Any:
            return derivative((*state[:place], value, *state[place + 1 :]))[place]

        # Element by element, so the product with ones is the diagonal.
        slope, curve = _with_product(of_own, own, torch.ones_like(own))
        slopes.append(slope)
        factors.append(_phi(dt * curve))
    moved = zip(state, slopes, factors, strict=True)
    return _plus(tuple(x + dt * factor * slope for x, slope, factor in moved), increments)


def symplectic_euler(
    derivative: Derivative, state: State, increments: Increments, dt: float
) -> State:
    """States move one after the other, the last one first, each by the newest of all of them.

    Of (position, velocity) the velocity moves, then the position by the new velocity: first order,
    and an undamped oscillation keeps its energy. Elsewhere a Gauss–Seidel form of Euler's scheme.
    """
    moved = list(state)
    for place in reversed(range(len(moved))):
        slope = derivative(tuple(moved))[place]
        after, extra = moved[place] + dt * slope, increments[place]
        moved[place] = after if extra is None else after + extra
    return tuple(moved)


def _with_product(
    function: Callable[[Tensor], Tensor], at: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor]:
    """function(at), element by element, and its derivative there times `direction`."""
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is None:
        value, pull = torch.func.vjp(function, at)
        return value, pull(direction)[0]
    # A pullback cannot stand inside of checkpoints; forward mode can, but takes five times as long.
    _load_forward_mode()
    value, product = torch.func.jvp(function, (at,), (direction,))
    return value, product


@functools.cache
def _load_forward_mode() -> None:
    """Load what torch loads with its first forward derivative; it warns of its own code there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def _phi(z: Tensor) -> Tensor:
    """(eᶻ − 1)/z with its limit at 0, and finite gradients there."""
    small = z.abs() < 1e-4
    safe = torch.where(small, torch.ones_like(z), z)
    return torch.where(small, 1 + z / 2, torch.expm1(safe) / safe)


def _along(state: State, slope: State, step: float) -> State:
    return tuple(x + step * s for x, s in zip(state, slope, strict=True))


def _plus(state: State, increments: Increments) -> State:
    pairs = zip(state, increments, strict=True)
    return tuple(x if extra is None else x + extra for x, extra in pairs)


SCHEMES: dict[str, Scheme] = {
    "euler": euler,
    "heun": heun,
    "rk4": rk4,
    "exponential_euler": exponential_euler,
    "stochastic_heun": stochastic_heun,
    "symplectic_euler": symplectic_euler,
}
