"""PatchFormer: patches of time as tokens, attention within and then across channels."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext, Windows
from trainer.models.attention import Block
from trainer.models.linear import Linear
from trainer.models.ridge import lagged, solve, with_ones
from trainer.models.standardize import Standardize
from trainer.registry import MODELS


@MODELS.register("patchformer")
class PatchFormer(nn.Module):
    """Transformer over patches that corrects a simple forecast; reads the observed steps only.

    patch_len, patch_stride: steps of a patch and from one to the next. Patches are aligned with
        the last observed step, a remainder drops the oldest ones:
        1 + (observed - patch_len) // patch_stride tokens for each channel.
    features: "potential" reads feature 0, "all" reads every feature.
    statistics: "pooled" normalises every channel alike, so that the artifact takes any number of
        channels; "channel" uses each channel's own train statistics.
    normalization: "context" also removes each window's own mean and standard deviation over its
        observed steps.
    residual: the forecast that the network corrects: "last" observed value, "ridge", one
        auto-regression shared by the channels, with `ridge_penalty`, or "linear", the model of that
        name, which reads all channels and so fixes their number.
    """

    tasks = frozenset({"forecast"})

    ridge_weight: Tensor
    ridge_bias: Tensor
    averages: Tensor

    def __init__(
        self,
        context: ModelContext,
        *,
        patch_len: Annotated[int, Field(ge=1)] = 2,
        patch_stride: Annotated[int, Field(ge=1)] = 2,
        features: Literal["potential", "all"] = "potential",
        statistics: Literal["pooled", "channel"] = "pooled",
        normalization: Literal["none", "context"] = "none",
        residual: Literal["last", "ridge", "linear"] = "ridge",
        ridge_penalty: Annotated[float, Field(gt=0)] = 1.0,
        width: Annotated[int, Field(ge=1)] = 64,
        heads: Annotated[int, Field(ge=1)] = 4,
        temporal_blocks: Annotated[int, Field(ge=0)] = 2,
        channel_blocks: Annotated[int, Field(ge=0)] = 1,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__()
        self.observed, self.horizon = context.observed, context.horizon
        if patch_len > self.observed:
            raise ValueError(
                f"model.patch_len: {patch_len} is more than the {self.observed} observed steps"
            )
        self.patch_len, self.patch_stride = patch_len, patch_stride
        self.tokens = 1 + (self.observed - patch_len) // patch_stride
        self.features = context.features if features == "all" else 1
        self.dynamic_channel = statistics == "pooled" and residual != "linear"
        self.normalization, self.residual = normalization, residual
        self.ridge_penalty = ridge_penalty

        mean, std = context.statistics.mean, context.statistics.std
        if statistics == "pooled":
            mean, std = _pool(mean, std)
        # (channel or 1, feature) for the input, (channel or 1,) for the target.
        self.mean, self.std = mean[:, 0], std[:, 0]
        self.standardize = Standardize(mean[:, : self.features], std[:, : self.features])
        self.target_scale = Standardize(np.zeros_like(self.mean), self.std)
        # Sums over steps as products with constants: they give a row the same bits in any batch.
        self._constant("averages", torch.full((self.observed, self.observed), 1 / self.observed))

        self.embed = nn.Linear(patch_len * self.features, width)
        self.position = nn.Parameter(0.02 * torch.randn(self.tokens, width))
        self.temporal = nn.Sequential(
            *[Block(width, heads, dropout) for _ in range(temporal_blocks)]
        )
        self.merge = nn.Linear(self.tokens * width, width)
        self.mixing = nn.Sequential(*[Block(width, heads, dropout) for _ in range(channel_blocks)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, self.horizon)
        # Training starts at the residual's forecast.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        if residual == "ridge":
            self.register_buffer("ridge_weight", torch.zeros(self.observed, self.horizon))
            self.register_buffer("ridge_bias", torch.zeros(self.horizon))
        if residual == "linear":
            self.floor = Linear(context)

    def forward(self, neural: Tensor) -> Tensor:
        """neural: (batch, time, channel, feature) raw -> (batch, time, channel) raw.

        Observed steps come back as they are; the others are not looked at.
        """
        # 1. observed steps, feature 0 in raw units: (batch, observed, channel)
        observed = neural[:, : self.observed]
        potential = observed[..., 0]
        # 2. normalised by train statistics, time last: (batch, channel, feature, observed)
        z = self.standardize(observed[..., : self.features]).permute(0, 2, 3, 1)
        # 3. the forecast to correct, as a change from the last value: (batch, channel, horizon)
        change = self._change(z[:, :, 0])
        # 4. optionally without the window's own mean and spread: spread (batch, channel, 1)
        if self.normalization == "context":
            z, spread = self._context(z)
        # 5. tokens: (batch, channel, token, width)
        x = self.embed(self._patches(z)) + self.position
        # 6. time within each channel, then one vector per channel: (batch, channel, width)
        x = self.merge(self.temporal(x).flatten(2))
        # 7. attention across channels: (batch, channel, width)
        x = self.mixing(x)
        # 8. correction of every step: (batch, channel, horizon)
        correction = self.head(self.norm(x))
        if self.normalization == "context":
            correction = correction * spread
        # 9. back to raw units: (batch, horizon, channel)
        base = potential[:, -1:]
        if self.residual == "linear":
            base = self.floor(neural)[:, self.observed :]
        future = base + self.target_scale.invert((change + correction).transpose(1, 2))
        return torch.cat([potential, future], dim=1)

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Fill the floor from the train part; nothing to do for `residual: last`."""
        if self.residual == "linear":
            self.floor.fit_closed_form(train, validation)
        if self.residual != "ridge":
            return
        gram = torch.zeros(self.observed + 1, self.observed + 1, dtype=torch.float64)
        cross = torch.zeros(self.observed + 1, self.horizon, dtype=torch.float64)
        for past, future in lagged(train, self.mean, self.std):
            change = future - past[..., -1:]
            design = with_ones(past.reshape(-1, self.observed))
            gram += design.T @ design
            cross += design.T @ change.reshape(-1, self.horizon)
        weights = solve(gram, cross, self.ridge_penalty)
        self.ridge_weight.copy_(weights[:-1])
        self.ridge_bias.copy_(weights[-1])

    def _change(self, lags: Tensor) -> Tensor:
        if self.residual == "ridge":
            return torch.matmul(lags, self.ridge_weight) + self.ridge_bias
        return torch.zeros_like(lags[..., :1])

    def _context(self, z: Tensor) -> tuple[Tensor, Tensor]:
        # From the last value, so that a constant window is exactly 0.
        z = z - z[..., -1:]
        z = z - torch.matmul(z, self.averages)
        variance = torch.matmul(z.square(), self.averages)
        spread = torch.sqrt(variance + 1e-4)
        return z / spread, spread[:, :, 0, :1]

    def _patches(self, z: Tensor) -> Tensor:
        """(batch, channel, feature, observed) -> (batch, channel, token, feature * patch_len)."""
        oldest = (self.observed - self.patch_len) % self.patch_stride
        starts = range(oldest, self.observed - self.patch_len + 1, self.patch_stride)
        slices = [z[..., start : start + self.patch_len] for start in starts]
        return torch.stack(slices, dim=2).flatten(3)

    def _constant(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values, persistent=False)


def _pool(mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Statistics (channel, feature) of each channel -> (1, feature) of all of them together."""
    pooled = mean.mean(axis=0, keepdims=True)
    variance = (std**2 + (mean - pooled) ** 2).mean(axis=0, keepdims=True)
    return pooled, np.sqrt(variance)
