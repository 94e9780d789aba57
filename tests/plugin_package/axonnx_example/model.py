"""A model: the mean of the last observed steps, moved by a trained offset."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.data.windows import ModelContext


class MovingAverage(nn.Module):
    """Repeats the mean of the last `steps` observed values, plus a trained offset."""

    tasks = frozenset({"forecast"})
    dynamic_channel = True

    def __init__(self, context: ModelContext, *, steps: int = 3) -> None:
        super().__init__()
        self.observed = context.observed
        self.horizon = context.horizon
        self.steps = steps
        self.offset = nn.Parameter(torch.zeros(1))

    def forward(self, neural: Tensor) -> Tensor:
        """neural: (batch, time, channel, feature) raw -> (batch, time, channel) raw."""
        observed = neural[:, : self.observed, :, 0]
        total = observed[:, -1:]
        for step in range(2, self.steps + 1):
            total = total + observed[:, -step : 1 - step]
        mean = total / self.steps + self.offset
        return torch.cat([observed] + [mean] * self.horizon, dim=1)
