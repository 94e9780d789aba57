"""What arrives through delays, against a simulation that remembers every step."""

import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.dynamics import (
    Additive,
    Connectome,
    Diffusive,
    Network,
    NetworkError,
    Param,
    Simulator,
)
from trainer.dynamics.delays import DelayError, DelayWarning, tap_delays
from trainer.dynamics.node import Node, State, Value, parameter
from trainer.dynamics.nodes.linear import Linear
from trainer.dynamics.parameters import parametrized

NODES = 4
DRAWS = np.random.default_rng(3)
WEIGHTS = DRAWS.normal(size=(NODES, NODES)) * (1 - np.eye(NODES))
START = DRAWS.normal(size=NODES)
DECAY, DT = 0.3, 0.1


@parametrized
class Remembering(Node):
    """x' = −x(t − τ): a node that reads its own past."""

    states = ("x",)
    inputs = ("past",)
    lags: ClassVar = {"past": ("x", "tau")}

    tau: Value = parameter(1.0, "ms", "lag")

    def derivative(self, state: State, input: State) -> State:
        return (-input[0] + 0 * state[0],)


def network(lengths: np.ndarray, *, speed=1.0, interpolate: bool = False, **more) -> Network:
    connectome = Connectome(WEIGHTS, lengths=lengths, directed=True)
    more.setdefault("coupling", Additive())
    return Network(Linear(gamma=-DECAY), connectome, speed=speed, interpolate=interpolate, **more)


def simulated(built: Network, steps: int, dt: float = DT, **more) -> np.ndarray:
    simulator = Simulator(built, dt, scheme="euler", engine="plain", dtype=torch.float64)
    start = {"x": torch.from_numpy(START)[None]}
    return simulator.run(steps * dt, start=start, **more)["x"][0].detach().numpy()


def remembered(steps_back: np.ndarray, steps: int, dt: float = DT) -> np.ndarray:
    """Euler's scheme with delays of so many steps, a fraction split between its neighbours."""
    past = [START]
    for _ in range(steps):
        arrived = np.zeros(NODES)
        for i in range(NODES):
            for j in range(NODES):
                lower = math.floor(steps_back[i, j])
                share = steps_back[i, j] - lower
                near = past[max(0, len(past) - 1 - lower)][j]
                far = past[max(0, len(past) - 2 - lower)][j]
                arrived[i] += WEIGHTS[i, j] * ((1 - share) * near + share * far)
        past.append(past[-1] + dt * (-DECAY * past[-1] + arrived))
    return np.array(past[1:])


@pytest.mark.parametrize("interpolate", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("speed", [1.0, 3.0, 7.0])
@pytest.mark.parametrize("dt", [0.1, 0.3, 0.7])
def test_a_whole_multiple_of_the_step_is_that_many_steps(
    interpolate: bool, dtype: torch.dtype, speed: float, dt: float
) -> None:
    multiples = np.arange(1, 41)
    lengths = torch.tensor([[k * dt * speed for k in multiples]], dtype=torch.float64)
    milliseconds = lengths.to(dtype) / torch.tensor(speed, dtype=dtype)
    first, *rest = tap_delays(milliseconds, torch.ones_like(milliseconds), dt, interpolate)
    assert first.steps[0].tolist() == multiples.tolist()
    assert first.weights.eq(1).all()
    assert all(tap.weights.eq(0).all() for tap in rest)


@pytest.mark.parametrize("interpolate", [False, True])
def test_delays_of_1_to_40_steps_arrive_on_time(interpolate: bool) -> None:
    """An impulse of the first node shows in the others k + 1 steps later, neither more nor less."""
    count = 41
    weights = np.zeros((count, count))
    weights[1:, 0] = 1
    lengths = np.zeros((count, count))
    lengths[1:, 0] = np.arange(1, count) * DT * 3
    built = Network(
        Linear(gamma=0.0),
        Connectome(weights, lengths=lengths, directed=True),
        coupling=Additive(),
        speed=3.0,
        interpolate=interpolate,
    )
    simulator = Simulator(built, DT, scheme="euler", engine="plain")
    impulse = torch.zeros(1, 60, count)
    impulse[0, 0, 0] = 1.0
    run = simulator.run(60 * DT, inputs={"x": impulse}, start={"x": 0.0})["x"][0]
    assert run[:, 0].ne(0).all()
    first = [int(run[:, k].nonzero()[0]) for k in range(1, count)]
    assert first == [k + 1 for k in range(1, count)]


@pytest.mark.parametrize("interpolate", [False, True])
def test_delays_are_those_of_a_simulation_that_remembers_everything(interpolate: bool) -> None:
    steps_back = DRAWS.uniform(0.6, 12, size=(NODES, NODES))
    steps_back[0, 1], steps_back[2, 3] = 0.0, 5.0
    built = network(steps_back * DT * 2, speed=2.0, interpolate=interpolate)
    expected = remembered(steps_back if interpolate else np.round(steps_back), 50)
    np.testing.assert_allclose(simulated(built, 50), expected, rtol=1e-10, atol=1e-10)


def test_a_delay_of_zero_on_some_connections_reads_the_newest_state() -> None:
    steps_back = np.where(DRAWS.random((NODES, NODES)) < 0.5, 0.0, 3.0)
    expected = remembered(steps_back, 30)
    np.testing.assert_allclose(
        simulated(network(steps_back * DT), 30), expected, rtol=1e-10, atol=1e-11
    )


@pytest.mark.parametrize("coupling", [Additive(), Diffusive()], ids=["additive", "diffusive"])
@pytest.mark.parametrize("interpolate", [False, True])
def test_infinite_speed_is_no_delay(interpolate: bool, coupling) -> None:
    """Schemes that hold the coupling over a step: to the rounding of a sum in another order."""
    lengths = DRAWS.uniform(1, 100, size=(NODES, NODES))
    without = simulated(network(lengths, speed=None, coupling=coupling), 40)
    no_length = network(0 * lengths, coupling=coupling, interpolate=interpolate)
    np.testing.assert_allclose(simulated(no_length, 40), without, rtol=1e-12, atol=1e-12)
    fast = network(lengths, speed=1e15, coupling=coupling, interpolate=interpolate)
    with pytest.warns(DelayWarning):
        np.testing.assert_allclose(simulated(fast, 40), without, rtol=1e-10, atol=1e-10)


def test_a_run_is_differentiable_in_the_speed() -> None:
    lengths = DRAWS.uniform(1, 5, size=(NODES, NODES))
    built = network(lengths, speed=Param(2.3), interpolate=True)
    simulator = Simulator(built, DT, scheme="euler", engine="plain", dtype=torch.float64)
    start = {"x": torch.from_numpy(START)[None]}

    def end(speed: Tensor) -> Tensor:
        return simulator.run(5.0, start=start, values={"speed": speed})["x"][:, -1]

    speed = torch.tensor(2.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(end, speed, eps=1e-7, atol=1e-6)
    (slope,) = torch.autograd.grad(end(speed).sum(), speed)
    with torch.no_grad():
        difference = (end(speed + 1e-5) - end(speed - 1e-5)).sum() / 2e-5
    assert slope.abs() > 1e-3
    torch.testing.assert_close(slope, difference, rtol=1e-5, atol=0)


def test_at_a_whole_multiple_the_speed_has_the_slope_of_slower_signals() -> None:
    """Where two straight pieces meet there are two slopes; that of longer delays is taken."""
    lengths = np.full((NODES, NODES), 0.8)
    built = network(lengths, interpolate=True)
    simulator = Simulator(built, DT, scheme="euler", engine="plain", dtype=torch.float64)

    def end(speed: Tensor) -> Tensor:
        start = {"x": torch.from_numpy(START)[None]}
        return simulator.run(2.0, start=start, values={"speed": speed})["x"][0, -1].sum()

    speed = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(end(speed), speed)
    with torch.no_grad():
        slower = (end(speed) - end(speed - 1e-7)) / 1e-7
    torch.testing.assert_close(slope, slower, rtol=1e-4, atol=0)


def test_a_lag_of_a_node_is_a_delay_too() -> None:
    lags = np.array([0.3, 0.4, 0.45, 1.2])
    simulator = Simulator(
        Network(Remembering(tau=torch.from_numpy(lags)), nodes=NODES),
        DT,
        scheme="euler",
        engine="plain",
        dtype=torch.float64,
    )
    run = simulator.run(3.0, start={"x": torch.from_numpy(START)[None]})["x"][0].numpy()
    past = [START]
    for _ in range(30):
        back = lags / DT
        lower = np.floor(back + 1e-9).astype(int)
        near = [past[max(0, len(past) - 1 - b)][k] for k, b in enumerate(lower)]
        far = [past[max(0, len(past) - 2 - b)][k] for k, b in enumerate(lower)]
        share = back - lower
        past.append(past[-1] - DT * ((1 - share) * near + share * far))
    np.testing.assert_allclose(run, past[1:], rtol=1e-10, atol=1e-10)


def test_a_run_is_differentiable_in_a_lag() -> None:
    simulator = Simulator(
        Network(Remembering(), nodes=2), DT, scheme="euler", engine="plain", dtype=torch.float64
    )

    def end(tau: Tensor) -> Tensor:
        return simulator.run(2.0, start={"x": 1.0}, values={"node.tau": tau})["x"][:, -1]

    tau = torch.tensor(0.53, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(end, tau)


def test_a_negative_lag_and_one_per_member_are_refused() -> None:
    with pytest.raises(DelayError, match=r"node\.tau is negative"):
        Simulator(Network(Remembering(tau=-1.0)), DT).run(1.0)
    several = {"node.tau": torch.tensor([[1.0], [2.0]])}
    with pytest.raises(NetworkError, match=r"node\.tau: shape \(2, 1\)"):
        Simulator(Network(Remembering()), DT).run(1.0, values=several)


def test_a_speed_per_member_is_refused() -> None:
    several = {"speed": torch.tensor([[1.0], [2.0]])}
    with pytest.raises(NetworkError, match=r"speed: shape .*one number, the same for all"):
        Simulator(network(np.ones((NODES, NODES))), DT).run(1.0, values=several)


@pytest.mark.parametrize("speed", [0.0, -2.0])
def test_a_speed_that_is_not_above_0_is_refused(speed: float) -> None:
    with pytest.raises(DelayError, match="must be more than 0"):
        network(np.ones((NODES, NODES)), speed=speed)
    with pytest.raises(DelayError, match="must be more than 0"):
        Simulator(network(np.ones((NODES, NODES))), DT).run(1.0, values={"speed": speed})


def test_a_speed_is_fitted_with_interpolation_only() -> None:
    with pytest.raises(NetworkError, match="interpolate=True"):
        network(np.ones((NODES, NODES)), speed=Param(1.0))
    network(np.ones((NODES, NODES)), speed=Param(1.0, fit=False))


def test_a_step_too_large_for_a_delay_is_told_with_the_connection_and_the_place() -> None:
    lengths = np.full((NODES, NODES), 1.0)
    lengths[2, 1] = 0.02
    with pytest.warns(DelayWarning, match=r"1 delays.*'node 1' to 'node 2' takes 0\.02") as caught:
        Simulator(network(lengths), DT).run(1.0)
    assert [each.filename for each in caught] == [__file__]


def test_a_delay_of_no_connection_is_not_warned_of() -> None:
    lengths = np.full((NODES, NODES), 1.0)
    np.fill_diagonal(lengths, 0.02)
    Simulator(network(lengths), DT).run(1.0)
