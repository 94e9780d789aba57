"""PatchFormer: patches of time as tokens, attention within and then across channels."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext
from trainer.models.attention import blocks
from trainer.models.forecaster import (
    Adaptation,
    Base,
    Features,
    Forecaster,
    Normalization,
    Pooling,
    direct_head,
)
from trainer.models.origin import ChannelKind, SessionKind
from trainer.registry import MODELS


@MODELS.register("patchformer")
class PatchFormer(Forecaster):
    """Transformer over patches that corrects a simple forecast; reads the observed steps only.

    patch_len, patch_stride: steps of a patch and from one to the next. Patches are aligned with
        the last observed step, a remainder drops the oldest ones:
        1 + (observed - patch_len) // patch_stride tokens for each channel.
    width, heads, feed_forward: of tokens and of the attention blocks, see `Block`.
    temporal_blocks, channel_blocks: attention blocks over a channel's tokens, then over channels.
    The others: see `Forecaster`. With `features: all` feature 0 and the others are embedded apart.
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
        adaptation: Adaptation = "none",
        adaptation_threshold: Annotated[float, Field(gt=0)] = 3.0,
        channel_embedding: ChannelKind = "none",
        session_embedding: SessionKind = "none",
        session_dropout: Annotated[float, Field(gt=0, le=1)] = 0.25,
        width: Annotated[int, Field(ge=1)] = 64,
        heads: Annotated[int, Field(ge=1)] = 4,
        temporal_blocks: Annotated[int, Field(ge=0)] = 2,
        channel_blocks: Annotated[int, Field(ge=0)] = 1,
        feed_forward: Annotated[int, Field(ge=1)] = 2,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__(
            context,
            width=width,
            base=base,
            features=features,
            statistics=statistics,
            normalization=normalization,
            adaptation=adaptation,
            adaptation_threshold=adaptation_threshold,
            channel_embedding=channel_embedding,
            session_embedding=session_embedding,
            session_dropout=session_dropout,
        )
        if patch_len > self.observed:
            raise ValueError(
                f"model.patch_len: {patch_len} is more than the {self.observed} observed steps"
            )
        self.patch_len, self.patch_stride = patch_len, patch_stride
        self.tokens = 1 + (self.observed - patch_len) // patch_stride
        self.embed = nn.Linear(patch_len, width)
        self.bands = (
            nn.Linear(patch_len * (self.features - 1), width) if self.features > 1 else None
        )
        self.position = nn.Parameter(0.02 * torch.randn(self.tokens, width))
        self.temporal = blocks(temporal_blocks, width, heads, dropout, feed_forward)
        self.merge = nn.Linear(self.tokens * width, width)
        self.mixing = blocks(channel_blocks, width, heads, dropout, feed_forward)
        self.head = direct_head(width, self.horizon)

    def correct(self, z: Tensor, origin: Tensor) -> Tensor:
        """z: (batch, channel, feature, observed) normalised -> (batch, channel, horizon)."""
        # 1. tokens: (batch, channel, token, width)
        x = self.embed(self._patches(z[:, :, :1])) + self.position + origin[:, :, None]
        if self.bands is not None:
            x = x + self.bands(self._patches(z[:, :, 1:]))
        # 2. time within each channel, then one vector per channel: (batch, channel, width)
        x = self.merge(self.temporal(x).flatten(2))
        # 3. attention across channels: (batch, channel, width)
        x = self.mixing(x)
        # 4. correction of every step: (batch, channel, horizon)
        correction: Tensor = self.head(x)
        return correction

    def _patches(self, z: Tensor) -> Tensor:
        """(batch, channel, feature, observed) -> (batch, channel, token, feature * patch_len)."""
        oldest = (self.observed - self.patch_len) % self.patch_stride
        starts = range(oldest, self.observed - self.patch_len + 1, self.patch_stride)
        slices = [z[..., start : start + self.patch_len] for start in starts]
        return torch.stack(slices, dim=2).flatten(3)
