"""Which class a window belongs to: the shallow network that learns log band power.

After Schirrmeister et al. (2017), "Deep learning with convolutional neural networks for EEG
decoding and visualization", Human Brain Mapping 38, written from the paper: braindecode's needs
torchaudio, which refuses the build of torch that this project runs with.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext, Windows
from trainer.models.columns import Columns, Reference, log_of_rows, steps_of
from trainer.models.dropout import Dropout
from trainer.models.eegnet import batch_norm
from trainer.registry import MODELS

FLOOR = 1e-6


@MODELS.register("shallow_conv")
class ShallowConv(nn.Module):
    """Temporal filters, spatial filters over all of them, square, mean over time, logarithm.

    filters: temporal, and as many spatial ones. kernel: length of the temporal filters in s, at
    most half the window. pool, stride: of the means over time, in s. dropout: before the readout.
    reference: "average" subtracts the mean over channels.
    Features, and behaviour where it is an input, are further channels.
    """

    tasks = frozenset({"classify"})
    dynamic_channel = False

    def __init__(
        self,
        context: ModelContext,
        *,
        filters: Annotated[int, Field(ge=1)] = 40,
        kernel: Annotated[float, Field(gt=0)] = 0.1,
        pool: Annotated[float, Field(gt=0)] = 0.3,
        stride: Annotated[float, Field(gt=0)] = 0.06,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        reference: Reference = "none",
    ) -> None:
        super().__init__()
        assert context.classes is not None
        self.columns = Columns(context, reference)
        length = steps_of(kernel, context, context.steps // 2)
        rest = context.steps - length + 1
        width = steps_of(pool, context, rest)
        step = steps_of(stride, context, width)
        self.temporal = nn.Conv2d(1, filters, (1, length), bias=False)
        self.spatial = nn.Conv2d(filters, filters, (self.columns.count, 1), bias=False)
        self.norm = batch_norm(filters)
        self.pool = nn.AvgPool2d((1, width), (1, step))
        self.dropout = Dropout(dropout)
        self.readout = nn.Linear(filters * ((rest - width) // step + 1), context.classes)

    def forward(
        self, neural: Tensor, behavior: Tensor | None = None, behavior_mask: Tensor | None = None
    ) -> Tensor:
        """Class probabilities (batch, class), rows sum to 1.

        neural: (batch, time, channel, feature) raw; where the data have them also behavior
        (batch, time, dim) raw and behavior_mask (batch, time) bool, see `Behavior`.
        """
        columns = self.columns(neural, behavior, behavior_mask)
        x = self.norm(self.spatial(self.temporal(columns.unsqueeze(1))))
        power = log_of_rows(self.pool(x.square()).clamp(min=FLOOR))
        return torch.softmax(self.readout(self.dropout(power)).float(), dim=-1)

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Fit the scale of behaviour where it is an input."""
        self.columns.fit(train)
