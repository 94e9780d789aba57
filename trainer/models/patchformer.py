"""PatchFormer: patches of time as tokens, attention within and then across channels."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext
from trainer.models.attention import Block
from trainer.models.forecaster import Base, Features, Forecaster, Normalization, Pooling
from trainer.registry import MODELS


@MODELS.register("patchformer")
class PatchFormer(Forecaster):
    """Transformer over patches that corrects a simple forecast; reads the observed steps only.

    patch_len, patch_stride: steps of a patch and from one to the next. Patches are aligned with
        the last observed step, a remainder drops the oldest ones:
        1 + (observed - patch_len) // patch_stride tokens for each channel.
    base, features, statistics, normalization: see `Forecaster`.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        patch_len: Annotated[int, Field(ge=1)] = 2,
        patch_stride: Annotated[int, Field(ge=1)] = 2,
        base: Base = "ar",
        features: Features = "potential",
        statistics: Pooling = "pooled",
        normalization: Normalization = "none",
        width: Annotated[int, Field(ge=1)] = 64,
        heads: Annotated[int, Field(ge=1)] = 4,
        temporal_blocks: Annotated[int, Field(ge=0)] = 2,
        channel_blocks: Annotated[int, Field(ge=0)] = 1,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__(
            context,
            base=base,
            features=features,
            statistics=statistics,
            normalization=normalization,
        )
        if patch_len > self.observed:
            raise ValueError(
                f"model.patch_len: {patch_len} is more than the {self.observed} observed steps"
            )
        self.patch_len, self.patch_stride = patch_len, patch_stride
        self.tokens = 1 + (self.observed - patch_len) // patch_stride
        self.embed = nn.Linear(patch_len * self.features, width)
        self.position = nn.Parameter(0.02 * torch.randn(self.tokens, width))
        self.temporal = nn.Sequential(
            *[Block(width, heads, dropout) for _ in range(temporal_blocks)]
        )
        self.merge = nn.Linear(self.tokens * width, width)
        self.mixing = nn.Sequential(*[Block(width, heads, dropout) for _ in range(channel_blocks)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, self.horizon)
        # Training starts at the base's forecast.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def correct(self, z: Tensor) -> Tensor:
        """z: (batch, channel, feature, observed) normalised -> (batch, channel, horizon)."""
        # 1. tokens: (batch, channel, token, width)
        x = self.embed(self._patches(z)) + self.position
        # 2. time within each channel, then one vector per channel: (batch, channel, width)
        x = self.merge(self.temporal(x).flatten(2))
        # 3. attention across channels: (batch, channel, width)
        x = self.mixing(x)
        # 4. correction of every step: (batch, channel, horizon)
        correction: Tensor = self.head(self.norm(x))
        return correction

    def _patches(self, z: Tensor) -> Tensor:
        """(batch, channel, feature, observed) -> (batch, channel, token, feature * patch_len)."""
        oldest = (self.observed - self.patch_len) % self.patch_stride
        starts = range(oldest, self.observed - self.patch_len + 1, self.patch_stride)
        slices = [z[..., start : start + self.patch_len] for start in starts]
        return torch.stack(slices, dim=2).flatten(3)
