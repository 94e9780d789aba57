"""Connectomes with few connections: the same runs by sums over these alone."""

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from trainer.dynamics import COUPLINGS, Connectome, Network, Param, Simulator
from trainer.dynamics.nodes.linear import Linear
from trainer.dynamics.sparse import pays, sparse_product

NODES = 12
DRAWS = np.random.default_rng(2)
RING = np.roll(np.eye(NODES), 1, axis=1) * DRAWS.uniform(0.5, 1, NODES)
CONNECTOME = Connectome(
    scipy.sparse.csr_array(RING), lengths=DRAWS.uniform(1, 9, (NODES, NODES)), directed=True
)
START = {"x": torch.from_numpy(DRAWS.normal(size=(3, NODES)))}


def simulator(sparse: bool | None, coupling: str, speed: float | None = None, **more) -> Simulator:
    network = Network(
        Linear(gamma=-0.4),
        CONNECTOME,
        coupling=COUPLINGS.get(coupling)(),
        speed=speed,
        interpolate=True,
        sparse=sparse,
        **more,
    )
    return Simulator(network, 0.5, engine="plain", dtype=torch.float64)


@pytest.mark.parametrize("speed", [None, 3.0], ids=["at once", "delayed"])
@pytest.mark.parametrize("coupling", ["additive", "diffusive", "kuramoto", "laplacian"])
def test_a_sparse_run_is_the_dense_one(coupling: str, speed: float | None) -> None:
    dense = simulator(False, coupling, speed).run(10.0, start=START)["x"]
    sparse = simulator(True, coupling, speed).run(10.0, start=START)["x"]
    torch.testing.assert_close(sparse, dense, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("speed", [None, 3.0], ids=["at once", "delayed"])
def test_its_gradients_are_the_dense_ones(speed: float | None) -> None:
    names = ["node.gamma", "coupling.k"] + ([] if speed is None else ["speed"])

    def gradients(sparse: bool) -> tuple[Tensor, ...]:
        made = simulator(sparse, "diffusive", speed)
        values = made.network.values()
        given = [torch.tensor(float(values[n]), dtype=torch.float64) for n in names]
        for each in given:
            each.requires_grad_()
        run = made.run(10.0, start=START, values=dict(zip(names, given, strict=True)))
        return torch.autograd.grad(run["x"].square().sum(), given)

    for sparse, dense in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(sparse, dense, rtol=1e-10, atol=0)


@pytest.mark.parametrize("speed", [None, 3.0], ids=["at once", "delayed"])
def test_fitted_weights_get_a_gradient_where_they_are_0_too(speed: float | None) -> None:
    weights = Param(RING)
    made = simulator(True, "additive", speed, weights=weights)
    made.run(20.0, start=START)["x"].sum().backward()
    assert weights.raw.grad is not None
    others = ~torch.eye(len(RING), dtype=torch.bool)
    assert bool((weights.raw.grad[others] != 0).all())


def test_a_sparse_run_can_be_mapped_over_a_parameter() -> None:
    made = simulator(True, "diffusive")

    def end(rate: Tensor) -> Tensor:
        return made.run(3.0, start=START, values={"node.gamma": rate})["x"][:, -1]

    rates = torch.tensor([-0.1, -0.4], dtype=torch.float64)
    together = torch.func.vmap(end)(rates)
    for each, rate in zip(together, rates, strict=True):
        torch.testing.assert_close(each, end(rate))


def test_the_product_has_the_gradient_of_its_signal() -> None:
    product = sparse_product(torch.from_numpy(RING))
    signal = torch.randn(2, NODES, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(product(signal), signal @ torch.from_numpy(RING).mT)
    assert torch.autograd.gradcheck(product, signal)


def test_it_pays_for_many_nodes_with_few_connections() -> None:
    ring = torch.roll(torch.eye(600), 1, dims=1)
    assert pays(ring)
    assert not pays(torch.ones(600, 600))
    assert not pays(ring[:90, :90])
