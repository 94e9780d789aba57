"""Contexts and windows of random data for tests of models."""

from __future__ import annotations

import numpy as np
import torch

from trainer.data.windows import (
    ModelContext,
    Statistics,
    Windows,
    classify_specs,
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


def classify_context(channels: int = 6, features: int = 2, *, steps: int = 20) -> ModelContext:
    """A classification: 2 behaviour dimensions, 3 classes."""
    random = np.random.default_rng(0)
    inputs, outputs = classify_specs(
        steps=steps, channels=channels, features=features, dim=2, classes=3, unit="raw"
    )
    shape = (channels, features)
    statistics = Statistics(random.normal(0, 1, shape), random.uniform(0.5, 2, shape))
    return ModelContext(
        "classify", steps, steps, channels, features, inputs, outputs, statistics, 3, 2
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


def randomize(module: torch.nn.Module, seed: int = 0, scale: float = 0.05) -> torch.nn.Module:
    """Add noise to every weight and fitted buffer, so that none is left at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.add_(scale * torch.randn(tensor.shape, generator=generator))
    return module.eval()
