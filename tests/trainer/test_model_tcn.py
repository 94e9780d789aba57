"""Causal convolutions: what a state sees, and that they are the convolutions they say."""

from __future__ import annotations

import pytest
import torch
from contexts import forecast_context, neural, randomize
from torch.nn.functional import conv1d, pad

from trainer.models import build_model
from trainer.models.tcn import CausalLayer, delayed


def build(context, **settings):
    torch.manual_seed(0)
    return build_model({"name": "tcn", "dropout": 0.0, **settings}, context)


def forward(module, x):
    with torch.no_grad():
        return module.eval()(x)


@pytest.mark.parametrize(("kernel", "levels", "seen"), [(2, 1, 2), (2, 2, 4), (3, 2, 7), (1, 4, 1)])
def test_the_last_state_sees_the_steps_that_the_levels_reach(kernel, levels, seen):
    context = forecast_context(2)
    module = randomize(build(context, kernel=kernel, levels=levels, base="last"), scale=0.2)
    x = neural(context, 2)
    answer = forward(module, x)[:, 10:]
    for step in range(9):
        changed = x.clone()
        changed[:, step] += 300.0
        same = torch.equal(forward(module, changed)[:, 10:], answer)
        assert same == (step < 10 - seen), step


def test_the_default_sees_all_ten_steps():
    context = forecast_context(2)
    module = randomize(build(context, base="last"), scale=0.2)
    x = neural(context, 2)
    changed = x.clone()
    changed[:, 0] += 300.0
    assert not torch.equal(forward(module, changed)[:, 10:], forward(module, x)[:, 10:])


@pytest.mark.parametrize("steps", [1, 6, 10, 17])
@pytest.mark.parametrize(("kernel", "levels"), [(1, 2), (2, 3), (3, 3), (4, 2)])
def test_the_last_state_is_that_of_dilated_causal_convolutions(kernel, levels, steps):
    torch.manual_seed(0)
    network = torch.nn.Sequential(*[CausalLayer(4, kernel, 0.0) for _ in range(levels)]).eval()
    x = torch.randn(2, 3, steps, 4)
    expected = x
    with torch.no_grad():
        for number, level in enumerate(network):
            # Columns of tap 0 (the newest) come first; conv1d has the oldest first.
            weight = level.layers[0].weight.unflatten(1, (kernel, 4)).flip(1).transpose(1, 2)
            normed = level.norm(expected).flatten(0, 1).transpose(1, 2)
            past = pad(normed, (2**number * (kernel - 1), 0))
            hidden = conv1d(past, weight, level.layers[0].bias, dilation=2**number)
            added = level.layers[1:](hidden.transpose(1, 2)).unflatten(0, (2, 3))
            expected = expected + added
        answer = network(x)[..., -1, :]
    torch.testing.assert_close(answer, expected[..., -1, :], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [0, 1, 9, 10])
def test_delayed_states_start_with_zeros(steps):
    x = torch.randn(2, 10, 3)
    moved = delayed(x, steps)
    assert torch.equal(moved[:, :steps], torch.zeros(2, steps, 3))
    assert torch.equal(moved[:, steps:], x[:, : 10 - steps])
