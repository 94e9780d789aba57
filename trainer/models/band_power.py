"""Which class a window belongs to, by the power of its bands and its slow course."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext, Windows
from trainer.models.band_filters import Band, BandFilters
from trainer.models.classifier import Classifier, FitOn, Kind, both_parts, designs
from trainer.models.columns import Columns, Reference, log_of_rows, means_of
from trainer.registry import MODELS

FLOOR = 1e-6  # of power, in train variances


@MODELS.register("band_power")
class BandPower(nn.Module):
    """Log power in bands, and means of time bins, for a classifier of few parameters.

    Filters are linear-phase kernels inside the graph; the window's mean is taken off before them.

    bands: pairs [low, high] in Hz; null is three octaves, from 0.05 to 0.4 of the rate.
    stretches: of equal length, in each of which power is averaged.
    bins: time bins whose means are columns too; 0 leaves them out.
    baseline: what is subtracted from the bins: the mean of the "first" sixteenth of the window, of
        the whole window ("mean"), or "none". level: the mean of the whole window is a column too.
    reference: "average" subtracts the mean over channels at every step.
    classifier: "discriminant", "logistic" or "kernel", see `Classifier`; points: windows that
        "kernel" may keep.
    fit_on: "train", or "both": the train and the validation part together, where nothing is left
        to choose by the latter; no figure of the validation part is then reported.
    """

    tasks = frozenset({"classify"})
    dynamic_channel = False

    power: Tensor
    averages: Tensor
    start: Tensor

    def __init__(
        self,
        context: ModelContext,
        *,
        bands: tuple[Band, ...] | None = None,
        stretches: Annotated[int, Field(ge=1)] = 1,
        bins: Annotated[int, Field(ge=0)] = 8,
        baseline: Literal["none", "first", "mean"] = "none",
        level: bool = False,
        reference: Reference = "none",
        classifier: Kind = "discriminant",
        points: Annotated[int, Field(ge=1, le=10_000)] = 1000,
        fit_on: FitOn = "train",
    ) -> None:
        super().__init__()
        self.columns = Columns(context, reference)
        self.filters = BandFilters(context, bands)
        if max(stretches, bins) > self.filters.steps:
            raise ValueError(
                f"model.stretches {stretches}, model.bins {bins}: at most {self.filters.steps}, "
                "the window's steps without the length of the filters"
            )
        self.baseline, self.bins = baseline, bins
        self.saw_validation = fit_on == "both"
        self.level = level
        self.register_buffer("power", means_of(self.filters.steps, stretches), False)
        self.register_buffer("averages", means_of(context.steps, max(bins, 1)), False)
        first = context.steps if baseline != "first" else max(1, context.steps // 16)
        start = torch.zeros(context.steps, 1)
        start[:first] = 1.0 / first
        self.register_buffer("start", start, False)
        self.register_buffer("whole", torch.full((context.steps, 1), 1.0 / context.steps), False)
        count = self.columns.count * (bins + level + self.filters.bands * stretches)
        assert context.classes is not None
        self.classifier = Classifier(classifier, count, context.classes, points)

    def forward(
        self, neural: Tensor, behavior: Tensor | None = None, behavior_mask: Tensor | None = None
    ) -> Tensor:
        """Class probabilities (batch, class), rows sum to 1.

        neural: (batch, time, channel, feature) raw; where the data have them also behavior
        (batch, time, dim) raw and behavior_mask (batch, time) bool, see `Behavior`.
        """
        answer: Tensor = self.classifier(self._describe(neural, behavior, behavior_mask))
        return answer

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Fit the classifier; deterministic. Raises DataError, see `Classifier.fit`."""
        self.columns.fit(train)
        windows = both_parts(train, validation) if self.saw_validation else train
        self.classifier.fit(windows, designs(windows, self._describe))

    def _describe(
        self,
        neural: Tensor,
        behavior: Tensor | None = None,
        behavior_mask: Tensor | None = None,
    ) -> Tensor:
        """(batch, column): log power, then the bins and levels."""
        # 1. every column and its level: (batch, column, time), (batch, column, 1)
        z = self.columns(neural, behavior, behavior_mask)
        level = torch.matmul(z, self.whole)
        # 2. log power of every band, column and stretch
        power = torch.matmul(self.filters(z - level).square(), self.power)
        found = [log_of_rows(power + FLOOR)]
        # 3. bins and level
        if self.bins > 0:
            start = 0.0 if self.baseline == "none" else torch.matmul(z, self.start)
            found.append(torch.matmul(z - start, self.averages).flatten(1))
        if self.level:
            found.append(level.flatten(1))
        return torch.cat(found, dim=1)
