"""Ridge over lags in closed form: the linear floor that every network must beat."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext, Windows
from trainer.models.ridge import Moments, best, lagged, with_ones
from trainer.models.standardize import Standardize
from trainer.registry import MODELS

AR_PENALTIES = (0.1, 1.0, 10.0, 100.0)
PENALTIES = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0)


@MODELS.register("linear")
class Linear(nn.Module):
    """Ridge over lags: one AR for every channel, then all channels' lags for what AR leaves.

    Per-channel z-scores; fitted in float64 by `fit_closed_form`, no training epochs. The two fits
    add up to one matrix, so that the graph holds a single product.

    ar_penalty, penalty: of the two fits. Null chooses from 0.1 ... 100 and 10 ... 30000 on the
        validation part: the largest whose error is within 0.5 % of the smallest.
    """

    tasks = frozenset({"forecast"})
    dynamic_channel = False

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        context: ModelContext,
        *,
        ar_penalty: Annotated[float, Field(gt=0)] | None = None,
        penalty: Annotated[float, Field(gt=0)] | None = None,
    ) -> None:
        super().__init__()
        self.observed = context.observed
        self.channels = context.channels
        self.horizon = context.horizon
        self.ar_penalties = AR_PENALTIES if ar_penalty is None else (ar_penalty,)
        self.penalties = PENALTIES if penalty is None else (penalty,)
        self.mean, self.std = context.statistics.mean[:, 0], context.statistics.std[:, 0]
        self.standardize = Standardize(self.mean, self.std)
        # Until it is fitted, the answer is the train mean.
        columns, targets = self.channels * self.observed, self.channels * self.horizon
        self.register_buffer("weight", torch.zeros(columns, targets))
        self.register_buffer("bias", torch.zeros(targets))

    def forward(self, neural: Tensor) -> Tensor:
        """neural: (batch, time, channel, feature) raw -> (batch, time, channel) raw.

        Observed steps come back as they are.
        """
        # 1. observed potential, normalised: (batch, observed, channel)
        observed = neural[:, : self.observed, :, 0]
        z = self.standardize(observed)
        # 2. lags of all channels in one row: (batch, channel * observed)
        row = z.transpose(1, 2).reshape(-1, self.channels * self.observed)
        # 3. future of all channels: (batch, horizon, channel)
        future = torch.addmm(self.bias, row, self.weight)
        future = future.reshape(-1, self.channels, self.horizon).transpose(1, 2)
        return torch.cat([observed, self.standardize.invert(future)], dim=1)

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Choose the penalties, fill `weight` and `bias`; deterministic."""
        fit = self._moments(train)
        choosing = len(self.ar_penalties) > 1 or len(self.penalties) > 1
        self._fit(fit, self._moments(validation) if choosing else fit)

    def refit(self, train: Windows) -> None:
        """Fit on `train` alone, with the penalties that `fit_closed_form` chose."""
        fit = self._moments(train)
        self._fit(fit, fit)

    def _fit(self, fit: Moments, check: Moments) -> None:
        # 1. one AR shared by the channels
        ar, penalty = best(
            _pool(fit, self.channels), _pool(check, self.channels), self.ar_penalties
        )
        full = _spread(ar, self.channels)
        self.ar_penalties = (penalty,)
        # 2. all channels' lags for what AR leaves: y - x ar
        rest, penalty = best(fit.less(full), check.less(full), self.penalties)
        self.penalties = (penalty,)
        weights = (full + rest).to(torch.float32)
        self.weight.copy_(weights[:-1])
        self.bias.copy_(weights[-1])

    def _moments(self, windows: Windows) -> Moments:
        columns, targets = self.channels * self.observed + 1, self.channels * self.horizon
        gram = torch.zeros(columns, columns, dtype=torch.float64)
        cross = torch.zeros(columns, targets, dtype=torch.float64)
        squares = 0.0
        for past, future in lagged(windows, self.mean, self.std):
            design = with_ones(past.reshape(past.shape[0], -1))
            gram += design.T @ design
            cross += design.T @ future.reshape(future.shape[0], -1)
            squares += float(future.square().sum())
        return Moments(gram, cross, squares)


def _pool(moments: Moments, channels: int) -> Moments:
    """Moments of one regression with every channel's windows as its rows."""
    lags = (moments.gram.shape[0] - 1) // channels
    horizon = moments.cross.shape[1] // channels
    blocks = moments.gram[:-1, :-1].reshape(channels, lags, channels, lags)
    sums = moments.gram[-1, :-1].reshape(channels, lags).sum(0)
    gram = torch.zeros(lags + 1, lags + 1, dtype=torch.float64)
    gram[:-1, :-1] = blocks.diagonal(dim1=0, dim2=2).sum(-1)
    gram[-1, :-1] = gram[:-1, -1] = sums
    gram[-1, -1] = moments.gram[-1, -1] * channels
    cross = torch.zeros(lags + 1, horizon, dtype=torch.float64)
    pairs = moments.cross[:-1].reshape(channels, lags, channels, horizon)
    cross[:-1] = pairs.diagonal(dim1=0, dim2=2).sum(-1)
    cross[-1] = moments.cross[-1].reshape(channels, horizon).sum(0)
    return Moments(gram, cross, moments.squares)


def _spread(ar: Tensor, channels: int) -> Tensor:
    """Weights of the shared AR (lag + 1, horizon) as weights over all channels' lags."""
    blocks = torch.kron(torch.eye(channels, dtype=ar.dtype), ar[:-1].contiguous())
    return torch.cat([blocks, ar[-1].repeat(channels)[None]])
