"""The run loop: batches, pieces, samples, starts, gradients and everything that it refuses."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.dynamics import (
    Additive,
    Coloured,
    Connectome,
    Gaussian,
    Network,
    NetworkError,
    OrnsteinUhlenbeck,
    Param,
    SimulationError,
    Simulator,
    engine,
)
from trainer.dynamics.nodes.hopf import Hopf, StuartLandau
from trainer.dynamics.nodes.linear import Linear
from trainer.dynamics.simulator import SimulationWarning

DRAWS = np.random.default_rng(11)
HALF = DRAWS.random((5, 5))
WEIGHTS = (HALF + HALF.T) * (1 - np.eye(5)) / 10
CONNECTOME = Connectome(WEIGHTS, lengths=WEIGHTS * 100, labels=("a", "b", "c", "d", "e"))
NOISES = (
    Gaussian(sigma=0.05),
    OrnsteinUhlenbeck(target="y", sigma=0.1),
    Coloured(target="x", sigma=0.1),
)


def simulator(*, dt: float = 0.5, dtype: torch.dtype = torch.float32, **more: Any) -> Simulator:
    """Five oscillators that begin at random and are driven by three kinds of noise."""
    more.setdefault("noise", NOISES)
    network = Network(StuartLandau(), CONNECTOME, **more)
    return Simulator(network, dt, engine="plain", dtype=dtype)


def grown(**more: Any) -> Tensor:
    """A run of growing linear nodes without noise, one of x' = 0.1 x."""
    network = Network(Linear(gamma=0.1), nodes=2)
    return Simulator(network, 0.5, engine="plain").run(10.0, start={"x": 1.0}, **more)


SPEEDS = pytest.mark.parametrize("speed", [None, 7.0], ids=["at once", "delayed"])


@SPEEDS
def test_a_batch_is_its_members_runs(speed: float | None) -> None:
    """To the rounding of a matrix product, whose order of summation may follow the batch."""
    made = simulator(speed=speed)
    together = made.run(30.0, batch_size=3, seed=4)["x"]
    alone = [made.run(30.0, first_member=k, seed=4)["x"] for k in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)
    assert (together[0] - together[1]).abs().max() > 1e-2


def test_a_batch_without_coupling_is_its_members_runs_bit_for_bit() -> None:
    made = Simulator(Network(StuartLandau(), nodes=5, noise=NOISES), 0.5, engine="plain")
    together = made.run(30.0, batch_size=3)["x"]
    for member in range(3):
        assert together[member].equal(made.run(30.0, first_member=member)["x"][0])


@SPEEDS
@pytest.mark.parametrize("interpolate", [False, True])
@pytest.mark.parametrize("piece", [0.5, 3.5, 13.0])
def test_pieces_are_the_whole_run_bit_for_bit(
    speed: float | None, interpolate: bool, piece: float
) -> None:
    made = simulator(speed=speed, interpolate=interpolate)
    drive = torch.from_numpy(DRAWS.normal(size=(1, 60, 5)))
    given = dict(
        batch_size=2, seed=3, transient=5.0, sample_every=3, monitors=("y",), inputs={"x": drive}
    )
    whole = made.run(30.0, **given)
    pieces = list(made.stream(30.0, piece, **given))
    assert torch.cat([each["y"] for each in pieces], dim=1).equal(whole["y"])
    np.testing.assert_array_equal(np.concatenate([each.time for each in pieces]), whole.time)
    for one, other in zip(pieces[-1].state.carry, whole.state.carry, strict=True):
        assert one.equal(other)


def test_pieces_take_their_share_of_given_numbers() -> None:
    made = simulator()
    numbers = torch.from_numpy(DRAWS.normal(size=(2, 40, 3, 5)))
    whole = made.run(20.0, normals=numbers)["x"]
    pieces = [each["x"] for each in made.stream(20.0, 7.0, normals=numbers)]
    assert torch.cat(pieces, dim=1).equal(whole)
    assert made.run(20.0, batch_size=2)["x"].ne(whole).any()


def test_pieces_are_run_by_the_engine_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "REPLAY_STEPS", 50)
    made = Simulator(simulator().network, 0.5)
    ran: list[str] = []
    for name in ("engine_plain", "engine_replay"):
        run = getattr(engine, name).run
        monkeypatch.setattr(
            getattr(engine, name), "run", lambda *a, n=name, r=run: ran.append(n) or r(*a)
        )
    whole = made.run(30.0)["x"]
    pieces = [each["x"] for each in made.stream(30.0, 12.0)]
    assert set(ran) == {"engine_replay"}
    assert torch.cat(pieces, dim=1).equal(whole)


def test_a_run_goes_on_from_a_state() -> None:
    made = simulator(speed=7.0)
    whole = made.run(20.0, seed=6)
    first = made.run(8.0, seed=6)
    rest = made.run(12.0, state=first.state)
    assert torch.cat([first["x"], rest["x"]], dim=1).equal(whole["x"])
    assert rest.time[0] == pytest.approx(8.5)


@SPEEDS
@pytest.mark.parametrize(
    ("segment", "scheme"), [(1, "heun"), (7, "heun"), (1000, "heun"), (7, "exponential_euler")]
)
def test_gradients_from_stored_states_are_those_of_stored_steps(
    speed: float | None, segment: int, scheme: str
) -> None:
    made = simulator(speed=speed, interpolate=True, dtype=torch.float64)
    made.scheme = scheme
    weights = torch.from_numpy(WEIGHTS)

    def gradients(checkpoint_every: int) -> list[Tensor]:
        values = {
            "node.a": torch.tensor(0.25, dtype=torch.float64, requires_grad=True),
            "weights": weights.clone().requires_grad_(),
            "noise.1.tau": torch.tensor(10.0, dtype=torch.float64, requires_grad=True),
        }
        run = made.run(10.0, values=values, checkpoint_every=checkpoint_every)
        return list(torch.autograd.grad(run["x"].square().mean(), list(values.values())))

    for one, other in zip(gradients(segment), gradients(0), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)
        assert other.abs().max() > 0


@SPEEDS
def test_a_batch_of_parameters_is_its_runs(speed: float | None) -> None:
    made = simulator(speed=speed, dtype=torch.float64)
    rates, gains = torch.tensor([[0.1], [0.3], [0.2]]), torch.rand(3, 5)
    together = made.run(20.0, values={"node.a": rates, "coupling.k": gains})
    for member in range(3):
        values = {"node.a": rates[member].item(), "coupling.k": gains[member]}
        alone = made.run(20.0, first_member=member, values=values)
        torch.testing.assert_close(together["x"][member], alone["x"][0], rtol=1e-9, atol=1e-12)


@SPEEDS
def test_gradients_of_a_run_are_those_of_finite_differences(speed: float | None) -> None:
    made = simulator(speed=speed, interpolate=True, dtype=torch.float64, dt=0.5)
    names = ["node.a", "node.w", "coupling.k", "weights"]
    names += ["noise.0.sigma", "noise.1.sigma", "noise.1.tau", "noise.2.sigma"]
    values = made.network.values()
    given = [torch.as_tensor(values[each], dtype=torch.float64).requires_grad_() for each in names]

    def end(*tensors: Tensor) -> Tensor:
        run = made.run(3.0, seed=1, values=dict(zip(names, tensors, strict=True)))
        return torch.cat([run["x"][:, -1], run["y"][:, -1]])

    assert torch.autograd.gradcheck(end, given, fast_mode=True)


def test_a_run_is_differentiable_in_its_start_and_inputs() -> None:
    made = simulator(noise=(), dtype=torch.float64)
    start = torch.full((1, 5), 0.3, dtype=torch.float64, requires_grad=True)
    drive = torch.zeros(1, 6, 5, dtype=torch.float64, requires_grad=True)

    def end(start: Tensor, drive: Tensor) -> Tensor:
        run = made.run(3.0, start={"x": start, "y": 0.1}, inputs={"x": drive})
        return run["x"][:, -1]

    assert torch.autograd.gradcheck(end, (start, drive), fast_mode=True)


def test_kept_samples_are_those_after_the_transient() -> None:
    every = grown()
    assert every.time.tolist() == [0.5 * k for k in range(1, 21)]
    growth = 1 + 0.05 + 0.05**2 / 2  # of one step of Heun's scheme
    torch.testing.assert_close(every["x"][0, :, 1], growth ** torch.arange(1, 21))
    for transient, sample_every in [(0.0, 1), (0.0, 4), (2.5, 1), (2.5, 3), (9.5, 1)]:
        run = grown(transient=transient, sample_every=sample_every)
        skipped = round(transient / 0.5)
        kept = slice(skipped + sample_every - 1, None, sample_every)
        assert run.time.tolist() == every.time[kept].tolist()
        assert run["x"].equal(every["x"][:, kept])
        assert run.state.carry[0].equal(every["x"][:, -1])


def test_states_begin_at_numbers_arrays_or_draws_of_their_member() -> None:
    made = simulator(noise=(), dt=1e-6)
    given = torch.arange(10.0).reshape(2, 5)
    run = made.run(1e-6, start={"x": given, "y": torch.tensor([[1.0], [2.0]])})
    torch.testing.assert_close(run["x"][:, 0], given, atol=1e-3, rtol=0)
    torch.testing.assert_close(run["y"][:, 0, 0], torch.tensor([1.0, 2.0]), atol=1e-3, rtol=0)
    drawn = made.run(1e-6, batch_size=3, seed=1)["x"][:, 0]
    assert bool(((drawn > -1e-6) & (drawn < 0.05 + 1e-6)).all())
    assert len(drawn.unique()) == 15
    assert drawn[2:].equal(made.run(1e-6, first_member=2, seed=1)["x"][:, 0])
    assert not drawn.equal(made.run(1e-6, batch_size=3, seed=2)["x"][:, 0])


def test_inputs_are_numbers_or_one_row_per_step() -> None:
    made = Simulator(Network(Linear(gamma=0.0), nodes=2), 0.5, scheme="euler", engine="plain")
    rows = torch.tensor([[[1.0], [2.0], [4.0]]])
    run = made.run(1.5, inputs={"x": rows}, start={"x": 0.0})
    assert run["x"][0, :, 0].tolist() == [0.5, 1.5, 3.5]
    run = made.run(1.5, inputs={"x": 2.0}, start={"x": 0.0})
    assert run["x"][0, :, 0].tolist() == [1.0, 2.0, 3.0]


def test_progress_is_told_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    simulator(noise=NOISES[0]).run(300.0, on_steps=lambda done, total: told.append((done, total)))
    assert told[-1] == (600, 600)
    done = [each for each, _ in told]
    assert done == sorted(done)
    assert len(done) > 2


def test_a_trajectory_names_what_it_kept() -> None:
    run = simulator().run(1.0, monitors=("x",))
    assert run.labels == ("a", "b", "c", "d", "e")
    with pytest.raises(KeyError, match="no monitor 'y'; this run kept x"):
        run["y"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "duration": ({"duration": 0.1}, "duration is 0.1 ms; must be at least dt"),
    "duration, nan": ({"duration": float("nan")}, "duration is nan ms"),
    "transient": ({"transient": 5.0}, "transient is 5 ms of a run of 5 ms"),
    "transient below 0": ({"transient": -1.0}, "transient is -1 ms"),
    "sample_every": ({"sample_every": 0}, "sample_every is 0; must be a whole number"),
    "sample_every, a share": ({"sample_every": 1.5}, "sample_every is 1.5"),
    "seed": ({"seed": -1}, "seed -1"),
    "checkpoint_every": ({"checkpoint_every": -1}, "checkpoint_every is -1"),
    "monitors": ({"monitors": ("z",)}, "StuartLandau has no 'z'; one of x, y"),
    "inputs": ({"inputs": {"z": 1.0}}, "no input 'z'; one of x, y"),
    "inputs, shape": (
        {"inputs": {"x": torch.zeros(1, 3, 5)}},
        r"inputs\['x'\] is \(1, 3, 5\); must be .*10 steps or 1, 5 nodes",
    ),
    "inputs, nan": (
        {"inputs": {"x": torch.full((1, 1, 5), torch.nan)}},
        r"inputs\['x'\] is nan at \[0, 0, 0\]",
    ),
    "start": ({"start": {"z": 1.0}}, "has no state z; it has x, y"),
    "start, shape": ({"start": {"x": torch.zeros(3)}}, r"start\['x'\] is \(3,\); must broadcast"),
    "start, inf": ({"start": {"x": float("inf")}}, r"start\['x'\] is inf; must be a finite"),
    "values": ({"values": {"node.b": 1.0}}, "no parameter 'node.b'; one of node.a, node.w"),
    "values, nan": ({"values": {"node.a": float("nan")}}, r"values\['node.a'\] is nan"),
    "batch": (
        {"batch_size": 2, "values": {"node.a": torch.zeros(3, 1)}},
        "batch sizes do not agree: batch_size 2, node.a 3",
    ),
    "batch of none": ({"batch_size": 0}, "batch_size 0"),
    "normals": ({"normals": torch.zeros(1, 9, 3, 5)}, r"\(1, 9, 3, 5\); must be \(1, 10, 3, 5\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_argument_that_does_not_fit_is_refused_by_name(name: str) -> None:
    arguments, message = REFUSED[name]
    with pytest.raises(SimulationError, match=message):
        simulator().run(**({"duration": 5.0} | arguments))


def test_a_state_of_another_run_is_refused() -> None:
    state = simulator().run(5.0).state
    with pytest.raises(SimulationError, match=r"dt 0\.5 ms, not 0\.25"):
        simulator(dt=0.25).run(5.0, state=state)
    with pytest.raises(SimulationError, match="left by another network"):
        simulator(noise=()).run(5.0, state=state)
    with pytest.raises(SimulationError, match=r"torch\.float32, not torch\.float64"):
        simulator(dtype=torch.float64).run(5.0, state=state)
    delayed = simulator(speed=3.0).run(5.0).state
    with pytest.raises(SimulationError, match="1 signals travel, in this one 0"):
        simulator().run(5.0, state=delayed)
    with pytest.raises(SimulationError, match="batch_size 2, state 1"):
        simulator().run(5.0, batch_size=2, state=state)
    with pytest.raises(SimulationError, match="not both"):
        simulator().run(5.0, state=state, start={"x": 1.0})


@pytest.mark.parametrize("dt", [0.0, -1.0, float("nan"), float("inf")])
def test_a_step_size_is_a_number_above_0(dt: float) -> None:
    with pytest.raises(SimulationError, match="must be a number of ms above 0"):
        simulator(dt=dt)


def test_values_of_a_wrong_shape_are_refused_by_name() -> None:
    with pytest.raises(NetworkError, match=r"node\.a: shape \(3, 7\)"):
        simulator().run(5.0, values={"node.a": torch.zeros(3, 7)})
    with pytest.raises(NetworkError, match=r"weights: shape \(3, 3\); must be \(5, 5\)"):
        simulator().run(5.0, values={"weights": torch.zeros(3, 3)})
    with pytest.raises(NetworkError, match="scheme 'midpoint' is none of euler"):
        Simulator(Network(Hopf()), 1.0, scheme="midpoint").run(5.0)


def test_a_duration_between_steps_is_cut_and_told() -> None:
    with pytest.warns(
        SimulationWarning, match=r"duration 5\.3 ms is no multiple.*10 steps"
    ) as told:
        run = simulator().run(5.3)
    assert len(run.time) == 10
    assert told[0].filename == __file__


def test_an_explosion_is_told_with_state_node_member_and_time() -> None:
    rates = torch.full((2, 5), -0.1)
    rates[1, 3] = 900.0
    network = Network(Linear(gamma=rates), CONNECTOME, coupling=Additive(k=0.0))
    made = Simulator(network, 1.0, engine="plain")
    with pytest.raises(SimulationError, match=r"x of 'd' \(member 1\).* by 7 ms; a smaller dt"):
        made.run(50.0, start={"x": 1.0})


def test_plain_numbers_are_not_trained_and_params_are() -> None:
    plain = simulator().network
    assert list(plain.parameters()) == []
    fitted = Network(StuartLandau(a=Param(0.2)), CONNECTOME, weights=Param(WEIGHTS, fit=False))
    assert set(fitted.params()) == {"node.a", "weights"}
    assert set(fitted.fitted()) == {"node.a"}
    run = Simulator(fitted, 0.5, engine="plain").run(3.0)
    run["x"].sum().backward()
    assert fitted.node.a.raw.grad is not None
    assert fitted.weights.raw.grad is None


def test_a_stream_gives_its_pieces_one_by_one() -> None:
    pieces = simulator().stream(10.0, 5.0)
    assert isinstance(pieces, Iterator)
    assert next(pieces).time[-1] == pytest.approx(5.0)
