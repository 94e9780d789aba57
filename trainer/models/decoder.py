"""Which class a trial belongs to, from neural activity and behaviour."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext, Windows
from trainer.models.standardize import Standardize
from trainer.registry import MODELS


@MODELS.register("decoder")
class Decoder(nn.Module):
    """Class probabilities from pooled neural features and behaviour, parts of which may be missing.

    hidden_size: width of the representation of a step.
    dropout: of the pooled representation.
    """

    tasks = frozenset({"classify"})
    dynamic_channel = False

    behavior_mean: Tensor
    behavior_scale: Tensor

    def __init__(
        self,
        context: ModelContext,
        *,
        hidden_size: Annotated[int, Field(ge=1)] = 32,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__()
        if context.classes is None or context.behavior_dim is None:
            raise ValueError("decoder: the data set names neither classes nor behavior dimensions")
        self.standardize = Standardize(context.statistics.mean, context.statistics.std)
        self.register_buffer("behavior_mean", torch.zeros(context.behavior_dim))
        self.register_buffer("behavior_scale", torch.ones(context.behavior_dim))
        columns = context.channels * context.features + context.behavior_dim + 1
        self.encode = nn.Linear(columns, hidden_size)
        # Learned weights of the steps, an average at first. A product with a constant gives a row
        # the same bits in any batch; a mean over the middle axis does not.
        self.steps = nn.Parameter(torch.full((1, context.steps), 1 / context.steps))
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(hidden_size, context.classes)

    def forward(self, neural: Tensor, behavior: Tensor, behavior_mask: Tensor) -> Tensor:
        """Class probabilities.

        neural: (batch, time, channel, feature) raw; behavior: (batch, time, dim) raw;
        behavior_mask: (batch, time) bool, True where behaviour was measured. Where it is False
        the value is not used, NaN included. Returns (batch, class), rows sum to 1.
        """
        # 1. neural columns: (batch, time, channel * feature)
        columns = self.standardize(neural).flatten(2)
        # 2. behaviour, its train mean where missing: (batch, time, dim)
        present = behavior_mask.unsqueeze(-1)
        z = (behavior - self.behavior_mean) / self.behavior_scale
        z = torch.where(present, z, torch.zeros_like(z))
        # 3. every step: (batch, time, hidden_size)
        steps = torch.cat([columns, z, present.to(z.dtype)], dim=-1)
        steps = nn.functional.gelu(self.encode(steps))
        # 4. pooled over time: (batch, hidden_size)
        pooled = torch.matmul(self.steps, steps).squeeze(1)
        # 5. (batch, class)
        return torch.softmax(self.readout(self.dropout(pooled)), dim=-1)

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Fill the mean and scale of behaviour from the train part's measured steps."""
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
        self.behavior_mean.copy_(torch.as_tensor(mean))
        self.behavior_scale.copy_(torch.as_tensor(np.where(std > 0, std, 1.0)))
