"""Attention across channels: tokens without a name are exchangeable, and it learns from others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contexts import forecast_context, neural, randomize

from trainer.models import build_model


def build(context, **settings):
    torch.manual_seed(0)
    return build_model({"name": "itransformer", "dropout": 0.0, **settings}, context)


def forward(module, x):
    with torch.no_grad():
        return module.eval()(x)


def test_its_size_is_that_of_the_small_network_on_61_channels():
    module = build(forecast_context(61))
    assert sum(p.numel() for p in module.parameters()) == pytest.approx(72_000, rel=0.01)
    assert not module.dynamic_channel


@pytest.mark.parametrize(("embedding", "exchangeable"), [("none", True), ("index", False)])
def test_channels_without_an_embedding_are_exchangeable(embedding, exchangeable):
    context = forecast_context(5)
    module = build(context, base="last", statistics="pooled", channel_embedding=embedding)
    randomize(module, scale=0.2)
    x, order = neural(context, 3), torch.tensor([2, 0, 4, 1, 3])
    moved, answer = forward(module, x[:, :, order]), forward(module, x)[..., order]
    assert torch.allclose(moved, answer, rtol=1e-4, atol=1e-2) == exchangeable


def test_without_blocks_channels_do_not_hear_of_each_other():
    context = forecast_context(4)
    module = randomize(build(context, base="last", channel_blocks=0))
    x = neural(context, 2)
    changed = x.clone()
    changed[:, :10, 0] += 100.0
    assert torch.equal(forward(module, changed)[..., 1:], forward(module, x)[..., 1:])


def test_it_learns_what_only_another_channel_tells():
    """The second channel repeats what the first did: training must find it."""
    context = forecast_context(2)
    context.statistics.mean[:], context.statistics.std[:] = 0.0, 1.0
    values = np.random.default_rng(0).normal(size=(300, 20, 2, 1)).astype(np.float32)
    values[:, 10:, 1] = values[:, :10, 0]
    x = torch.from_numpy(values)
    module = build(context, base="none", width=32)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(80):
        loss = (module(x)[:, 10:, 1] - x[:, 10:, 1, 0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
