"""Convolutional classifiers: `eegnet`, `shallow_conv` and `ctnet`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from contexts import answered_windows, classify_context, rows_of

from trainer import averaging
from trainer.checkpoint import load_weights
from trainer.models import build_model

NAMES = ("eegnet", "shallow_conv", "ctnet")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("steps", "rate"), [(4, None), (50, 100.0), (896, 256.0), (7, 1000.0)])
def test_kernels_and_pools_fit_windows_of_any_length(name, steps, rate):
    context = dataclasses.replace(classify_context(2, 1, steps=steps, dim=0), rate=rate)
    module = build_model({"name": name}, context).eval()
    answer = module(*rows_of(context, 3).values())
    assert answer.shape == (3, 3)
    np.testing.assert_allclose(answer.detach().sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_few_steps_learn_the_train_windows(name):
    torch.manual_seed(0)
    context = classify_context(4, 1, dim=0)
    windows = answered_windows(context, 60)
    module = build_model({"name": name, "dropout": 0.0}, context)
    neural = torch.from_numpy(windows.batch(slice(None)).inputs["neural"])
    targets = torch.from_numpy(windows.targets)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        loss = torch.nn.functional.nll_loss(torch.log(module(neural) + 1e-9), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_state_is_real_numbers_that_averages_of_weights_can_take(name):
    state = build_model({"name": name}, classify_context()).state_dict()
    assert all(tensor.is_floating_point() for tensor in state.values())


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_a_checkpoint_go_back_in(name):
    context = classify_context(dim=0)
    saved = {k: v + 1 for k, v in build_model({"name": name}, context).state_dict().items()}
    module = build_model({"name": name}, context)
    with averaging.swapped(module, saved):
        assert all(torch.equal(v, saved[k]) for k, v in module.state_dict().items())
    assert not any(torch.equal(v, saved[k]) for k, v in module.state_dict().items())
    load_weights(module, saved)
    assert all(torch.equal(v, saved[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_windows_too_short_are_refused(name):
    with pytest.raises(ValueError, match="a window has 3 steps; this model takes at least 4"):
        build_model({"name": name}, classify_context(steps=3, dim=0))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"model\.heads: 5 does not divide .* 16"):
        build_model({"name": "ctnet", "heads": 5}, classify_context())
