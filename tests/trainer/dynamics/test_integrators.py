"""Schemes: their observed orders, with and without noise."""

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.dynamics.integrators import SCHEMES, Scheme

ORDERS = {
    "euler": 1,
    "heun": 2,
    "rk4": 4,
    "exponential_euler": 1,
    "stochastic_heun": 2,
    "symplectic_euler": 1,
}


def test_every_scheme_has_an_order_here() -> None:
    assert set(ORDERS) == set(SCHEMES)


def pendulum(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A damped pendulum: smooth, not linear, both states coupled."""
    x, y = state
    return y, -torch.sin(x) - 0.2 * y * y * y


def number(value: float) -> Tensor:
    return torch.full((1, 1), value, dtype=torch.float64)


def solved(scheme: Scheme, derivative, start: tuple[float, ...], time: float, steps: int):
    """State at `time` after so many steps, as an array."""
    state = tuple(number(x) for x in start)
    for _ in range(steps):
        state = scheme(derivative, state, (None,) * len(state), time / steps)
    return torch.cat(state).numpy()


def order(errors: list[float]) -> float:
    """Mean slope of errors of steps that are halved each time."""
    return float(-np.polyfit(np.arange(len(errors)), np.log2(errors), 1)[0])


@pytest.mark.parametrize("name", ORDERS)
def test_the_error_falls_by_the_order_of_the_scheme(name: str) -> None:
    exact = solved(SCHEMES["rk4"], pendulum, (1.0, 0.5), 2.0, 500)
    errors = [
        np.abs(solved(SCHEMES[name], pendulum, (1.0, 0.5), 2.0, steps) - exact).max()
        for steps in (32, 64, 128)
    ]
    assert order(errors) == pytest.approx(ORDERS[name], abs=0.12)


@pytest.mark.parametrize("dt", [0.01, 1.0, 20.0])
def test_exponential_euler_is_exact_for_linear_decay(dt: float) -> None:
    def decay(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return -0.4 * state[0] + 0.2, -3.0 * state[1]

    after = solved(SCHEMES["exponential_euler"], decay, (2.0, 1.0), 3 * dt, 3)
    expected = [[0.5 + 1.5 * np.exp(-0.4 * 3 * dt)], [np.exp(-3.0 * 3 * dt)]]
    np.testing.assert_allclose(after, expected, rtol=1e-12, atol=1e-25)


@pytest.mark.parametrize("slope", [0.0, 1e-12, 1e-5, -1e-4, -1.0])
def test_exponential_euler_has_a_finite_gradient_at_any_slope(slope: float) -> None:
    rate = torch.tensor(slope, dtype=torch.float64, requires_grad=True)

    def end(rate: Tensor) -> Tensor:
        def growth(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (rate * state[0] + 1.0,)

        return SCHEMES["exponential_euler"](growth, (number(0.7),), (None,), 0.5)[0]

    assert torch.autograd.gradcheck(end, rate, atol=1e-7)


def test_symplectic_euler_keeps_the_energy_of_an_oscillation() -> None:
    def spring(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return state[1], -state[0]

    x, y = solved(SCHEMES["symplectic_euler"], spring, (1.0, 0.0), 200.0, 2000)[:, 0]
    assert x * x + y * y == pytest.approx(1, abs=0.11)
    x, y = solved(SCHEMES["euler"], spring, (1.0, 0.0), 200.0, 2000)[:, 0]
    assert x * x + y * y > 1e6


@pytest.mark.parametrize(
    ("name", "weak"), [("euler", 1), ("heun", 1), ("exponential_euler", 1), ("stochastic_heun", 2)]
)
def test_the_stationary_variance_converges_by_the_weak_order(name: str, weak: int) -> None:
    """x ← a x + b σ√dt ξ has the variance b²σ²dt/(1 − a²); that of the equation is σ²/(2L)."""
    rate = 0.5

    def decay(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (-rate * state[0],)

    errors = []
    for dt in (0.2, 0.1, 0.05):
        kept = SCHEMES[name](decay, (number(1.0),), (None,), dt)[0].item()
        added = SCHEMES[name](decay, (number(0.0),), (number(1.0),), dt)[0].item()
        errors.append(abs(added**2 * dt / (1 - kept**2) - 1 / (2 * rate)))
    assert order(errors) == pytest.approx(weak, abs=0.1)


@pytest.mark.parametrize("name", ["euler", "heun", "exponential_euler", "stochastic_heun", "rk4"])
def test_paths_of_additive_noise_converge_with_order_1(name: str) -> None:
    """Of dx = −sin(x) dt + σ dW along the same 200 Brownian paths, taken in coarser steps."""
    draws = np.random.default_rng(5).normal(size=(200, 1024))
    fine = torch.from_numpy(draws) * np.sqrt(2.0 / 1024) * 0.7

    def drift(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (-torch.sin(state[0]),)

    def end(scheme: Scheme, steps: int) -> Tensor:
        state = torch.full((200,), 1.0, dtype=torch.float64)
        for extra in fine.reshape(200, steps, -1).sum(dim=2).T:
            (state,) = scheme(drift, (state,), (extra,), 2.0 / steps)
        return state

    exact = end(SCHEMES["stochastic_heun"], 1024)
    errors = [(end(SCHEMES[name], s) - exact).abs().mean().item() for s in (8, 16, 32)]
    assert order(errors) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    ("name", "mean"), [("heun", np.exp(0.8**2 / 2)), ("euler", 1.0), ("rk4", np.exp(0.8**2 / 2))]
)
def test_noise_as_an_input_has_the_stratonovich_mean(name: str, mean: float) -> None:
    """x' = x u with u = σξ/√dt held over a step: E x(1) = exp(σ²/2); Euler's is Itô's, 1.

    The mean over ξ is taken by Gauss–Hermite quadrature, step by step.
    """
    points, shares = np.polynomial.hermite_e.hermegauss(12)
    noise, shares = torch.from_numpy(points), torch.from_numpy(shares / shares.sum())
    steps = 400

    def growth(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (state[0] * 0.8 * noise * np.sqrt(steps),)

    ones = torch.ones_like(noise)
    factor = (SCHEMES[name](growth, (ones,), (None,), 1 / steps)[0] * shares).sum().item()
    assert factor**steps == pytest.approx(mean, rel=1e-3)
