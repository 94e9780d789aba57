"""What a classifier of windows sees: channels, features and behaviour as columns over time."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data.windows import ModelContext, Windows
from trainer.models.behavior import Behavior
from trainer.models.standardize import Standardize

Reference = Literal["none", "average"]
SHORTEST = 4  # steps of a window
LANES = 16  # float32 numbers that a processor takes at once, at most


class Columns(nn.Module):
    """Every channel and feature, z-scored, then behaviour where it is an input: over time.

    A feature has one scale for all channels, so that a map over the head keeps its shape. With
    `reference` "average" the mean over channels is subtracted at every step. Raises ValueError for
    windows of fewer than 4 steps, and for an average over one channel.
    """

    def __init__(self, context: ModelContext, reference: Reference = "none") -> None:
        super().__init__()
        if context.steps < SHORTEST:
            raise ValueError(
                f"a window has {context.steps} steps; this model takes at least {SHORTEST}"
            )
        if reference == "average" and context.channels < 2:
            raise ValueError(
                "model.reference: the average over one channel leaves nothing; give none"
            )
        std = context.statistics.std
        scale = np.sqrt(np.mean(std**2, axis=0, keepdims=True))
        scale = np.where(std > 0, scale, 0.0)
        self.standardize = Standardize(context.statistics.mean, scale)
        self.count = context.channels * context.features
        if context.behavior_dim is not None:
            self.behavior = Behavior(context.behavior_dim)
            self.count += self.behavior.columns
        # The mean over channels as a product: it gives a row the same bits in any batch.
        mean = np.full((context.channels, context.channels), 1.0 / context.channels)
        centre = np.eye(context.channels) - (mean if reference == "average" else 0.0)
        self.reference = reference
        self.register_buffer("centre", torch.from_numpy(centre.astype(np.float32)), False)

    def forward(
        self, neural: Tensor, behavior: Tensor | None = None, behavior_mask: Tensor | None = None
    ) -> Tensor:
        """Inputs as `LinearReadout` takes them -> (batch, column, time)."""
        z = self.standardize(neural).permute(0, 3, 1, 2)
        if self.reference == "average":
            z = torch.matmul(z, self.centre)
        columns = z.permute(0, 3, 1, 2).flatten(1, 2)
        if behavior is not None:
            more = self.behavior(behavior, behavior_mask).transpose(1, 2)
            columns = torch.cat([columns, more], dim=1)
        return columns

    def fit(self, train: Windows) -> None:
        """Fill the statistics of behaviour."""
        if hasattr(self, "behavior"):
            self.behavior.fit(train)


def log_of_rows(x: Tensor) -> Tensor:
    """Logarithm of x (batch, ...) -> (batch, column), a row's the same bits in any batch.

    ONNX Runtime takes numbers at once over the borders of rows, and what is left at the end by
    other rounding: rows are filled up, so that each begins anew.
    """
    rows = x.flatten(1)
    columns = rows.shape[1]
    missing = -columns % LANES
    if missing == 0:
        return torch.log(rows)
    return torch.log(nn.functional.pad(rows, (0, missing), value=1.0))[:, :columns]


def steps_of(seconds: float, context: ModelContext, most: int) -> int:
    """`seconds` in steps, at least 1 and at most `most`; without a rate a window counts as 1 s."""
    rate = context.rate or float(context.steps)
    return int(min(max(1, round(seconds * rate)), max(1, most)))


def means_of(steps: int, stretches: int) -> Tensor:
    """Means of `stretches` stretches of equal length, as a product: (step, stretch)."""
    matrix = np.zeros((steps, stretches))
    for index, chosen in enumerate(np.array_split(np.arange(steps), stretches)):
        matrix[chosen, index] = 1.0 / len(chosen)
    return torch.from_numpy(matrix.astype(np.float32))
