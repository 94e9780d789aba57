"""The graph over channels: where it starts, what a message holds, that it is learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from contexts import forecast_context, forecast_windows, neural, randomize
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.windows import Statistics
from trainer.models import build_model
from trainer.models.graph import correlations, neighbours


def build(context, **settings):
    torch.manual_seed(0)
    return build_model({"name": "graph", "dropout": 0.0, **settings}, context)


def forward(module, x):
    with torch.no_grad():
        return module.eval()(x)


def mixed(context, samples=300):
    random = np.random.default_rng(0)
    mixing = random.normal(size=(context.channels, context.channels))
    series = random.normal(size=(samples, context.channels)) @ mixing + 5.0
    return forecast_windows(context, series[..., None], stride=20)


def of(windows):
    statistics = windows.statistics()
    return correlations(windows, statistics.mean[:, 0], statistics.std[:, 0])


def test_correlations_are_those_of_all_windows_and_steps():
    windows = mixed(forecast_context(5))
    rows = windows.recorded(slice(None))["neural"].reshape(-1, 5).astype(np.float64)
    np.testing.assert_allclose(of(windows).numpy(), np.corrcoef(rows.T), atol=1e-9)


@given(channels=st.integers(1, 6), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_neighbours_leave_out_the_channel_itself_and_sum_to_one(channels, seed):
    random = np.random.default_rng(seed)
    edges = neighbours(torch.from_numpy(random.uniform(-1, 1, (channels, channels))))
    assert (edges.diagonal() == 0).all()
    sums = edges.abs().sum(dim=1)
    assert torch.allclose(sums, torch.full_like(sums, float(channels > 1)))


def test_every_graph_starts_at_the_correlations():
    context = forecast_context(5)
    windows = mixed(context)
    context = replace(context, statistics=windows.statistics())
    module = build(context, hops=2, base="last")
    module.fit_closed_form(windows, windows)
    expected = neighbours(of(windows)).float()
    for hop in module.hops:
        assert torch.equal(hop.adding, expected)
        assert torch.equal(hop.multiplying, expected)
        assert hop.adding.requires_grad


def test_a_constant_channel_has_no_neighbours():
    context = forecast_context(4)
    windows = mixed(context)
    statistics = windows.statistics()
    std = statistics.std.copy()
    std[2] = 0.0
    context = replace(context, statistics=Statistics(statistics.mean, std))
    module = build(context)
    module.fit_closed_form(windows, windows)
    assert (module.hops[0].adding[2] == 0).all()
    assert torch.isfinite(forward(module, neural(context, 2))).all()


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("products", [True, False])
def test_a_message_goes_along_the_edges_alone(products, adaptive):
    context = forecast_context(3)
    module = build(context, base="last", products=products, adaptive=adaptive)
    randomize(module, scale=0.2)
    assert hasattr(module.hops[0], "multiplying") == products
    with torch.no_grad():
        for name, parameter in module.hops[0].named_parameters(recurse=False):
            assert name in ("adding", "multiplying")
            parameter.zero_()
            parameter[1, 0] = 1.0  # from channel 0 to channel 1
    x = neural(context, 2)
    changed = x.clone()
    changed[:, 7, 0] += 300.0
    moved = (forward(module, changed) - forward(module, x))[:, 10:].abs().amax(dim=(0, 1))
    assert moved[1] > 0
    assert moved[2] == 0


def test_products_of_channels_are_learned():
    """The first channel's future is the product of both channels' last values."""
    context = forecast_context(2)
    context.statistics.mean[:], context.statistics.std[:] = 0.0, 1.0
    values = np.random.default_rng(0).normal(size=(400, 20, 2, 1)).astype(np.float32)
    values[:, 10:, 0] = (values[:, 9:10, 0] * values[:, 9:10, 1]).repeat(10, axis=1)
    x = torch.from_numpy(values)
    module = build(context, base="none", width=16, products=True)
    randomize(module, scale=0.2)
    optimizer = torch.optim.Adam(module.train().parameters(), lr=1e-2)
    losses = []
    for _ in range(100):
        loss = (module(x)[:, 10:, 0] - x[:, 10:, 0, 0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
