"""The legacy default, against an independent float64 forward pass in NumPy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from contexts import forecast_context, neural

from trainer.data.windows import Statistics
from trainer.models import build_model

KINDS = {"random": 1e-5, "constant": 1e-5, "zero": 1e-5, "extreme": 5e-5}


def sigmoid(x):
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def reference(x, mean, std, weights, units):
    """The published baseline in float64: x (batch, time, channel) of feature 0."""
    low, high = mean - 4 * std, mean + 4 * std
    z = 2 * (x.astype(np.float64) - low) / (high - low) - 1
    w = {key: value.astype(np.float64) for key, value in weights.items()}
    state = np.zeros((len(x), w["encoder.weight_hh_l0"].shape[1]))
    outputs = []
    for t in range(x.shape[1]):
        inner = z[:, t] @ w["encoder.weight_ih_l0"].T + w["encoder.bias_ih_l0"]
        hidden = state @ w["encoder.weight_hh_l0"].T + w["encoder.bias_hh_l0"]
        (ir, iz, i_n), (hr, hz, hn) = np.split(inner, 3, axis=1), np.split(hidden, 3, axis=1)
        reset, update = sigmoid(ir + hr), sigmoid(iz + hz)
        state = (1 - update) * np.tanh(i_n + reset * hn) + update * state
        outputs.append(state @ w["output_layer.weight"].T + w["output_layer.bias"])
    y = np.stack(outputs, axis=1)
    return y if units == "normalized" else (y + 1) / 2 * (high - low) + low


def windows(kind, mean, std, features, masked):
    """Raw windows (batch, 20, channel, feature) float32."""
    random = np.random.default_rng(5)
    shape = (16, 20, len(mean), features)
    if kind == "zero":
        values = np.zeros(shape)
    elif kind == "constant":
        values = np.broadcast_to(random.normal(0, 1, (16, 1, 1, 1)) * std[:, None], shape).copy()
    elif kind == "extreme":
        size = 10.0 ** random.uniform(4, 6, shape)
        values = size * random.choice([-1, 1], shape)
    else:
        values = random.normal(size=shape) * std[:, None] + mean[:, None]
    values = values.astype(np.float32)
    if masked:
        values[:, 10:] = values[:, 9:10]
    return values


def check_parity(context, weights, kind, units, masked, bound):
    hidden = weights["encoder.weight_hh_l0"].shape[1]
    config = {"name": "gru", "output_units": units, "hidden_size": hidden}
    module = build_model(config, context)
    module.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    mean, std = context.statistics.mean[:, 0], context.statistics.std[:, 0]
    x = windows(kind, mean, std, context.features, masked)
    expected = reference(x[..., 0], mean, std, weights, units)
    with torch.no_grad():
        answer = module.eval()(torch.from_numpy(x)).numpy()
    assert answer.dtype == np.float32
    assert np.abs(answer - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("units", ["normalized", "raw"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("monkey", ["affi", "beignet"])
def test_parity_with_the_published_weights(shared_data, monkey, kind, units, masked):
    folder = shared_data / "hdr_legacy"
    state = torch.load(folder / f"model_{monkey}.pth", map_location="cpu", weights_only=True)
    published = np.load(folder / f"train_data_average_std_{monkey}.npz")
    statistics = Statistics(published["average"].reshape(-1, 9), published["std"].reshape(-1, 9))
    context = forecast_context(len(statistics.mean), features=9)
    context = dataclasses.replace(context, statistics=statistics)
    weights = {key: value.numpy() for key, value in state.items()}
    check_parity(context, weights, kind, units, masked, KINDS[kind])


@pytest.mark.parametrize("units", ["normalized", "raw"])
@pytest.mark.parametrize("kind", ["random", "constant", "zero"])
def test_parity_where_a_plain_float32_normalisation_would_fail(kind, units):
    """Large offsets, tiny deviations: |mean| / std up to 1e5."""
    context = forecast_context(7)
    std = np.array([1e-3, 1e-2, 0.1, 1.0, 10.0, 1e3, 1e-6])[:, None]
    mean = (
        std
        * np.array([1e5, -1e5, 3e4, 1e4, 0.0, -1e5, 1e5])[:, None]
        / (1.0 if kind == "random" else 1e4)
    )
    context = dataclasses.replace(context, statistics=Statistics(mean, std))
    torch.manual_seed(0)
    module = build_model({"name": "gru", "hidden_size": 16}, context)
    weights = {key: value.numpy().copy() for key, value in module.state_dict().items()}
    check_parity(context, weights, kind, units, True, KINDS[kind])


def test_the_names_and_shapes_are_the_published_ones():
    module = build_model({"name": "gru"}, forecast_context(89))
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    assert shapes == {
        "encoder.weight_ih_l0": (768, 89),
        "encoder.weight_hh_l0": (768, 256),
        "encoder.bias_ih_l0": (768,),
        "encoder.bias_hh_l0": (768,),
        "output_layer.weight": (89, 256),
        "output_layer.bias": (89,),
    }


def test_all_steps_are_read_and_only_feature_0():
    context = forecast_context(3, features=4)
    module = build_model({"name": "gru"}, context).eval()
    x = neural(context, 2)
    late, other = x.clone(), x.clone()
    late[:, 15, :, 0] += 100.0
    other[..., 1:] += 100.0
    with torch.no_grad():
        first = module(x)
        assert torch.equal(module(late)[:, :15], first[:, :15])
        assert not torch.equal(module(late)[:, 15], first[:, 15])
        assert torch.equal(module(other), first)


def test_to_raw_of_the_normalised_answer_is_the_raw_answer():
    context = forecast_context(3)
    modules = []
    for units in ("normalized", "raw"):
        torch.manual_seed(0)
        modules.append(build_model({"name": "gru", "output_units": units}, context).eval())
    x = neural(context, 2)
    with torch.no_grad():
        answers = [module.to_raw(module(x)) for module in modules]
        assert torch.equal(modules[1](x), answers[1])
    assert torch.equal(*answers)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0])
def test_impossible_statistics_are_refused(wrong):
    context = forecast_context(3)
    context.statistics.std[1, 0] = wrong
    with pytest.raises(ValueError, match="statistics must be finite"):
        build_model({"name": "gru"}, context)
