"""Ridge over lags in closed form: the linear floor that every network must beat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.errors import SplitError
from trainer.data.inner_folds import inner_folds
from trainer.data.windows import ModelContext, Windows, resembles
from trainer.models.ridge import TOLERANCE, Moments, lagged, solve, with_ones
from trainer.models.stages import stages
from trainer.models.standardize import Standardize
from trainer.registry import MODELS

PENALTIES = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0)
# Columns times channels forecast: of many channels, a few tell penalties apart as well as all.
CHOOSING_WORK = 40_000


@MODELS.register("linear")
class Linear(nn.Module):
    """Ridge over lags: one AR for every channel, then all channels' lags for what AR leaves.

    Per-channel z-scores; fitted in float64 by `fit_closed_form`, no training epochs. The fits add
    up to one matrix, so that the graph holds a single product. With `shared` and `damping` false
    and `ageing` 0 it is plain ridge regression (a vector auto-regression).

    shared: whether the AR comes first; ar_penalty: of it.
    penalty: of the ridge on all channels. Null chooses from 10 ... 30000 the largest whose error
        is within 0.5 % of the smallest, over five inner folds of the train part and the validation
        part; a validation part that does not resemble the train part is left out.
    ageing: a lag's penalty grows with this power of its age; their mean is `penalty`.
    damping: whether each step to forecast keeps the share (0 ... 1) of the ridge's part that fits
        best where the penalty is chosen. What other channels tell fades faster than the own past.
    components: the ridge reads the lags of this many principal components of the channels; null:
        of the channels themselves.
    """

    tasks = frozenset({"forecast"})
    dynamic_channel = False

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        context: ModelContext,
        *,
        shared: bool = True,
        ar_penalty: Annotated[float, Field(gt=0)] = 1.0,
        penalty: Annotated[float, Field(gt=0)] | None = None,
        ageing: Annotated[float, Field(ge=0)] = 1.0,
        damping: bool = True,
        components: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        super().__init__()
        self.observed = context.observed
        self.channels = context.channels
        self.horizon = context.horizon
        self.shared, self.ar_penalty = shared, ar_penalty
        self.penalties = PENALTIES if penalty is None else (penalty,)
        age = torch.arange(self.observed, 0, -1, dtype=torch.float64) ** ageing
        self.profile = age / age.mean()
        self.components = components
        # The share of the ridge's part that each step keeps; None until it is chosen.
        self.kept = None if damping else torch.ones(self.horizon, dtype=torch.float64)
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
        """Choose penalty and damping, fill `weight` and `bias`; deterministic."""
        total = self._moments(train, torch.arange(self.channels))
        if self.kept is None or len(self.penalties) > 1:
            self._choose(self._checks(total, train, validation))
        self._fit(total)

    def refit(self, train: Windows) -> None:
        """Fit on `train` alone, with the penalty and damping that `fit_closed_form` chose."""
        self._fit(self._moments(train, torch.arange(self.channels)))

    def _fit(self, total: Moments) -> None:
        assert self.kept is not None
        own = self._own(total, torch.arange(self.channels))
        basis = self._basis(total)
        rest = self._solve(_project(total.less(own), basis), self.penalties[0])
        if basis is not None:
            rest = basis @ rest
        weights = (own + rest * self.kept.repeat(self.channels)).to(torch.float32)
        self.weight.copy_(weights[:-1])
        self.bias.copy_(weights[-1])

    def _choose(self, checks: Iterator[tuple[Moments, Moments]]) -> None:
        """Keep the penalty and the shares that do best on what fits did not see."""
        chosen = self._choosing_channels()
        squares = 0.0
        # Of every penalty and step, the ridge's part against what the AR leaves and itself.
        fits, sizes = torch.zeros(2, len(self.penalties), self.horizon, dtype=torch.float64)
        for fit, held in checks:
            own, basis = self._own(fit, chosen), self._basis(fit)
            left = held.less(own)
            squares += left.squares
            fit, left = _project(fit.less(own), basis), _project(left, basis)
            for index, penalty in enumerate(self.penalties):
                rest = self._solve(fit, penalty)
                fits[index] += self._by_step(rest * left.cross)
                sizes[index] += self._by_step(rest * (left.gram @ rest))
        if self.kept is None:
            kept = (fits / sizes.clamp(min=1e-12)).clamp(0.0, 1.0)
        else:
            kept = self.kept.expand_as(fits)
        errors = squares - (2.0 * kept * fits - kept.square() * sizes).sum(1)
        best = int(torch.nonzero(errors <= errors.min() * (1.0 + TOLERANCE)).max())
        self.penalties, self.kept = (self.penalties[best],), kept[best]

    def _checks(
        self, total: Moments, train: Windows, validation: Windows
    ) -> Iterator[tuple[Moments, Moments]]:
        """Moments to fit on and to judge by, of some channels' targets; two at a time in memory."""
        chosen = self._choosing_channels()
        columns = (chosen[:, None] * self.horizon + torch.arange(self.horizon)).reshape(-1)
        some = Moments(total.gram, total.cross[:, columns], 0.0)
        try:
            folds = inner_folds(train)
        except SplitError:
            folds = []
        if not folds or resembles(train, validation):
            yield some, self._moments(validation, chosen)
        for fold in stages("choosing the penalty by folds", folds):
            held = self._moments(train.take(fold.held), chosen)
            unused = np.setdiff1d(np.arange(len(train)), np.union1d(fold.fit, fold.held))
            fit = some.without(held)
            if len(unused):
                fit = fit.without(self._moments(train.take(unused), chosen))
            yield fit, held

    def _own(self, moments: Moments, targets: Tensor) -> Tensor:
        """The shared AR as weights over all channels' lags, for the channels `targets`."""
        weights = torch.zeros_like(moments.cross)
        if not self.shared:
            return weights
        ar = solve(*_pool(moments, self.channels, targets), self.ar_penalty)
        blocks = weights[:-1].view(self.channels, self.observed, len(targets), self.horizon)
        blocks[targets, :, torch.arange(len(targets))] = ar[:-1]
        weights[-1] = ar[-1].repeat(len(targets))
        return weights

    def _basis(self, moments: Moments) -> Tensor | None:
        """From components' lags to channels' lags: (column, component column); None for neither."""
        if self.components is None or self.components >= self.channels:
            return None
        shape = (self.channels, self.observed, self.channels, self.observed)
        lags = moments.gram[:-1, :-1].reshape(shape).diagonal(dim1=1, dim2=3)
        vectors = torch.linalg.eigh(lags.sum(-1)).eigenvectors[:, -self.components :]
        lag = torch.eye(self.observed, dtype=vectors.dtype)
        basis = vectors[:, None, :, None] * lag[None, :, None, :]
        columns = self.components * self.observed
        whole = nn.functional.pad(basis.reshape(-1, columns), (0, 1, 0, 1))
        whole[-1, -1] = 1.0  # the intercept's column
        return whole

    def _solve(self, moments: Moments, penalty: float) -> Tensor:
        columns = (len(moments.gram) - 1) // self.observed
        return solve(moments.gram, moments.cross, penalty * self.profile.repeat(columns))

    def _choosing_channels(self) -> Tensor:
        """Evenly spread channel numbers, all where they are few: (channel,) int64."""
        work = CHOOSING_WORK // (self.channels * self.observed)
        count = min(self.channels, max(8, work))
        return torch.arange(count) * self.channels // count

    def _by_step(self, products: Tensor) -> Tensor:
        """Sums over columns and channels: (column, channel * horizon) -> (horizon,)."""
        return products.sum(0).reshape(-1, self.horizon).sum(0)

    def _moments(self, windows: Windows, targets: Tensor) -> Moments:
        columns = self.channels * self.observed + 1
        gram = torch.zeros(columns, columns, dtype=torch.float64)
        cross = torch.zeros(columns, len(targets) * self.horizon, dtype=torch.float64)
        squares = 0.0
        for past, future in lagged(windows, self.mean, self.std):
            design = with_ones(past.reshape(past.shape[0], -1))
            wanted = future[:, targets].reshape(future.shape[0], -1)
            gram.addmm_(design.T, design)
            cross.addmm_(design.T, wanted)
            squares += float(wanted.square().sum())
        return Moments(gram, cross, squares)


def _project(moments: Moments, basis: Tensor | None) -> Moments:
    """Moments of the columns x @ basis."""
    if basis is None:
        return moments
    return Moments(basis.T @ moments.gram @ basis, basis.T @ moments.cross, moments.squares)


def _pool(moments: Moments, channels: int, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Gram and cross of one regression with the windows of every channel of `targets` as rows."""
    lags = (moments.gram.shape[0] - 1) // channels
    horizon = moments.cross.shape[1] // len(targets)
    blocks = moments.gram[:-1, :-1].reshape(channels, lags, channels, lags)
    sums = moments.gram[-1, :-1].reshape(channels, lags)[targets].sum(0)
    gram = torch.zeros(lags + 1, lags + 1, dtype=torch.float64)
    gram[:-1, :-1] = blocks.diagonal(dim1=0, dim2=2)[..., targets].sum(-1)
    gram[-1, :-1] = gram[:-1, -1] = sums
    gram[-1, -1] = moments.gram[-1, -1] * len(targets)
    cross = torch.zeros(lags + 1, horizon, dtype=torch.float64)
    pairs = moments.cross[:-1].reshape(channels, lags, len(targets), horizon)
    cross[:-1] = pairs[targets, :, torch.arange(len(targets))].sum(0)
    cross[-1] = moments.cross[-1].reshape(len(targets), horizon).sum(0)
    return gram, cross
