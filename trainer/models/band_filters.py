"""Band-pass filters of finite length as convolutions with fixed kernels."""

from __future__ import annotations

import numpy as np
import torch
from scipy.signal import firwin
from torch import Tensor, nn

from trainer.data.windows import ModelContext

Band = tuple[float, float]
# Of the rate, where no bands are named: three octaves.
OCTAVES: tuple[Band, ...] = ((0.05, 0.1), (0.1, 0.2), (0.2, 0.4))
LONGEST = 65
SHARE = 0.42


class BandFilters(nn.Module):
    """Linear-phase band-pass filters, Hamming windows: columns -> columns of every band.

    bands: edges in Hz; null: three octaves, from 0.05 to 0.4 of the rate. Kernels have 65 steps,
    fewer where the window is short (42 % of it). Raises ValueError for edges that are not between
    0 and half the rate.
    """

    kernels: Tensor

    def __init__(self, context: ModelContext, bands: tuple[Band, ...] | None) -> None:
        super().__init__()
        edges = OCTAVES
        if bands is not None:
            if context.rate is None:
                raise ValueError("model.bands: the data set states no rate; give null")
            edges = tuple((low / context.rate, high / context.rate) for low, high in bands)
            if not bands or not all(0 < low < high < 0.5 for low, high in edges):
                raise ValueError(
                    f"model.bands: {[list(band) for band in bands]}; each must be [low, high] Hz "
                    f"with 0 < low < high < {context.rate / 2:g}, half the rate"
                )
        self.bands = len(edges)
        taps = min(LONGEST, max(3, int(SHARE * context.steps) // 2 * 2 + 1))
        self.steps = context.steps - taps + 1
        kernels = [firwin(taps, edge, pass_zero=False, fs=1.0) for edge in edges]
        tensor = torch.from_numpy(np.stack(kernels).astype(np.float32))
        self.register_buffer("kernels", tensor[:, None, None, :], persistent=False)

    def forward(self, columns: Tensor) -> Tensor:
        """columns: (batch, column, time) -> (batch, band, column, valid time)."""
        return nn.functional.conv2d(columns[:, None], self.kernels)
