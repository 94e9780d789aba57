"""One auto-regression for every channel, against a direct least-squares solution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contexts import forecast_context, forecast_windows, neural

from trainer.models import build_model


@pytest.fixture
def parts():
    context = forecast_context(3, features=2)
    values = np.random.default_rng(0).normal(size=(500, 3, 2))
    for t in range(2, len(values)):
        values[t] += 1.2 * values[t - 1] - 0.7 * values[t - 2]
    series = values * context.statistics.std + context.statistics.mean
    return context, forecast_windows(context, series[:300]), forecast_windows(context, series[300:])


def test_equals_least_squares_over_all_channels(parts):
    context, train, validation = parts
    module = build_model({"name": "ar", "penalty": 4.0}, context)
    module.fit_closed_form(train, validation)

    mean, std = context.statistics.mean[:, 0], context.statistics.std[:, 0]
    z = (train.batch(slice(None)).targets["forecast"].astype(np.float64) - mean) / std
    z = z.transpose(0, 2, 1).reshape(-1, 20)
    x, change = np.c_[z[:, :10], np.ones(len(z))], z[:, 10:] - z[:, 9:10]
    rows = np.concatenate([x, 2.0 * np.eye(11)[:10]])
    target = np.concatenate([change, np.zeros((10, 10))])
    expected = np.linalg.lstsq(rows, target, rcond=None)[0]
    np.testing.assert_allclose(module.weight.numpy(), expected[:10], rtol=0, atol=1e-5)
    np.testing.assert_allclose(module.bias.numpy(), expected[10], rtol=0, atol=1e-5)


def test_the_validation_part_is_not_looked_at(parts):
    context, train, validation = parts
    states = []
    for part in (validation, train):
        module = build_model({"name": "ar"}, context)
        module.fit_closed_form(train, part)
        states.append(module.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_pooled_it_takes_any_number_of_channels(parts):
    context, train, validation = parts
    module = build_model({"name": "ar", "statistics": "pooled"}, context)
    module.fit_closed_form(train, validation)
    assert module.dynamic_channel
    x = neural(context, 2)
    torch.testing.assert_close(module(x)[..., :2], module(x[:, :, :2]))


def test_unfitted_it_repeats_the_last_value_and_looks_at_no_step_to_forecast():
    context = forecast_context(3)
    module = build_model({"name": "ar"}, context)
    x = neural(context, 2)
    changed = x.clone()
    changed[:, 10:] = torch.nan
    assert torch.equal(module(x), module(changed))
    torch.testing.assert_close(module(x)[:, 10:], x[:, 9:10, :, 0].expand(-1, 10, -1))
