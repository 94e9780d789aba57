"""Parameters: transforms and their constraints, and what is fitted."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import softplus

from trainer.dynamics import (
    Connectome,
    Diffusive,
    Gaussian,
    Network,
    NetworkError,
    Param,
    ParameterError,
    bounded,
    identity,
    positive,
    simplex,
    symmetric,
)
from trainer.dynamics.nodes.hopf import Hopf
from trainer.dynamics.parameters import Transform

FLOATS = st.floats(-50, 50, allow_subnormal=False)
CONNECTOME = Connectome(1.0 - np.eye(3))


def double(values: object) -> np.ndarray:
    return np.array(values, np.float64)


@given(st.lists(FLOATS, min_size=1, max_size=5))
def test_identity_keeps_any_number(values: list[float]) -> None:
    assert Param(double(values), transform=identity()).value().tolist() == values


@given(st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=5), st.floats(-3, 3))
def test_positive_gives_back_what_it_was_given(above: list[float], low: float) -> None:
    values = double(above) + low
    kept = Param(values, transform=positive(low)).value().detach().numpy()
    np.testing.assert_allclose(kept - low, values - low, rtol=1e-6, atol=1e-12)


@given(st.floats(1e-6, 1 - 1e-6), st.floats(-5, 5), st.floats(0.1, 100))
def test_bounded_gives_back_what_it_was_given(share: float, low: float, width: float) -> None:
    value = low + share * width
    kept = Param(double(value), transform=bounded(low, low + width)).value().item()
    assert kept == pytest.approx(value, abs=1e-9 * width)


@pytest.mark.parametrize("end", [-1000.0, 1.0])
def test_bounded_can_leave_the_neighbourhood_of_either_end(end: float) -> None:
    """In float32, as fits run: the last number before an end comes back, with a gradient."""
    value = np.nextafter(np.float32(end), np.float32(0))
    param = Param(np.array(value), transform=bounded(-1000, 1))
    param.value().backward()
    assert param.value().item() == value
    assert 0 < param.raw.grad.item() < 1e-3


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6))
def test_simplex_gives_back_what_it_was_given(parts: list[float]) -> None:
    shares = double(parts) / sum(parts)
    kept = Param(shares, transform=simplex()).value().detach().numpy()
    np.testing.assert_allclose(kept, shares, rtol=1e-9)


NEGATIVE = Transform(
    "negative", lambda raw: -softplus(raw), lambda value: torch.log(torch.expm1(-value)), high=0.0
)
TRANSFORMS = [positive(), positive(2.0), bounded(-1, 3), simplex(), symmetric()]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda each: f"{each.name} {each.low}")
def test_any_step_of_an_optimiser_keeps_the_constraint(transform) -> None:
    start = {"simplex": np.full((3, 3), 1 / 3), "symmetric": np.eye(3)}
    param = Param(double(start.get(transform.name, np.full((3, 3), 2.5))), transform=transform)
    draws = np.random.default_rng(0)
    for _ in range(20):
        with torch.no_grad():
            param.raw += torch.from_numpy(draws.normal(size=(3, 3)))
        value = param.value().detach()
        if transform.name != "symmetric":
            assert bool(((value > transform.low) & (value < transform.high)).all())
        if transform.name == "simplex":
            torch.testing.assert_close(value.sum(dim=-1), torch.ones(3, dtype=torch.float64))
        if transform.name == "symmetric":
            assert value.equal(value.mT)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda each: f"{each.name} {each.low}")
def test_transforms_are_differentiable(transform) -> None:
    raw = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 3))).requires_grad_()
    assert torch.autograd.gradcheck(transform.forward, raw)


@pytest.mark.parametrize(
    ("value", "transform", "message"),
    [
        (0.0, positive(), r"value 0 is outside \(0.0, inf\), the range of positive"),
        ([1.0, -2.0], positive(), r"value -2 at \[1\] is outside"),
        (3.0, bounded(0, 3), r"value 3 is outside \(0, 3\), the range of bounded"),
        (1.0, NEGATIVE, r"value 1 is outside \(-inf, 0.0\), the range of negative"),
        (float("nan"), identity(), "nan is no finite number"),
        ("many", identity(), "'many'; must be a number or an array"),
        ([[0.0, 1.0], [2.0, 0.0]], symmetric(), "starts from a symmetric matrix"),
        (3.0, symmetric(), "starts from a symmetric matrix"),
        ([1.0, 2.0], symmetric(), "starts from a symmetric matrix"),
        ([[1.0, 1.0, 1.0]], symmetric(), "starts from a symmetric matrix"),
    ],
)
def test_a_value_outside_its_range_is_refused(value, transform, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Param(value, transform=transform)


@pytest.mark.parametrize("ends", [(1, 1), (2, 1), (0, float("inf"))])
def test_bounds_are_finite_and_in_order(ends: tuple[float, float]) -> None:
    with pytest.raises(ParameterError, match="needs finite bounds, the lower one first"):
        bounded(*ends)


def test_a_simplex_starts_from_shares_that_add_up_to_1() -> None:
    with pytest.raises(ParameterError, match=r"add up to 1\.5"):
        Param([0.5, 0.5, 0.5], transform=simplex())


def test_assigning_takes_the_constrained_value() -> None:
    param = Param(2.0, transform=positive())
    param.assign(3.5)
    assert param.value().item() == pytest.approx(3.5)
    with pytest.raises(ParameterError, match="outside"):
        param.assign(-1.0)
    with pytest.raises(ParameterError, match=r"shape \(2,\); this parameter has \(\)"):
        param.assign([1.0, 2.0])


def test_only_params_are_parameters() -> None:
    node = Hopf(a=Param(0.3, fit=False), w=torch.tensor([0.1, 0.2, 0.3]), beta=2.0)
    network = Network(node, CONNECTOME, coupling=Diffusive(k=Param(1.0)), noise=Gaussian())
    assert [name for name, _ in network.named_parameters()] == ["node.a.raw", "coupling.k.raw"]
    assert [p.requires_grad for p in network.parameters()] == [False, True]
    assert set(network.params()) == {"node.a", "coupling.k"}
    assert set(network.fitted()) == {"coupling.k"}
    assert set(network.values()) == {
        "node.a", "node.w", "node.beta", "coupling.k", "noise.0.sigma", "weights"
    }  # fmt: skip
    assert "node.w" in network.state_dict()


def test_a_torch_parameter_and_other_things_are_refused_by_name() -> None:
    with pytest.raises(ParameterError, match=r"Hopf\.a: wrap it as Param"):
        Hopf(a=nn.Parameter(torch.tensor(1.0)))
    with pytest.raises(ParameterError, match=r"Hopf\.a is inf; must be a finite"):
        Hopf(a=float("inf"))
    with pytest.raises(ParameterError, match=r"Hopf\.w: nan at \[1\] is no finite"):
        Hopf(w=torch.tensor([0.0, float("nan")]))


def test_a_copy_at_other_values_leaves_the_original() -> None:
    node = Hopf(a=Param(0.3))
    other = node.having({"a": 2.0, "w": torch.ones(3)})
    assert other.values()["a"] == 2.0
    assert node.values()["a"].item() == pytest.approx(0.3)
    assert node.values()["w"] == 0.2
    with pytest.raises(ParameterError, match="Hopf has no parameter b; it has a, w, beta"):
        node.having({"b": 1.0})


NETWORKS = {
    "coupling: needs a connectome": lambda: Network(Hopf(), coupling=Diffusive()),
    "nodes is 4; the connectome has 3": lambda: Network(Hopf(), CONNECTOME, nodes=4),
    "coupling.source: Hopf has no 'z'; one of x, y": lambda: Network(
        Hopf(), CONNECTOME, coupling=Diffusive(source="z")
    ),
    "coupling.target: Hopf has no input 'z'; one of x, y": lambda: Network(
        Hopf(), CONNECTOME, coupling=Diffusive(target="z")
    ),
    "noise.1.target: Hopf has no state 'z'": lambda: Network(
        Hopf(), noise=[Gaussian(), Gaussian(target="z")]
    ),
    "speed: needs a connectome": lambda: Network(Hopf(), speed=1.0),
    "speed: connectome has no lengths": lambda: Network(Hopf(), CONNECTOME, speed=1.0),
    "weights: need a connectome": lambda: Network(Hopf(), weights=torch.ones(1, 1)),
    "weights: shape .2, 2.; must be .3, 3.": lambda: Network(
        Hopf(), CONNECTOME, weights=torch.ones(2, 2)
    ),
    "weights from 'node 1' to 'node 0' is nan": lambda: Network(
        Hopf(), CONNECTOME, weights=torch.tensor([[0, torch.nan, 0], [1, 0, 1], [1, 1, 0]])
    ),
    "node.a: shape .4,.; must be": lambda: Network(Hopf(a=torch.zeros(4)), CONNECTOME),
}


@pytest.mark.parametrize("message", NETWORKS)
def test_parts_that_do_not_fit_are_refused_by_name(message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        NETWORKS[message]()
