"""One auto-regression for every channel: the floor of models that take any number of channels."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext, Windows
from trainer.models.ridge import lagged, solve, with_ones
from trainer.models.standardize import Standardize, pooled
from trainer.registry import MODELS


@MODELS.register("ar")
class AR(nn.Module):
    """Ridge from a channel's own lags to its change from the last value, shared by all channels.

    Fitted in float64 by `fit_closed_form`, no training epochs.

    penalty: of the ridge regression.
    statistics: "channel" z-scores each channel by its own train statistics; "pooled" all alike, so
        that the artifact takes any number of channels.
    """

    tasks = frozenset({"forecast"})

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        context: ModelContext,
        *,
        penalty: Annotated[float, Field(gt=0)] = 1.0,
        statistics: Literal["pooled", "channel"] = "channel",
    ) -> None:
        super().__init__()
        self.observed, self.horizon, self.penalty = context.observed, context.horizon, penalty
        self.dynamic_channel = statistics == "pooled"
        used = pooled(context.statistics) if self.dynamic_channel else context.statistics
        self.mean, self.std = used.mean[:, 0], used.std[:, 0]
        self.standardize = Standardize(self.mean, self.std)
        # Until it is fitted, the answer is the last observed value.
        self.register_buffer("weight", torch.zeros(self.observed, self.horizon))
        self.register_buffer("bias", torch.zeros(self.horizon))

    def forward(self, neural: Tensor) -> Tensor:
        """neural: (batch, time, channel, feature) raw -> (batch, time, channel) raw.

        Observed steps come back as they are.
        """
        # 1. observed potential, normalised, time last: (batch, channel, observed)
        observed = neural[:, : self.observed, :, 0]
        z = self.standardize(observed).transpose(1, 2)
        # 2. change from the last value: (batch, horizon, channel)
        change = (torch.matmul(z, self.weight) + self.bias).transpose(1, 2)
        future = observed[:, -1:] + change * self.standardize.scale
        return torch.cat([observed, future], dim=1)

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Fill `weight` and `bias`; deterministic. The validation part is not looked at."""
        self.refit(train)

    def refit(self, train: Windows) -> None:
        """Fit on `train` alone."""
        gram = torch.zeros(self.observed + 1, self.observed + 1, dtype=torch.float64)
        cross = torch.zeros(self.observed + 1, self.horizon, dtype=torch.float64)
        for past, future in lagged(train, self.mean, self.std):
            change = future - past[..., -1:]
            design = with_ones(past.reshape(-1, self.observed))
            gram += design.T @ design
            cross += design.T @ change.reshape(-1, self.horizon)
        weights = solve(gram, cross, self.penalty)
        self.weight.copy_(weights[:-1])
        self.bias.copy_(weights[-1])
