"""Normalisation with train statistics, inside the graph and as accurate as float64."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data.windows import Statistics


class Standardize(nn.Module):
    """z = (x - mean) / scale and back, for constants `mean` and `scale` of one shape.

    The last axes of x must broadcast against them. A scale of 0 (a dead channel) gives z = 0 and
    back `mean`. The constants come from the data set, not from training: they are not in the
    state dict. Raises ValueError where they are not finite or a scale is negative.
    """

    high: Tensor
    low: Tensor
    scale: Tensor
    inverse_scale: Tensor

    def __init__(self, mean: np.ndarray, scale: np.ndarray) -> None:
        super().__init__()
        if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale >= 0).all()):
            raise ValueError("train statistics must be finite, with standard deviations >= 0")
        # float32 inputs near the mean subtract exactly from the mean's leading part; its
        # trailing part follows. A mean rounded to float32 alone costs eps * |mean| / scale.
        high = mean.astype(np.float32)
        alive = scale > np.finfo(np.float32).tiny
        inverse = np.where(alive, 1.0 / np.where(alive, scale, 1.0), 0.0)
        self._constant("high", high)
        self._constant("low", mean - high.astype(np.float64))
        self._constant("scale", np.where(alive, scale, 0.0))
        self._constant("inverse_scale", inverse)

    def forward(self, x: Tensor) -> Tensor:
        """x raw -> z, same shape."""
        return ((x - self.high) - self.low) * self.inverse_scale

    def invert(self, z: Tensor) -> Tensor:
        """z -> x raw, same shape."""
        return z * self.scale + self.high

    def _constant(self, name: str, values: np.ndarray) -> None:
        tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        self.register_buffer(name, tensor, persistent=False)


def pooled(statistics: Statistics) -> Statistics:
    """Statistics (channel, feature) of each channel -> (1, feature) of all of them together."""
    mean = statistics.mean.mean(axis=0, keepdims=True)
    variance = (statistics.std**2 + (statistics.mean - mean) ** 2).mean(axis=0, keepdims=True)
    return Statistics(mean, np.sqrt(variance))
