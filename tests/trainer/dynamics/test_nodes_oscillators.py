"""Oscillators and rates against what theory says of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer.dynamics import Gaussian, Network, Node, Simulator, Trajectory, kernel_build
from trainer.dynamics.nodes import (
    FitzHughNagumo,
    Generic2dOscillator,
    Hopf,
    Kuramoto,
    Linear,
    Lorenz,
    StuartLandau,
    ThresholdLinear,
    VanDerPol,
)


def runs(
    node: Node, dt: float, duration: float, *, scheme: str = "rk4", **rest: object
) -> Trajectory:
    simulator = Simulator(Network(node), dt, scheme=scheme, dtype=torch.float64)
    return simulator.run(duration, **rest)  # type: ignore[arg-type]


def period(signal: Tensor, dt: float) -> float:
    """Mean time between upward crossings of 0, found between the samples (time,)."""
    values = signal.numpy()
    before = np.flatnonzero((values[:-1] < 0) & (values[1:] >= 0))
    crossings = before - values[before] / (values[before + 1] - values[before])
    return float(np.diff(crossings).mean() * dt)


def at(node: Node, *state: float, input: tuple[float, ...] = ()) -> list[float]:
    """The derivatives at one point."""
    given = input or (0.0,) * len(node.inputs)
    moved = node.derivative(
        tuple(torch.full((1, 1), each, dtype=torch.float64) for each in state),
        tuple(torch.full((1, 1), each, dtype=torch.float64) for each in given),
    )
    return [each.item() for each in moved]


def test_hopf_circles_with_the_radius_and_period_of_theory() -> None:
    a, beta, w = torch.tensor(
        [
            [0.1, 1, 0.2],
            [0.25, 1, 0.2],
            [1, 1, 0.3],
            [1.2, 0.5, 0.6],
            [0.3, 3, 0.1],
            [1.5, 0.2, 0.5],
        ],
        dtype=torch.float64,
    ).T[..., None]
    run = runs(Hopf(a=a, beta=beta, w=w), 0.2, 300, transient=100, start={"x": 0.5})
    radius = torch.hypot(run["x"], run["y"])[..., 0]
    torch.testing.assert_close(radius, (a / beta).sqrt().expand_as(radius), rtol=1e-4, atol=0)
    found = [period(each, 0.2) for each in run["x"][..., 0]]
    assert found == pytest.approx((2 * math.pi / w[:, 0]).tolist(), rel=1e-3)


def test_stuart_landau_is_hopf_of_saturation_one() -> None:
    start = {"x": 0.3, "y": -0.1}
    hopf = runs(Hopf(a=0.7, w=0.4), 0.1, 20, start=start)
    other = runs(StuartLandau(a=0.7, w=0.4), 0.1, 20, start=start)
    assert torch.equal(hopf["x"], other["x"])


def test_below_the_bifurcation_hopf_decays_at_its_rate() -> None:
    run = runs(Hopf(a=-0.05, w=0.3, beta=0.0), 0.1, 60, start={"x": 1.0})
    radius = torch.hypot(run["x"], run["y"])[0, :, 0].numpy()
    np.testing.assert_allclose(radius, np.exp(-0.05 * run.time), rtol=1e-6)


@pytest.mark.slow
def test_hopf_has_the_published_amplitudes_under_exponential_euler() -> None:
    a = torch.tensor([[0.25], [1.0], [1.5], [2.0]])
    run = runs(
        Hopf(a=a, w=0.3), 0.1, 300, scheme="exponential_euler", transient=150, start={"x": 0.5}
    )
    amplitude = math.sqrt(2) * run["x"].square().mean(dim=1).sqrt()[:, 0]
    wanted = torch.tensor([0.502, 1.001, 1.2296, 1.430], dtype=torch.float64)
    torch.testing.assert_close(amplitude, wanted, rtol=0, atol=6e-4)


def test_van_der_pol_has_its_known_period_and_amplitude() -> None:
    run = runs(VanDerPol(), 0.04, 60, transient=26, start={"x": 2.0, "y": 0.0})
    assert period(run["x"][0, :, 0], 0.04) == pytest.approx(6.66328686, rel=1e-4)
    assert run["x"].max().item() == pytest.approx(2.00862, abs=1e-3)
    weak = runs(VanDerPol(mu=0.05), 0.1, 80, start={"x": 2.0, "y": 0.0})
    assert period(weak["x"][0, :, 0], 0.1) == pytest.approx(
        2 * math.pi * (1 + 0.05**2 / 16), rel=1e-4
    )


def test_fitzhugh_nagumo_rests_without_current_and_oscillates_with_some() -> None:
    current = torch.tensor([0.0, 1.0, 3.0])[:, None, None]
    run = runs(FitzHughNagumo(), 0.25, 400, transient=200, inputs={"V": current}, start={"w": 0.5})
    swing = (run["V"].amax(dim=1) - run["V"].amin(dim=1))[:, 0]
    assert swing[0] < 1e-3
    assert swing[1] > 0.5
    assert swing[2] < 1e-3


def test_fitzhugh_nagumo_at_a_point_worked_by_hand() -> None:
    # −3·8 + 4·4 − 1.5·2 − 1 + 0.5, and (2 − 0.5)/20 + 0.25
    assert at(FitzHughNagumo(), 2.0, 1.0, input=(0.5, 0.25)) == pytest.approx([-11.5, 0.325])


def test_generic_2d_oscillator_at_a_point_worked_by_hand() -> None:
    node = Generic2dOscillator(tau=2.0, c=3.0, g=0.5, I_0=0.25, gamma=2.0)
    # 0.04 (−8 + 12 + 1 + 1 + 2·(0.25 + 0.75)) + 0.1 and 0.01 (−2 − 20 + 12 − 1) + 0.2
    moved = at(node, 2.0, 1.0, input=(0.75, 0.1, 0.2))
    assert moved == pytest.approx([0.42, 0.09])


def test_generic_2d_oscillator_is_excitable_by_default() -> None:
    # Rest: W = −2 − 10 V, and −V³ + 3 V² + W = 0 has one real root.
    roots = np.roots([-1, 3, -10, -2])
    rest = float(roots[np.abs(roots.imag) < 1e-9].real[0])
    assert at(Generic2dOscillator(), rest, -2 - 10 * rest) == pytest.approx([0, 0], abs=1e-12)
    run = runs(Generic2dOscillator(), 1.0, 1000, start={"V": rest + 0.1, "W": -2 - 10 * rest})
    assert run["V"][0, -1, 0].item() == pytest.approx(rest, abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.floats(1, 20), st.floats(1.1, 50), st.floats(0.5, 5))
def test_lorenz_stands_still_at_its_equilibria(sigma: float, rho: float, beta: float) -> None:
    node = Lorenz(sigma=sigma, rho=rho, beta=beta)
    q = math.sqrt(beta * (rho - 1))
    for point in ((0.0, 0.0, 0.0), (q, q, rho - 1), (-q, -q, rho - 1)):
        assert at(node, *point) == pytest.approx([0, 0, 0], abs=1e-10)


def test_lorenz_settles_where_it_is_stable_and_wanders_between_both_wings_otherwise() -> None:
    calm = runs(Lorenz(rho=10.0), 0.02, 12, start={"x": 1.0, "y": 1.0, "z": 1.0})
    end = [calm[name][0, -1, 0].item() for name in ("x", "y", "z")]
    q = math.sqrt(8 / 3 * 9)
    assert end == pytest.approx([q, q, 9], abs=1e-2)
    wild = runs(Lorenz(), 0.02, 20, transient=6, start={"x": 1.0, "y": 1.0, "z": 1.0})
    assert wild["x"].min() < -5
    assert wild["x"].max() > 5
    assert wild["x"].abs().max() < 25


def test_linear_decay_is_exact_under_exponential_euler() -> None:
    run = runs(
        Linear(gamma=-0.3), 0.5, 10, scheme="exponential_euler", inputs={"x": 0.6}, start={"x": 1.0}
    )
    np.testing.assert_allclose(run["x"][0, :, 0], 2 - np.exp(-0.3 * run.time), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler")
def test_a_state_that_fades_out_ends_at_zero_in_the_compiled_loop() -> None:
    simulator = Simulator(Network(Linear(gamma=-1.0)), 0.1, scheme="euler", engine="compiled")
    tiny = torch.tensor(1e-37, dtype=torch.float32) / 1000
    assert tiny > 0
    run = simulator.run(10.0, start={"x": 1e-37})
    assert run["x"][0, 0, 0] > 0
    assert run["x"][0, -1, 0] == 0
    # Outside of the loop numbers are as small as ever.
    assert torch.tensor(1e-37, dtype=torch.float32) / 1000 > 0


def test_kuramoto_turns_with_its_speed_and_only_its_phase_is_wrapped() -> None:
    run = runs(
        Kuramoto(w=0.3), 0.1, 100, inputs={"theta": 0.2}, start={"theta": 1.0},
        monitors=("theta", "phase", "x", "y"),
    )  # fmt: skip
    theta = 1 + 0.5 * run.time
    np.testing.assert_allclose(run["theta"][0, :, 0], theta, rtol=1e-10)
    np.testing.assert_allclose(run["phase"][0, :, 0], theta % (2 * math.pi), rtol=0, atol=1e-8)
    torch.testing.assert_close(run["x"], torch.cos(run["theta"]))
    torch.testing.assert_close(run["y"], torch.sin(run["theta"]))
    assert run.units == {"theta": "rad", "phase": "rad", "x": "1", "y": "1"}


@given(st.floats(-1e4, 1e4, width=32))
def test_a_phase_lies_within_one_turn(theta: float) -> None:
    for dtype in (torch.float32, torch.float64):
        phase = Kuramoto().output("phase", (torch.full((1, 1), theta, dtype=dtype),))
        assert 0 <= phase.item() < 2 * math.pi


def test_threshold_linear_rates_follow_their_currents_and_leak() -> None:
    node = ThresholdLinear()
    run = runs(node, 0.5, 300, inputs={"E": 100.0, "I": 40.0}, start={"E": 1.0, "I": 30.0})
    assert run["E"][0, -1, 0].item() == pytest.approx(6.6, abs=1e-4)
    assert run["I"][0, -1, 0].item() == pytest.approx(14.04, abs=1e-4)
    # Without current inhibition falls with its own time constant.
    alone = runs(node, 0.1, 10, start={"I": 30.0})
    assert alone["I"][0, -1, 0].item() == pytest.approx(30 / math.e, rel=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.floats(-200, 200))
def test_threshold_linear_rates_are_never_below_zero(seed: int, current: float) -> None:
    noise = [Gaussian(target="E", sigma=5.0), Gaussian(target="I", sigma=5.0)]
    simulator = Simulator(Network(ThresholdLinear(), nodes=3, noise=noise), 0.5)
    run = simulator.run(30, batch_size=2, inputs={"E": current, "I": -current}, seed=seed)
    assert min(run["E"].min(), run["I"].min()) >= 0
    assert max(run["E"].max(), run["I"].max()) > 0
