"""Couplings against their formulas, and the weights that they prepare."""

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.dynamics import (
    COUPLINGS,
    Additive,
    Coloured,
    Connectome,
    Coupling,
    Diffusive,
    HyperbolicTangent,
    JansenRitSigmoidal,
    KuramotoCoupling,
    Laplacian,
    Network,
    Param,
    ParameterError,
    Sigmoidal,
    Simulator,
)
from trainer.dynamics.nodes.linear import Linear

REGISTERED = {name: COUPLINGS.get(name) for name in COUPLINGS.names()}
NODES = 4
DRAWS = np.random.default_rng(7)
WEIGHTS = DRAWS.random((NODES, NODES)) * (1 - np.eye(NODES))
SOURCE = DRAWS.normal(size=NODES)
DEGREES = WEIGHTS.sum(axis=1)


def current(coupling: Coupling, weights: np.ndarray = WEIGHTS, source: np.ndarray = SOURCE):
    """The current into every node, without delays."""
    prepared, row_sums = coupling.prepare(torch.from_numpy(weights))
    own = torch.from_numpy(source)[None]
    sums = tuple(signal @ prepared.mT for signal in coupling.emit(own))
    return coupling.receive(sums, own, row_sums)[0].numpy()


def logistic(x):
    return 1 / (1 + np.exp(-x))


def kuramoto(alpha: float) -> np.ndarray:
    phases = SOURCE[None, :] - SOURCE[:, None] - alpha
    return (WEIGHTS * np.sin(phases)).sum(axis=1)


ROOT = np.diag(DEGREES**-0.5)
EXPECTED = {
    "additive": (Additive(k=2.0, b=0.3), 2 * WEIGHTS @ SOURCE + 0.3),
    "diffusive": (Diffusive(k=2.0), 2 * (WEIGHTS @ SOURCE - DEGREES * SOURCE)),
    "sigmoidal": (
        Sigmoidal(k=2.0, a=1.5, b=0.2, slope=3.0, midpoint=0.4),
        2 * logistic(3 * (1.5 * WEIGHTS @ SOURCE + 0.2 - 0.4)),
    ),
    "tanh": (HyperbolicTangent(k=2.0, scale=1.5), 2 * np.tanh(1.5 * WEIGHTS @ SOURCE)),
    "jansen_rit_sigmoidal": (
        JansenRitSigmoidal(k=2.0, cmin=0.1, cmax=0.7, midpoint=0.5, r=3.0),
        2 * WEIGHTS @ (0.1 + 0.6 / (1 + np.exp(3 * (0.5 - SOURCE)))),
    ),
    "laplacian": (Laplacian(k=2.0), 2 * (WEIGHTS - np.diag(DEGREES)) @ SOURCE),
    "laplacian of a random walk": (
        Laplacian(k=2.0, normalize="random_walk"),
        2 * (WEIGHTS / DEGREES[:, None] - np.eye(NODES)) @ SOURCE,
    ),
    "symmetric laplacian": (
        Laplacian(k=2.0, normalize="symmetric"),
        2 * (ROOT @ WEIGHTS @ ROOT - np.eye(NODES)) @ SOURCE,
    ),
    "kuramoto": (KuramotoCoupling(k=2.0, alpha=0.3), 2 / NODES * kuramoto(0.3)),
    "kuramoto, a sum": (KuramotoCoupling(k=2.0, divide_by_nodes=False), 2 * kuramoto(0.0)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_coupling_is_its_formula(name: str) -> None:
    coupling, expected = EXPECTED[name]
    np.testing.assert_allclose(current(coupling), expected, rtol=1e-12, atol=1e-14)


def test_every_registered_coupling_is_tested_and_trains_nothing() -> None:
    own = {kind for kind in REGISTERED.values() if kind.__module__.startswith("trainer.")}
    assert {type(coupling) for coupling, _ in EXPECTED.values()} == own
    for kind in REGISTERED.values():
        made = kind()
        network = Network(Linear(), Connectome(WEIGHTS + WEIGHTS.T), coupling=made)
        assert list(network.parameters()) == []
        assert network.fitted() == {}


def test_a_jansen_rit_sigmoid_is_half_way_at_its_midpoint() -> None:
    sent = JansenRitSigmoidal().emit(torch.full((1, 1), 6.0, dtype=torch.float64))[0]
    assert sent.item() == pytest.approx(0.0025)


@pytest.mark.parametrize("normalize", ["none", "random_walk", "symmetric"])
def test_a_laplacian_moves_no_constant(normalize: str) -> None:
    """The kernel of L: a constant, or for the symmetric form the roots of the degrees."""
    weights = WEIGHTS + WEIGHTS.T
    degrees = weights.sum(axis=1)
    source = degrees**0.5 if normalize == "symmetric" else np.full(NODES, 0.7)
    given = current(Laplacian(normalize=normalize), weights, source)
    np.testing.assert_allclose(given, 0, atol=1e-14)


@pytest.mark.parametrize("normalize", ["none", "random_walk", "symmetric"])
def test_a_node_without_connections_gets_no_current_and_finite_gradients(normalize: str) -> None:
    weights = torch.from_numpy(WEIGHTS.copy())
    weights[2], weights[:, 2] = 0, 0
    weights.requires_grad_()
    prepared, own = Laplacian(normalize=normalize).prepare(weights)
    (prepared.sum() + own.sum()).backward()
    assert weights.grad is not None
    assert bool(torch.isfinite(weights.grad).all())
    assert current(Laplacian(normalize=normalize), weights.detach().numpy())[2] == 0


@pytest.mark.parametrize("normalize", ["random_walk", "symmetric"])
def test_normalising_weights_that_add_up_to_nothing_is_refused(normalize: str) -> None:
    weights = torch.tensor([[0.0, 1.0, -1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    with pytest.raises(ParameterError, match="into node 0 add up to 0"):
        Laplacian(normalize=normalize).prepare(weights)


def test_an_unknown_normalisation_is_refused() -> None:
    with pytest.raises(ParameterError, match="'rw'; must be one of none, random_walk, symmetric"):
        Laplacian(normalize="rw")


@pytest.mark.parametrize("normalize", ["none", "random_walk", "symmetric"])
def test_prepared_weights_are_differentiable(normalize: str) -> None:
    weights = torch.from_numpy(WEIGHTS).requires_grad_()
    assert torch.autograd.gradcheck(Laplacian(normalize=normalize).prepare, weights)


@pytest.mark.parametrize("speed", [None, 2.0], ids=["at once", "delayed"])
@pytest.mark.parametrize("name", EXPECTED)
def test_gradients_of_a_run_are_those_of_finite_differences(name: str, speed: float | None) -> None:
    """Of every parameter of the coupling, of the weights and, delayed, of the speed."""
    coupling = EXPECTED[name][0]
    network = Network(
        Linear(gamma=-0.4),
        Connectome(
            WEIGHTS, lengths=np.abs(np.subtract.outer(range(4), range(4))) * 1.3, directed=True
        ),
        coupling=coupling,
        speed=speed,
        interpolate=True,
    )
    simulator = Simulator(network, 0.5, engine="plain", dtype=torch.float64)
    names = [f"coupling.{each}" for each in coupling.parameter_names()] + ["weights"]
    names += [] if speed is None else ["speed"]
    values = network.values()
    given = [torch.as_tensor(values[each], dtype=torch.float64).requires_grad_() for each in names]

    def run(*tensors: Tensor) -> Tensor:
        return simulator.run(
            2.5,
            values=dict(zip(names, tensors, strict=True)),
            start={"x": torch.from_numpy(SOURCE)[None]},
        )["x"][:, -1]

    assert torch.autograd.gradcheck(run, given, eps=1e-6, atol=1e-8, fast_mode=True)


@pytest.mark.slow
@pytest.mark.parametrize("speed", [None, 2.0], ids=["at once", "delayed"])
@pytest.mark.parametrize("name", ["diffusive", "symmetric laplacian", "tanh", "kuramoto"])
def test_the_compiled_loop_agrees(name: str, speed: float | None) -> None:
    """Trajectories and gradients, also of coloured noise."""
    lengths = np.abs(np.subtract.outer(range(4), range(4))) * 1.3
    network = Network(
        Linear(gamma=-0.4),
        Connectome(WEIGHTS, lengths=lengths, directed=True),
        coupling=EXPECTED[name][0],
        noise=Coloured(),
        speed=speed,
        interpolate=True,
    )
    names = ["coupling.k", "noise.0.sigma", "weights"] + ([] if speed is None else ["speed"])
    found = []
    for engine in ("plain", "compiled"):
        values = network.values()
        given = [torch.as_tensor(values[n], dtype=torch.float64).clone() for n in names]
        for each in given:
            each.requires_grad_()
        simulator = Simulator(network, 0.5, engine=engine, dtype=torch.float64)
        run = simulator.run(10.0, batch_size=2, values=dict(zip(names, given, strict=True)))["x"]
        found.append([run.detach(), *torch.autograd.grad(run.square().mean(), given)])
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() <= 1e-11 * other.abs().max()


def test_a_parameter_per_node_is_the_targets_or_in_emit_the_sources() -> None:
    gains = np.array([1.0, 2.0, 0.5, 3.0])
    received = current(HyperbolicTangent(k=gains))
    np.testing.assert_allclose(received, gains * np.tanh(2 * WEIGHTS @ SOURCE))
    heights = np.array([0.1, 0.2, 0.3, 0.4])
    sent = current(JansenRitSigmoidal(cmax=heights))
    rates = heights / (1 + np.exp(0.56 * (6 - SOURCE)))
    np.testing.assert_allclose(sent, WEIGHTS @ rates)


@pytest.mark.parametrize("speed", [None, 2.0])
def test_fitted_weights_connect_nodes_to_themselves_only_where_asked(speed: float | None) -> None:
    weights = Param(torch.from_numpy(WEIGHTS + 0.5 * np.eye(NODES)))

    def run(given: Param | None, *, own: bool) -> Tensor:
        connectome = Connectome(WEIGHTS, np.ones_like(WEIGHTS), directed=True, self_connections=own)
        network = Network(
            Linear(gamma=-0.4), connectome, coupling=Additive(), weights=given, speed=speed
        )
        simulator = Simulator(network, 0.5, engine="plain", dtype=torch.float64)
        return simulator.run(2.0, start={"x": torch.from_numpy(SOURCE)[None]})["x"]

    (without,) = torch.autograd.grad(run(weights, own=False).sum(), weights.raw)
    assert not without.diagonal().any()
    assert torch.equal(run(weights, own=False), run(None, own=False))
    (among,) = torch.autograd.grad(run(weights, own=True).sum(), weights.raw)
    assert among.diagonal().all()


def test_fitted_weights_are_prepared_anew_in_every_run() -> None:
    weights = Param(torch.from_numpy(WEIGHTS))
    network = Network(
        Linear(gamma=-0.4),
        Connectome(WEIGHTS, directed=True),
        coupling=Laplacian(normalize="random_walk"),
        weights=weights,
    )
    simulator = Simulator(network, 0.5, engine="plain", dtype=torch.float64)
    start = {"x": torch.from_numpy(SOURCE)[None]}
    before = simulator.run(2.0, start=start)["x"]
    weights.assign(3 * torch.from_numpy(WEIGHTS))
    torch.testing.assert_close(simulator.run(2.0, start=start)["x"], before)
