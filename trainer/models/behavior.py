"""Behaviour as an input: normalised by what was measured of it in the train part."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data.windows import Windows


class Behavior(nn.Module):
    """Columns of the inputs `behavior` and `behavior_mask`, 0 where nothing was measured."""

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.columns = dim + 1
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self, behavior: Tensor, behavior_mask: Tensor) -> Tensor:
        """Normalised behaviour and its mask.

        behavior: (batch, time, dim) raw; behavior_mask: (batch, time) bool, True where behaviour
        was measured. Where it is False the value is not used, NaN included. Returns
        (batch, time, dim + 1).
        """
        present = behavior_mask.unsqueeze(-1)
        z = (behavior - self.mean) / self.scale
        z = torch.where(present, z, torch.zeros_like(z))
        return torch.cat([z, present.to(z.dtype)], dim=-1)

    def fit(self, train: Windows) -> None:
        """Fill mean and scale from the train part's measured steps."""
        count, total, squares = 0, 0.0, 0.0
        for rows in train.chunks():
            inputs = train.batch(rows).inputs
            values = inputs["behavior"][inputs["behavior_mask"]].astype(np.float64)
            count += len(values)
            total = total + values.sum(axis=0)
            squares = squares + (values**2).sum(axis=0)
        if count == 0:
            return
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
        self.mean.copy_(torch.as_tensor(mean))
        self.scale.copy_(torch.as_tensor(np.where(std > 0, std, 1.0)))
