"""What every forecasting network shares: it reads normalised lags and corrects a simple forecast.

A network alone hardly beats a tuned linear model on a short recording; one that learns what the
linear model leaves over does. So each has a `base`, and trains on what fits of the base that did
not see a window leave over of it (out-of-fold residuals): in-sample ones are too small.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data.errors import SplitError
from trainer.data.inner_folds import FOLDS
from trainer.data.windows import ModelContext, Windows
from trainer.models.ar import AR
from trainer.models.linear import Linear
from trainer.models.origin import ChannelKind, Origin, SessionKind
from trainer.models.out_of_fold import OutOfFold
from trainer.models.persistence import Persistence
from trainer.models.standardize import Standardize, pooled

Base = Literal["none", "last", "ar", "linear"]
Features = Literal["potential", "all"]
Pooling = Literal["pooled", "channel"]
Normalization = Literal["none", "mean", "revin", "robust"]
Adaptation = Literal["none", "level"]


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
    adaptation: "level" moves each channel whose mean over the observed steps lies beyond
        `adaptation_threshold` train standard deviations back to it, answers, and moves the answer
        out again; what lies within is answered as without. Base and network both see the moved
        window, and no row another.
    channel_embedding: what tells the network of a token's channel: a learned vector by "index", or
        one learned from the electrode's "position". Both fix the number of channels.
    session_embedding: "additive" learns a vector for each session of the train part and one for an
        unknown session, which `session_dropout` of the train rows get and every exported answer
        uses.
    Raises ValueError where a setting does not fit the data.
    """

    tasks = frozenset({"forecast"})

    averages: Tensor

    def __init__(
        self,
        context: ModelContext,
        *,
        width: int,
        base: Base,
        features: Features,
        statistics: Pooling,
        normalization: Normalization,
        adaptation: Adaptation,
        adaptation_threshold: float,
        channel_embedding: ChannelKind,
        session_embedding: SessionKind,
        session_dropout: float,
    ) -> None:
        super().__init__()
        self.observed, self.horizon = context.observed, context.horizon
        self.features = context.features if features == "all" else 1
        self.dynamic_channel = (
            statistics == "pooled" and base != "linear" and channel_embedding == "none"
        )
        self.takes_session = session_embedding == "additive"
        self.normalization = normalization
        self.threshold = adaptation_threshold if adaptation == "level" else None
        used = pooled(context.statistics) if statistics == "pooled" else context.statistics
        self.standardize = Standardize(used.mean[:, : self.features], used.std[:, : self.features])
        self.target = Standardize(used.mean[:, 0], used.std[:, 0])
        self.change = Standardize(np.zeros_like(used.mean[:, 0]), used.std[:, 0])
        self.base = _base(context, base, statistics)
        self.origin = Origin(context, width, channel_embedding, session_embedding, session_dropout)
        self._folds: OutOfFold | None = None
        # Sums over steps as products with constants: they give a row the same bits in any batch.
        averages = torch.full((self.observed, 1), 1 / self.observed)
        self.register_buffer("averages", averages, persistent=False)

    def correct(self, z: Tensor, origin: Tensor) -> Tensor:
        """What is added to the base forecast, in units of the train standard deviation.

        z: (batch, channel, feature, observed) normalised; origin: (batch or 1, channel or 1,
        width), to be added to tokens. Returns (batch, channel, horizon).
        """
        raise NotImplementedError

    def forward(
        self, neural: Tensor, base: Tensor | None = None, session: Tensor | None = None
    ) -> Tensor:
        """neural: (batch, time, channel, feature) raw -> (batch, time, channel) raw.

        Observed steps come back as they are; the others are not looked at. `base`: (batch, horizon,
        channel) raw, the forecast to correct in place of the own base's. `session`: (batch,) int64,
        the number of each row's session; None is the unknown session.
        """
        # In float32 where a training step computes in bfloat16: the export does it in float32 too.
        with torch.autocast(neural.device.type, enabled=False):
            # 1. observed steps in raw units: (batch, observed, channel, feature)
            observed = neural[:, : self.observed, :, : self.features]
            seen, drift = self._without_drift(observed)
            # 2. normalised by train statistics, time last: (batch, channel, feature, observed)
            z = self._normalized(seen)
            # 3. optionally without the window's level and spread: (batch, channel, feature, 1)
            center, spread = self._window_statistics(z)
            if center is not None:
                z = z - center
            if spread is not None:
                z = z / spread
        # 4. what the network adds: (batch, channel, horizon) -> raw (batch, horizon, channel)
        correction = self.correct(z, self.origin(z, session))
        if spread is not None:
            correction = correction * spread[:, :, 0]
        added = self.change.invert(correction.transpose(1, 2))
        # 5. the forecast to correct: (batch, horizon or 1, channel)
        if base is None:
            base = self._forecast(seen, center)
            base = base if drift is None else base + drift
        return torch.cat([observed[..., 0], base + added], dim=1)

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Fit the base, and once more without each of five folds of the train part."""
        if not isinstance(self.base, AR | Linear):
            return
        self.base.fit_closed_form(train, validation)
        try:
            self._folds = OutOfFold.fit(self.base, train, lambda fit, part: fit.refit(part))
        except SplitError:
            raise SplitError(
                f"model.base: is fitted {FOLDS} times, each without a stretch of the train part, "
                f"whose {len(train)} windows are too few; give longer data, or base: last"
            ) from None

    @torch.no_grad()
    def out_of_fold(self, neural: Tensor, rows: np.ndarray) -> Tensor | None:
        """Base forecasts of train windows by fits that did not see them, on the CPU.

        neural: (batch, time, channel, feature) raw, the windows `rows` of the train part. Returns
        (batch, horizon, channel) raw, None for `base: none`, which is the window's own centre.
        """
        if self._folds is None and not isinstance(self.base, Persistence):
            return None
        observed = neural[:, : self.observed, :, : self.features]
        # The network may be elsewhere; the fits stay on the CPU.
        seen, drift = self._without_drift(observed.to(self.averages.device))
        seen, drift = seen.cpu(), None if drift is None else drift.cpu()
        answer = self._folds.answers(seen, rows) if self._folds is not None else self.base(seen)
        forecast: Tensor = answer[:, self.observed :]
        return forecast if drift is None else forecast + drift

    def _normalized(self, observed: Tensor) -> Tensor:
        """(batch, observed, channel, feature) raw -> (batch, channel, feature, observed)."""
        z: Tensor = self.standardize(observed).permute(0, 2, 3, 1)
        return z

    def _mean_of_steps(self, z: Tensor) -> Tensor:
        """Mean over observed steps (batch, channel, feature, 1)."""
        # From the last value, so that a constant window is exactly 0.
        last = z[..., -1:]
        return torch.matmul(z - last, self.averages) + last

    def _without_drift(self, observed: Tensor) -> tuple[Tensor, Tensor | None]:
        """The window as base and network see it, and what its forecast gets back.

        observed: (batch, observed, channel, feature) raw. Returns the same shape, and (batch, 1,
        channel) raw or None.
        """
        if self.threshold is None:
            return observed, None
        level = self._mean_of_steps(self._normalized(observed))
        excess = level - level.clamp(-self.threshold, self.threshold)
        drift = (excess * self.standardize.scale[..., None]).permute(0, 3, 1, 2)
        return observed - drift, drift[..., 0]

    def _forecast(self, seen: Tensor, center: Tensor | None) -> Tensor:
        if not isinstance(self.base, nn.Identity):
            forecast: Tensor = self.base(seen)[:, self.observed :]
            return forecast
        own = torch.zeros_like(seen[:, :1, :, 0])
        if center is not None:
            own = center[:, :, 0].transpose(1, 2)
        return self.target.invert(own)

    def _window_statistics(self, z: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Center and spread of each channel and feature: (batch, channel, feature, 1) or None."""
        if self.normalization == "none":
            return None, None
        if self.normalization == "robust":
            ordered = torch.sort(z, dim=-1).values
            low, middle, high = (_quantile(ordered, share) for share in (0.25, 0.5, 0.75))
            # 1.349 makes the range of a normal distribution its standard deviation.
            return middle, (high - low) / 1.349 + 1e-2
        center = self._mean_of_steps(z)
        if self.normalization == "mean":
            return center, None
        variance = torch.matmul((z - center).square(), self.averages)
        return center, torch.sqrt(variance + 1e-4)


def direct_head(width: int, horizon: int) -> nn.Sequential:
    """(..., width) -> (..., horizon), all steps at once; zeros until it is trained."""
    linear = nn.Linear(width, horizon)
    # Training starts at the base's forecast.
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.LayerNorm(width), linear)


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
