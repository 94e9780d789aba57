"""Hemodynamic responses and temporal averages: figures, pieces, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.dynamics import Param
from trainer.dynamics.hemodynamic_response import (
    RESPONSES,
    Gamma,
    HemodynamicResponse,
    Volterra,
)
from trainer.dynamics.observation import OBSERVATIONS, Chain, ObservationError
from trainer.dynamics.temporal_average import TemporalAverage


def activity(samples: int, nodes: int = 2, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, samples, nodes, generator=generator, dtype=torch.float64)


def kernel(name: str, step: float = 0.004) -> np.ndarray:
    response = RESPONSES[name]()
    seconds = (torch.arange(round(response.duration / step), dtype=torch.float64) + 0.5) * step
    return response.at(seconds[:, None])[:, 0].numpy()


def test_the_integral_of_the_volterra_kernel() -> None:
    assert kernel("volterra").sum() * 0.004 == pytest.approx(0.4 / 3, abs=2e-6)


@pytest.mark.parametrize(("name", "at"), [("gamma", 2.16), ("double_exponential", None)])
def test_scaled_kernels_reach_their_peak(name: str, at: float | None) -> None:
    values = kernel(name)
    assert values.max() == pytest.approx(0.1, rel=1e-4)
    if at is not None:
        assert (values.argmax() + 0.5) * 0.004 == pytest.approx(at, abs=0.004)


def test_the_mixture_of_gammas_has_its_integral_and_undershoot() -> None:
    values = kernel("mixture_of_gammas")
    # Each gamma density integrates to 1; the undershoot's tail is cut off at 20 s.
    assert values.sum() * 0.004 == pytest.approx(1 - 0.4, abs=0.03)
    assert values[: round(10 / 0.004)].max() > 0.15
    assert values.min() < -0.02


def test_activity_of_one_gives_the_integral_and_no_activity_gives_nothing() -> None:
    observation = HemodynamicResponse()
    values, interval, _ = observation.observe(torch.ones(1, 25_000, 1).double(), 1.0)
    assert interval == 1000.0
    assert values.shape == (1, 25, 1)
    assert float(values[0, -1, 0]) == pytest.approx(5.6 * 0.02 * 0.4 / 3, rel=1e-4)
    silent, _, _ = observation.observe(torch.zeros(1, 2000, 1), 1.0)
    assert bool((silent == 0).all())


def test_the_published_sum_of_the_volterra_kernel() -> None:
    observation = HemodynamicResponse(convention="sum")
    total = observation.kernel(torch.zeros((), dtype=torch.float64)).sum()
    assert len(observation.kernel(torch.zeros(()))) == 5000
    assert float(total) == pytest.approx(33.3, abs=0.05)
    values, _, _ = observation.observe(torch.ones(1, 25_000, 1).double(), 1.0)
    assert float(values[0, -1, 0]) == pytest.approx(5.6 * 0.02 * (float(total) - 1))


def test_the_convolution_against_a_direct_one() -> None:
    values = activity(600, nodes=3)
    observation = HemodynamicResponse(period=120.0, step=4.0, duration=1.0, response="gamma")
    found, _, _ = observation.observe(values, 2.0)
    means = values[0].reshape(300, 2, 3).mean(dim=1).numpy()
    response = observation.kernel(values).numpy()[:, 0]
    full = np.stack([np.convolve(means[:, k], response) for k in range(3)], axis=1)
    np.testing.assert_allclose(found[0], 0.112 * full[29:300:30], rtol=1e-10)


def test_the_step_does_not_matter_to_the_integral() -> None:
    values = activity(100)
    coarse, fine = (
        HemodynamicResponse(period=1000.0, step=step, duration=10.0).observe(values, 100.0)[0]
        for step in (100.0, 20.0)
    )
    assert float((coarse - fine).abs().max()) < 2e-3 * float(fine.abs().max())


@settings(max_examples=10)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.sampled_from([1.0, 2.0, 8.0]))
def test_pieces_equal_the_whole_bit_for_bit(cuts: list[int], interval: float) -> None:
    values = activity(200, nodes=3, batch=2).float()
    for observation in (
        HemodynamicResponse(period=16.0, step=4.0, duration=0.1),
        TemporalAverage(period=16.0),
    ):
        whole, every, _ = observation.observe(values, interval)
        pieces, state, start = [], None, 0
        for count in [*cuts, 200 - sum(cuts)]:
            piece, _, state = observation.observe(values[:, start : start + count], interval, state)
            pieces.append(piece)
            start += count
        assert torch.equal(torch.cat(pieces, dim=1), whole)
        assert every == 16.0
        assert whole.shape[1] == int(200 * interval // 16)


@pytest.mark.parametrize("name", list(RESPONSES))
def test_gradients_of_activity_and_of_every_parameter(name: str) -> None:
    made = RESPONSES[name]
    names = made.parameter_names()
    defaults = torch.tensor([float(getattr(made(), each)) for each in names]).double()

    def observed(values: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        response = made().having(dict(zip(names, parameters, strict=True)))
        observation = HemodynamicResponse(response=response, period=800.0, step=400.0, duration=8)
        return observation.observe(values, 200.0)[0]

    inputs = (activity(8).requires_grad_(), defaults.requires_grad_())
    assert torch.autograd.gradcheck(observed, inputs)


@pytest.mark.parametrize("convention", ["integral", "sum"])
def test_params_get_finite_gradients(convention: str) -> None:
    response = Gamma(tau=Param([1.0, 1.2]), n=Param(3.0))
    observation = HemodynamicResponse(
        response=response, period=400.0, step=40.0, convention=convention
    )
    values, _, _ = observation.observe(activity(100).float(), 20.0)
    values.square().sum().backward()
    for parameter in observation.parameters():
        assert parameter.grad is not None
        assert bool(torch.isfinite(parameter.grad).all())
        assert float(parameter.grad.abs().sum()) > 0


def test_the_average_under_vmap_equals_a_loop() -> None:
    values = activity(40, batch=3)

    def average(one: torch.Tensor) -> torch.Tensor:
        mean, _, _ = TemporalAverage(period=10.0).observe(one[None], 2.0)
        return HemodynamicResponse(period=20.0, step=10.0, duration=0.1).observe(mean, 10.0)[0][0]

    looped = torch.stack([average(one) for one in values])
    torch.testing.assert_close(torch.func.vmap(average)(values), looped)


def test_a_chain_passes_values_intervals_and_states_on() -> None:
    values = activity(100)
    chain = Chain(
        observations=[
            {"name": "temporal_average", "period": 10.0},
            {"name": "bold", "period": 40.0},
        ]
    )
    whole, interval, _ = chain.observe(values, 2.0)
    first, _, state = chain.observe(values[:, :33], 2.0)
    second, _, _ = chain.observe(values[:, 33:], 2.0, state)
    assert interval == 40.0
    assert torch.equal(torch.cat([first, second], dim=1), whole)
    assert chain.channels(("a", "b")) == ("a", "b")


@pytest.mark.parametrize(
    ("observation", "problem"),
    [
        ({"name": "temporal_average", "period": 3.0}, "period 3 ms is no multiple"),
        ({"name": "hemodynamic_response", "period": 10.0}, "step 4 ms must divide the period"),
        ({"name": "hemodynamic_response", "response": "volterre"}, "'volterre' is none of"),
        ({"name": "hemodynamic_response", "response": {"name": "gamma", "k": 1}}, "has no k"),
        ({"name": "chain", "observations": []}, "at least one"),
    ],
)
def test_what_does_not_fit_is_refused(observation: dict, problem: str) -> None:
    with pytest.raises(ObservationError, match=problem):
        OBSERVATIONS.build(observation).observe(torch.zeros(1, 10, 1), 2.0)


def test_volterra_is_the_balloon_for_small_activity() -> None:
    # h is the impulse response of s' = z − s/τs − (f − 1)/τf, f' = s, times the scale 1/3.
    response = kernel("volterra") * 3
    state, found = np.array([1.0, 0.0]), []
    system = np.array([[-1 / 0.8, -1 / 0.4], [1.0, 0.0]])
    values, vectors = np.linalg.eig(system)
    for place in range(0, 5000, 250):
        seconds = (place + 0.5) * 0.004
        moved = vectors @ np.diag(np.exp(values * seconds)) @ np.linalg.inv(vectors) @ state
        found.append(moved[1].real)
    np.testing.assert_allclose(response[::250], found, atol=1e-9)
    assert Volterra().units()["tau_f"] == "s²"
