"""Which class a window belongs to: EEGNet.

After Lawhern, Solon, Waytowich, Gordon, Hung and Lance (2018), "EEGNet: a compact convolutional
neural network for EEG-based brain-computer interfaces", J. Neural Eng. 15, written from the paper:
braindecode's needs torchaudio, which refuses the build of torch that this project runs with.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext, Windows
from trainer.models.columns import Columns, Reference, steps_of
from trainer.models.dropout import Dropout
from trainer.registry import MODELS


class EEGNetFront(nn.Module):
    """Temporal filters, spatial filters of each, mean pooling, a second temporal convolution.

    (batch, column, time) -> (batch, width, token). Kernels and pools never exceed what is there.
    """

    def __init__(
        self,
        context: ModelContext,
        columns: int,
        *,
        filters: int,
        depth: int,
        kernel: float,
        pool: float,
        dropout: float,
    ) -> None:
        super().__init__()
        steps = context.steps
        long = steps_of(kernel, context, steps // 2)
        first = steps_of(pool / 4, context, steps // 4)
        short = max(1, min(long // 2, steps // first // 2))
        second = max(1, min(4, steps // first // 2))
        self.tokens = steps // first // second
        self.width = filters * depth
        self.layers = nn.Sequential(
            nn.ZeroPad2d((long // 2, (long - 1) // 2, 0, 0)),
            nn.Conv2d(1, filters, (1, long), bias=False),
            batch_norm(filters),
            nn.Conv2d(filters, self.width, (columns, 1), groups=filters, bias=False),
            batch_norm(self.width),
            nn.ELU(),
            nn.AvgPool2d((1, first)),
            Dropout(dropout),
            nn.ZeroPad2d((short // 2, (short - 1) // 2, 0, 0)),
            nn.Conv2d(self.width, self.width, (1, short), groups=self.width, bias=False),
            nn.Conv2d(self.width, self.width, 1, bias=False),
            batch_norm(self.width),
            nn.ELU(),
            nn.AvgPool2d((1, second)),
            Dropout(dropout),
        )

    def forward(self, columns: Tensor) -> Tensor:
        """columns: (batch, column, time) -> (batch, width, token)."""
        answer: Tensor = self.layers(columns.unsqueeze(1))
        return answer.squeeze(2)


@MODELS.register("eegnet")
class EEGNet(nn.Module):
    """Small convolutional network: temporal filters, then spatial ones, then a linear readout.

    filters: temporal filters; depth: spatial filters of each. kernel: length of the temporal
    filters in s, at most half the window; pool: stretch of time that becomes one value, in s.
    dropout: after either pooling. reference: "average" subtracts the mean over channels.
    Features, and behaviour where it is an input, are further channels.
    """

    tasks = frozenset({"classify"})
    dynamic_channel = False

    def __init__(
        self,
        context: ModelContext,
        *,
        filters: Annotated[int, Field(ge=1)] = 8,
        depth: Annotated[int, Field(ge=1)] = 2,
        kernel: Annotated[float, Field(gt=0)] = 0.5,
        pool: Annotated[float, Field(gt=0)] = 0.125,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        reference: Reference = "none",
    ) -> None:
        super().__init__()
        assert context.classes is not None
        self.columns = Columns(context, reference)
        self.front = EEGNetFront(
            context,
            self.columns.count,
            filters=filters,
            depth=depth,
            kernel=kernel,
            pool=pool,
            dropout=dropout,
        )
        self.readout = nn.Linear(self.front.width * self.front.tokens, context.classes)

    def forward(
        self, neural: Tensor, behavior: Tensor | None = None, behavior_mask: Tensor | None = None
    ) -> Tensor:
        """Class probabilities (batch, class), rows sum to 1.

        neural: (batch, time, channel, feature) raw; where the data have them also behavior
        (batch, time, dim) raw and behavior_mask (batch, time) bool, see `Behavior`.
        """
        columns = self.columns(neural, behavior, behavior_mask)
        return torch.softmax(self.readout(self.front(columns).flatten(1)).float(), dim=-1)

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Fit the scale of behaviour where it is an input."""
        self.columns.fit(train)


def batch_norm(width: int) -> nn.BatchNorm2d:
    """Batch normalisation without its counter of batches: all of its state is real numbers."""
    norm = nn.BatchNorm2d(width)
    norm.num_batches_tracked = None
    return norm
