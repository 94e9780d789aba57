"""PatchFormer: what patches do, what it looks at, and where its training starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contexts import forecast_context, forecast_windows, neural, randomize
from torch.utils.flop_counter import FlopCounterMode

from trainer.models import build_model


def build(context, **settings):
    torch.manual_seed(0)
    return build_model({"name": "patchformer", "dropout": 0.0, **settings}, context)


def forward(module, x):
    with torch.no_grad():
        return module.eval()(x)


def flops(module, x):
    with FlopCounterMode(display=False) as counter:
        forward(module, x)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("length", "stride", "tokens"),
    [(2, 1, 9), (2, 2, 5), (3, 1, 8), (4, 1, 7), (4, 2, 4), (5, 5, 2), (10, 3, 1), (3, 4, 2)],
)
def test_patches_decide_tokens_compute_and_shapes(length, stride, tokens):
    context = forecast_context(3)
    module = build(context, patch_len=length, patch_stride=stride)
    x = neural(context, 2)
    seen = []
    hook = module.temporal.register_forward_hook(lambda m, a, out: seen.append(a[0].shape))
    assert forward(module, x).shape == (2, 20, 3)
    hook.remove()
    assert seen == [(2, 3, tokens, 64)]
    assert module.tokens == tokens
    assert module.position.shape == (tokens, 64)
    assert module.embed.weight.shape == (64, length)
    assert module.merge.weight.shape == (64, 64 * tokens)
    if tokens != 5:
        assert flops(module, x) != flops(build(context), x)


@pytest.mark.parametrize(("length", "stride"), [(2, 2), (3, 2), (3, 4), (4, 4), (10, 1), (7, 2)])
def test_the_last_patch_ends_at_the_last_observed_step_and_a_remainder_drops_the_oldest(
    length, stride
):
    context = forecast_context(1)
    module = build(context, patch_len=length, patch_stride=stride, base="last")
    steps = torch.arange(10.0).reshape(1, 1, 1, 10)
    patches = module._patches(steps)[0, 0]
    assert patches[-1].tolist() == list(range(10 - length, 10))
    assert len(patches) == 1 + (10 - length) // stride
    assert patches[0, 0] == (10 - length) % stride


@pytest.mark.parametrize("normalization", ["none", "mean", "revin", "robust"])
@pytest.mark.parametrize("base", ["none", "last", "ar", "linear"])
def test_only_observed_steps_are_looked_at(base, normalization):
    context = forecast_context(3, features=2)
    module = build(context, features="all", base=base, normalization=normalization)
    randomize(module)
    x = neural(context, 2)
    changed = x.clone()
    changed[:, 10:] = torch.nan
    assert torch.equal(forward(module, x), forward(module, changed))


@pytest.mark.parametrize("features", ["potential", "all"])
def test_features_are_a_choice(features):
    context = forecast_context(3, features=2)
    module = randomize(build(context, features=features))
    x = neural(context, 2)
    changed = x.clone()
    changed[..., 1] += 100.0
    same = torch.equal(forward(module, x), forward(module, changed))
    assert same == (features == "potential")


def test_potential_and_other_features_are_embedded_apart_and_added():
    context = forecast_context(3, features=4)
    module = build(context, features="all", patch_len=3)
    assert module.embed.weight.shape == (64, 3)
    assert module.bands.weight.shape == (64, 3 * 3)
    assert build(context, patch_len=3).bands is None
    seen = []
    module.temporal.register_forward_hook(lambda m, a, out: seen.append(a[0]))
    x = neural(context, 2)
    flat = x.clone()
    # Features at their train mean add nothing but the bias.
    flat[..., 1:] = torch.from_numpy(context.statistics.mean.mean(0)[1:].astype(np.float32))
    forward(module, x)
    forward(module, flat)
    potential = build(context, patch_len=3)
    potential.load_state_dict(module.state_dict(), strict=False)
    potential.temporal.register_forward_hook(lambda m, a, out: seen.append(a[0]))
    forward(potential, x)
    torch.testing.assert_close(seen[1], seen[2] + module.bands.bias, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(seen[0], seen[1])


def test_feed_forward_is_a_multiple_of_the_width():
    module = build(forecast_context(3), feed_forward=3)
    assert module.temporal[0].feed_forward[1].weight.shape == (3 * 64, 64)
    assert module.mixing[0].feed_forward[4].weight.shape == (64, 3 * 64)


def test_observed_steps_come_back_as_they_are():
    context = forecast_context(3)
    x = neural(context, 2)
    assert torch.equal(forward(randomize(build(context)), x)[:, :10], x[:, :10, :, 0])


@pytest.mark.parametrize("statistics", ["pooled", "channel"])
def test_training_starts_at_the_last_value(statistics):
    context = forecast_context(3)
    x = neural(context, 2)
    answer = forward(build(context, base="last", statistics=statistics), x)
    assert torch.equal(answer[:, 10:], x[:, 9:10, :, 0].expand(2, 10, 3))


def test_training_can_start_at_the_linear_model():
    """`base: linear` is, untrained, the model of that name; channels are then fixed."""
    context = forecast_context(3)
    series = np.cumsum(np.random.default_rng(0).normal(size=(600, 3, 1)), axis=0) * 30.0
    windows = forecast_windows(context, series)
    module = build(context, base="linear")
    module.fit_closed_form(windows, windows)
    linear = build_model({"name": "linear"}, context)
    linear.fit_closed_form(windows, windows)
    x = neural(context, 5)
    torch.testing.assert_close(forward(module, x), forward(linear, x), rtol=1e-6, atol=1e-6)
    assert not torch.equal(forward(module, x)[:, 10:], x[:, 9:10, :, 0].expand(5, 10, 3))
    assert not module.dynamic_channel
    assert build(context, base="ar").dynamic_channel


def test_training_starts_at_the_ridge():
    """With (almost) no penalty the floor is the least-squares AR shared by the channels."""
    context = forecast_context(3)
    series = np.cumsum(np.random.default_rng(0).normal(size=(600, 3, 1)), axis=0) * 30.0
    windows = forecast_windows(context, series)
    module = build(context, statistics="channel")
    module.base.penalty = 1e-6
    module.fit_closed_form(windows, windows)
    batch = windows.batch(slice(None))
    mean, std = context.statistics.mean[:, 0], context.statistics.std[:, 0]
    z = ((batch.targets["forecast"] - mean) / std).transpose(0, 2, 1).reshape(-1, 20)
    past = np.concatenate([z[:, :10], np.ones((len(z), 1))], axis=1)
    floor = past @ np.linalg.lstsq(past, z[:, 10:], rcond=None)[0]
    expected = floor.reshape(-1, 3, 10).transpose(0, 2, 1) * std + mean
    answer = forward(module, torch.from_numpy(batch.inputs["neural"])).numpy()[:, 10:]
    assert np.abs(answer - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_the_network_learns_what_the_floor_leaves():
    """A nonlinear future of the last value: training must go below the ridge."""
    context = forecast_context(2)
    random = np.random.default_rng(0)
    values = random.normal(size=(400, 20, 2, 1))
    values[:, 10:] = np.abs(values[:, 9:10]) + 0.1 * values[:, 10:]
    values = values * context.statistics.std + context.statistics.mean
    x = torch.from_numpy(values.astype(np.float32))
    y = x[..., 0].clone()
    module = build(context, base="last", statistics="channel")
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    scale = torch.from_numpy(context.statistics.std[:, 0].astype(np.float32))
    losses = []
    for _ in range(60):
        loss = ((module(x) - y) / scale)[:, 10:].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_pooled_statistics_take_any_number_of_channels_and_channel_ones_do_not():
    module = build(forecast_context(5))
    assert module.dynamic_channel
    assert forward(module, neural(forecast_context(8), 2)).shape == (2, 20, 8)
    fixed = build(forecast_context(5), statistics="channel")
    assert not fixed.dynamic_channel
    with pytest.raises(RuntimeError):
        forward(fixed, neural(forecast_context(8), 2))


def test_pooled_statistics_are_those_of_all_channels_together():
    context = forecast_context(4)
    module = build(context)
    mean, std = context.statistics.mean[:, 0], context.statistics.std[:, 0]
    second_moment = (std**2 + mean**2).mean()
    assert float(module.target.scale[0]) == pytest.approx(np.sqrt(second_moment - mean.mean() ** 2))


def test_channels_are_mixed_and_have_no_order():
    context = forecast_context(4)
    module = randomize(build(context))
    x = neural(context, 2)
    answer = forward(module, x)
    order = torch.tensor([2, 0, 3, 1])
    near = 1e-6 * float(answer.abs().max())
    torch.testing.assert_close(
        forward(module, x[:, :, order]), answer[..., order], rtol=0, atol=near
    )
    changed = x.clone()
    changed[:, 9, 0] += 100.0
    assert not torch.equal(forward(module, changed)[..., 1:], answer[..., 1:])
    alone = randomize(build(context, channel_blocks=0))
    answer = forward(alone, x)[..., 1:]
    torch.testing.assert_close(forward(alone, changed)[..., 1:], answer, rtol=0, atol=near)


def test_context_normalisation_ignores_level_and_scale_of_a_window():
    context = forecast_context(3)
    module = randomize(build(context, normalization="revin", base="last"), scale=0.2)
    x = neural(context, 2)
    answer = forward(module, x)
    torch.testing.assert_close(
        forward(module, 3 * x + 1000), 3 * answer + 1000, rtol=1e-3, atol=1e-2
    )
    constant = torch.full_like(x, 1e6)
    assert torch.isfinite(forward(module, constant)).all()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"patch_len": 11}, "patch_len: 11 is more than the 10 observed steps"),
        ({"heads": 3}, "heads: 3 does not divide model.width 64"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        build(forecast_context(3), **settings)


def test_other_window_shapes():
    context = forecast_context(2, steps=16, observed=12)
    windows = forecast_windows(context, np.random.default_rng(0).normal(size=(60, 2, 1)))
    module = build(context, patch_len=5, patch_stride=3)
    module.fit_closed_form(windows, windows)
    assert module.tokens == 3
    assert forward(module, neural(context, 2)).shape == (2, 16, 2)
