"""What every forecasting network shares: it reads normalised lags and corrects a simple forecast.

A network alone hardly beats a tuned linear model on a short recording; one that learns what the
linear model leaves over does. So each has a `base`, and trains on what fits of the base that did
not see a window leave over of it (out-of-fold residuals): in-sample ones are too small.
"""

from __future__ import annotations

import copy
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data.inner_folds import inner_folds
from trainer.data.windows import ModelContext, Windows
from trainer.models.ar import AR
from trainer.models.linear import Linear
from trainer.models.persistence import Persistence
from trainer.models.standardize import Standardize, pooled

FOLDS = 5

Base = Literal["none", "last", "ar", "linear"]
Features = Literal["potential", "all"]
Pooling = Literal["pooled", "channel"]
Normalization = Literal["none", "mean", "revin", "robust"]


class Forecaster(nn.Module):
    """A network that corrects a base forecast; subclasses say how in `correct`.

    base: what is corrected: "none" the train mean (with `normalization` the window's own centre),
        "last" the last observed value, "ar" and "linear" the models of these names. "linear" reads
        all channels and so fixes their number.
    features: "potential" reads feature 0, "all" every feature.
    statistics: "pooled" normalises every channel alike, so that the artifact takes any number of
        channels; "channel" uses each channel's own train statistics.
    normalization: what is removed from each channel of a window, of its observed steps alone:
        "mean"; "revin" mean and standard deviation; "robust" median and interquartile range.
    Raises ValueError where a setting does not fit the data.
    """

    tasks = frozenset({"forecast"})

    def __init__(
        self,
        context: ModelContext,
        *,
        base: Base,
        features: Features,
        statistics: Pooling,
        normalization: Normalization,
    ) -> None:
        super().__init__()
        self.observed, self.horizon = context.observed, context.horizon
        self.features = context.features if features == "all" else 1
        self.dynamic_channel = statistics == "pooled" and base != "linear"
        self.normalization = normalization
        used = pooled(context.statistics) if statistics == "pooled" else context.statistics
        self.standardize = Standardize(used.mean[:, : self.features], used.std[:, : self.features])
        self.target = Standardize(used.mean[:, 0], used.std[:, 0])
        self.change = Standardize(np.zeros_like(used.mean[:, 0]), used.std[:, 0])
        self.base = _base(context, base, statistics)
        self._folds: tuple[np.ndarray, list[nn.Module]] | None = None
        # Sums over steps as products with constants: they give a row the same bits in any batch.
        averages = torch.full((self.observed, 1), 1 / self.observed)
        self.register_buffer("averages", averages, persistent=False)

    def correct(self, z: Tensor) -> Tensor:
        """z: (batch, channel, feature, observed) normalised -> (batch, channel, horizon)."""
        raise NotImplementedError

    def forward(self, neural: Tensor, base: Tensor | None = None) -> Tensor:
        """neural: (batch, time, channel, feature) raw -> (batch, time, channel) raw.

        Observed steps come back as they are; the others are not looked at. `base`: (batch, horizon,
        channel) raw, the forecast to correct in place of the own base's.
        """
        # 1. observed steps, feature 0 in raw units: (batch, observed, channel)
        observed = neural[:, : self.observed]
        potential = observed[..., 0]
        # 2. normalised by train statistics, time last: (batch, channel, feature, observed)
        z = self.standardize(observed[..., : self.features]).permute(0, 2, 3, 1)
        # 3. optionally without the window's own level and spread: (batch, channel, feature, 1)
        center, spread = self._window_statistics(z)
        if center is not None:
            z = z - center
        if spread is not None:
            z = z / spread
        # 4. what the network adds: (batch, channel, horizon) -> raw (batch, horizon, channel)
        correction = self.correct(z)
        if spread is not None:
            correction = correction * spread[:, :, 0]
        added = self.change.invert(correction.transpose(1, 2))
        # 5. the forecast to correct: (batch, horizon or 1, channel)
        if base is None:
            base = self._forecast(neural, center)
        return torch.cat([potential, base + added], dim=1)

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Fit the base, and once more without each of five folds of the train part."""
        if not hasattr(self.base, "fit_closed_form"):
            return
        self.base.fit_closed_form(train, validation)
        number, fits = np.zeros(len(train), np.int64), []
        for index, fold in enumerate(inner_folds(train, FOLDS)):
            number[fold.held] = index
            fit = copy.deepcopy(self.base)
            fit.refit(train.take(fold.fit))
            fits.append(fit)
        self._folds = number, fits

    @torch.no_grad()
    def out_of_fold(self, neural: Tensor, rows: np.ndarray) -> Tensor | None:
        """Base forecasts of train windows by fits that did not see them, on the CPU.

        neural: (batch, time, channel, feature) raw, the windows `rows` of the train part. Returns
        (batch, horizon, channel) raw, None where the base has nothing to fit.
        """
        if self._folds is None:
            return None
        number, fits = self._folds
        answer = neural.new_empty(len(rows), self.horizon, neural.shape[2])
        for fold, fit in enumerate(fits):
            own = torch.from_numpy(np.flatnonzero(number[rows] == fold))
            if len(own):
                answer[own] = fit(neural[own])[:, self.observed :]
        return answer

    def _forecast(self, neural: Tensor, center: Tensor | None) -> Tensor:
        if not isinstance(self.base, nn.Identity):
            forecast: Tensor = self.base(neural)[:, self.observed :]
            return forecast
        level = torch.zeros_like(neural[:, :1, :, 0])
        if center is not None:
            level = center[:, :, 0].transpose(1, 2)
        return self.target.invert(level)

    def _window_statistics(self, z: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Center and spread of each channel and feature: (batch, channel, feature, 1) or None."""
        if self.normalization == "none":
            return None, None
        if self.normalization == "robust":
            ordered = torch.sort(z, dim=-1).values
            low, middle, high = (_quantile(ordered, share) for share in (0.25, 0.5, 0.75))
            # 1.349 makes the range of a normal distribution its standard deviation.
            return middle, (high - low) / 1.349 + 1e-2
        # From the last value, so that a constant window is exactly 0.
        last = z[..., -1:]
        center = torch.matmul(z - last, self.averages) + last
        if self.normalization == "mean":
            return center, None
        variance = torch.matmul((z - center).square(), self.averages)
        return center, torch.sqrt(variance + 1e-4)


def _base(context: ModelContext, kind: Base, statistics: Pooling) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    if kind == "last":
        return Persistence(context)
    return Linear(context) if kind == "linear" else AR(context, statistics=statistics)


def _quantile(ordered: Tensor, share: float) -> Tensor:
    """Linear interpolation between sorted values (..., step) -> (..., 1)."""
    place = share * (ordered.shape[-1] - 1)
    low = int(place)
    high = min(low + 1, ordered.shape[-1] - 1)
    weight = place - low
    return ordered[..., low : low + 1] * (1 - weight) + ordered[..., high : high + 1] * weight
