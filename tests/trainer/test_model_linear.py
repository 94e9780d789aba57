"""Ridge over lags against a direct least-squares solution, and how its penalties are chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from contexts import forecast_context, forecast_windows, neural

from trainer.models import build_model


def noise(context, length, seed=0):
    """A coupled, noisy, oscillating series (time, channel, feature) in raw units."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(length, context.channels, context.features))
    for t in range(2, length):
        mixed = 0.2 * np.roll(values[t - 1], 1, axis=0)
        values[t] += 1.2 * values[t - 1] - 0.7 * values[t - 2] + mixed
    return values * context.statistics.std + context.statistics.mean


@pytest.fixture
def parts():
    context = forecast_context(3, features=2)
    series = noise(context, 900)
    train = forecast_windows(context, series[:600], stride=2)
    return context, train, forecast_windows(context, series[600:], stride=2)


def ridge(x, y, penalty):
    """Augmented least squares, intercept not penalised: an independent way to the same weights."""
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    shrink = np.sqrt(penalty) * np.eye(x.shape[1])[:-1]
    rows = np.concatenate([x, shrink])
    target = np.concatenate([y, np.zeros((len(shrink), y.shape[1]))])
    return lambda q: (
        np.concatenate([q, np.ones((len(q), 1))], axis=1)
        @ np.linalg.lstsq(rows, target, rcond=None)[0]
    )


def normalised(context, windows):
    """Past and future, (window, channel * step) each, z-scored."""
    mean, std = context.statistics.mean[:, 0], context.statistics.std[:, 0]
    z = (windows.batch(slice(None)).targets["forecast"].astype(np.float64) - mean) / std
    z = z.transpose(0, 2, 1)
    return z[..., :10].reshape(len(z), -1), z[..., 10:].reshape(len(z), -1)


def answered(context, module, windows):
    """The module's forecast, (window, channel * step), z-scored."""
    mean, std = context.statistics.mean[:, 0], context.statistics.std[:, 0]
    answer = module(torch.from_numpy(windows.batch(slice(None)).inputs["neural"])).numpy()
    return ((answer[:, 10:] - mean) / std).transpose(0, 2, 1).reshape(len(answer), -1)


def test_equals_ar_then_ridge_on_what_it_leaves(parts):
    context, train, validation = parts
    settings = {"ar_penalty": 2.0, "penalty": 30.0, "ageing": 0.0, "damping": False}
    module = build_model({"name": "linear", **settings}, context)
    module.fit_closed_form(train, validation)

    mean, std = context.statistics.mean[:, 0], context.statistics.std[:, 0]
    z = (train.batch(slice(None)).targets["forecast"].astype(np.float64) - mean) / std
    z = z.transpose(0, 2, 1)  # (window, channel, time)
    past, future = z[..., :10], z[..., 10:]
    ar = ridge(past.reshape(-1, 10), future.reshape(-1, 10), 2.0)
    left = future - ar(past.reshape(-1, 10)).reshape(future.shape)
    rest = ridge(past.reshape(len(z), -1), left.reshape(len(z), -1), 30.0)
    expected = ar(past.reshape(-1, 10)).reshape(future.shape)
    expected = expected + rest(past.reshape(len(z), -1)).reshape(future.shape)
    expected = expected.transpose(0, 2, 1) * std + mean

    answer = module(torch.from_numpy(train.batch(slice(None)).inputs["neural"])).numpy()
    np.testing.assert_allclose(answer[:, 10:], expected, rtol=0, atol=1e-5 * np.abs(z).max() * 200)


def test_without_its_additions_it_is_plain_ridge(parts):
    """The vector auto-regression of the data card."""
    context, train, validation = parts
    settings = {"shared": False, "ageing": 0.0, "damping": False, "penalty": 30.0}
    module = build_model({"name": "linear", **settings}, context)
    module.fit_closed_form(train, validation)

    past, future = normalised(context, train)
    expected = ridge(past, future, 30.0)(past)
    np.testing.assert_allclose(answered(context, module, train), expected, rtol=0, atol=1e-4)


def test_a_penalty_that_grows_with_age_forgets_the_oldest_lags(parts):
    context, train, validation = parts
    shares = []
    for ageing in (0.0, 4.0):
        settings = {"shared": False, "penalty": 300.0, "ageing": ageing, "damping": False}
        module = build_model({"name": "linear", **settings}, context)
        module.fit_closed_form(train, validation)
        lags = module.weight.reshape(context.channels, 10, -1).square().sum((0, 2))
        shares.append(float(lags[:5].sum() / lags.sum()))
    assert shares[1] < 0.5 * shares[0]


def test_damping_keeps_little_of_what_is_noise():
    """Channels that do not know of each other: the shared AR is all there is to learn."""
    context = forecast_context(3, features=2)
    random = np.random.default_rng(2)
    walk = random.normal(size=(700, 3, 2))
    for t in range(1, len(walk)):
        walk[t] += 0.9 * walk[t - 1]
    walk = walk * context.statistics.std + context.statistics.mean
    train, validation = (forecast_windows(context, part) for part in (walk[:300], walk[300:]))
    module = build_model({"name": "linear", "penalty": 1.0}, context)
    module.fit_closed_form(train, validation)
    assert ((module.kept >= 0) & (module.kept <= 1)).all()
    assert module.kept.mean() < 0.7
    free = build_model({"name": "linear", "penalty": 1.0, "damping": False}, context)
    free.fit_closed_form(train, validation)
    errors = [
        np.mean((answered(context, fitted, validation) - normalised(context, validation)[1]) ** 2)
        for fitted in (module, free)
    ]
    assert errors[0] < errors[1]


def test_components_read_a_projection_of_the_channels(parts):
    """With one component, what a channel adds to the shared AR is one map of one series."""
    context, train, validation = parts
    settings = {"penalty": 30.0, "damping": False}
    plain = build_model({"name": "linear", **settings, "components": 3}, context)
    whole = build_model({"name": "linear", **settings}, context)
    one = build_model({"name": "linear", **settings, "components": 1}, context)
    for module in (plain, whole, one):
        module.fit_closed_form(train, validation)
    assert torch.equal(plain.weight, whole.weight)
    total = one._moments(train, torch.arange(context.channels))
    own = one._own(total, torch.arange(context.channels))[:-1].to(torch.float32)
    assert torch.linalg.matrix_rank(one.weight - own, tol=1e-4) <= 10
    assert torch.linalg.matrix_rank(whole.weight - own, tol=1e-4) > 10


def test_a_validation_part_that_is_not_like_train_is_left_out(parts):
    context, train, validation = parts
    drifted = replace(
        validation,
        series={"neural": tuple(array + 1e4 for array in validation.series["neural"])},
    )
    chosen = []
    for part in (validation, drifted, replace(drifted, starts=drifted.starts[::-1])):
        module = build_model({"name": "linear"}, context)
        module.fit_closed_form(train, part)
        chosen.append(module.kept)
    assert not torch.equal(chosen[0], chosen[1])
    assert torch.equal(chosen[1], chosen[2])


def test_a_refit_keeps_what_was_chosen(parts):
    context, train, validation = parts
    module = build_model({"name": "linear"}, context)
    module.fit_closed_form(train, validation)
    weight, chosen = module.weight.clone(), (module.penalties, module.kept)
    module.refit(train.take(np.arange(100)))
    assert not torch.equal(module.weight, weight)
    assert (module.penalties, module.kept) == chosen
    module.refit(train)
    assert torch.equal(module.weight, weight)


def test_beats_the_train_mean_and_persistence(parts):
    context, train, validation = parts
    batch = validation.batch(slice(None))
    x, y = torch.from_numpy(batch.inputs["neural"]), torch.from_numpy(batch.targets["forecast"])

    def error(module):
        return float((module(x) - y)[:, 10:].square().mean())

    linear = build_model({"name": "linear"}, context)
    mean_only = error(linear)
    linear.fit_closed_form(train, validation)
    assert error(linear) < 0.8 * mean_only
    assert error(linear) < 0.8 * error(build_model({"name": "persistence"}, context))


def test_fitting_is_deterministic_and_leaves_nothing_to_train(parts):
    context, train, validation = parts
    states = []
    for _ in range(2):
        module = build_model({"name": "linear"}, context)
        module.fit_closed_form(train, validation)
        assert not list(module.parameters())
        states.append(module.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_the_penalty_is_large_where_the_future_is_noise(parts):
    """White noise is forecast best by the mean: the choice must shrink the weights."""
    context, *_ = parts
    random = np.random.default_rng(1)
    white = random.normal(size=(900, 3, 2)) * context.statistics.std + context.statistics.mean
    train, validation = (forecast_windows(context, part) for part in (white[:500], white[500:]))
    chosen = build_model({"name": "linear"}, context)
    settings = {"penalty": 10.0, "ar_penalty": 0.1, "damping": False}
    loose = build_model({"name": "linear", **settings}, context)
    for module in (chosen, loose):
        module.fit_closed_form(train, validation)
    assert chosen.weight.norm() < 0.5 * loose.weight.norm()


def test_steps_to_forecast_are_not_looked_at_and_observed_steps_come_back():
    context = forecast_context(3)
    module = build_model({"name": "linear"}, context)
    module.weight.normal_(generator=torch.Generator().manual_seed(0))
    x = neural(context, 2)
    changed = x.clone()
    changed[:, 10:] = torch.nan
    assert torch.equal(module(x), module(changed))
    assert torch.equal(module(x)[:, :10], x[:, :10, :, 0])


@pytest.mark.slow
def test_fits_239_channels():
    context = forecast_context(239)
    train, validation = (
        forecast_windows(context, noise(context, length, seed), stride=20)
        for length, seed in ((4000, 0), (1000, 1))
    )
    module = build_model({"name": "linear"}, context)
    module.fit_closed_form(train, validation)
    assert torch.isfinite(module.weight).all()
