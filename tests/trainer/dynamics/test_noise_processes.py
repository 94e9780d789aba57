"""Noise: its numbers, its distribution for any step size, and its spectrum."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal
from torch import Tensor

from trainer.dynamics import (
    NOISES,
    Brownian,
    Coloured,
    Gaussian,
    Network,
    Noise,
    OrnsteinUhlenbeck,
    Param,
    ParameterError,
    Simulator,
)
from trainer.dynamics.nodes.linear import Linear
from trainer.dynamics.noise import standard_normals

BETAS = [-2.0, -1.3, -1.0, 0.0, 0.5, 1.0, 1.7, 2.0]


def linear_form(noise: Noise, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A, s, c, S of m ← A m + s ξ, value = c (the new m), m at the start = S (normals)."""
    count = noise.memory
    axes = torch.eye(count, dtype=torch.float64)
    none = torch.zeros(count, dtype=torch.float64)
    kept, _ = noise.step(tuple(axes), (none,), dt)
    driven, _ = noise.step(tuple(none[:, None]), (torch.ones(1, dtype=torch.float64),), dt)
    moves, drives = torch.stack(kept).numpy(), torch.stack(driven)[:, 0].numpy()
    _, values = noise.step(tuple(axes), (none,), dt)
    reads = np.linalg.solve(moves.T, values.numpy())
    return moves, drives, reads, torch.stack(noise.start(tuple(axes), dt)).numpy()


STATIONARY = [OrnsteinUhlenbeck(sigma=1.0, tau=7.0)] + [Coloured(beta=b, sigma=1.0) for b in BETAS]


@pytest.mark.parametrize("dt", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("noise", STATIONARY, ids=str)
def test_the_start_is_stationary_and_the_variance_that_of_the_docstring(
    noise: Noise, dt: float
) -> None:
    moves, drives, reads, start = linear_form(noise, dt)
    covariance = start @ start.T
    after = moves @ covariance @ moves.T + np.outer(drives, drives)
    np.testing.assert_allclose(after, covariance, atol=1e-9)
    variance = 0.5 if isinstance(noise, OrnsteinUhlenbeck) else 1.0
    assert reads @ covariance @ reads == pytest.approx(variance, rel=1e-6)


@pytest.mark.parametrize("dt", [1.0, 0.1])
@pytest.mark.parametrize("beta", BETAS)
def test_the_power_of_coloured_noise_falls_by_its_exponent(beta: float, dt: float) -> None:
    """Slope and straightness, of the filter itself, within the band."""
    moves, drives, reads, _ = linear_form(Coloured(beta=beta, slowest=1000, fastest=1), dt)
    frequencies = np.geomspace(3 / (2 * np.pi * 1000), 1 / (2 * np.pi * 3), 60)  # 1/ms
    turns = np.exp(2j * np.pi * frequencies * dt)
    inverse = [reads @ np.linalg.solve(np.eye(6) - moves / z, drives) for z in turns]
    power = np.log(np.abs(inverse) ** 2)
    slope, level = np.polyfit(np.log(frequencies), power, 1)
    assert slope == pytest.approx(-beta, abs=0.05)
    assert np.abs(power - level - slope * np.log(frequencies)).max() < 0.2


def current(noise: Noise, dt: float, steps: int, **more: int) -> np.ndarray:
    """The noise that entered a node x' = I in a run: (batch, time, node)."""
    network = Network(Linear(gamma=0.0), nodes=3, noise=noise)
    simulator = Simulator(network, dt, scheme="euler", engine="plain", dtype=torch.float64)
    run = simulator.run(steps * dt, start={"x": 0.0}, **more)["x"].detach().numpy()
    return np.diff(run, axis=1, prepend=0.0) / dt


@pytest.mark.parametrize("beta", [-2.0, -1.0, 0.0, 1.0, 2.0])
def test_a_run_has_the_spectrum_of_its_noise(beta: float) -> None:
    noise = Coloured(beta=beta, slowest=200, fastest=1, sigma=0.3)
    entered = current(noise, 0.5, 3000, batch_size=30)
    frequencies, power = signal.welch(entered, fs=2.0, nperseg=1500, axis=1, detrend=False)
    inside = (frequencies > 2 / (2 * np.pi * 200)) & (frequencies < 1 / (2 * np.pi * 2))
    mean = power.mean(axis=(0, 2))[inside]
    slope = np.polyfit(np.log(frequencies[inside]), np.log(mean), 1)[0]
    assert slope == pytest.approx(-beta, abs=0.15)
    spread = entered.std(axis=(0, 2))
    assert np.abs(spread / 0.3 - 1).max() < 0.45  # 90 draws in every step
    assert spread.mean() == pytest.approx(0.3, rel=0.15)


def test_brownian_noise_walks_from_0_by_the_root_of_time() -> None:
    for dt in (0.5, 0.1):
        entered = current(Brownian(sigma=0.2), dt, round(20 / dt), batch_size=400)
        for time in (5.0, 20.0):
            spread = entered[:, round(time / dt) - 1].std()
            assert spread == pytest.approx(0.2 * np.sqrt(time), rel=0.09)


@pytest.mark.parametrize("dt", [1.0, 0.1, 0.01])
def test_a_driven_node_has_the_same_variance_for_any_step(dt: float) -> None:
    """σ²/(2L) from the answer to one impulse of noise, without chance; the scheme is 2nd order."""
    rate, steps = 0.1, round(60 / dt)
    network = Network(Linear(gamma=-rate), noise=Gaussian(sigma=0.3))
    simulator = Simulator(
        network, dt, scheme="stochastic_heun", engine="plain", dtype=torch.float64
    )
    normals = torch.zeros(1, steps, 1, 1)
    normals[0, 0] = 1.0
    with torch.no_grad():
        answer = simulator.run(steps * dt, start={"x": 0.0}, normals=normals)["x"]
    assert answer.square().sum().item() == pytest.approx(0.3**2 / (2 * rate), rel=3e-3)


@pytest.mark.parametrize("dt", [1.0, 0.1])
def test_a_driven_node_has_this_variance_in_draws_too(dt: float) -> None:
    network = Network(Linear(gamma=-0.1), nodes=64, noise=Gaussian(sigma=0.3))
    simulator = Simulator(network, dt, scheme="stochastic_heun", engine="plain")
    end = simulator.run(40.0, batch_size=64, start={"x": 0.0}).state.carry[0]
    assert end.var().item() == pytest.approx(0.3**2 / 0.2, rel=0.1)  # 4.5 standard errors


def test_every_registered_noise_is_reproducible_and_trains_nothing() -> None:
    for name in NOISES.names():
        noise = NOISES.get(name)()
        assert list(noise.parameters()) == []
        first, again = (current(noise, 0.1, 20, seed=3) for _ in range(2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, current(noise, 0.1, 20, seed=4))


@pytest.mark.parametrize(
    "noise", [Gaussian(), OrnsteinUhlenbeck(), Coloured(), Brownian()], ids=str
)
def test_members_are_their_own_runs_and_differ(noise: Noise) -> None:
    together = current(noise, 0.1, 30, batch_size=4, seed=5)
    for member in range(4):
        alone = current(noise, 0.1, 30, first_member=member, seed=5)
        np.testing.assert_array_equal(together[member], alone[0])
    flat = together.reshape(4, -1)
    assert len({row.tobytes() for row in flat}) == 4


@settings(max_examples=15, deadline=None)
@given(
    first=st.integers(0, 3000),
    cut=st.integers(1, 1500),
    more=st.integers(1, 1500),
    numbers=st.integers(1, 3),
)
def test_numbers_do_not_depend_on_how_a_run_is_cut(
    first: int, cut: int, more: int, numbers: int
) -> None:
    whole = standard_normals(9, range(2, 4), first, cut + more, numbers, 2)
    left = standard_normals(9, range(2, 4), first, cut, numbers, 2)
    right = standard_normals(9, range(3, 4), first + cut, more, numbers, 2)
    np.testing.assert_array_equal(whole[:, :cut], left)
    np.testing.assert_array_equal(whole[1:, cut:], right)


def test_numbers_of_members_blocks_nodes_and_kinds_are_independent() -> None:
    """3 members × 3 blocks × 2 numbers × 3 nodes, 1,000 steps each: 54 series without relation."""
    drawn = standard_normals(0, range(3), 0, 3 * 1024, 2, 3)
    blocks = np.stack([drawn[:, k * 1024 : k * 1024 + 1000] for k in range(3)])
    series = blocks.transpose(0, 1, 3, 4, 2).reshape(-1, 1000)
    related = np.corrcoef(series) - np.eye(len(series))
    assert np.abs(related).max() < 5 / np.sqrt(1000)
    assert abs(drawn.mean()) < 0.02
    assert drawn.std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("noise", ["gaussian", "ornstein_uhlenbeck", "coloured", "brownian"])
def test_a_run_is_differentiable_in_the_strength(noise: str) -> None:
    made = NOISES.get(noise)()
    network = Network(Linear(gamma=-0.3), nodes=2, noise=made)
    simulator = Simulator(network, 0.5, engine="plain", dtype=torch.float64)
    names = [f"noise.0.{each}" for each in made.parameter_names()]
    values = network.values()
    numbers = [torch.tensor(values[each], dtype=torch.float64).requires_grad_() for each in names]

    def end(*tensors: Tensor) -> Tensor:
        given = dict(zip(names, tensors, strict=True))
        return simulator.run(4.0, seed=2, values=given)["x"][:, -1]

    assert torch.autograd.gradcheck(end, numbers)


def test_a_strength_may_be_one_per_node_and_fitted() -> None:
    noise = Gaussian(sigma=Param(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)))
    entered = current(noise, 0.1, 40).std(axis=(0, 1))
    assert entered[0] == 0
    assert entered[2] > 1.3 * entered[1] > 0


@pytest.mark.parametrize("tau", [0.0, [5.0, -2.0], Param(-2.0)], ids=str)
def test_a_correlation_time_that_is_none_is_refused(tau: object) -> None:
    with pytest.raises(
        ParameterError, match=r"OrnsteinUhlenbeck\.tau is (0|-2) ms; must be above 0"
    ):
        OrnsteinUhlenbeck(tau=tau)


def test_coloured_noise_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"beta is 2\.5; must be from -2 to 2"):
        Coloured(beta=2.5)
    with pytest.raises(ParameterError, match="slowest must be at least ten times fastest"):
        Coloured(slowest=5.0)
    with pytest.raises(ParameterError, match="fastest is 1 ms, shorter than dt, 2 ms"):
        current(Coloured(), 2.0, 5)
