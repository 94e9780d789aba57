"""Units of a HORN, and the scheme in which they move."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainer.dynamics import Additive, Connectome, Network, Simulator
from trainer.dynamics.integrators import symplectic_euler
from trainer.dynamics.nodes.horn import Horn

SCHEME = "symplectic_euler"


def simulator(**values):
    network = Network(Horn(**values), nodes=1)
    return Simulator(network, 1.0, scheme=SCHEME, dtype=torch.float64)


def test_one_step_from_rest_is_that_of_the_reference():
    run = simulator().run(1.0, inputs={"I": 1.0})
    # alpha tanh(1), and x follows the new y
    assert float(run["y"]) == pytest.approx(0.0304638, abs=1e-7)
    assert float(run["x"]) == float(run["y"])


def test_a_run_is_the_published_recurrence():
    random = np.random.default_rng(0)
    units, steps, alpha, omega, gamma, v, dt = 3, 25, 0.2, 0.3, 0.05, 0.7, 0.5
    weights, drive = random.normal(size=(units, units)), random.normal(size=(2, steps, units))
    network = Network(
        Horn(alpha=alpha, omega=omega, gamma=gamma, v=v),
        Connectome(weights, self_connections=True, directed=True),
        coupling=Additive(source="y", b=0.3),
    ).double()
    run = Simulator(network, dt, scheme=SCHEME, dtype=torch.float64).run(
        steps * dt, inputs={"I": drive}
    )
    weights = network.weights.numpy()
    x = y = np.zeros((2, units))
    for step in range(steps):
        current = drive[:, step] + y @ weights.T + float(network.values()["coupling.b"])
        y = y + dt * (alpha * np.tanh(current + v * x) - omega**2 * x - 2 * gamma * y)
        x = x + dt * y
        np.testing.assert_allclose(run["x"][:, step].numpy(), x, rtol=0, atol=1e-12)
        np.testing.assert_allclose(run["y"][:, step].numpy(), y, rtol=0, atol=1e-12)


def test_undamped_units_keep_their_amplitude():
    kept = simulator(gamma=0.0).run(2_800.0, start={"x": 1.0})["x"][0, :, 0]
    early, late = kept[:280].abs().max(), kept[-280:].abs().max()
    assert float(late) == pytest.approx(float(early), rel=1e-3)


def test_states_move_last_first_each_by_the_newest():
    def derivative(state):
        a, b, c = state
        return b, c, torch.ones_like(a)

    zero = torch.zeros(1, 1)
    moved = symplectic_euler(derivative, (zero, zero, zero), (None, zero + 5, None), 1.0)
    # c: 0 + 1; b: 0 + c + 5 of noise; a: 0 + b
    assert [float(each) for each in moved] == [6.0, 6.0, 1.0]


def test_the_scheme_converges_in_first_order():
    errors = []
    for dt in (0.2, 0.1, 0.05):
        network = Network(Horn(gamma=0.02), nodes=1)
        run = Simulator(network, dt, scheme=SCHEME, dtype=torch.float64).run(20.0, start={"x": 1.0})
        omega = math.sqrt((2 * math.pi / 28) ** 2 - 0.02**2)
        exact = math.exp(-0.4) * (math.cos(20 * omega) + 0.02 / omega * math.sin(20 * omega))
        errors.append(abs(float(run["x"][0, -1, 0]) - exact))
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(slopes, 1, atol=0.15)


def test_gradients_of_parameters_and_input():
    names = ("alpha", "omega", "gamma", "v")
    network = Network(
        Horn(),
        Connectome(np.array([[0.5, -1.0], [0.8, 0.3]]), self_connections=True, directed=True),
        coupling=Additive(source="y"),
    )
    drive = torch.randn(2, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([[0.5, -1.0], [0.8, 0.3]], dtype=torch.float64)
    values = [torch.tensor([k, 0.9 * k], dtype=torch.float64) for k in (0.3, 0.4, 0.05, 0.5)]

    def positions(drive, weights, *values):
        named = {f"node.{name}": value for name, value in zip(names, values, strict=True)}
        run = Simulator(network, 1.0, scheme=SCHEME, engine="plain", dtype=torch.float64).run(
            6.0, inputs={"I": drive}, values={**named, "weights": weights}
        )
        return run["x"]

    arguments = [each.requires_grad_() for each in (drive, weights, *values)]
    assert torch.autograd.gradcheck(positions, arguments)
