"""Which class a window belongs to: a gated recurrent network, the plain one to compare with."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext, Windows
from trainer.models.columns import Columns
from trainer.registry import MODELS


@MODELS.register("gru_classifier")
class GRUClassifier(nn.Module):
    """A GRU over the samples of a window; a linear readout of its last state.

    hidden_size: units of the one recurrent layer. Channels and features are z-scored, behaviour is
    a further input where the data have it.
    """

    tasks = frozenset({"classify"})
    dynamic_channel = False

    def __init__(
        self, context: ModelContext, *, hidden_size: Annotated[int, Field(ge=1)] = 38
    ) -> None:
        super().__init__()
        assert context.classes is not None
        self.columns = Columns(context)
        self.encoder = nn.GRU(self.columns.count, hidden_size, batch_first=True)
        self.readout = nn.Linear(hidden_size, context.classes)

    def forward(
        self, neural: Tensor, behavior: Tensor | None = None, behavior_mask: Tensor | None = None
    ) -> Tensor:
        """Class probabilities (batch, class), rows sum to 1.

        neural: (batch, time, channel, feature) raw; where the data have them also behavior
        (batch, time, dim) raw and behavior_mask (batch, time) bool, see `Behavior`.
        """
        signal = self.columns(neural, behavior, behavior_mask).transpose(1, 2)
        states, _ = self.encoder(signal)
        return torch.softmax(self.readout(states[:, -1]).float(), dim=-1)

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Fit the scale of behaviour where it is an input."""
        self.columns.fit(train)
