"""Causal convolutions over each channel's steps, then attention across channels."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext
from trainer.models.attention import blocks
from trainer.models.dropout import Dropout
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


@MODELS.register("tcn")
class TCN(Forecaster):
    """Temporal convolutional network shared by the channels; corrects a simple forecast.

    After Bai, Kolter and Koltun, "An Empirical Evaluation of Generic Convolutional and Recurrent
    Networks for Sequence Modeling", 2018, with attention across channels on the last state.

    width: of every state. levels, kernel: convolutions of `kernel` states that lie 1, 2, 4, …
        steps apart, one spacing a level: the last state sees 1 + (kernel - 1) * (2**levels - 1)
        steps. States that do not reach it are not computed.
    channel_blocks, heads, feed_forward: attention blocks over channels, see `Block`.
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
        width: Annotated[int, Field(ge=1)] = 32,
        levels: Annotated[int, Field(ge=1, le=12)] = 3,
        kernel: Annotated[int, Field(ge=1)] = 3,
        channel_blocks: Annotated[int, Field(ge=0)] = 1,
        heads: Annotated[int, Field(ge=1)] = 4,
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
        self.embed = nn.Linear(self.features, width)
        self.temporal = nn.Sequential(*[CausalLayer(width, kernel, dropout) for _ in range(levels)])
        self.mixing = blocks(channel_blocks, width, heads, dropout, feed_forward)
        self.head = direct_head(width, self.horizon)

    def correct(self, z: Tensor, origin: Tensor) -> Tensor:
        """z: (batch, channel, feature, observed) normalised -> (batch, channel, horizon)."""
        # 1. states of each channel: (batch, channel, observed, width)
        x = self.embed(z.transpose(2, 3)) + origin[:, :, None]
        # 2. the last of them has seen the others: (batch, channel, width)
        x = self.temporal(x)[:, :, -1]
        # 3. attention across channels, then all steps at once: (batch, channel, horizon)
        correction: Tensor = self.head(self.mixing(x))
        return correction


class CausalLayer(nn.Module):
    """x plus a causal convolution of norm(x), at every second state, the last one among them.

    (..., step, width) -> (..., (step + 1) // 2, width). What follows sees states twice as far
    apart: the last state is that of convolutions whose spacing doubles from level to level. One
    product over `kernel` delayed copies gives a row the same bits in a batch of any size.
    """

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.kernel = kernel
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(
            nn.Linear(kernel * width, width),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(width, width),
            Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., step, width) -> (..., (step + 1) // 2, width)."""
        normed, steps = self.norm(x), x.shape[-2]
        # Before the first step there are zeros.
        taps = [thinned(delayed(normed, min(tap, steps))) for tap in range(self.kernel)]
        output: Tensor = thinned(x) + self.layers(torch.cat(taps, dim=-1))
        return output


def delayed(x: Tensor, steps: int) -> Tensor:
    """x (..., step, width) moved `steps` later; zeros come in, what moves out is lost."""
    if steps == 0:
        return x
    padded = nn.functional.pad(x, (0, 0, steps, 0))
    return padded[..., : x.shape[-2], :]


def thinned(x: Tensor) -> Tensor:
    """Every second step of x (..., step, width), the last one among them."""
    return x[..., (x.shape[-2] - 1) % 2 :: 2, :]
