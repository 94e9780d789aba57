"""The balloon: steady states, rest, convergence, pieces, gradients, hostile activity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.dynamics import (
    OBSERVATIONS,
    BalloonWindkessel,
    Bold,
    Network,
    ObservationError,
    Param,
    Simulator,
    interval_of,
    kernel_build,
    observed,
    positive,
)
from trainer.dynamics.nodes import Hopf


def activity(samples: int, nodes: int = 2, batch: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, samples, nodes, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("z", "flow", "volume", "deoxy", "bold"),
    [
        (0.1, 1.243902, 1.072338, 0.895642, 0.0108640),
        (0.5, 2.219512, 1.290632, 0.648089, 0.0338749),
    ],
)
def test_constant_activity_leads_to_the_steady_state(
    z: float, flow: float, volume: float, deoxy: float, bold: float
) -> None:
    simulator = Simulator(Network(BalloonWindkessel(), nodes=1), 100.0, dtype=torch.float64)
    run = simulator.run(
        50_000.0, inputs={"z": z}, monitors=("s", "f", "v", "q", "bold"), sample_every=500
    )
    found = [float(run[name][0, -1, 0]) for name in ("s", "f", "v", "q", "bold")]
    np.testing.assert_allclose(found[:4], [0, flow, volume, deoxy], atol=2e-6)
    assert found[4] == pytest.approx(bold, abs=6e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scheme", ["euler", "heun", "rk4"])
def test_rest_is_exactly_zero(dtype: torch.dtype, scheme: str) -> None:
    values, interval, _ = Bold(period=100.0, scheme=scheme).observe(
        torch.zeros(2, 300, 3, dtype=dtype), 10.0
    )
    assert values.shape == (2, 30, 3)
    assert interval == 100.0
    assert bool((values == 0).all())


@pytest.mark.parametrize(("scheme", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_the_error_shrinks_with_the_order_of_the_scheme(scheme: str, order: int) -> None:
    held = activity(10)
    exact, _, _ = Bold(period=800.0, step=25.0, scheme="rk4").observe(held, 400.0)
    errors = []
    for step in (200.0, 100.0):
        values, _, _ = Bold(period=800.0, step=step, scheme=scheme).observe(held, 400.0)
        errors.append(float((values - exact).abs().max()))
    assert np.log2(errors[0] / errors[1]) > order - 0.3


def test_the_default_step_is_right_to_a_thousandth() -> None:
    held = activity(20)
    exact, _, _ = Bold(period=800.0, step=20.0, scheme="rk4").observe(held, 200.0)
    values, _, state = Bold(period=800.0).observe(held, 200.0)
    assert state.step == 20.0
    assert float((values - exact).abs().max()) < 1e-3 * float(exact.std())


@settings(max_examples=5)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.sampled_from([2.5, 10.0, 40.0]))
def test_pieces_equal_the_whole_bit_for_bit(cuts: list[int], interval: float) -> None:
    values = activity(160, nodes=3, batch=2).float()
    bold = Bold(period=40.0, step=20.0)
    whole, _, _ = bold.observe(values, interval)
    pieces, state, start = [], None, 0
    for count in [*cuts, 160 - sum(cuts)]:
        piece, _, state = bold.observe(values[:, start : start + count], interval, state)
        pieces.append(piece)
        start += count
    assert torch.equal(torch.cat(pieces, dim=1), whole)
    assert whole.shape[1] == int(160 * interval // 40)


def test_activity_is_averaged_over_a_step() -> None:
    fine = activity(400)
    coarse = fine.reshape(1, 40, 10, 2).mean(dim=2)
    bold = Bold(period=100.0, step=10.0)
    torch.testing.assert_close(bold.observe(fine, 1.0)[0], bold.observe(coarse, 10.0)[0])


def test_a_batch_equals_its_members() -> None:
    values = activity(50, batch=3)
    bold = Bold(period=50.0)
    whole, _, _ = bold.observe(values, 10.0)
    single = [bold.observe(values[k : k + 1], 10.0)[0] for k in range(3)]
    torch.testing.assert_close(whole, torch.cat(single), rtol=0, atol=0)


def test_gradients_of_activity_and_parameters() -> None:
    names = BalloonWindkessel.parameter_names()
    defaults = torch.tensor([float(getattr(BalloonWindkessel(), name)) for name in names]).double()

    def seen(values: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        balloon = BalloonWindkessel().having(dict(zip(names, parameters, strict=True)))
        bold = Bold(period=500.0, step=250.0, balloon=balloon, engine="plain")
        return bold.observe(values, 125.0)[0]

    values = activity(8, nodes=1).requires_grad_()
    assert torch.autograd.gradcheck(seen, (values, defaults.requires_grad_()))


def test_a_param_of_the_balloon_gets_a_gradient() -> None:
    balloon = BalloonWindkessel(tau=Param(0.98, transform=positive()))
    values, _, _ = Bold(period=500.0, balloon=balloon).observe(activity(200).float(), 10.0)
    values.square().sum().backward()
    assert [name for name, _ in Bold(balloon=balloon).named_parameters()] == ["balloon.tau.raw"]
    gradient = balloon.tau.raw.grad  # type: ignore[union-attr]
    assert gradient is not None
    assert float(gradient.abs()) > 0


@pytest.mark.slow
def test_the_compiled_loop_sees_the_same_with_the_same_gradients() -> None:
    if kernel_build.compiler() is None:
        pytest.skip("no C++ compiler")
    found = {}
    for engine in ("plain", "compiled"):
        balloon = BalloonWindkessel(tau=Param(0.98, transform=positive()))
        values = activity(1000).requires_grad_()
        bold, _, _ = Bold(period=500.0, balloon=balloon, engine=engine).observe(values, 20.0)
        bold.square().sum().backward()
        found[engine] = (bold.detach(), values.grad, balloon.tau.raw.grad)  # type: ignore[union-attr]
    for plain, compiled in zip(*found.values(), strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scheme", ["euler", "heun", "rk4"])
def test_flow_and_volume_stay_positive_under_strong_inhibition(scheme: str) -> None:
    values = torch.full((1, 400, 1), -20.0)
    values[:, 100:] = 0.0
    simulator = Simulator(Network(BalloonWindkessel(), nodes=1), 100.0, scheme=scheme)
    run = simulator.run(40_000.0, inputs={"z": values}, monitors=("f", "v", "bold"))
    assert float(run["f"].min()) == pytest.approx(0.01)
    assert float(run["v"].min()) >= 0.01 - 1e-9
    assert bool(torch.isfinite(run["bold"]).all())
    # It comes back.
    assert abs(float(run["bold"][0, -1, 0])) < 1e-2


def test_a_trajectory_tells_its_interval() -> None:
    simulator = Simulator(Network(BalloonWindkessel(), nodes=1), 0.1)
    run = simulator.run(30.0, transient=3.0, sample_every=7, inputs={"z": 1.0})
    assert interval_of(run) == 0.7
    with pytest.raises(ObservationError, match="1 samples has no interval"):
        interval_of(simulator.run(0.1))


def test_bold_of_a_run_in_pieces_equals_bold_of_the_whole() -> None:
    simulator = Simulator(Network(Hopf(), nodes=2), 0.3, engine="plain")
    bold = Bold(period=12.0, step=3.0)
    arguments = {"start": {"x": 0.4}, "sample_every": 2, "monitors": ("x",)}
    whole, interval, _ = observed(bold, simulator.run(90.0, **arguments), "x")
    pieces, state = [], None
    for piece in simulator.stream(90.0, 21.0, **arguments):
        seen, _, state = observed(bold, piece, "x", state)
        pieces.append(seen)
    assert interval == 12.0
    assert whole.shape == (1, 7, 2)
    assert torch.equal(torch.cat(pieces, dim=1), whole)


@pytest.mark.slow
def test_bold_under_vmap_and_functional_gradients_equals_a_loop() -> None:
    values = activity(4, batch=2)

    def loudness(one: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        balloon = BalloonWindkessel().having({"tau": tau})
        return (
            Bold(period=400.0, step=200.0, scheme="euler", balloon=balloon)
            .observe(one[None], 100.0)[0]
            .sum()
        )

    taus = torch.tensor([0.8, 1.2], dtype=torch.float64)
    gradient = torch.func.grad(loudness, argnums=(0, 1))
    mapped = torch.func.vmap(gradient)(values, taus)
    for row in range(2):
        for found, single in zip(mapped, gradient(values[row], taus[row]), strict=True):
            torch.testing.assert_close(found[row], single)


@pytest.mark.parametrize(
    ("settings_", "values", "interval", "problem"),
    [
        ({}, torch.zeros(10, 2), 10.0, r"\(batch, time, node\)"),
        ({}, torch.zeros(1, 10, 2, dtype=torch.int64), 10.0, "floating-point"),
        ({}, torch.zeros(1, 10, 2), 0.0, "interval is 0"),
        ({}, torch.zeros(1, 10, 2), 7.0, "720 ms is no multiple of the interval, 7 ms"),
        ({"step": 7.0}, torch.zeros(1, 10, 2), 10.0, "step 7 ms must divide the period"),
    ],
)
def test_what_does_not_fit_is_refused(
    settings_: dict, values: torch.Tensor, interval: float, problem: str
) -> None:
    with pytest.raises(ObservationError, match=problem):
        Bold(**settings_).observe(values, interval)


def test_a_piece_of_another_shape_or_interval_is_refused() -> None:
    bold = Bold(period=40.0)
    _, _, state = bold.observe(torch.zeros(1, 3, 2), 10.0)
    with pytest.raises(ObservationError, match="the pieces before had 10 ms"):
        bold.observe(torch.zeros(1, 3, 2), 5.0, state)
    with pytest.raises(ObservationError, match="a batch of 1 and 2 nodes"):
        bold.observe(torch.zeros(2, 3, 2), 10.0, state)
    with pytest.raises(ObservationError, match="period is -1"):
        Bold(period=-1.0)


def test_it_is_built_by_name() -> None:
    bold = OBSERVATIONS.build({"name": "bold", "period": 2000.0, "balloon": {"tau": 1.2}})
    assert isinstance(bold, Bold)
    assert bold.period == 2000.0
    assert bold.balloon.values()["tau"] == 1.2
    # What a configuration builds leaves the class as it was: Params still are.
    assert isinstance(BalloonWindkessel(tau=Param(1.0)).tau, Param)
    with pytest.raises(ObservationError, match="balloon is 3"):
        Bold(balloon=3)
