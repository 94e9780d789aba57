"""Linear answers to a window in closed form: what every decoder must beat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.errors import DataError
from trainer.data.inner_folds import FOLDS
from trainer.data.windows import ModelContext, Windows
from trainer.models.behavior import Behavior
from trainer.models.columns import log_of_rows, means_of
from trainer.models.discriminant import discriminant, temperature
from trainer.models.ridge import TOLERANCE, Moments, solve, with_ones
from trainer.models.standardize import Standardize
from trainer.registry import MODELS

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)
BINS = {"classify": 8, "decode": 16}
MAX_COLUMNS = 2048
VARIANCE_FLOOR = 1e-6  # of a channel inside a window, in train variances


@MODELS.register("linear_readout")
class LinearReadout(nn.Module):
    """Ridge (decode) or shrinkage discriminant (classify) on the window's time bins, closed form.

    Columns are the means of equal time bins of every channel and feature, z-scored; of classify
    also the log variance of feature 0. decode: one ridge regression per variable. classify: linear
    discriminant analysis, Ledoit-Wolf covariances, the temperature set on the validation part.

    bins: time bins, at most one for each step. Null is 16 of decode, 8 of classify, fewer where
        the columns would be more than 2048.
    penalty: of decode. Null chooses from 1 ... 100000 the largest whose error is within 0.5 % of
        the smallest, over the validation part and five blocks of the train part left out in turn:
        behaviour is at rest for long, and one part alone may hold no movement.
    baseline: of classify: "first" subtracts feature 0 of the first step, "none" nothing. Null
        chooses by the cross-entropy of the validation part.
    priors: of classify: "balanced" takes every class as equally likely, "train" as in that part.
    """

    tasks = frozenset({"classify", "decode"})
    dynamic_channel = False

    averages: Tensor
    first: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        context: ModelContext,
        *,
        bins: Annotated[int, Field(ge=1)] | None = None,
        penalty: Annotated[float, Field(gt=0)] | None = None,
        baseline: Literal["first", "none"] | None = None,
        priors: Literal["balanced", "train"] = "balanced",
    ) -> None:
        super().__init__()
        self.classifies = context.task == "classify"
        self.penalties = PENALTIES if penalty is None else (penalty,)
        self.baselines = ("first", "none") if baseline is None else (baseline,)
        self.priors = priors
        self.standardize = Standardize(context.statistics.mean, context.statistics.std)
        columns = context.channels * context.features
        # Columns of behaviour come last and keep their level.
        first = torch.zeros(columns)
        first[:: context.features] = 1.0
        if context.behavior_dim is not None:
            self.behavior = Behavior(context.behavior_dim)
            columns += self.behavior.columns
            first = torch.cat([first, torch.zeros(self.behavior.columns)])
        self.subtractable = first
        count = min(bins or BINS[context.task], context.steps, max(1, MAX_COLUMNS // columns))
        # Sums over steps as products with constants: they give a row the same bits in any batch.
        # The bins, then the whole window: (step, bin + 1)
        averages = torch.cat([means_of(context.steps, count), means_of(context.steps, 1)], dim=1)
        self.register_buffer("averages", averages, persistent=False)
        outputs = context.classes if self.classifies else context.variables
        assert outputs is not None
        if not self.classifies:
            assert context.target_statistics is not None
            self.target_mean = torch.from_numpy(context.target_statistics.mean)
            self.target_std = torch.from_numpy(context.target_statistics.std)
            self.target = Standardize(context.target_statistics.mean, context.target_statistics.std)
        inputs = columns * count + (context.channels if self.classifies else 0)
        # Until it is fitted, the answer is the train mean, or all classes alike.
        self.register_buffer("first", first if self.baselines[0] == "first" else 0 * first)
        self.register_buffer("weight", torch.zeros(inputs, outputs))
        self.register_buffer("bias", torch.zeros(outputs))

    def forward(
        self, neural: Tensor, behavior: Tensor | None = None, behavior_mask: Tensor | None = None
    ) -> Tensor:
        """Class probabilities (batch, class), rows sum to 1, or behaviour (batch, variable) raw.

        neural: (batch, time, channel, feature) raw; where the data have them also behavior
        (batch, time, dim) raw and behavior_mask (batch, time) bool, see `Behavior`.
        """
        columns = self._columns(neural, behavior, behavior_mask)
        answer = torch.addmm(self.bias, columns, self.weight)
        if self.classifies:
            return torch.softmax(answer.float(), dim=-1)
        return self.target.invert(answer)

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Fill `weight` and `bias` (of classify `first` too); deterministic.

        Raises DataError where a class has no train window.
        """
        if hasattr(self, "behavior"):
            self.behavior.fit(train)
        weights = (
            self._fit_classes(train, validation)
            if self.classifies
            else self._fit_variables(train, validation)
        )
        self.weight.copy_(weights[:-1])
        self.bias.copy_(weights[-1])

    def _columns(
        self, neural: Tensor, behavior: Tensor | None, behavior_mask: Tensor | None
    ) -> Tensor:
        """(batch, column): bins of every column, then of classify the channels' log variances."""
        # 1. every step, normalised: (batch, time, channel * feature + behaviour)
        z = self.standardize(neural)
        steps = z.flatten(2)
        if behavior is not None:
            steps = torch.cat([steps, self.behavior(behavior, behavior_mask)], dim=-1)
        if self.classifies:
            steps = steps - steps[:, :1] * self.first
        # 2. means of the bins, without that of the window: (batch, column * bin)
        means = torch.matmul(steps.transpose(1, 2), self.averages)[:, :, :-1].flatten(1)
        if not self.classifies:
            return means
        # 3. log variance of feature 0: (batch, channel)
        potential = (z[..., 0] - z[:, :1, :, 0]).transpose(1, 2)
        centred = potential - torch.matmul(potential, self.averages)[:, :, -1:]
        variance = torch.matmul(centred.square(), self.averages)[:, :, -1]
        return torch.cat([means, log_of_rows(variance + VARIANCE_FLOOR)], dim=1)

    @torch.no_grad()
    def _designs(self, windows: Windows) -> Iterator[tuple[slice, Tensor]]:
        """Columns of a part as the graph has them, chunk by chunk: rows, (batch, column) f64."""
        for rows in windows.chunks():
            inputs = windows.batch(rows).inputs
            tensors = [torch.from_numpy(inputs[spec.name]) for spec in windows.inputs]
            behavior = tensors[1:] or [None, None]
            yield rows, self._columns(tensors[0], *behavior).double()

    def _fit_variables(self, train: Windows, validation: Windows) -> Tensor:
        """Weights (column + 1, variable) by ridge; variables measured together share their sums."""
        weights = torch.zeros(self.weight.shape[0] + 1, self.weight.shape[1], dtype=torch.float64)
        blocks = np.arange(len(train)) * FOLDS // len(train)
        for variables in _measured_together(train, validation):
            folds = self._moments(train, variables, blocks)
            check = self._moments(validation, variables, np.zeros(len(validation), np.int64))
            shift, scale = _column_statistics(_total(folds))
            folds = [_standardized(moments, shift, scale) for moments in folds]
            found = _ridge(folds, _standardized(_total(check), shift, scale), self.penalties)
            weights[:-1, variables] = scale[:, None] * found[:-1]
            weights[-1, variables] = found[-1] - shift @ (scale[:, None] * found[:-1])
        return weights

    def _moments(self, windows: Windows, variables: list[int], blocks: np.ndarray) -> list[Moments]:
        """Sums over the measured windows of each block; blocks (window,) rise from 0."""
        columns = self.weight.shape[0] + 1
        found = [
            Moments(
                torch.zeros(columns, columns, dtype=torch.float64),
                torch.zeros(columns, len(variables), dtype=torch.float64),
                0.0,
            )
            for _ in range(int(blocks[-1]) + 1)
        ]
        assert windows.targets is not None
        scale = torch.where(self.target_std > 0, self.target_std, 1.0)
        for rows, design in self._designs(windows):
            behavior = torch.from_numpy(windows.targets[rows].astype(np.float64))
            targets = ((behavior - self.target_mean) / scale)[:, variables]
            measured = torch.isfinite(targets[:, 0])
            for block in np.unique(blocks[rows]):
                chosen = measured & torch.from_numpy(blocks[rows] == block)
                x, y = with_ones(design[chosen]), targets[chosen]
                more = Moments(x.T @ x, x.T @ y, float(y.square().sum()))
                found[block] = _total([found[block], more])
        return found

    def _fit_classes(self, train: Windows, validation: Windows) -> Tensor:
        """Weights (column + 1, class) of the discriminant."""
        parts = [torch.from_numpy(part.targets) for part in (train, validation)]
        shares = torch.bincount(parts[0], minlength=self.weight.shape[1]).double() / len(parts[0])
        if (shares == 0).any():
            number = int(torch.argmin(shares))
            raise DataError(f"class {number} has no window in the train part: split otherwise")
        if self.priors == "balanced":
            shares = torch.full_like(shares, 1.0 / len(shares))
        candidates = []
        for baseline in self.baselines:
            first = self.subtractable if baseline == "first" else 0 * self.subtractable
            self.first.copy_(first)
            designs = [torch.cat([d for _, d in self._designs(p)]) for p in (train, validation)]
            weights = discriminant(designs[0], parts[0], shares)
            logits = with_ones(designs[1]) @ weights
            heat, loss = temperature(logits, parts[1], balanced=self.priors == "balanced")
            candidates.append((loss, first, weights / heat))
        _, first, weights = min(candidates, key=lambda candidate: candidate[0])
        self.first.copy_(first)
        return weights


def _measured_together(train: Windows, validation: Windows) -> list[list[int]]:
    """Variables in groups that were measured in the same windows."""
    assert train.targets is not None
    assert validation.targets is not None
    groups: dict[bytes, list[int]] = {}
    for variable in range(train.targets.shape[1]):
        found = [np.isfinite(part.targets[:, variable]) for part in (train, validation)]  # type: ignore[index]
        groups.setdefault(np.concatenate(found).tobytes(), []).append(variable)
    return list(groups.values())


def _total(parts: list[Moments]) -> Moments:
    gram, cross = parts[0].gram.clone(), parts[0].cross.clone()
    for part in parts[1:]:
        gram += part.gram
        cross += part.cross
    return Moments(gram, cross, sum(part.squares for part in parts))


def _ridge(folds: list[Moments], validation: Moments, penalties: tuple[float, ...]) -> Tensor:
    """Weights fitted on all folds, by the penalty that does best on what a fit did not see."""
    total = _total(folds)
    if len(penalties) == 1:
        return solve(total.gram, total.cross, penalties[0])
    checks = [(total, validation)]
    for fold in folds:
        rest = Moments(
            total.gram - fold.gram, total.cross - fold.cross, total.squares - fold.squares
        )
        # A fold may hold all that was measured, or nothing.
        if float(fold.gram[-1, -1]) > 0 and float(rest.gram[-1, -1]) > 0:
            checks.append((rest, fold))
    errors = {
        penalty: sum(check.error(solve(fit.gram, fit.cross, penalty)) for fit, check in checks)
        for penalty in sorted(penalties)
    }
    bound = min(errors.values()) * (1.0 + TOLERANCE)
    chosen = max(penalty for penalty, error in errors.items() if error <= bound)
    return solve(total.gram, total.cross, chosen)


def _column_statistics(moments: Moments) -> tuple[Tensor, Tensor]:
    """Mean of each column and 1 over its standard deviation, 0 where it is constant."""
    count = moments.gram[-1, -1]
    mean = moments.gram[-1, :-1] / count
    variance = moments.gram.diagonal()[:-1] / count - mean.square()
    alive = variance > 1e-9
    return mean, torch.where(alive, variance.clamp(min=1e-9).rsqrt(), 0.0)


def _standardized(moments: Moments, shift: Tensor, scale: Tensor) -> Moments:
    """Moments of the columns (x - shift) * scale."""
    factor = torch.cat([scale, scale.new_ones(1)])
    gram, cross = moments.gram.clone(), moments.cross.clone()
    gram[:-1] -= shift[:, None] * gram[-1]
    gram[:, :-1] -= gram[:, -1:] * shift
    cross[:-1] -= shift[:, None] * cross[-1]
    return Moments(factor[:, None] * gram * factor, factor[:, None] * cross, moments.squares)
