"""Synthetic forecast data: a seeded network of noisy oscillators, rendered as challenge windows."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from trainer.data.cutting import Stride, cut_forecast, session
from trainer.data.splits import TimeSplit
from trainer.data.windows import Dataset
from trainer.registry import DATASETS

RATE = 100.0
WINDOW, OBSERVED = 20, 10
BURN_IN = 200
BAND_CENTRES = np.array([2.0, 5.0, 8.0, 11.0, 15.0, 20.0, 27.0, 36.0])


@DATASETS.register("synthetic")
def synthetic(
    *,
    seed: Annotated[int, Field(ge=0)] = 0,
    channels: Annotated[int, Field(ge=1, le=1024)] = 8,
    samples: Annotated[int, Field(ge=400, le=100_000)] = 6000,
    split: TimeSplit = TimeSplit(),  # noqa: B008
    stride: Stride = Stride(),  # noqa: B008
) -> Dataset:
    """SYNTHETIC: a network of noisy oscillators as challenge windows (batch, 20, channel, 9).

    Feature 0 is the potential in µV at 100 Hz, features 1-8 the log power around 2 to 36 Hz. No
    file is read; the same seed gives the same bytes.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    values = oscillators(generator, channels=channels, samples=samples)
    recording = session(
        "synthetic",
        values,
        rate=RATE,
        channel_names=[f"s{index:03d}" for index in range(channels)],
        unit="µV",
    )
    return cut_forecast(
        "synthetic",
        [recording],
        window=WINDOW,
        observed=OBSERVED,
        split=split,
        stride=stride,
        settings={"seed": seed, "channels": channels, "samples": samples},
        description=f"SYNTHETIC: {channels} noisy coupled oscillators, seed {seed}; no recording",
        synthetic=True,
    )


def oscillators(generator: np.random.Generator, *, channels: int, samples: int) -> np.ndarray:
    """Potential and log band power of a ring of coupled oscillators: (time, channel, 9) float32."""
    activity = _stuart_landau(generator, nodes=channels, samples=samples + BURN_IN)
    spread = activity + 0.4 * np.roll(activity, 1, axis=1)
    drift = _drift(generator, spread.shape)
    noise = 0.15 * generator.standard_normal(spread.shape)
    offset = generator.uniform(-40, 40, channels)
    scale = generator.uniform(20, 120, channels)
    potential = offset + scale * (spread + drift + noise)
    features = np.concatenate([potential[:, :, None], _log_power(potential)], axis=2)
    return np.ascontiguousarray(features[BURN_IN:], np.float32)


def _stuart_landau(generator: np.random.Generator, *, nodes: int, samples: int) -> np.ndarray:
    """Real part of nodes z' = (a + iω - a |z|²) z + coupling + noise, per sample: (time, node).

    Each node feels its neighbours on a ring and one random node, by elementwise sums: a matrix
    product would tie the bytes to a linear-algebra library. The rotation is exact, the rest Euler.
    """
    step, growth, coupling, noise = 1 / RATE, 8.0, 4.0, 3.0
    rotation = np.exp(2j * np.pi * generator.uniform(4, 14, nodes) * step)
    index = np.arange(nodes)
    before, after = (index - 1) % nodes, (index + 1) % nodes
    partner = generator.integers(0, nodes, nodes)
    parts = generator.standard_normal((samples, 2, nodes)) * np.sqrt(noise * step)
    kicks = parts[:, 0] + 1j * parts[:, 1]
    z = np.ones(nodes, np.complex128)
    activity = np.empty((samples, nodes))
    for sample, kick in enumerate(kicks):
        pull = z[before] + z[after] + z[partner] - 3 * z
        power = z.real * z.real + z.imag * z.imag
        z = rotation * (z + step * (growth * (1 - power) * z + coupling * pull)) + kick
        activity[sample] = z.real
    return activity


def _drift(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Slow random drift, first-order autoregressive: (time, channel)."""
    kicks = 0.03 * generator.standard_normal(shape)
    drift = np.zeros(shape)
    for sample in range(1, len(drift)):
        drift[sample] = 0.99 * drift[sample - 1] + kicks[sample]
    return drift


def _log_power(potential: np.ndarray) -> np.ndarray:
    """Log power of a causal bank of one-pole resonators, smoothed: (time, channel, 8)."""
    pole = 0.9 * np.exp(2j * np.pi * BAND_CENTRES / RATE)
    state = np.zeros((potential.shape[1], len(BAND_CENTRES)), np.complex128)
    smooth = np.ones(state.shape)
    power = np.empty((*potential.shape, len(BAND_CENTRES)))
    for sample, values in enumerate(potential):
        state = pole * state + 0.1 * values[:, None]
        smooth = 0.9 * smooth + 0.1 * (state.real * state.real + state.imag * state.imag)
        power[sample] = smooth
    return np.log(power + 1e-3)
