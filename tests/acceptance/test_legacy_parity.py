"""Imported legacy weights answer as the organisers' baseline does.

The reference is an independent forward pass in NumPy, float64 throughout, written from the
equations of the published baseline (a3d3-institute/HDRChallenge_y2): normalisation, GRU in
PyTorch's gate order (reset, update, new), linear readout on every step.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import artifact
from trainer.legacy import import_legacy

STEPS, OBSERVED, FEATURES, ROWS = 20, 10, 9, 12
BOUND, EXTREME_BOUND = 1e-5, 5e-5
KINDS = ("random", "constant", "zero", "masked", "drifting", "extreme", "spikes")


def sigmoid(x):
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def reference(neural, weights, average, std, output_units):
    """(batch, 20, channel, 9) -> (batch, 20, channel), all in float64."""
    w = {name: tensor.numpy().astype(np.float64) for name, tensor in weights.items()}
    mean, spread = average[0, ::FEATURES], std[0, ::FEATURES]
    low, high = mean - 4.0 * spread, mean + 4.0 * spread
    z = 2.0 * (neural[..., 0].astype(np.float64) - low) / (high - low) - 1.0
    hidden = np.zeros((len(neural), w["encoder.weight_hh_l0"].shape[1]))
    steps = []
    for step in range(STEPS):
        gates_in = z[:, step] @ w["encoder.weight_ih_l0"].T + w["encoder.bias_ih_l0"]
        gates_hidden = hidden @ w["encoder.weight_hh_l0"].T + w["encoder.bias_hh_l0"]
        reset_in, update_in, new_in = np.split(gates_in, 3, axis=1)
        reset_hidden, update_hidden, new_hidden = np.split(gates_hidden, 3, axis=1)
        reset = sigmoid(reset_in + reset_hidden)
        update = sigmoid(update_in + update_hidden)
        new = np.tanh(new_in + reset * new_hidden)
        hidden = (1.0 - update) * new + update * hidden
        steps.append(hidden @ w["output_layer.weight"].T + w["output_layer.bias"])
    output = np.stack(steps, axis=1)
    return output if output_units == "normalized" else output * 4.0 * spread + mean


def inputs(kind, average, std):
    """Float32 windows (ROWS, 20, channel, 9) of one kind, at the scale of the statistics."""
    generator = np.random.default_rng(KINDS.index(kind))
    mean, spread = average.reshape(-1, FEATURES), std.reshape(-1, FEATURES)
    noise = generator.standard_normal((ROWS, STEPS, *mean.shape))
    if kind == "constant":
        noise = np.broadcast_to(noise[:, :1], noise.shape)
    elif kind == "drifting":
        noise = np.cumsum(noise, axis=1)
    elif kind == "extreme":
        noise = noise * np.logspace(1, 4, ROWS)[:, None, None, None]
    elif kind == "spikes":
        noise = np.where(generator.random(noise.shape) < 0.02, 1e3 * np.sign(noise), noise)
    values = 0.0 * noise if kind == "zero" else mean + spread * noise
    if kind in ("masked", "extreme"):
        values[:, OBSERVED:] = values[:, OBSERVED - 1 : OBSERVED]
    return values.astype(np.float32)


def check(folder, weights, average, std, output_units):
    model = artifact.load(folder)
    assert model.manifest.model == "gru"
    assert model.golden.identical
    (spec,) = model.manifest.outputs
    assert spec.unit == output_units
    channels = average.size // FEATURES
    for kind in KINDS:
        neural = inputs(kind, average, std)
        answer = model.predict({"neural": neural})["forecast"]
        assert answer.shape == (ROWS, STEPS, channels)
        assert answer.dtype == np.float32
        wanted = reference(neural, weights, average, std, output_units)
        gap = np.abs(answer - wanted).max() / np.abs(wanted).max()
        bound = EXTREME_BOUND if kind in ("extreme", "spikes") else BOUND
        assert gap <= bound, f"{kind}: {gap:.2e}"


@pytest.mark.parametrize("output_units", ["normalized", "raw"])
@pytest.mark.parametrize("monkey", ["affi", "beignet"])
def test_published_weights(shared_data: Path, tmp_path: Path, monkey: str, output_units: str):
    weights_path = shared_data / "hdr_legacy" / f"model_{monkey}.pth"
    statistics_path = shared_data / "hdr_legacy" / f"train_data_average_std_{monkey}.npz"
    folder = import_legacy(weights_path, statistics_path, tmp_path / monkey, output_units)
    weights = torch.load(weights_path, map_location="cpu", weights_only=True)
    with np.load(statistics_path) as statistics:
        check(folder, weights, statistics["average"], statistics["std"], output_units)


@pytest.mark.parametrize("output_units", ["normalized", "raw"])
def test_weights_made_here(tmp_path: Path, output_units: str):
    """The same without the shared weights: a small baseline, trained for a few steps."""
    channels = 6
    average, std = statistics(channels)
    weights = train_baseline(channels, average, std)
    weights_path = tmp_path / "model_capybara.pth"
    statistics_path = tmp_path / "train_data_average_std_capybara.npz"
    torch.save(weights, weights_path)
    np.savez(statistics_path, average=average, std=std)
    folder = import_legacy(weights_path, statistics_path, tmp_path / "artifact", output_units)
    assert artifact.load(folder).manifest.name == "legacy-capybara"
    check(folder, weights, average, std, output_units)


def statistics(channels: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    average = 300.0 * generator.standard_normal((1, channels * FEATURES))
    return average, generator.uniform(50.0, 800.0, (1, channels * FEATURES))


def train_baseline(channels: int, average: np.ndarray, std: np.ndarray) -> dict[str, torch.Tensor]:
    """State dict of a GRU(16) that learnt to forecast masked random walks, twenty steps of Adam."""
    torch.manual_seed(5)
    encoder = torch.nn.GRU(channels, 16, batch_first=True)
    output_layer = torch.nn.Linear(16, channels)
    parameters = [*encoder.parameters(), *output_layer.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    mean, spread = average[0, ::FEATURES], std[0, ::FEATURES]
    first = last = torch.tensor(0.0)
    for step in range(20):
        walk = inputs("drifting", average, std)[..., 0]
        target = torch.from_numpy(((walk - mean) / (4.0 * spread)).astype(np.float32))
        masked = target.clone()
        masked[:, OBSERVED:] = masked[:, OBSERVED - 1 : OBSERVED]
        loss = torch.nn.functional.mse_loss(output_layer(encoder(masked)[0]), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = loss.detach() if step == 0 else first
        last = loss.detach()
    assert last < 0.8 * first
    return {
        **{f"encoder.{name}": value for name, value in encoder.state_dict().items()},
        **{f"output_layer.{name}": value for name, value in output_layer.state_dict().items()},
    }
