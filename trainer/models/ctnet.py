"""Which class a window belongs to: convolutions, then attention over time.

After Zhao, Jiang, Zhang, Xiao and Zhu (2024), "CTNet: a convolutional transformer network for
EEG-based motor imagery classification", Sci. Rep. 14, written from the paper: braindecode's needs
torchaudio, which refuses the build of torch that this project runs with.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext, Windows
from trainer.models.attention import Block
from trainer.models.columns import Columns, Reference
from trainer.models.dropout import Dropout
from trainer.models.eegnet import EEGNetFront
from trainer.registry import MODELS


@MODELS.register("ctnet")
class CTNet(nn.Module):
    """EEGNet's convolutions give tokens over time, a small transformer compares them.

    filters, depth, kernel, pool, reference: as of `eegnet`. blocks, heads: of the transformer,
    whose width is filters times depth. dropout: inside the transformer and before the readout, half
    of it after either pooling of the convolutions. The readout sees the tokens before and after the
    transformer added up. Features, and behaviour where it is an input, are further channels.
    """

    tasks = frozenset({"classify"})
    dynamic_channel = False

    def __init__(
        self,
        context: ModelContext,
        *,
        filters: Annotated[int, Field(ge=1)] = 8,
        depth: Annotated[int, Field(ge=1)] = 2,
        kernel: Annotated[float, Field(gt=0)] = 0.25,
        pool: Annotated[float, Field(gt=0)] = 0.125,
        blocks: Annotated[int, Field(ge=1)] = 2,
        heads: Annotated[int, Field(ge=1)] = 2,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        reference: Reference = "none",
    ) -> None:
        super().__init__()
        assert context.classes is not None
        if filters * depth % heads:
            raise ValueError(
                f"model.heads: {heads} does not divide model.filters x depth, {filters * depth}"
            )
        self.columns = Columns(context, reference)
        self.front = EEGNetFront(
            context,
            self.columns.count,
            filters=filters,
            depth=depth,
            kernel=kernel,
            pool=pool,
            dropout=dropout / 2,
        )
        width = self.front.width
        self.position = nn.Parameter(0.02 * torch.randn(self.front.tokens, width))
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(blocks)))
        self.dropout = Dropout(dropout)
        self.readout = nn.Linear(width * self.front.tokens, context.classes)

    def forward(
        self, neural: Tensor, behavior: Tensor | None = None, behavior_mask: Tensor | None = None
    ) -> Tensor:
        """Class probabilities (batch, class), rows sum to 1.

        neural: (batch, time, channel, feature) raw; where the data have them also behavior
        (batch, time, dim) raw and behavior_mask (batch, time) bool, see `Behavior`.
        """
        # 1. (batch, token, width)
        tokens = self.front(self.columns(neural, behavior, behavior_mask)).transpose(1, 2)
        # 2. what the transformer adds, (batch, token, width)
        tokens = tokens + self.blocks(tokens + self.position)
        return torch.softmax(self.readout(self.dropout(tokens.flatten(1))).float(), dim=-1)

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Fit the scale of behaviour where it is an input."""
        self.columns.fit(train)
