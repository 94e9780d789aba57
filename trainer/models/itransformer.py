"""Attention across channels, each of which is one token that holds its observed steps."""

from __future__ import annotations

from typing import Annotated

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


@MODELS.register("itransformer")
class ITransformer(Forecaster):
    """Transformer whose tokens are channels; corrects a simple forecast.

    After Liu et al., "iTransformer: Inverted Transformers Are Effective for Time Series
    Forecasting", ICLR 2024, without its normalisation of each window.

    width, heads, feed_forward: of tokens and of the attention blocks, see `Block`.
    channel_blocks: attention blocks over channels.
    The others: see `Forecaster`.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        base: Base = "linear",
        features: Features = "potential",
        statistics: Pooling = "channel",
        normalization: Normalization = "none",
        adaptation: Adaptation = "none",
        adaptation_threshold: Annotated[float, Field(gt=0)] = 3.0,
        channel_embedding: ChannelKind = "index",
        session_embedding: SessionKind = "none",
        session_dropout: Annotated[float, Field(gt=0, le=1)] = 0.25,
        width: Annotated[int, Field(ge=1)] = 64,
        heads: Annotated[int, Field(ge=1)] = 4,
        channel_blocks: Annotated[int, Field(ge=0)] = 2,
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
        self.embed = nn.Linear(self.features * self.observed, width)
        self.mixing = blocks(channel_blocks, width, heads, dropout, feed_forward)
        self.head = direct_head(width, self.horizon)

    def correct(self, z: Tensor, origin: Tensor) -> Tensor:
        """z: (batch, channel, feature, observed) normalised -> (batch, channel, horizon)."""
        # 1. one token for each channel: (batch, channel, width)
        x = self.embed(z.flatten(2)) + origin
        # 2. attention across channels, then all steps at once: (batch, channel, horizon)
        correction: Tensor = self.head(self.mixing(x))
        return correction
