"""Contexts and windows of random data for tests of models."""

from __future__ import annotations

import numpy as np
import torch

from trainer.data.windows import (
    Dataset,
    ModelContext,
    Statistics,
    Windows,
    classify_specs,
    decode_specs,
    forecast_specs,
)


def forecast_context(
    channels: int, features: int = 1, *, steps: int = 20, observed: int = 10, seed: int = 0
) -> ModelContext:
    """A forecast task with random statistics."""
    random = np.random.default_rng(seed)
    inputs, outputs = forecast_specs(steps=steps, channels=channels, features=features, unit="raw")
    shape = (channels, features)
    statistics = Statistics(random.normal(0, 40, shape), random.uniform(50, 200, shape))
    return ModelContext(
        "forecast", steps, observed, channels, features, inputs, outputs, statistics
    )


def classify_context(
    channels: int = 6, features: int = 2, *, steps: int = 20, dim: int = 2
) -> ModelContext:
    """A classification: 3 classes, and `dim` behaviour dimensions as input."""
    random = np.random.default_rng(0)
    inputs, outputs = classify_specs(
        steps=steps, channels=channels, features=features, dim=dim, classes=3, unit="raw"
    )
    shape = (channels, features)
    statistics = Statistics(random.normal(0, 1, shape), random.uniform(0.5, 2, shape))
    return ModelContext(
        "classify", steps, steps, channels, features, inputs, outputs, statistics, 3, dim or None
    )


def decode_context(
    channels: int = 6, features: int = 1, *, steps: int = 20, variables: int = 2
) -> ModelContext:
    """A decoding of `variables` variables of very different mean and scale."""
    random = np.random.default_rng(0)
    inputs, outputs = decode_specs(
        steps=steps,
        channels=channels,
        features=features,
        variables=variables,
        unit="raw",
        target_unit="m",
    )
    shape = (channels, features)
    statistics = Statistics(random.normal(0, 1, shape), random.uniform(0.5, 2, shape))
    targets = Statistics(100.0 * np.arange(variables) - 30.0, 10.0 ** np.arange(variables))
    return ModelContext(
        "decode",
        steps,
        steps,
        channels,
        features,
        inputs,
        outputs,
        statistics,
        variables=variables,
        target_statistics=targets,
    )


def neural(context: ModelContext, rows: int, seed: int = 1) -> torch.Tensor:
    """Random raw windows (batch, time, channel, feature), nothing masked."""
    random = np.random.default_rng(seed)
    shape = (rows, context.steps, context.channels, context.features)
    values = random.normal(size=shape) * context.statistics.std + context.statistics.mean
    return torch.from_numpy(values.astype(np.float32))


def forecast_windows(context: ModelContext, series: np.ndarray, stride: int = 1) -> Windows:
    """All windows of one session: series (time, channel, feature)."""
    starts = np.arange(0, len(series) - context.steps + 1, stride)
    return Windows(
        task="forecast",
        observed=context.observed,
        inputs=context.inputs,
        outputs=context.outputs,
        series={"neural": (series.astype(np.float32),)},
        sessions=np.zeros(len(starts), np.int64),
        starts=starts,
    )


def rows_of(context: ModelContext, rows: int, seed: int = 1) -> dict[str, torch.Tensor]:
    """Random raw rows of every input; half of behaviour is missing."""
    random = np.random.default_rng(seed)
    found = {"neural": neural(context, rows, seed)}
    if context.behavior_dim is not None:
        behavior = random.normal(size=(rows, context.steps, context.behavior_dim))
        found["behavior"] = torch.from_numpy(behavior.astype(np.float32))
        found["behavior_mask"] = torch.from_numpy(random.random((rows, context.steps)) < 0.5)
    return found


def answered_windows(context: ModelContext, rows: int, seed: int = 2) -> Windows:
    """Windows of classify or decode whose targets follow the neural activity, with noise.

    A class is the strongest of the first channels; variables are sums of channels at the last
    step, a fifth of them unmeasured (NaN). Missing behaviour is NaN.
    """
    random = np.random.default_rng(seed)
    values = {name: tensor.numpy() for name, tensor in rows_of(context, rows, seed).items()}
    z = random.normal(size=(rows, context.steps, context.channels))
    z += 0.7 * random.normal(size=(rows, 1, context.channels))
    if context.task == "classify":
        targets = z.mean(axis=1)[:, : context.classes or 0].argmax(axis=1)
    else:
        assert context.target_statistics is not None
        weights = np.random.default_rng(0).normal(size=(context.channels, context.variables or 0))
        sums = z[:, -1] @ weights / np.sqrt(context.channels)
        sums = sums + 0.2 * random.normal(size=sums.shape)
        targets = context.target_statistics.mean + context.target_statistics.std * sums
        targets = np.where(random.random(sums.shape) < 0.2, np.nan, targets).astype(np.float32)
    values["neural"] = (z[..., None] * context.statistics.std + context.statistics.mean).astype(
        np.float32
    )
    if "behavior" in values:
        values["behavior"] = np.where(
            values["behavior_mask"][..., None], values["behavior"], np.nan
        )
    starts = context.steps * np.arange(rows)
    return Windows(
        task=context.task,
        observed=context.steps,
        inputs=context.inputs,
        outputs=context.outputs,
        series={
            name: (array.reshape(rows * context.steps, *array.shape[2:]),)
            for name, array in values.items()
        },
        sessions=np.zeros(rows, np.int64),
        starts=starts,
        targets=targets,
    )


def decode_dataset(samples: int = 1200, *, channels: int = 8, steps: int = 5) -> Dataset:
    """A position in a plane, in metres, that drives noisy channels; a tenth of it is lost (NaN)."""
    random = np.random.default_rng(0)
    kicks, width = random.normal(size=(samples, 2)), np.hanning(30) / 8
    place = np.stack([np.convolve(each, width, mode="same") for each in kicks.T], axis=1)
    tuning = random.normal(size=(2, channels))
    neural = 5.0 * place @ tuning + 0.5 * random.normal(size=(samples, channels)) + 40.0
    targets = np.where(random.random(samples)[:, None] < 0.1, np.nan, place).astype(np.float32)
    inputs, outputs = decode_specs(
        steps=steps, channels=channels, features=1, variables=2, unit="µV", target_unit="m"
    )
    edges = {"train": (0, 0.6), "validation": (0.62, 0.78), "test": (0.8, 1.0)}
    parts = {}
    for part, (first, stop) in edges.items():
        starts = np.arange(int(first * samples), int(stop * samples) - steps)
        parts[part] = Windows(
            task="decode",
            observed=steps,
            inputs=inputs,
            outputs=outputs,
            series={"neural": (neural[:, :, None].astype(np.float32),)},
            sessions=np.zeros(len(starts), np.int64),
            starts=starts,
            targets=targets[starts + steps - 1],
        )
    return Dataset(
        name="plane",
        **parts,
        fingerprint="0" * 64,
        rate=20.0,
        unit="µV",
        channel_names=tuple(f"c{index}" for index in range(channels)),
        session_names=("walk",),
        synthetic=True,
        description="SYNTHETIC: a position in a plane",
        output_names=("x", "y"),
    )


def classify_dataset(trials: int = 60) -> Dataset:
    """Three classes, told by the level of channels; half of `trials` each validate and test."""
    context = classify_context(6, 1, steps=60, dim=0)
    counts = {"train": trials, "validation": trials // 2, "test": trials // 2}
    parts = {
        part: answered_windows(context, count, seed=seed)
        for seed, (part, count) in enumerate(counts.items())
    }
    return Dataset(
        name="levels",
        **parts,
        fingerprint="0" * 64,
        rate=100.0,
        unit="µV",
        channel_names=tuple(f"c{index}" for index in range(6)),
        session_names=("day",),
        synthetic=True,
        description="SYNTHETIC: which channel is highest",
        output_names=("a", "b", "c"),
    )


def randomize(module: torch.nn.Module, seed: int = 0, scale: float = 0.05) -> torch.nn.Module:
    """Add noise to every weight and fitted buffer, so that none is left at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.add_(scale * torch.randn(tensor.shape, generator=generator))
    return module.eval()
