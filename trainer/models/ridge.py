"""Ridge regression in float64, shared by the closed-form models.

torch does the algebra, because its thread count, and with it the bytes, is fixed by the config.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.data.windows import Windows

# A short validation part hardly tells neighbouring penalties apart; the larger one is safer.
TOLERANCE = 0.005


@dataclass(frozen=True)
class Moments:
    """Sums over windows: gram x'x (column, column), cross x'y (column, target), squares |y|^2."""

    gram: Tensor
    cross: Tensor
    squares: float

    def less(self, weights: Tensor) -> Moments:
        """Moments of the targets minus x @ weights."""
        return Moments(self.gram, self.cross - self.gram @ weights, self.error(weights))

    def without(self, part: Moments) -> Moments:
        """Moments of the windows that are not in `part`."""
        squares = self.squares - part.squares
        return Moments(self.gram - part.gram, self.cross - part.cross, squares)

    def error(self, weights: Tensor) -> float:
        """Squared error |y - x @ weights|^2."""
        change = (weights * (self.gram @ weights - 2.0 * self.cross)).sum()
        return self.squares + float(change)


def lagged(
    windows: Windows, mean: np.ndarray, scale: np.ndarray
) -> Iterator[tuple[Tensor, Tensor]]:
    """Past and future of feature 0 in normalised units, chunk by chunk.

    mean, scale: broadcast against (channel,). Yields float64 past (batch, channel, observed) and
    future (batch, channel, horizon). A scale of 0 gives 0.
    """
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale, dtype=np.float64), where=scale > 0)
    for rows in windows.chunks():
        # Targets hold every step of feature 0: (batch, time, channel).
        potential = windows.batch(rows).targets["forecast"].astype(np.float64)
        z = torch.from_numpy((potential - mean) * inverse).transpose(1, 2)
        yield z[..., : windows.observed], z[..., windows.observed :]


def solve(gram: Tensor, cross: Tensor, penalty: float | Tensor) -> Tensor:
    """Weights that minimise |y - x w|^2 + penalty |w|^2, with an unpenalised last row (intercept).

    gram: x'x (column, column), whose last column of x is 1; cross: x'y (column, target); both
    float64. penalty: of every column, or (column - 1,) of each. Returns (column, target).
    """
    penalized = gram.clone()
    penalized.diagonal()[:-1] += penalty
    factor = torch.linalg.cholesky(penalized)
    return torch.cholesky_solve(cross, factor)


def with_ones(design: Tensor) -> Tensor:
    """design (row, column) -> (row, column + 1): the intercept's column of ones comes last."""
    return torch.cat([design, design.new_ones(design.shape[0], 1)], dim=1)
