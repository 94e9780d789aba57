"""Which class a window belongs to, by the covariance of its channels: tangent space, linear.

After Barachant, Bonnet, Congedo and Jutten (2012), "Multiclass brain-computer interface
classification by Riemannian geometry", IEEE Trans. Biomed. Eng. 59; with delays as Carrara and
Papadopoulo (2024), "Classification of BCI-EEG based on the augmented covariance matrix".
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from trainer.data.windows import ModelContext, Windows
from trainer.models.band_filters import Band, BandFilters
from trainer.models.classifier import Classifier, FitOn, Kind, both_parts, designs
from trainer.models.columns import Columns, Reference, means_of
from trainer.models.matrix_logarithm import matrix_logarithm, trace
from trainer.registry import MODELS

LARGEST = 64  # rows of a covariance
FLOOR = 1e-4  # of the diagonal, in train variances


@MODELS.register("riemannian")
class Riemannian(nn.Module):
    """Covariances of channels and their delayed copies, in the tangent space at their mean.

    The Riemannian mean over the train windows is pyriemann's; the logarithm of the whitened
    covariance is taken inside the graph, see `matrix_logarithm`. Mean and whitening are fitted
    once, on all windows that `fit_on` names; the inner folds of the classifier share them, so that
    its choices have seen the covariances of held windows, but not their classes.

    bands: pairs [low, high] in Hz, each with a covariance of its own; null takes the signals as
        they are, without the window's mean.
    delays: copies of every channel besides itself, `lag` seconds apart; lag null is one step.
    shrinkage: share of the mean variance in the diagonal.
    bins, reference, classifier, points, fit_on: as of `band_power`.
    """

    tasks = frozenset({"classify"})
    dynamic_channel = False

    averages: Tensor
    whole: Tensor
    pick: Tensor
    factors: Tensor
    whitening: Tensor

    def __init__(
        self,
        context: ModelContext,
        *,
        bands: tuple[Band, ...] | None = None,
        delays: Annotated[int, Field(ge=0, le=32)] = 0,
        lag: Annotated[float, Field(gt=0)] | None = None,
        shrinkage: Annotated[float, Field(gt=0, le=1)] = 0.05,
        bins: Annotated[int, Field(ge=0)] = 0,
        reference: Reference = "none",
        classifier: Kind = "logistic",
        points: Annotated[int, Field(ge=1, le=10_000)] = 1000,
        fit_on: FitOn = "train",
    ) -> None:
        super().__init__()
        self.columns = Columns(context, reference)
        self.filters = None if bands is None else BandFilters(context, bands)
        count, steps = 1, context.steps
        if self.filters is not None:
            count, steps = self.filters.bands, self.filters.steps
        self.lag = 1
        if lag is not None:
            if context.rate is None:
                raise ValueError("model.lag: the data set states no rate; give null, one step")
            self.lag = max(1, round(lag * context.rate))
        self.delays, self.shrinkage, self.bins = delays, shrinkage, bins
        self.saw_validation = fit_on == "both"
        if delays * self.lag > steps // 2:
            raise ValueError(
                f"model.delays {delays} of {self.lag} steps each: at most half of {steps} steps"
            )
        if bins > context.steps:
            raise ValueError(f"model.bins {bins}: a window has {context.steps} steps")
        self.size = self.columns.count * (delays + 1)
        if self.size > LARGEST:
            raise ValueError(
                f"covariances of {self.size} rows; at most {LARGEST}: lower model.delays, or take "
                "fewer channels"
            )
        self.register_buffer("averages", means_of(context.steps, max(1, bins)), False)
        self.register_buffer("whole", torch.full((context.steps, 1), 1.0 / context.steps), False)
        # The upper triangle of a symmetric matrix, off-diagonal elements by the root of 2.
        rows, columns = np.triu_indices(self.size)
        factors = np.where(rows == columns, 1.0, np.sqrt(2.0)).astype(np.float32)
        self.register_buffer("pick", torch.from_numpy(rows * self.size + columns), False)
        self.register_buffer("factors", torch.from_numpy(factors), False)
        self.register_buffer("whitening", torch.eye(self.size).repeat(count, 1, 1))
        tangent = count * self.size * (self.size + 1) // 2
        assert context.classes is not None
        self.classifier = Classifier(
            classifier, tangent + self.columns.count * bins, context.classes, points
        )

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
        """Fit the mean and the classifier; deterministic. Raises DataError, see `Classifier`."""
        # Slow to import, and needed here alone.
        from pyriemann.geometry.mean import mean_riemann

        self.columns.fit(train)
        windows = both_parts(train, validation) if self.saw_validation else train
        found = designs(windows, lambda *inputs: self._covariances(*inputs).flatten(1))
        covariances = found.reshape(len(found), -1, self.size, self.size).numpy()
        with threadpool_limits(1):
            for band in range(covariances.shape[1]):
                mean = mean_riemann(covariances[:, band])
                values, vectors = np.linalg.eigh(mean)
                whitening = vectors / np.sqrt(values) @ vectors.T
                self.whitening[band] = torch.from_numpy(whitening)
        self.classifier.fit(windows, designs(windows, self._describe))

    def _covariances(self, *inputs: Tensor) -> Tensor:
        """(batch, band, size, size), shrunk."""
        # 1. bands of every column, without the window's mean: (batch, band, column, time)
        z = self.columns(*inputs)
        z = z - torch.matmul(z, self.whole)
        bands = z.unsqueeze(1) if self.filters is None else self.filters(z)
        # 2. delayed copies: (batch, band, size, time)
        steps = bands.shape[-1] - self.delays * self.lag
        copies = [bands.narrow(-1, k * self.lag, steps) for k in range(self.delays + 1)]
        rows = torch.cat(copies, dim=2)
        covariance = torch.matmul(rows, rows.transpose(-2, -1)) / steps
        # 3. shrunk towards a multiple of the identity
        identity = torch.eye(self.size, dtype=rows.dtype, device=rows.device)
        diagonal = self.shrinkage * trace(covariance) / self.size + FLOOR
        return (1.0 - self.shrinkage) * covariance + diagonal * identity

    def _describe(self, *inputs: Tensor) -> Tensor:
        """(batch, column): upper triangles of the tangent vectors, then the bins."""
        whitened = torch.matmul(
            torch.matmul(self.whitening, self._covariances(*inputs)), self.whitening
        )
        logarithm = matrix_logarithm(whitened)
        found = (logarithm.flatten(2)[:, :, self.pick] * self.factors).flatten(1)
        if self.bins == 0:
            return found
        bins = torch.matmul(self.columns(*inputs), self.averages).flatten(1)
        return torch.cat([found, bins], dim=1)
