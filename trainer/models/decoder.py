"""Which class a window belongs to, or which behaviour goes with it: a small network."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext, Windows
from trainer.models.behavior import Behavior
from trainer.models.dropout import Dropout
from trainer.models.linear_readout import LinearReadout
from trainer.models.out_of_fold import OutOfFold
from trainer.models.place_field import PlaceField
from trainer.models.standardize import Standardize
from trainer.registry import MODELS

BASES: dict[str, type[LinearReadout] | type[PlaceField]] = {
    "linear": LinearReadout,
    "place_field": PlaceField,
}


@MODELS.register("decoder")
class Decoder(nn.Module):
    """Class probabilities or behaviour from neural activity, and from behaviour where it is given.

    hidden_size: spatial filters, and width of the representation of a stretch of time.
    tokens: stretches of equal length into which a window is cut, at most; short windows have one
        for each step. A remainder leaves out the oldest steps.
    dropout: of the representation.
    base: of decode, what the network corrects: "mean", that of the train part, or the answers of
        the models "linear" (linear_readout) or "place_field" (for spike counts).
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
        base: Literal["mean", "linear", "place_field"] = "linear",
    ) -> None:
        super().__init__()
        self.classifies = context.task == "classify"
        self._folds: OutOfFold | None = None
        self.standardize = Standardize(context.statistics.mean, context.statistics.std)
        self.length = -(-context.steps // tokens)
        self.tokens = context.steps // self.length
        columns = context.channels * context.features
        if context.behavior_dim is not None:
            self.behavior = Behavior(context.behavior_dim)
            columns += self.behavior.columns
        self.encode = nn.Linear(columns, hidden_size)
        self.merge = nn.Linear(self.length * hidden_size, hidden_size)
        self.dropout = Dropout(dropout)
        outputs = context.classes if self.classifies else context.variables
        assert outputs is not None
        self.readout = nn.Linear(self.tokens * hidden_size, outputs)
        if not self.classifies:
            assert context.target_statistics is not None
            mean, std = context.target_statistics.mean, context.target_statistics.std
            self.target = Standardize(mean if base == "mean" else np.zeros_like(mean), std)
            # Training starts at the answer that the network corrects.
            nn.init.zeros_(self.readout.weight)
            nn.init.zeros_(self.readout.bias)
            if base != "mean":
                self.base = BASES[base](context)

    def forward(
        self,
        neural: Tensor,
        behavior: Tensor | None = None,
        behavior_mask: Tensor | None = None,
        base: Tensor | None = None,
    ) -> Tensor:
        """Class probabilities (batch, class), rows sum to 1, or behaviour (batch, variable) raw.

        neural: (batch, time, channel, feature) raw; where the data have them also behavior
        (batch, time, dim) raw and behavior_mask (batch, time) bool, see `Behavior`. `base`: of
        decode, (batch, variable) raw, the answer to correct in place of the own base's.
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
            return torch.softmax(answer.float(), dim=-1)
        answer = self.target.invert(answer)
        if base is None and hasattr(self, "base"):
            base = self.base(neural)
        return answer if base is None else answer + base

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Fit what the network corrects, also without each of five folds of the train part.

        Fits the scale of behaviour too where that is an input.
        """
        if hasattr(self, "behavior"):
            self.behavior.fit(train)
        if hasattr(self, "base"):
            self.base.fit_closed_form(train, validation)
            self._folds = OutOfFold.fit(
                self.base, train, lambda fit, part: fit.fit_closed_form(part, validation)
            )

    @torch.no_grad()
    def out_of_fold(self, neural: Tensor, rows: np.ndarray) -> Tensor | None:
        """Answers of the base for train windows by fits that did not see them, on the CPU.

        neural: (batch, time, channel, feature) raw, the windows `rows` of the train part. Returns
        (batch, variable) raw, None where there is nothing to fit.
        """
        return None if self._folds is None else self._folds.answers(neural, rows)
