"""The floor below all floors: nothing changes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.data.windows import ModelContext
from trainer.registry import MODELS


@MODELS.register("persistence")
class Persistence(nn.Module):
    """Repeats the last observed value; nothing to train."""

    tasks = frozenset({"forecast"})
    dynamic_channel = True

    def __init__(self, context: ModelContext) -> None:
        super().__init__()
        self.observed = context.observed
        self.horizon = context.horizon

    def forward(self, neural: Tensor) -> Tensor:
        """neural: (batch, time, channel, feature) raw -> (batch, time, channel) raw.

        Observed steps come back as they are; the others repeat the last of them.
        """
        # 1. observed potential: (batch, observed, channel)
        observed = neural[:, : self.observed, :, 0]
        # 2. its last step, repeated: (batch, horizon, channel)
        last = observed[:, -1:]
        return torch.cat([observed] + [last] * self.horizon, dim=1)
