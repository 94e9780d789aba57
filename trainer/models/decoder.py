"""Which class a window belongs to, or which behaviour goes with it: a small network."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext, Windows
from trainer.models.behavior import Behavior
from trainer.models.linear_readout import LinearReadout
from trainer.models.standardize import Standardize
from trainer.registry import MODELS


@MODELS.register("decoder")
class Decoder(nn.Module):
    """Class probabilities or behaviour from neural activity, and from behaviour where it is given.

    hidden_size: spatial filters, and width of the representation of a stretch of time.
    tokens: stretches of equal length into which a window is cut, at most; short windows have one
        for each step. A remainder leaves out the oldest steps.
    dropout: of the representation.
    residual: of decode, what the network corrects: "linear", the model linear_readout, or "mean",
        that of the train part.
    """

    tasks = frozenset({"classify", "decode"})
    dynamic_channel = False

    def __init__(
        self,
        context: ModelContext,
        *,
        hidden_size: Annotated[int, Field(ge=1)] = 32,
        tokens: Annotated[int, Field(ge=1)] = 16,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        residual: Literal["linear", "mean"] = "linear",
    ) -> None:
        super().__init__()
        self.classifies = context.task == "classify"
        self.standardize = Standardize(context.statistics.mean, context.statistics.std)
        self.length = -(-context.steps // tokens)
        self.tokens = context.steps // self.length
        columns = context.channels * context.features
        if context.behavior_dim is not None:
            self.behavior = Behavior(context.behavior_dim)
            columns += self.behavior.columns
        self.encode = nn.Linear(columns, hidden_size)
        self.merge = nn.Linear(self.length * hidden_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        outputs = context.classes if self.classifies else context.variables
        assert outputs is not None
        self.readout = nn.Linear(self.tokens * hidden_size, outputs)
        if not self.classifies:
            assert context.target_statistics is not None
            mean, std = context.target_statistics.mean, context.target_statistics.std
            linear = residual == "linear"
            self.target = Standardize(np.zeros_like(mean) if linear else mean, std)
            # Training starts at the answer that the network corrects.
            nn.init.zeros_(self.readout.weight)
            nn.init.zeros_(self.readout.bias)
            if linear:
                self.floor = LinearReadout(context)

    def forward(
        self, neural: Tensor, behavior: Tensor | None = None, behavior_mask: Tensor | None = None
    ) -> Tensor:
        """Class probabilities (batch, class), rows sum to 1, or behaviour (batch, variable) raw.

        neural: (batch, time, channel, feature) raw; where the data have them also behavior
        (batch, time, dim) raw and behavior_mask (batch, time) bool, see `Behavior`.
        """
        # 1. columns of every step: (batch, time, column)
        columns = self.standardize(neural).flatten(2)
        if behavior is not None:
            columns = torch.cat([columns, self.behavior(behavior, behavior_mask)], dim=-1)
        # 2. spatial filters: (batch, time, hidden_size)
        steps = self.encode(columns[:, columns.shape[1] - self.tokens * self.length :])
        # 3. stretches of time: (batch, token, hidden_size)
        tokens = steps.reshape(-1, self.tokens, self.length * steps.shape[2])
        tokens = nn.functional.gelu(self.merge(tokens))
        # 4. (batch, class or variable)
        answer = self.readout(self.dropout(tokens.flatten(1)))
        if self.classifies:
            return torch.softmax(answer, dim=-1)
        answer = self.target.invert(answer)
        if hasattr(self, "floor"):
            answer = answer + self.floor(neural, behavior, behavior_mask)
        return answer

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Fit what the network corrects, and the scale of behaviour where it is an input."""
        if hasattr(self, "behavior"):
            self.behavior.fit(train)
        if hasattr(self, "floor"):
            self.floor.fit_closed_form(train, validation)
