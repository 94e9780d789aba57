"""Messages between channels along a learned graph that starts at their correlations."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext, Windows
from trainer.models.dropout import Dropout
from trainer.models.forecaster import (
    Adaptation,
    Base,
    Features,
    Forecaster,
    Normalization,
    Pooling,
    direct_head,
)
from trainer.models.origin import ChannelKind, SessionKind
from trainer.models.ridge import lagged
from trainer.registry import MODELS


@MODELS.register("graph")
class Graph(Forecaster):
    """Adaptive graph over channels, sums and products of neighbours; corrects a simple forecast.

    After Li, Scholl, Le, Rajeswaran, Orsborn and Shlizerman, "AMAG: Additive, Multiplicative and
    Adaptive Graph Neural Network For Forecasting Neuron Activity", NeurIPS 2023. Here one layer
    reads a channel's observed steps, and products of states weigh the graph for each window.

    width: of a channel's state. hops: messages sent, one after the other.
    products: whether a message holds, besides the sum over the neighbours, its product with the
        channel's own state.
    adaptive: whether each window weighs the learned graph by its own states.
    The others: see `Forecaster`. The graph fixes the number of channels.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        base: Base = "linear",
        features: Features = "potential",
        statistics: Pooling = "channel",
        normalization: Normalization = "none",
        adaptation: Adaptation = "none",
        adaptation_threshold: Annotated[float, Field(gt=0)] = 3.0,
        channel_embedding: ChannelKind = "index",
        session_embedding: SessionKind = "none",
        session_dropout: Annotated[float, Field(gt=0, le=1)] = 0.25,
        width: Annotated[int, Field(ge=1)] = 64,
        hops: Annotated[int, Field(ge=1)] = 1,
        products: bool = True,
        adaptive: bool = True,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__(
            context,
            width=width,
            base=base,
            features=features,
            statistics=statistics,
            normalization=normalization,
            adaptation=adaptation,
            adaptation_threshold=adaptation_threshold,
            channel_embedding=channel_embedding,
            session_embedding=session_embedding,
            session_dropout=session_dropout,
        )
        self.dynamic_channel = False
        self.mean, self.std = context.statistics.mean[:, 0], context.statistics.std[:, 0]
        self.encode = nn.Sequential(
            nn.Linear(self.features * self.observed, width), nn.GELU(), nn.Linear(width, width)
        )
        self.hops = nn.Sequential(
            *[Hop(context.channels, width, products, adaptive, dropout) for _ in range(hops)]
        )
        self.head = direct_head(width, self.horizon)

    def correct(self, z: Tensor, origin: Tensor) -> Tensor:
        """z: (batch, channel, feature, observed) normalised -> (batch, channel, horizon)."""
        # 1. the state of each channel: (batch, channel, width)
        x = self.encode(z.flatten(2)) + origin
        # 2. messages between channels, then all steps at once: (batch, channel, horizon)
        correction: Tensor = self.head(self.hops(x))
        return correction

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Fit the base; every graph starts at the correlations of the train part's channels."""
        super().fit_closed_form(train, validation)
        weights = neighbours(correlations(train, self.mean, self.std))
        with torch.no_grad():
            for hop in self.hops:
                for name, parameter in hop.named_parameters(recurse=False):
                    if name in ("adding", "multiplying"):
                        parameter.copy_(weights)


class Hop(nn.Module):
    """x plus what its neighbours send: (batch, channel, width) -> the same."""

    def __init__(
        self, channels: int, width: int, products: bool, adaptive: bool, dropout: float
    ) -> None:
        super().__init__()
        self.size = width**-0.5
        self.norm = nn.LayerNorm(width)
        # Weight of sender (column) for receiver (row); `fit_closed_form` fills them.
        self.adding = nn.Parameter(torch.zeros(channels, channels))
        self.add = nn.Linear(width, width)
        self.products = products
        if products:
            self.multiplying = nn.Parameter(torch.zeros(channels, channels))
            self.multiply = nn.Linear(width, width)
        self.query_key = nn.Linear(width, 2 * width) if adaptive else None
        self.keep = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channel, width) -> (batch, channel, width)."""
        state = self.norm(x)
        # 1. how much of each edge this window uses: (batch, receiver, sender) or 1
        gate: Tensor | float = 1.0
        if self.query_key is not None:
            query, key = self.query_key(state).chunk(2, dim=-1)
            gate = 2 * torch.sigmoid(query @ key.transpose(-2, -1) * self.size)
        # 2. own state, sum over neighbours, product with such a sum: (batch, channel, width)
        message = self.keep(state) + self.add((gate * self.adding) @ state)
        if self.products:
            message = message + self.multiply(state * ((gate * self.multiplying) @ state))
        output: Tensor = x + self.dropout(nn.functional.gelu(message))
        return output


def correlations(windows: Windows, mean: np.ndarray, std: np.ndarray) -> Tensor:
    """Correlations of the channels' feature 0 over windows and steps: (channel, channel) float64.

    mean, std: (channel,) of the same windows; a constant channel has correlation 0.
    """
    total = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for past, future in lagged(windows, mean, std):
        # (channel, batch * time)
        rows = torch.cat([past, future], dim=2).transpose(0, 1).flatten(1)
        total += rows @ rows.T
    return total / (len(windows) * windows.steps)


def neighbours(correlation: Tensor) -> Tensor:
    """Edges from correlations (channel, channel): none to itself, a row's sizes sum to 1."""
    edges = correlation - torch.diag(correlation.diagonal())
    sums = edges.abs().sum(dim=1, keepdim=True)
    return torch.where(sums > 0, edges / sums, edges)
